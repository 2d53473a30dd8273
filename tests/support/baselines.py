"""Small pictures of every figure, drawn from random numbers of a fixed seed, kept as they are.

After a change that is meant, look at each figure and renew its picture:

    python -m tests.support.baselines            # all, in tests/baseline/
    python -m tests.support.baselines confusion  # one
"""

import sys
from collections.abc import Callable
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from headscope import figures
from headscope.analysis import HeadAnalysis, head_analysis
from headscope.analysis.representation.collapse import Collapse
from headscope.analysis.representation.features import Ellipse
from headscope.analysis.representation.location import FlattenAnalysis, Probe, Shuffle
from headscope.analysis.representation.stages import StageTransfer, TransferAnalysis
from headscope.analysis.results.calibration import Calibration, Reliability
from headscope.analysis.results.chance import AgainstChance
from headscope.analysis.results.curves import GRID, Curve, Curves
from headscope.analysis.results.settings import Majority, SettingResult
from headscope.analysis.results.table import LogitScatter, Score
from headscope.figures.style import COLUMN, apply_style
from headscope.supplement.flow import Box, plot_flow
from tests.support.ladders import make_ladder
from tests.support.leakage_results import dose, gap, identity, permutation_tests

FOLDER = Path(__file__).parents[1] / "baseline"
DPI, REDUCTION = 104, 2  # drawn fine and then averaged: versions differ at the edges of letters
TILE = 6  # pixels: side of the squares that are compared
VERSION = ".".join(mpl.__version__.split(".")[:2])
NAMES = ("NC", "AD")
RUNS = ("frozen, subject split", "finetune, subject split", "scratch, slice split")


