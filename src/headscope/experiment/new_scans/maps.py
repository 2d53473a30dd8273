"""Pictures of slices with what each position adds to the prediction laid over them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headscope.errors import InputError
from headscope.files import atomic_path
from headscope.models.network import Network
from headscope.record import Run
from headscope.tail import Tail, make_tail

LEAST_SIDE: Final = 448  # pixels, so that what is written on it can be read
BAND: Final = 44  # pixels below the slice, for two lines
LETTERS: Final = 15  # pixels
MOST_COLOUR: Final = 0.65  # opacity of a map where it is strongest
FOR: Final = (255, 60, 30)  # colour of what speaks for the class
AGAINST: Final = (40, 120, 255)
# what is on the left and on the right of a slice (docs/cohorts.md)
SIDES: Final = {"axial": "LR", "coronal": "LR", "sagittal": "PA"}


def averaging_tail(network: Network, run: Run) -> Tail:
    """Return the layers after the last maps; InputError where positions are not averaged."""
    state = {name: tensor.cpu().numpy() for name, tensor in network.model.state_dict().items()}
    words = network.tail or ()
    norms = [word.partition(":")[2] for word in words if word.startswith("layernorm:")]
    epsilon = getattr(network.model.get_submodule(norms[0]), "eps", 1e-6) if norms else 1e-6
    tail = make_tail(words, state, float(epsilon)) if words else None
    if tail is None or not tail.averages:
        raise InputError(
            f"--maps needs a network that averages positions before its final layer, as ResNet and "
            f"GoogLeNet do; {run.settings['architecture']} of {run.path} does not, so that no map "
            "says what a place in the slice adds."
        )
    return tail


def margin_maps(
    tail: Tail, maps: NDArray[np.float32], logits: NDArray[np.float32]
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Return what each position adds to the margin of the predicted class over the next one.

    maps (n, C, h, w), logits (n, K). The positions (n, h, w) and the tail's biases add up to the
    margin. Beside them stand the two classes of each slice.
    """
    order = np.argsort(-logits, axis=1, kind="stable")[:, :2].tolist()  # (n, 2)
    positions = np.empty((len(maps), *maps.shape[2:]))
    for n, (first, second) in enumerate(order):
        direction = np.zeros(logits.shape[1])
        direction[first], direction[second] = 1, -1
        positions[n] = tail.local(maps[n : n + 1].astype(np.float64), direction)[0][0]
    return positions, [(first, second) for first, second in order]


def write_map(
    path: Path, pixels: NDArray[np.uint8], positions: NDArray[np.float64], plane: str | None,
    lines: Sequence[str],
) -> None:  # fmt: skip
    """Write a slice (H, W) with a map (h, w) over it as PNG, `lines` of text below it.

    Red speaks for the class, blue against it, the fainter the nearer to zero; left and right are
    marked where `plane` is that of a scan.
    """
    side = max(LEAST_SIDE, *pixels.shape)
    canvas = Image.new("RGB", (side, side + BAND))
    canvas.paste(_blend(pixels, positions, side))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(LETTERS)
    for x, mark in zip((6, side - 6), SIDES.get(plane or "", ""), strict=False):
        anchor = "lm" if x < side / 2 else "rm"
        draw.text((x, side / 2), mark, "white", font, anchor, stroke_width=1, stroke_fill="black")
    for n, line in enumerate(lines):
        draw.text((6, side + 4 + n * (LETTERS + 4)), line, "white", font)
    with atomic_path(path) as temporary:
        canvas.save(temporary, "PNG")


def map_name(scan: int, file: str, plane: str, slice_index: int) -> str:
    """Return the name of a picture: the scan's number, its file, plane and slice."""
    plain = re.sub(r"[^\w.-]+", "-", re.sub(r"(\.nii)?\.\w+$", "", file))[:80].strip("-.")
    return f"{scan:04d}_{plain or 'scan'}_{plane}_slice-{slice_index:03d}.png"


def _blend(pixels: NDArray[np.uint8], positions: NDArray[np.float64], side: int) -> Image.Image:
    """Return the slice (side, side) in colour, the map's cells over it."""
    grey = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    limit = float(np.abs(positions).max()) or 1.0
    share = Image.fromarray((positions / limit).astype(np.float32))
    strength = np.asarray(share.resize((side, side), Image.Resampling.NEAREST))[..., None]
    colour = np.where(strength > 0, np.array(FOR), np.array(AGAINST))
    opacity = MOST_COLOUR * np.abs(strength)
    blended = (1 - opacity) * np.asarray(grey)[..., None] + opacity * colour
    return Image.fromarray(blended.round().astype(np.uint8))
