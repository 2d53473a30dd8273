"""The rows of the head: their spread, the features that carry them, their likeness over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from headscope.analysis import logit_contributions, seed_correlation
from headscope.analysis.final_layer.layer import MOST_ROWS, HeadAnalysis
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
)
from headscope.reporting.pictures import drawn

MOST_OPEN: Final = 4  # classes above which the figure of all rows, run by run, opens on demand
MOST_CARRIERS: Final = 3  # features shown of each class
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
CARRIER: Final = (
    ("contribution", "significant"),
    ("weight", "significant"),
    ("mean_feature", "significant"),
)


def rows_parts(runs: Sequence[Run], heads: dict[str, HeadAnalysis], figures: Path) -> list[Part]:
    """Describe each row of each head, beside the untrained one."""
    rows: list[list[Cell]] = [
        [named(run), row.class_name, *attributes(row, ROW, run.name, f"row.{row.class_name}")]
        for run in runs
        for row in heads[run.name].rows[:MOST_ROWS]
    ]
    plates: list[Plate] = []
    for network, group in by_network(runs):
        shown = {run.setting.title: heads[run.name] for run in group}
        alt = f"Distribution of the weights of each class, run by run; {network}."
        picture = drawn(
            plot_row_distributions(shown, network=network), stem(figures, "rows", network), alt
        )
        caption = Markup(
            "<b>Figure 3, rows.</b> {}: the weights to each class, run by run, over those before "
            "training."
        )
        plates.append(Plate(picture, caption.format(network)))
    parts: list[Part] = [*plates]
    if max(len(run.class_names) for run in runs) > MOST_OPEN:
        parts = [Folded("The distribution of each row", plates)]
    grid = Grid(
        Markup(
            "<b>Table 8.</b> The rows of weights. Near zero: within a tenth of their root mean "
            "square (8.0% of normal weights). Participation: how many features carry the row. "
            "Distance and p by Kolmogorov–Smirnov, p by Brown–Forsythe, against the row before "
            "training; so many features make any p small: read the distance.{}"
        ).format(_rest(runs)),
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
    parts += _carriers(first_of(runs))
    parts += _between_seeds(runs)
    moved = [run for run in first_of(runs) if heads[run.name].initial_weight is not None]
    if moved:
        before = [_before_after(run, heads[run.name], figures) for run in moved]
        parts.append(Folded("The heads before and after training", before))
    return parts


def _rest(runs: Sequence[Run]) -> str:
    """Say how many rows are shown, where there are more."""
    K = max(len(run.class_names) for run in runs)
    return f" The first {MOST_ROWS} of {K} rows are shown." if K > MOST_ROWS else ""


def _before_after(run: Run, head: HeadAnalysis, figures: Path) -> Plate:
    title = run.setting.title
    figure = plot_head_before_after(head, title=title, network=run.setting.network)
    alt = f"{title}: two rows of weights before and after training."
    caption = Markup("<b>Figure 3, before and after.</b> {}: {}.")
    kept = "each feature moves along the falling diagonal: the sum of its weights is conserved"
    if len(head.class_names) > 2:
        kept = "two rows of several; the sum of all rows is conserved, that of two is not"
    picture = drawn(figure, figures / f"before-after-{run.name}", alt)
    return Plate(picture, caption.format(title, kept))


def _carriers(runs: Sequence[Run]) -> list[Part]:
    """List the features that add most to the logit of each class, over its test slices."""
    rows: list[list[Cell]] = []
    for run in runs:
        stored = run.features
        test = stored["subset"] == "test"
        found = logit_contributions(
            run.head["weight"],
            stored["features"][test],
            stored["label"][test],
            class_names=run.class_names,
            most=MOST_CARRIERS,
        )
        for each in found[: MOST_ROWS * MOST_CARRIERS]:
            key = f"carrier.{each.class_name}.{each.feature}"
            shown = attributes(each, CARRIER, run.name, key)
            rows.append([named(run), each.class_name, str(each.feature), *shown])
    if not rows:
        return []
    caption = Markup(
        "The features that carry each class: those whose weight times mean over the test slices "
        "of the class is largest. Over all features these add up, with the bias, to the mean "
        "logit. A feature that is large in every slice adds as much to both logits of a pair and "
        "decides nothing; and an index is no anatomy."
    )
    columns = (
        ("Run", ""),
        ("Class", ""),
        ("Feature", "index"),
        ("Adds to the logit", ""),
        ("Weight", ""),
        ("Mean of the feature", ""),
    )
    return [Folded("The features that carry each class", [Grid(caption, columns, rows, left=2)])]


def _between_seeds(runs: Sequence[Run]) -> list[Part]:
    """Correlate each row between the seeds of a frozen setting; nothing without several seeds.

    Feature j is the same in every run on one frozen backbone, and on no other.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        known = run.settings
        weights = known.get("weights_sha256")  # a backbone drawn at random is another each seed
        if known["regime"] == "frozen" and weights:
            group = (str(known["architecture"]), run.setting.title, str(weights))
            groups.setdefault(group, []).append(run)
    rows: list[list[Cell]] = []
    for (architecture, title, _), alike in groups.items():
        if len(alike) < 2:
            continue
        found = seed_correlation([run.head["weight"] for run in alike], alike[0].class_names)
        key = f"{architecture}/{title}"
        setting = Markup("{} <small>{}</small>").format(title, architecture)
        means = zip(found.class_names, found.mean_rows, found.mean_learned, strict=True)
        for name, whole, learned in list(means)[:MOST_ROWS]:
            shown = (("seeds", len(alike), "count"), ("row", whole, "correlation"),
                     ("learned", learned, "correlation"))  # fmt: skip
            cells = [number(v, key, f"between_seeds.{name}.{what}", how) for what, v, how in shown]
            rows.append([setting, name, *cells])
    if not rows:
        return []
    caption = Markup(
        "Correlation of a class's row between seeds, mean over pairs of them, on one frozen "
        "backbone: of the row as it is, and of its distance from the mean row, which holds what "
        "was learned. 0 is that of unrelated heads. Each row keeps what its own start left, "
        "and training slices that seeds share raise both."
    )
    columns = (
        ("Setting", ""),
        ("Class", ""),
        ("Seeds", ""),
        ("Row", ""),
        ("Learned part", ""),
    )
    return [Folded("The rows between seeds", [Grid(caption, columns, rows, left=2)])]
