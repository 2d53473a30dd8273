"""The rows of the head: their spread, the features that carry them, their likeness over seeds."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Final

import numpy as np
from scipy import stats

from headscope.analysis import logit_contributions, seed_correlation
from headscope.analysis.blocks import take_rows
from headscope.analysis.final_layer.layer import MOST_ROWS, HeadAnalysis
from headscope.analysis.final_layer.rows import NEAR_ZERO
from headscope.analysis.units import examples_of
from headscope.record import Run
from headscope.reporting.blocks import Block, Box, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import first_of, group_by, named, scan_notes
from headscope.reporting.plots import Line, LinePlot
from headscope.tables import Cell, Column, Table

MOST_OPEN: Final = 4  # classes above which the figure of all rows, run by run, opens on demand
MOST_CARRIERS: Final = 3  # features shown of each class
MOST_DRAWN: Final = 6  # lines of a plot that can be told apart
BINS: Final = 60
DISTRIBUTIONS: Final = (
    "The weights to each class, of five classes at most, run by run, over those before training: "
    f"how many features have a weight in each of {BINS} bins, as a share of the fullest."
)
ROW: Final = {
    "mean": Column("Mean", "", "significant"),
    "sd": Column("SD", "", "significant"),
    "minimum": Column("Least", "", "significant"),
    "maximum": Column("Largest", "", "significant"),
    "skewness": Column("Skewness", "", "significant"),
    "kurtosis": Column("Kurtosis", "", "significant"),
    "near_zero": Column("Near zero", "%", "percent"),
    "participation": Column("Participation", "features", "points"),
    "norm": Column("Norm", "", "significant"),
    "ks": Column("Distance", "", "fraction"),
    "ks_p": Column("p, distribution", "", "probability"),
    "levene_p": Column("p, variance", "", "probability"),
}
CARRIER: Final = {
    "contribution": Column("Adds to the logit", "", "significant"),
    "weight": Column("Weight", "", "significant"),
    "mean_feature": Column("Mean of the feature", "", "significant"),
}
BETWEEN: Final = (
    *("Setting", "Class"),
    Column("Seeds", "", "count"),
    Column("Row", "", "correlation"),
    Column("Learned part", "", "correlation"),
)


def row_blocks(runs: Sequence[Run], heads: Mapping[str, HeadAnalysis]) -> list[Block]:
    """Describe each row of each head, beside the untrained one."""
    plots = [_distributions(run, heads[run.name]) for run in first_of(runs)]
    drawn: list[Block] = [Box("curves", plots), Text(DISTRIBUTIONS, style="notes")]
    if max(len(run.class_names) for run in runs) > MOST_OPEN:
        drawn = [Fold("The distribution of each row", drawn)]
    return [
        *drawn,
        Fold("The rows in numbers", [_rows_table(runs, heads)]),
        *_carriers(first_of(runs)),
        *_between_seeds(runs),
    ]


def _distributions(run: Run, head: HeadAnalysis) -> LinePlot:
    """Draw how the weights of each row are distributed, over those before training."""
    most = MOST_DRAWN - (head.initial_weight is not None)
    rows = dict(zip(head.class_names[:most], head.weight[:most], strict=True))
    if head.initial_weight is not None:
        rows["before training"] = head.initial_weight[:most].ravel()
    edge = 1.03 * max(float(np.abs(row).max()) for row in rows.values()) or 1.0
    bins = np.linspace(-edge, edge, BINS + 1)
    lines = []
    for name, row in rows.items():
        heights = np.histogram(row, bins)[0]
        high = heights / max(heights.max(), 1)
        centres = (np.arange(BINS) + 0.5) / BINS
        lines.append(Line(name, [(x, y, nan, nan) for x, y in zip(centres, high, strict=True)]))
    title = f"{run.setting.title}, {run.setting.network}"
    return LinePlot(title, "weight", "of the highest bin", lines, x_ends=(-edge, edge))


def _rows_table(runs: Sequence[Run], heads: Mapping[str, HeadAnalysis]) -> TableBlock:
    rows = [
        [named(run), row.class_name, *cells_of(row, ROW, run.name, f"row.{row.class_name}")]
        for run in runs
        for row in heads[run.name].rows[:MOST_ROWS]
    ]
    K = max(len(run.class_names) for run in runs)
    rest = f" The first {MOST_ROWS} of {K} rows are shown." if K > MOST_ROWS else ""
    normal = 100 * (2 * stats.norm.cdf(NEAR_ZERO) - 1)
    caption = (
        f"The rows of weights. Near zero: within {NEAR_ZERO} of their root mean square "
        f"({normal:.1f}% of normal weights). Participation: how many features carry the row. "
        "Distance and p by Kolmogorov–Smirnov, p by Brown–Forsythe, against the row before "
        f"training; so many features make any p small: read the distance.{rest}"
    )
    return TableBlock("rows", Table(caption, ("Run", "Class", *ROW.values()), rows))


def _carriers(runs: Sequence[Run]) -> list[Block]:
    """List the features that add most to the logit of each class, over its test slices."""
    rows: list[list[object]] = []
    for run in runs:
        stored, _ = examples_of(run)
        test = np.flatnonzero(stored["subset"] == "test")
        largest = logit_contributions(
            run.head["weight"],
            take_rows(stored["features"], test),
            stored["label"][test],
            class_names=run.class_names,
            most=MOST_CARRIERS,
        )
        for carrier in largest[: MOST_ROWS * MOST_CARRIERS]:
            key = f"carrier.{carrier.class_name}.{carrier.feature}"
            cells = cells_of(carrier, CARRIER, run.name, key)
            rows.append([named(run), carrier.class_name, str(carrier.feature), *cells])
    if not rows:
        return []
    caption = (
        "The features that carry each class: those whose weight times mean over the test slices "
        "of the class is largest. Over all features these add up, with the bias, to the mean "
        "logit. A feature that is large in every slice adds as much to both logits of a pair and "
        "decides nothing; and an index is no anatomy."
    )
    columns = *map(Column, ("Run", "Class")), Column("Feature", "index"), *CARRIER.values()
    table = TableBlock("carriers", Table(caption, columns, rows))
    return [Fold("The features that carry each class", [table, Text(*scan_notes(runs))])]


def _between_seeds(runs: Sequence[Run]) -> list[Block]:
    """Correlate each row between the seeds of a frozen setting; nothing without several seeds.

    Feature j is the same in every run on one frozen backbone, and on no other: a backbone that
    was drawn at random (without `weights_sha256`) is another one for each seed.
    """
    frozen = [
        run for run in runs if run.setting.regime == "frozen" and run.settings.get("weights_sha256")
    ]
    groups = group_by(
        frozen,
        lambda run: (run.setting.architecture, run.setting.title, run.settings["weights_sha256"]),
    )
    rows: list[list[object]] = []
    for (architecture, title, _), alike in groups:
        if len(alike) < 2:
            continue
        result = seed_correlation([run.head["weight"] for run in alike], alike[0].class_names)
        means = zip(result.class_names, result.mean_rows, result.mean_learned, strict=True)
        for name, row, learned in list(means)[:MOST_ROWS]:
            values = {"seeds": len(alike), "row": row, "learned": learned}
            key = f"between_seeds.{name}"
            cells = cells_of(values, values, f"{architecture}/{title}", key)
            rows.append([Cell(title, detail=architecture), name, *cells])
    if not rows:
        return []
    caption = (
        "Correlation of a class's row between seeds, mean over pairs of them, on one frozen "
        "backbone: of the row as it is, and of its distance from the mean row, which holds what "
        "was learned. 0 is that of unrelated heads. Each row keeps what its own start left, "
        "and training slices that seeds share raise both."
    )
    table = TableBlock("between-seeds", Table(caption, BETWEEN, rows))
    return [Fold("The rows between seeds", [table])]
