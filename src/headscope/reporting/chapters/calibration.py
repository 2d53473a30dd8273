"""The chapter on calibration: are probabilities right, and where would validation cut them."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from string import ascii_lowercase

from markupsafe import Markup

from headscope.analysis.results.calibration import Calibration, analyse_calibration
from headscope.figures.reliability import plot_reliability
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import (
    Cell,
    Chapter,
    Folded,
    Grid,
    Part,
    Plate,
    Words,
    bounded,
    named,
)
from headscope.reporting.pictures import drawn


def calibration_chapter(runs: Sequence[Run], figures: Path) -> Chapter:
    """Say whether probabilities are right, and where validation would cut them."""
    found = {run.name: analyse_calibration(run) for run in runs}
    points = _thresholds(runs, found)
    cut = "; thresholds on a subject's probability are chosen on validation too, and told on test."
    parts: list[Part] = [
        Words(
            (
                "A probability is worth what it says if of the slices called with 80% four in five "
                "are right. One temperature, fitted on validation, divides all logits"
                f"{cut if points.rows else '.'}",
            )
        ),
        _temperatures(runs, found),
    ]
    if points.rows:
        parts.append(points)
    parts.append(
        Folded(
            "Reliability, run by run",
            [
                _reliable(run, letter, found[run.name], figures)
                for letter, run in zip(cycle(ascii_lowercase), runs, strict=False)
            ],
        )
    )
    title = "Calibration and thresholds" if points.rows else "Calibration"
    return Chapter("calibration", title, parts)


def _reliable(run: Run, letter: str, found: Calibration, figures: Path) -> Plate:
    alt = f"{run.setting.title}: accuracy against confidence on test."
    picture = drawn(plot_reliability(found), figures / f"reliability-{run.name}", alt)
    caption = Markup("<b>Figure 10{}.</b> {}, {}: how confident calls are, and how often right.")
    return Plate(picture, caption.format(letter, run.setting.title, run.setting.network))


def _temperatures(runs: Sequence[Run], found: dict[str, Calibration]) -> Grid:
    rows: list[list[Cell]] = []
    for run in runs:
        each = found[run.name]
        cells: list[Cell] = [named(run), number(each.temperature, run.name, "temperature")]
        for name in ("nll", "brier", "ece"):
            for when, state in (("before", each.before), ("after", each.after)):
                value = getattr(state, name) if state is not None else None
                cells.append(number(value, run.name, f"{when}.{name}", "fraction"))
        rows.append(cells)
    scores = (("NLL", "nats"), ("Brier score", ""), ("Calibration error", ""))
    columns = [
        (f"{title}, {when}", unit) for title, unit in scores for when in ("as trained", "at T")
    ]
    return Grid(
        Markup(
            "<b>Table 12.</b> Temperature T fitted on validation, and what it does on test slices "
            "(negative log-likelihood, Brier score, expected calibration error in 15 bins). T "
            "above "
            "1 means the network was too sure."
        ),
        [("Run", ""), ("T", ""), *columns],
        rows,
    )


def _thresholds(runs: Sequence[Run], found: dict[str, Calibration]) -> Grid:
    rows: list[list[Cell]] = []
    for run in runs:
        for k, point in enumerate(found[run.name].points):
            key = f"point{k}"
            cells: list[Cell] = [named(run), point.rule]
            cells.append(number(point.threshold, run.name, f"{key}.threshold", "fraction"))
            for name in ("sensitivity", "specificity"):
                low, high = getattr(point, f"{name}_low"), getattr(point, f"{name}_high")
                value = getattr(point, name)
                cells.append(bounded(value, low, high, run.name, f"{key}.{name}", "percent"))
            rows.append(cells)
    return Grid(
        Markup(
            "<b>Table 13.</b> Thresholds on a subject's probability of {}, chosen on validation, "
            "and their sensitivity and specificity on test with Wilson's 95% intervals."
        ).format(found[runs[0].name].positive_class),
        (
            ("Run", ""),
            ("Rule on validation", ""),
            ("Threshold", ""),
            ("Sensitivity, test", "%"),
            ("Specificity, test", "%"),
        ),
        rows,
        left=2,
    )
