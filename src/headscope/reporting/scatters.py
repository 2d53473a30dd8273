"""Fig. 2 and Fig. 3 as small multiples: networks in rows, regimes in columns, as in the paper.

The page's script draws the panels from `data`; without it a small still picture of each is seen.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from headscope.analysis import HeadAnalysis, PairAnalysis
from headscope.record import Run
from headscope.reporting.blocks import Multiples, Panel
from headscope.reporting.data import place_slices
from headscope.reporting.numbers import number, say

STILL: Final = 170  # pixels of a still picture
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#9a7d00", "#56b4e9", "#7a3db8")
INK: Final = "#333a44"
GREY: Final = "#c4c9d0"


def logit_panels(runs: Sequence[Run]) -> Multiples:
    """Return Fig. 2: where each network puts its test slices."""
    spaces = {run.name: _logits(run) for run in runs}
    low, high = _limits([points for points, _ in spaces.values()])
    rows: dict[str, list[Panel]] = {}
    for run in runs:
        points, labels = spaces[run.name]
        accuracy = number(
            run.score("test", "slice_accuracy"), run.name, "test_slice_accuracy", "percent"
        )
        count = number(len(points), run.name, "test_slices", "count")
        below = say("{}% of {} correct", accuracy, count)
        still = _still(points, [COLOURS[k % len(COLOURS)] for k in labels], low, high)
        alt = f"Logits of {len(points)} test slices, {run.setting.title}, {run.setting.network}."
        panel = Panel(run.name, run.setting.title, below, still, alt)
        rows.setdefault(run.setting.network, []).append(panel)
    axes = "by its two logits"
    if len(runs[0].class_names) > 2:
        axes = "by the logit of its class and the largest of the others"
    names = [
        f"{'▲' if k % 2 else '●'} {name}" for k, name in enumerate(map(str, runs[0].class_names))
    ]
    caption = (
        f"Each mark is one test slice, placed {axes}: {', '.join(names)}; hollow marks are "
        "misclassified. Slices of one subject lie close together: count subjects before being "
        "impressed by marks."
    )
    return Multiples("fig2", list(rows.items()), caption)


def weight_panels(runs: Sequence[Run], heads: Mapping[str, HeadAnalysis]) -> Multiples:
    """Return Fig. 3: the weights to two classes, beside the line that training forces."""
    pairs = {run.name: heads[run.name].pairs[0] for run in runs}
    points = {name: np.stack([pair.x, pair.y], axis=1) for name, pair in pairs.items()}
    low, high = _limits(list(points.values()))
    rows: dict[str, list[Panel]] = {}
    for run in runs:
        pair = pairs[run.name]
        values = points[run.name]
        still = _still(values, [COLOURS[0]] * len(values), low, high, pair.null_slope)
        alt = f"Weights of {pair.feature_count} features, {run.setting.title}."
        panel = Panel(run.name, run.setting.title, _beside_null(pair, run), still, alt)
        rows.setdefault(run.setting.network, []).append(panel)
    first, second = next(iter(pairs.values())).class_names
    caption = (
        f"Each dot is one feature, placed by its weights to {first} and to {second}; the dashed "
        "line is what training forces on the head (the null). A falling line is no finding: only "
        "what departs from it is."
    )
    return Multiples("fig3", list(rows.items()), caption)


def _beside_null(pair: PairAnalysis, run: Run) -> Markup:
    def value(name: str, form: str) -> Markup:
        return number(getattr(pair, name), run.name, f"fig3.{name}", form, pair.pair)

    return say(
        "r {}, null {}; moved {}×{}",
        value("r", "correlation"),
        value("r_null", "correlation"),
        value("displacement_ratio", "significant"),
        "; departs" if pair.departs else "",
    )


def _logits(run: Run) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the places (n, 2) and the labels (n,) of the test slices, as `data` does."""
    test = run.features["subset"] == "test"
    label = run.features["label"][test]
    return place_slices(run.features["logits"][test].astype(np.float64), label), label


def _limits(parts: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    values = np.concatenate([part.ravel() for part in parts])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    pad = 0.05 * (high - low) or 1.0
    return low - pad, high + pad


def _still(
    points: NDArray[np.float64],
    colours: Sequence[str],
    low: float,
    high: float,
    slope: float = 1.0,
) -> str:
    """Draw points (n, 2) on a square from low to high, with a line of that slope through 0."""
    image = Image.new("RGB", (STILL, STILL), "white")
    pen = ImageDraw.Draw(image)
    places = np.nan_to_num((points - low) / (high - low) * STILL)

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - low) / (high - low) * STILL, (high - y) / (high - low) * STILL

    pen.rectangle((0, 0, STILL - 1, STILL - 1), outline=GREY)
    for k in np.random.default_rng(0).permutation(len(places)):  # so that no class covers another
        x, y = places[k, 0], STILL - places[k, 1]
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=colours[k])
    if np.isfinite(slope):
        pen.line([place(low, slope * low), place(high, slope * high)], fill=INK)
    stream = BytesIO()
    image.quantize(8).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode()
