"""Small pictures of every figure, drawn from random numbers of a fixed seed, kept as they are.

After a change that is meant, look at each figure and renew its picture:

    python -m tests.baselines            # all, in tests/baseline/
    python -m tests.baselines confusion  # one
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from headscope import figures
from headscope.analysis import HeadAnalysis, head_analysis
from headscope.analysis.table import LogitScatter
from headscope.figures.style import styled

FOLDER = Path(__file__).parent / "baseline"
DPI, REDUCTION = 120, 2  # drawn fine and then averaged: versions differ at the edges of letters
TILE, ASIDE = 6, 3  # pixels: side of the squares that are compared, and how far they may move
VERSION = ".".join(mpl.__version__.split(".")[:2])
NAMES = ("NC", "AD")


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write the picture at 60 dpi."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI)
    with Image.open(buffer) as picture:
        small = picture.convert("RGB").reduce(REDUCTION)
    made_by = PngInfo()
    made_by.add_text("matplotlib", VERSION)
    small.save(path, optimize=True, pnginfo=made_by)
    return path


def limit(path: Path) -> float:
    """Return the difference that is no change: more, where another matplotlib drew the picture.

    From 3.10 to 3.11 up to 25 were found; within one version none.
    """
    with Image.open(path) as picture:
        return 8.0 if picture.info["matplotlib"] == VERSION else 32.0


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float64)  # (height, width, 3)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much any small square of either picture misses in the other, 0 to 255.

    Squares are compared by their mean colour, and each may lie a few pixels aside: versions of
    matplotlib set letters a little wider or narrower, and panels move with them. A mean over the
    whole picture would let a lost label pass.
    """
    if one.shape != other.shape:
        return 255.0
    return max(_missing(one, other), _missing(other, one))


def _missing(one: np.ndarray, other: np.ndarray) -> float:
    means, reach = _square_means(one)[::TILE, ::TILE], range(2 * ASIDE + 1)
    padded = np.pad(other, ((ASIDE, ASIDE), (ASIDE, ASIDE), (0, 0)), mode="edge")
    candidates = _square_means(padded)
    height, width = (size - TILE + 1 for size in one.shape[:2])
    gaps = [
        np.abs(candidates[y : y + height : TILE, x : x + width : TILE] - means).max(axis=-1)
        for y in reach
        for x in reach
    ]
    return float(np.min(gaps, axis=0).max())


def _square_means(picture: np.ndarray) -> np.ndarray:
    """Return the mean colour of the square that starts at each pixel."""
    sums = np.pad(picture.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))
    corners = sums[TILE:, TILE:] - sums[:-TILE, TILE:] - sums[TILE:, :-TILE] + sums[:-TILE, :-TILE]
    return corners / TILE**2


def scatter(n: int, spread: float, title: str, seed: int) -> LogitScatter:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    learned = rng.normal(0, spread, n) + 1.5 * spread * (1 - 2 * label)
    kept = rng.normal(0, 0.3 * spread, n)
    logits = np.stack([kept + learned, kept - learned], axis=1)  # (n, 2)
    right = logits.argmax(axis=1) == label
    return LogitScatter(title, "resnet101, seed 0", NAMES, (0, 1), 2, "test", logits, label, right)


def spread_of(panel: LogitScatter) -> tuple[np.ndarray, np.ndarray]:
    groups = [panel.logits[panel.label == k] for k in (0, 1)]
    return np.stack([g.mean(axis=0) for g in groups]), np.stack([np.cov(g.T) for g in groups])


def heads() -> dict[str, HeadAnalysis]:
    rng = np.random.default_rng(3)
    found = {}
    for name, moved in (("frozen", 0.10), ("finetune", 0.02), ("scratch", 0.05)):
        before = rng.uniform(-0.06, 0.06, (2, 300))
        learned = rng.normal(0, moved, 300)
        after = before + np.stack([learned, -learned])
        found[name] = head_analysis(after, None, before, class_names=NAMES)
    return found


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random fields that vary from position to position of the last two axes."""
    rng = np.random.default_rng(seed)
    h, w = shape[-2:]
    y, x = np.mgrid[:h, :w] / max(h, w)  # (h, w)
    phase = rng.uniform(0, 6.28, (*shape[:-2], 2, 1, 1))
    rate = rng.uniform(3, 9, (*shape[:-2], 2, 1, 1))
    return (np.sin(rate[..., 0, :, :] * x + phase[..., 0, :, :])
            * np.cos(rate[..., 1, :, :] * y + phase[..., 1, :, :]))  # fmt: skip


def ball() -> np.ndarray:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    inside = (x / 0.7) ** 2 + (y / 0.85) ** 2
    return (200 * (inside < 1) * (0.5 + 0.5 * np.minimum(1, 4 * inside))).astype(np.uint8)


def flattening(size: int) -> Figure:
    maps = np.maximum(blobs((40, size, size), 1), 0)
    return figures.plot_flattening(
        ball(), maps, blobs((2, size, size), 2), NAMES, 1,
        title="frozen, subject split", network="resnet101, seed 0",
    )  # fmt: skip


def logits() -> Figure:
    names = ("frozen", "finetune", "scratch-20", "scratch-50")
    panels = [scatter(160, 1.0 + 0.7 * k, name, k) for k, name in enumerate(names)]
    return figures.plot_logits(panels, [spread_of(panel) for panel in panels])


def logits_crowd() -> Figure:
    panel = scatter(6000, 2.0, "frozen, subject split", 7)
    return figures.plot_logits(panel, [spread_of(panel)])


def rows() -> Figure:
    return figures.plot_row_distributions(heads(), network="resnet101, seed 0")


def before_after() -> Figure:
    head = heads()["frozen"]
    return figures.plot_head_before_after(head, title="frozen", network="resnet101, seed 0")


def confusion() -> Figure:
    return figures.plot_confusion(
        [[210, 30], [45, 207]], [[7, 1], [2, 6]], NAMES, title="frozen", network="resnet101"
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "flattening-7": lambda: flattening(7),
    "flattening-14": lambda: flattening(14),
    "logits": logits,
    "logits-crowd": logits_crowd,
    "rows": rows,
    "before-after": before_after,
    "confusion": confusion,
}


if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        print(save(FIGURES[name](), FOLDER / f"{name}.png"))
