"""Pictures of slices and maps, as the page embeds them: data URIs of PNG."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headscope.analysis.representation.location import SIDES
from headscope.reporting.plots import Picture

WIDTH: Final = 210  # pixels of a slice
TILE, IN_ROW, TILES = 66, 6, 12  # pixels of a channel, and how many are shown
MORE, LESS = (213, 94, 0), (0, 114, 178)  # what speaks for a class, and against it
OVER: Final = 0.15  # opacity of a map over its slice where it is zero


def png_source(image: Image.Image, colours: int = 0) -> str:
    """Return an image as the data URI of a PNG, of so many colours if any."""
    stream = BytesIO()
    (image.quantize(colours) if colours else image).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")


def flattened(
    pixels: NDArray[np.uint8],
    maps: NDArray[np.floating[Any]],
    contribution: NDArray[np.floating[Any]],
    alt: str,
    plane: str | None,
) -> tuple[Sequence[int], list[Picture]]:
    """Draw Fig. 1: a slice (H, W), what each position adds, and the strongest channels.

    maps (C, h, w), contribution (h, w); plane tells left and right, None where they are unknown.
    Returns the channels that are shown, and three pictures.
    """
    size = WIDTH, round(WIDTH * pixels.shape[0] / pixels.shape[1])
    slice_ = Image.fromarray(np.asarray(pixels)).convert("RGB").resize(size)
    limit = float(np.abs(contribution).max()) or 1.0
    share = np.abs(contribution) / limit
    colour = np.where((contribution > 0)[..., None], MORE, LESS)
    alpha = 255 * (OVER + (1 - OVER) * 0.7 * share)[..., None]
    cells = Image.fromarray(np.concatenate([colour, alpha], axis=2).astype(np.uint8), "RGBA")
    over = slice_.convert("RGBA")
    over.alpha_composite(cells.resize(size, Image.Resampling.NEAREST))
    images = [slice_, over.convert("RGB")]
    for image in images:
        for x, side in zip((4, size[0] - 12), SIDES.get(plane or "", ""), strict=False):
            ImageDraw.Draw(image).text((x, size[1] / 2), side, fill="white")
    strength = np.abs(maps).mean(axis=(1, 2))  # (C,)
    channels = np.argsort(-strength, kind="stable")[:TILES].tolist()
    images.append(_tiles(maps[channels]))
    names = "the slice", "what each position adds", "its strongest channels"
    return channels, [
        Picture(png_source(image), f"{alt} Here: {name}.", *image.size)
        for image, name in zip(images, names, strict=True)
    ]


def _tiles(maps: NDArray[np.floating[Any]]) -> Image.Image:
    """Draw maps (n, h, w) side by side, the darker the stronger."""
    low, high = min(0.0, float(maps.min())), float(maps.max())
    grey = (235 - 235 * (maps - low) / ((high - low) or 1.0)).astype(np.uint8)
    sheet = Image.new("L", (IN_ROW * TILE, -(-len(maps) // IN_ROW) * TILE), 255)
    for k, tile in enumerate(grey):
        picture = Image.fromarray(tile).resize((TILE - 4, TILE - 4), Image.Resampling.NEAREST)
        sheet.paste(picture, (k % IN_ROW * TILE, k // IN_ROW * TILE))
    return sheet