@apply_style
def save(figure: Figure, path: Path) -> Path:
    """Write the picture at 52 dpi."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI)
    with Image.open(buffer) as picture:
        small = picture.convert("RGB").reduce(REDUCTION)
    made_by = PngInfo()
    made_by.add_text("matplotlib", VERSION)
    small.save(path, optimize=True, pnginfo=made_by)
    return path


def tolerance(path: Path) -> tuple[int, float]:
    """Return how many pixels aside, and how different, is no change from the kept picture.

    Versions of matplotlib set letters a little wider or narrower, and panels move with them: from
    3.10 to 3.11 by up to 5 pixels, with differences of up to 25. Within one version there are none.
    """
    with Image.open(path) as picture:
        return (1, 8.0) if picture.info["matplotlib"] == VERSION else (6, 32.0)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float64)  # (height, width, 3)


def difference(one: np.ndarray, other: np.ndarray, aside: int = 1) -> float:
    """Return how much any small square of either picture misses in the other, 0 to 255.

    Squares are compared by their mean colour, and each may lie a few pixels aside. A mean over
    the whole picture would let a lost label pass.
    """
    if one.shape != other.shape:
        return 255.0
    return max(_missing(one, other, aside), _missing(other, one, aside))


def _missing(one: np.ndarray, other: np.ndarray, aside: int) -> float:
    means, reach = _square_means(one)[::TILE, ::TILE], range(2 * aside + 1)
    padded = np.pad(other, ((aside, aside), (aside, aside), (0, 0)), mode="edge")
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


def ellipses(panel: LogitScatter) -> tuple[Ellipse, ...]:
    tilt = {"NC": -45.0, "AD": -30.0}
    return tuple(
        Ellipse(name, 9, tuple(panel.logits[panel.label == k].mean(axis=0)), 6.0, 2.0, tilt[name])
        for k, name in enumerate(NAMES)
    )


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
        plane="axial" if size == 7 else None,
        title="frozen, subject split", network="resnet101, seed 0",
    )  # fmt: skip


def logits() -> Figure:
    names = ("frozen", "finetune", "scratch-20", "scratch-50")
    panels = [scatter(160, 1.0 + 0.7 * k, name, k) for k, name in enumerate(names)]
    return figures.plot_logits(panels, [ellipses(panel) for panel in panels])


def logits_crowd() -> Figure:
    panel = scatter(6000, 2.0, "frozen, subject split", 7)
    return figures.plot_logits(panel, [ellipses(panel)])


def rows() -> Figure:
    return figures.plot_row_distributions(heads(), network="resnet101, seed 0")


def rows_many() -> Figure:
    rng = np.random.default_rng(4)
    before = rng.uniform(-0.06, 0.06, (14, 300))
    names = [f"class of number {k}" for k in range(14)]
    head = head_analysis(before + rng.normal(0, 0.03, before.shape), None, before,
                         class_names=names)  # fmt: skip
    return figures.plot_row_distributions({"frozen": head}, network="resnet101, seed 0")


def before_after() -> Figure:
    head = heads()["frozen"]
    return figures.plot_head_before_after(head, title="frozen", network="resnet101, seed 0")


def confusion() -> Figure:
    return figures.plot_confusion(
        [[210, 30], [45, 207]], [[7, 1], [2, 6]], NAMES, title="frozen", network="resnet101"
    )


def weights() -> Figure:
    head = heads()["frozen"]
    return figures.plot_weights(head.pairs[0], "frozen", "resnet101, seed 0", head.initial_weight)


def weights_alone() -> Figure:
    return figures.plot_weights(heads()["scratch"].pairs[0], "scratch", "resnet101, seed 0")


def weight_panels() -> Figure:
    return figures.plot_weight_panels(heads())


def history() -> Figure:
    epoch = np.arange(1, 13)
    table = {"epoch": epoch, "train_loss": 0.7 / epoch, "val_loss": 0.75 / np.sqrt(epoch),
             "train_slice_accuracy": 1 - 0.5 / epoch,
             "val_slice_accuracy": 1 - 0.5 / np.sqrt(epoch)}  # fmt: skip
    return figures.plot_history(pd.DataFrame(table), "frozen, subject split", "resnet101, seed 0")


def collapsed(subset: str, nc1: float, rest: float, classes: int = 3) -> Collapse:
    """Numbers of one subset; those that two classes cannot tell are NaN, as in the analysis."""
    trivial = nan if classes == 2 else rest
    return Collapse(
        title="", subset=subset, class_names=tuple("ABC"[:classes]), slices=90, means_of="train",
        nc1=nc1, nc2_equinorm=trivial, nc2_equiangular=trivial, nc2_simplex=trivial,
        weight_equinorm=rest / 2, weight_equiangular=trivial, weight_simplex=trivial,
        nc3=2 * rest, nc3_centred=rest, nc4=1 - rest, notes=(),
    )  # fmt: skip


def collapse() -> Figure:
    results = {
        run: [
            collapsed("train", 30 * 0.03**k, 0.3 - 0.1 * k),
            collapsed("test", 60 * 0.1**k, 0.5 - 0.1 * k),
        ]
        for k, run in enumerate(RUNS)
    }
    return figures.plot_collapse(results, title="Neural collapse, resnet101")


def flattened(accuracy: float, drop: float) -> FlattenAnalysis:
    steps = np.linspace(-0.04, 0.04, 5)
    return FlattenAnalysis(
        title="", averages=drop == 0, tail=(), slices=94, subjects=41, positions=(7, 7),
        slice_accuracy=accuracy,
        shuffles=tuple(
            Shuffle(name, accuracy - far * drop + steps, largest_change=1.0, drop=far * drop,
                    drop_sd=0.03, relative_change=3 * far * drop)
            for far, name in ((1, "one for all slices"), (2, "one per slice"))
        ),
        probes=(Probe("pooled maps", 512, accuracy - 0.1 + steps, accuracy - 0.1, 0.03),
                Probe("unpooled maps", 25088, np.full(5, nan), nan, nan)),
        notes=(),
    )  # fmt: skip


def shuffle() -> Figure:
    results = {run: flattened(0.95 - 0.1 * k, 0.1 * k) for k, run in enumerate(RUNS)}
    return figures.plot_shuffle(results, chance=0.5, network="vgg19, seed 0")


def stages(loss: float, majority: float = 0.5) -> TransferAnalysis:
    """Five stages that lose likeness, and gain class and subject, at a rate."""
    found = tuple(
        StageTransfer(f"layer{k}", 64, 1 - loss * k, 1 - loss * k, loss, 0.5 + 0.1 * k * (1 - loss),
                      0.2 * k)
        for k in range(5)
    )  # fmt: skip
    return TransferAnalysis("", "frozen", 90, 30, majority, found, ())


def transfer() -> Figure:
    results = {run: stages(0.1 * k) for k, run in enumerate(RUNS)}
    return figures.plot_transfer(results, network="resnet101, seed 0")


def permutations() -> Figure:
    return figures.plot_permutations(permutation_tests(), "Permuted labels")


def leak_gap() -> Figure:
    return figures.plot_gap([gap(), gap("finetune", nan)], "Leak gap")


def identities() -> Figure:
    results = [identity(), identity(seed=1, known=0.95), identity("scratch")]
    return figures.plot_identity(results, "Re-identification")


def calls(accuracy: np.ndarray, ece: float) -> Reliability:
    """Ten bins of which the lower half, less sure than chance, are empty."""
    count = np.array([0] * 5 + [20, 30, 45, 60, 145])
    confidence = np.where(count, np.linspace(0.05, 0.95, 10), nan)
    shown = np.where(count, accuracy, nan)
    return Reliability(tuple(count), tuple(confidence), tuple(shown), 0.5, 0.3, ece,
                       tuple(shown - 0.08), tuple(np.minimum(shown + 0.06, 1)))  # fmt: skip


def reliability() -> Figure:
    straight = np.linspace(0.05, 0.95, 10)
    found = Calibration("frozen, subject split", "AD", 2.4, calls(0.2 + 0.6 * straight, 0.14),
                        calls(straight + 0.03, 0.03), (), ())  # fmt: skip
    return figures.plot_reliability(found)


def networks(make: Callable[[int], Any]) -> dict[str, dict[str, Any]]:
    """Two networks under two settings each, by a number."""
    return {
        name: {setting: make(2 * row + k) for k, setting in enumerate(("frozen", "finetune"))}
        for row, name in enumerate(("resnet101", "vgg19"))
    }


def logit_grid() -> Figure:
    return figures.plot_logit_grid(networks(lambda k: scatter(120, 1 + k, "", k)), COLUMN)


def weight_grid() -> Figure:
    pairs = [head.pairs[0] for head in heads().values()]
    return figures.plot_weight_grid(networks(lambda k: pairs[k % 3]), COLUMN)


def reliability_grid() -> Figure:
    straight = np.linspace(0.05, 0.95, 10)
    before, after = calls(0.2 + 0.6 * straight, 0.14), calls(straight + 0.03, 0.03)
    result = Calibration("", "AD", 2.4, before, after, (), ())
    return figures.plot_reliability_grid(networks(lambda k: result), COLUMN)


def curve_grid() -> Figure:
    y = GRID**0.3
    curve = Curve(y, y**2, np.sqrt(y))
    made = networks(lambda k: Curves(curve, Curve(1 - y / 3, 0.9 - y / 3, 1 - y / 4), 0.4))
    areas = networks(lambda k: 0.7)
    return figures.plot_curve_grid(made, "roc", areas, "AD", COLUMN)


def forest() -> Figure:
    chance = AgainstChance("above", 0.7, 0.6, 0.8, 0.01, 40, 2)
    results = [
        SettingResult(
            "resnet101", name, name, split, ("run",), {"subject_accuracy": Score(value, low, high)},
            Majority("NC", 0.55, 0.6), {"run": "NC"} if constant else {}, 0, 40, 40, 400,
            40 * (split == "slice"), False, chance,
        )
        for name, split, value, low, high, constant in (
            ("frozen", "subject", 0.62, 0.5, 0.74, False),
            ("frozen", "slice", 0.93, 0.88, 0.97, False),
            ("finetune", "subject", 0.6, nan, nan, True),
        )
    ]  # fmt: skip
    return figures.plot_forest(results)


def ladder() -> Figure:
    return figures.plot_ladder(make_ladder())


def flow() -> Figure:
    boxes = [
        Box("step", "Data: OASIS-2"),
        Box("left out", "Left out", ("Left out by Group: Converted (37 scans).",)),
        Box("step", "Scans with a class: 331"),
        Box("left out", "Could not be used: 1", ("1: holds one value",)),
        Box("step", "Slices taken", ("136 subjects, 330 slices",)),
        *(Box("subset", name, ("45 subjects", "110 slices")) for name in ("Training", "Test")),
    ]
    return plot_flow(boxes)


FIGURES: dict[str, Callable[[], Figure]] = {
    "flattening-7": lambda: flattening(7),
    "flattening-14": lambda: flattening(14),
    "logits": logits,
    "logits-crowd": logits_crowd,
    "weights": weights,
    "weights-alone": weights_alone,
    "weight-panels": weight_panels,
    "rows": rows,
    "rows-many": rows_many,
    "before-after": before_after,
    "collapse": collapse,
    "shuffle": shuffle,
    "transfer": transfer,
    "confusion": confusion,
    "history": history,
    "permutations": permutations,
    "dose": lambda: figures.plot_dose(dose(), "Dose–response of leakage"),
    "leak-gap": leak_gap,
    "identity": identities,
    "reliability": reliability,
    "logit-grid": logit_grid,
    "weight-grid": weight_grid,
    "reliability-grid": reliability_grid,
    "curve-grid": curve_grid,
    "forest": forest,
    "flow": flow,
    "ladder": ladder,
}


if __name__ == "__main__":
    for name in sys.argv[1:] or FIGURES:
        print(save(FIGURES[name](), FOLDER / f"{name}.png"))
