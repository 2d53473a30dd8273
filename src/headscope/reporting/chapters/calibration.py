"""Chapters on probabilities: how they rank subjects, whether they are right, where to cut them."""

from collections.abc import Iterator, Mapping, Sequence
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
    "threshold": Column("Threshold", "", "fraction"),
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
    diagrams = [_diagram(run, results[run.name]) for run in runs]
    blocks: list[Block] = [
        Text(meaning),
        _temperatures(runs, results),
        *points,
        Fold(
            "Reliability, run by run", [Box("curves", diagrams), Text(RELIABILITY, style="notes")]
        ),
    ]
    title = "Calibration and thresholds" if points else "Calibration"
    temperatures = [result.temperature for result in results.values()]
    sure = "too sure" if all(T > 1 for T in temperatures) else "not all too sure"
    if all(T < 1 for T in temperatures):
        sure = "too unsure"
    result_line = f"{sure}: T = {spread(temperatures, 'significant')}"
    return Chapter("calibration", title, blocks, result_line)


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
        states = {"before": result.before, "after": result.after}
        scores = [
            Cell(getattr(state, name, None), run=run.name, quantity=f"{when}.{name}")
            for name in SCORES
            for when, state in states.items()
        ]
        rows.append(
            [named(run), Cell(result.temperature, run=run.name, quantity="temperature"), *scores]
        )
    columns = [
        Column(f"{title}, {when}", unit, "fraction")
        for title, unit in SCORES.values()
        for when in ("as trained", "at T")
    ]
    caption = (
        "Temperature T fitted on validation, and what it does on test slices (negative "
        f"log-likelihood, Brier score, expected calibration error in {BINS} bins). T above 1 means "
        "that the network was too sure."
    )
    columns = [Column("Run"), Column("T", "", "significant"), *columns]
    return TableBlock("temperatures", Table(caption, columns, rows))


def _thresholds(runs: Sequence[Run], results: Mapping[str, Calibration]) -> list[TableBlock]:
    """Return the table of thresholds, if any are chosen."""
    rows: list[list[object]] = []
    for run in runs:
        for k, point in enumerate(results[run.name].points):
            cells = cells_of(point, POINT, run.name, f"point{k}")
            rows.append([named(run), point.rule, *cells])
    if not rows:
        return []
    caption = (
        f"Thresholds on a subject's probability of {results[runs[0].name].positive_class}, chosen "
        "on validation, and their sensitivity and specificity on test with Wilson's "
        f"{CONFIDENCE} intervals."
    )
    columns = [Column("Run"), Column("Rule on validation"), *POINT.values()]
    return [TableBlock("thresholds", Table(caption, columns, rows))]


FEWEST_IN_BIN: Final = 10  # slices
RELIABILITY: Final = (
    "How confident predictions are, and how often they are correct: bins of at least 10 test "
    f"slices with Wilson's {CONFIDENCE} intervals, which take slices as independent."
)
MOST_CURVES: Final = 6  # lines of a plot that can be told apart


def ranking_chapter(results: Sequence[SettingResult]) -> Chapter | None:
    """Show how settings that keep subjects apart rank subjects; None where none does."""
    curves = {}
    for result in results:
        names = result.runs[0].class_names
        if result.apart:
            curve = subject_curves(pool_runs(result.runs), positive_class(names))
            if curve is not None:
                curves[f"{result.architecture}, {result.name}"] = curve
    if not curves:
        return None
    shown = dict(list(curves.items())[:MOST_CURVES])
    names = results[0].runs[0].class_names
    of = "each class against the rest, on average"
    if len(names) == 2:
        of = str(names[positive_class(names)])
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
