"""What was learned, in numbers: classes in logits and features, and the rows of the head."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from headscope.analysis import run_network, run_title
from headscope.analysis.features import FeatureAnalysis, run_feature_analysis
from headscope.analysis.weights import HeadAnalysis
from headscope.figures import plot_head_before_after, plot_row_distributions
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import (
    Cell,
    Folded,
    Grid,
    Part,
    Plate,
    attributes,
    by_network,
    first_of,
    named,
    stem,
    twin,
)
from headscope.reporting.pictures import drawn

SPREAD: Final = (
    ("fisher_ratio", "significant"),
    ("overlap", "fraction"),
    ("silhouette", "fraction"),
    ("effective_rank", "significant"),
    ("within", "significant"),
)
RATIOS: Final = (("dispersion_ratio", "significant"), ("separation_ratio", "significant"))
ROW: Final = (
    ("mean", "significant"),
    ("sd", "significant"),
    ("minimum", "significant"),
    ("maximum", "significant"),
    ("skewness", "significant"),
    ("kurtosis", "significant"),
    ("near_zero", "percent"),
    ("participation", "points"),
    ("norm", "significant"),
    ("ks", "fraction"),
    ("ks_p", "probability"),
    ("levene_p", "probability"),
)


def separations(runs: Sequence[Run]) -> dict[str, FeatureAnalysis]:
    """Analyse the test logits and features of each run, beside its frozen twin's."""
    found: dict[str, FeatureAnalysis] = {}
    for run in sorted(runs, key=lambda run: run.settings["regime"] != "frozen"):
        frozen = twin(run, runs)
        known = found.get(frozen.name) if frozen is not None and frozen.name != run.name else None
        found[run.name] = run_feature_analysis(run, reference=known)
    return found


def separation_parts(runs: Sequence[Run], found: dict[str, FeatureAnalysis]) -> list[Part]:
    """Say in numbers what Fig. 2 shows to the eye, and whose slices lie on the wrong side."""
    rows: list[list[Cell]] = []
    people: list[list[Cell]] = []
    for run in runs:
        analysis = found[run.name]
        for space in ("logits", "features"):
            each = getattr(analysis, space)
            name = f"{space}.test"
            shown = [*SPREAD, *(RATIOS if analysis.reference else ())]
            cells = [named(run), space, *attributes(each, shown, run.name, name)]
            cells += [] if analysis.reference else ["–"] * len(RATIOS)
            alike = {(one.of, one.by): one for one in analysis.intraclass}
            one = alike.get(("logit margin" if space == "logits" else space, "subject"))
            icc = one.icc if one is not None else None
            rows.append([*cells, number(icc, run.name, f"{name}.icc", "fraction")])
        for row in analysis.wrong.itertuples(index=False):
            key = f"wrong.{row.subject_id}.{row.label}"
            counts = [
                number(value, run.name, f"{key}.{what}", "count")
                for what, value in (("wrong", row.wrong), ("total", row.total))
            ]
            people.append([named(run), str(row.subject_id), str(row.label), *counts])
    ruler = Grid(
        Markup(
            "<b>Table 7.</b> Test slices in the plane of the logits and in the space of features. "
            "Scatter is mean squared distance; overlap is the area that two classes share along "
            "their discriminant, fitted on other subjects; ratios are to the frozen run of the "
            "same "
            "split. The intraclass correlation (of the margin for logits) says how alike the "
            "slices "
            "of one subject are within their class: near 1, the network tells people, not slices."
        ),
        (
            ("Run", ""),
            ("Space", ""),
            ("Fisher ratio", ""),
            ("Overlap", ""),
            ("Silhouette", ""),
            ("Effective rank", ""),
            ("Scatter within classes", ""),
            ("Dispersion / frozen", ""),
            ("Separation / frozen", ""),
            ("Intraclass correlation", ""),
        ),
        rows,
        left=2,
    )
    wrong = Grid(
        Markup("Test slices on the wrong side, by subject."),
        (("Run", ""), ("Subject", ""), ("Class", ""), ("Wrong", "slices"), ("Of", "slices")),
        people,
        left=3,
    )
    summary = f"Slices on the wrong side, by subject ({len(people)} rows)"
    return [ruler, *([Folded(summary, [wrong])] if people else [])]


def rows_parts(runs: Sequence[Run], heads: dict[str, HeadAnalysis], figures: Path) -> list[Part]:
    """Describe each row of each head, beside the untrained one."""
    rows: list[list[Cell]] = [
        [named(run), row.class_name, *attributes(row, ROW, run.name, f"row.{row.class_name}")]
        for run in runs
        for row in heads[run.name].rows[:10]
    ]
    parts: list[Part] = []
    for network, group in by_network(runs):
        shown = {run_title(run): heads[run.name] for run in group}
        alt = f"Distribution of the weights of each class, run by run; {network}."
        picture = drawn(
            plot_row_distributions(shown, network=network), stem(figures, "rows", network), alt
        )
        caption = Markup(
            "<b>Figure 3, rows.</b> {}: the weights to each class, run by run, over those before "
            "training."
        )
        parts.append(Plate(picture, caption.format(network)))
    grid = Grid(
        Markup(
            "<b>Table 8.</b> The rows of weights. Near zero: within a tenth of their root mean "
            "square (8.0% of normal weights). Participation: how many features carry the row. "
            "Distance and p by Kolmogorov–Smirnov, p by Brown–Forsythe, against the row before "
            "training; so many features make any p small: read the distance."
        ),
        (
            ("Run", ""),
            ("Class", ""),
            ("Mean", ""),
            ("SD", ""),
            ("Least", ""),
            ("Largest", ""),
            ("Skewness", ""),
            ("Kurtosis", ""),
            ("Near zero", "%"),
            ("Participation", "features"),
            ("Norm", ""),
            ("Distance", ""),
            ("p, distribution", ""),
            ("p, variance", ""),
        ),
        rows,
        left=2,
    )
    parts.append(Folded("The rows in numbers", [grid]))
    moved = [run for run in first_of(runs) if heads[run.name].initial_weight is not None]
    if moved:
        plates = [_before_after(run, heads[run.name], figures) for run in moved]
        parts.append(Folded("The heads before and after training", plates))
    return parts


def _before_after(run: Run, head: HeadAnalysis, figures: Path) -> Plate:
    title = run_title(run)
    figure = plot_head_before_after(head, title=title, network=run_network(run))
    alt = f"{title}: two rows of weights before and after training."
    caption = Markup("<b>Figure 3, before and after.</b> {}: {}.")
    kept = "each feature moves along the falling diagonal: the sum of its weights is conserved"
    if len(head.class_names) > 2:
        kept = "two rows of several; the sum of all rows is conserved, that of two is not"
    picture = drawn(figure, figures / f"before-after-{run.name}", alt)
    return Plate(picture, caption.format(title, kept))
