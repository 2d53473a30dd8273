"""The chapter on calibration: are probabilities right, and where would validation cut them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from headscope.analysis.results.calibration import Calibration, analyse_calibration
from headscope.figures.reliability import plot_reliability
from headscope.metrics.scores import BINS
from headscope.record import Run
from headscope.reporting.blocks import Block, Chapter, FigureBlock, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import named, spread
from headscope.reporting.numbers import CONFIDENCE
from headscope.reporting.pictures import draw
from headscope.tables import Cell, Column, Table

SCORES = {"nll": ("NLL", "nats"), "brier": ("Brier score", ""), "ece": ("Calibration error", "")}
POINT = {
    "threshold": Column("Threshold", "", "fraction"),
    "sensitivity": Column("Sensitivity, test", "%", "percent"),
    "specificity": Column("Specificity, test", "%", "percent"),
}


def calibration_chapter(runs: Sequence[Run], figures: Path) -> Chapter:
    """Say whether probabilities are right, and where validation would cut them."""
    results = {run.name: analyse_calibration(run) for run in runs}
    points = _thresholds(runs, results)
    cut = "; thresholds on a subject's probability are chosen on validation too, and judged on test"
    meaning = (
        "A probability is worth what it says if of the slices predicted with 80% four in five are "
        "correct. One temperature, fitted on validation, divides all logits"
        f"{cut if points else ''}."
    )
    diagrams = [_diagram(run, results[run.name], figures) for run in runs]
    blocks: list[Block] = [
        Text(meaning),
        _temperatures(runs, results),
        *points,
        Fold("Reliability, run by run", diagrams),
    ]
    title = "Calibration and thresholds" if points else "Calibration"
    temperatures = [result.temperature for result in results.values()]
    sure = "too sure" if all(T > 1 for T in temperatures) else "not all too sure"
    if all(T < 1 for T in temperatures):
        sure = "too unsure"
    result_line = f"{sure}: T = {spread(temperatures, 'significant')}"
    return Chapter("calibration", title, blocks, result_line)


def _diagram(run: Run, calibration: Calibration, figures: Path) -> FigureBlock:
    alt = f"{run.setting.title}: accuracy against confidence on test."
    picture = draw(plot_reliability(calibration), figures / f"reliability-{run.name}", alt)
    caption = (
        f"{run.setting.title}, {run.setting.network}: how confident predictions are, and how often "
        "correct."
    )
    return FigureBlock("reliability", picture, caption)


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
