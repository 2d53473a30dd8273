"""Chapters on probabilities: how they rank subjects, whether they are right, where to cut them."""

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Final

from headscope.analysis.results.calibration import Calibration, Reliability, analyse_calibration
from headscope.analysis.results.curves import GRID, Curve, subject_curves
from headscope.analysis.results.pooled import pool_runs
from headscope.analysis.results.settings import SettingResult
from headscope.metrics import positive_class, wilson
from headscope.metrics.scores import BINS
from headscope.record import Run
from headscope.reporting.blocks import Block, Box, Chapter, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import named, spread
from headscope.reporting.numbers import CONFIDENCE
from headscope.reporting.plots import Line, LinePlot
from headscope.tables import Cell, Column, Table

SCORES = {"nll": ("NLL", "nats"), "brier": ("Brier score", ""), "ece": ("Calibration error", "")}
POINT = {
    "threshold": Column("Threshold", "", "threshold"),
    "sensitivity": Column("Sensitivity, test", "%", "percent"),
    "specificity": Column("Specificity, test", "%", "percent"),
}


def calibration_chapter(runs: Sequence[Run]) -> Chapter:
    """Say whether probabilities are right, and where validation would cut them."""
    results = {run.name: analyse_calibration(run) for run in runs}
    points = _thresholds(runs, results)
    cut = "; thresholds on a subject's probability are chosen on validation too, and judged on test"
    meaning = (
        "A probability is worth what it says if of the slices predicted with 80% four in five are "
        "correct. One temperature, fitted on validation, divides all logits"
        f"{cut if points else ''}."
    )
    diagrams = Box("curves", [_diagram(run, results[run.name]) for run in runs])
    fold = Fold("Reliability, run by run", [diagrams, Text(RELIABILITY, style="notes")])
    blocks: list[Block] = [Text(meaning), _temperatures(runs, results), *points, fold]
    title = "Calibration and thresholds" if points else "Calibration"
    return Chapter("calibration", title, blocks, _sure([r.temperature for r in results.values()]))


def _sure(temperatures: Sequence[float]) -> str:
    """Say whether networks are too sure; of those with a temperature, which may be some only."""
    defined = [T for T in temperatures if not isnan(T)]
    if not defined:
        return "no temperature could be fitted"
    sure = "too sure" if all(T > 1 for T in defined) else "not all too sure"
    if all(T < 1 for T in defined):
        sure = "too unsure"
    some = (
        f", of {len(defined)} of {len(temperatures)} runs"
        if len(defined) < len(temperatures)
        else ""
    )
    return f"{sure}: T = {spread(defined, 'significant')}{some}"


def _diagram(run: Run, calibration: Calibration) -> LinePlot:
    """Draw how often predictions are correct by their confidence, of bins of 10 slices or more."""
    states = {"as trained": calibration.before, "at T": calibration.after}
    lines = [Line(name, [*_bins(state)]) for name, state in states.items() if state is not None]
    title = f"{run.setting.title}, {run.setting.network}"
    return LinePlot(title, "confidence", "correct", lines, ((0.0, 0.0), (1.0, 1.0)))


def _bins(state: Reliability) -> Iterator[tuple[float, float, float, float]]:
    """Yield the bins of FEWEST_IN_BIN slices or more with Wilson's intervals."""
    for count, x, y in zip(state.count, state.confidence, state.accuracy, strict=True):
        if count >= FEWEST_IN_BIN:
            yield (x, y, *wilson(round(count * y), count))


def _temperatures(runs: Sequence[Run], results: Mapping[str, Calibration]) -> TableBlock:
    rows: list[list[object]] = []
    for run in runs:
        result = results[run.name]
        scores = [
            Cell(
                getattr(getattr(result, when), name, None), run=run.name, quantity=f"{when}.{name}"
            )
            for name in SCORES
            for when in ("before", "after")
        ]
        temperature = Cell(result.temperature, run=run.name, quantity="temperature")
        rows.append([named(run), temperature, *scores])
    columns = [
        Column(f"{title}, {when}", unit, "fraction")
        for title, unit in SCORES.values()
        for when in ("as trained", "at T")
    ]
    caption = (
        "Temperature T fitted on validation, and what it does on test slices (negative "
        f"log-likelihood, Brier score, expected calibration error in {BINS} bins). T above 1 means "
        "that the network was too sure; undefined where none is likeliest, as validation is "
        "predicted without an error, or no better than at random."
    )
    first = "Run", Column("T", "", "significant")
    return TableBlock("temperatures", Table(caption, [*first, *columns], rows))


def _thresholds(runs: Sequence[Run], results: Mapping[str, Calibration]) -> list[TableBlock]:
    rows = [
        [named(run), point.rule, *cells_of(point, POINT, run.name, f"point{k}")]
        for run in runs
        for k, point in enumerate(results[run.name].points)
    ]
    if not rows:
        return []
    caption = (
        f"Thresholds on a subject's probability of {results[runs[0].name].positive_class}, chosen "
        "on validation, and their sensitivity and specificity on test with Wilson's "
        f"{CONFIDENCE} intervals."
    )
    columns = *map(Column, ("Run", "Rule on validation")), *POINT.values()
    return [TableBlock("thresholds", Table(caption, columns, rows))]


FEWEST_IN_BIN: Final = 10  # slices
RELIABILITY: Final = (
    "How confident predictions are, and how often they are correct: bins of at least 10 test "
    f"slices with Wilson's {CONFIDENCE} intervals, which take slices as independent."
)
MOST_CURVES: Final = 6  # lines of a plot that can be told apart


def ranking_chapter(results: Sequence[SettingResult]) -> Chapter | None:
    """Show how settings that keep subjects apart rank subjects; None where none does."""
    names = results[0].runs[0].class_names
    positive = positive_class(names)
    drawn = {
        f"{result.architecture}, {result.name}": subject_curves(pool_runs(result.runs), positive)
        for result in results
        if result.apart
    }
    curves = {name: curve for name, curve in drawn.items() if curve is not None}
    if not curves:
        return None
    shown = dict(list(curves.items())[:MOST_CURVES])
    of = str(names[positive]) if len(names) == 2 else "each class against the rest, on average"
    share = next(iter(shown.values())).prevalence
    roc = LinePlot(
        "Receiver operating characteristic",
        "share of others called positive",
        "sensitivity",
        [_line(name, curve.roc) for name, curve in shown.items()],
        ((0.0, 0.0), (1.0, 1.0)),
    )
    precision = LinePlot(
        "Precision and recall",
        "recall",
        "precision",
        [_line(name, curve.precision) for name, curve in shown.items()],
        ((0.0, share), (1.0, share)),
    )
    left_out = len(curves) - len(shown)
    more = f" The first {len(shown)} of {len(curves)} settings are drawn." if left_out else ""
    note = (
        f"Test subjects ranked for {of}; bands are pointwise {CONFIDENCE} intervals over draws of "
        f"subjects; dashed is what chance gives.{more}"
    )
    blocks: list[Block] = [Box("beside", [roc, precision]), Text(note, style="notes")]
    return Chapter("ranking", "Ranking of subjects", blocks, short="ROC")


def _line(name: str, curve: Curve) -> Line:
    return Line(name, list(zip(GRID, curve.y, curve.low, curve.high, strict=True)))
