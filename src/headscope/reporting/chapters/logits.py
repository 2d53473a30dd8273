"""The chapter on logits: where each network puts its test slices, drawn and in numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from headscope.analysis import HeadAnalysis, LogitScatter, logit_scatter
from headscope.analysis.representation.features import FeatureAnalysis, analyse_features
from headscope.analysis.representation.separation import MOST_CLASSES
from headscope.record import Run
from headscope.reporting.blocks import (
    Block,
    Box,
    Chapter,
    FigureBlock,
    Fold,
    TableBlock,
    Text,
    cells_of,
    letter_of,
)
from headscope.reporting.chapters.runs import group_by, named, twin
from headscope.reporting.numbers import number, say
from headscope.reporting.pictures import logits_picture, pair_suffix
from headscope.tables import Cell, Column, Table
from headscope.text import MISSING

SPREAD: Final = {
    "fisher_ratio": Column("Fisher ratio", "", "significant"),
    "overlap": Column("Overlap", "", "fraction"),
    "silhouette": Column("Silhouette", "", "fraction"),
    "effective_rank": Column("Effective rank", "", "significant"),
    "within": Column("Scatter within classes", "", "significant"),
}
RATIOS: Final = {
    "dispersion_ratio": Column("Dispersion / frozen", "", "significant"),
    "separation_ratio": Column("Separation / frozen", "", "significant"),
}
WRONG: Final = (
    *("Run", "Subject", "Class"),
    Column("Misclassified", "slices", "count"),
    Column("Of", "slices", "count"),
)


def logits_chapter(
    runs: Sequence[Run], heads: Mapping[str, HeadAnalysis], figures: Path
) -> Chapter:
    """Draw the logits of each network and pair of classes, and say how apart the classes are."""
    features = _features(runs)
    several = "What lies on the wrong side of the dashed line is misclassified"
    two = ""
    if len(runs[0].class_names) > 2:
        two = ", for two of the classes"
        several += (
            "; what lies on the right side may be too, where a third class has a larger logit"
        )
    meaning = (
        "Each dot is one test slice, placed by the two numbers that the final layer gives "
        f"it{two}. {several}. The panels of a figure share their axes, so that clouds can be "
        "compared in size. Slices of one subject make up small clouds of their own: count subjects "
        "before being impressed by dots."
    )
    drawn: list[Block] = []
    for network, group in group_by(runs, lambda run: run.setting.network):
        pairs = [pair.pair for pair in heads[group[0].name].pairs]
        first, *others = [_figure(network, group, pair, features, figures) for pair in pairs]
        drawn.append(first)
        if others:
            drawn.append(Fold(f"The other {len(others)} pairs of classes, {network}", others))
    blocks: list[Block] = [Text(meaning), Box("scatters", drawn), *_separation(runs, features)]
    return Chapter("logits", "Logits of the slices", blocks)


def _features(runs: Sequence[Run]) -> dict[str, FeatureAnalysis]:
    """Analyse the test logits and features of each run, beside its frozen twin's."""
    results: dict[str, FeatureAnalysis] = {}
    for run in sorted(runs, key=lambda run: run.setting.regime != "frozen"):
        frozen = twin(run, runs)
        reference = results.get(frozen.name) if frozen and frozen.name != run.name else None
        results[run.name] = analyse_features(run, reference=reference)
    return results


def _figure(
    network: str,
    runs: Sequence[Run],
    pair: tuple[int, int],
    features: Mapping[str, FeatureAnalysis],
    figures: Path,
) -> FigureBlock:
    """Draw Fig. 2 of one network and pair of classes: a panel per run, on the same axes."""
    panels = [logit_scatter(run, pair) for run in runs]
    K = panels[0].class_count
    stem = network.replace(", seed ", "-seed").replace("/", "-")
    picture = logits_picture(
        panels,
        figures / f"fig2-logits-{stem}{pair_suffix(pair, K)}",
        [features[run.name].ellipses if K == 2 else None for run in runs],
    )
    marks = [f"({letter_of(k)}) " if len(runs) > 1 else "" for k in range(len(runs))]
    accuracies = Markup("; ").join(map(_accuracy, runs, panels, marks))
    several = ""
    if K > 2:
        first, second = panels[0].class_names
        several = (
            f" Of the {K} classes, {first} and {second} are shown; a slice is correct if its class "
            "has the largest of all logits."
        )
    caption = Markup("Logits of the test slices, {}. {}.{} Errors are hollow.")
    width = "wide" if len(runs) > 1 else "one"
    return FigureBlock("logits", picture, caption.format(network, accuracies, several), width)


def _accuracy(run: Run, panel: LogitScatter, mark: str) -> Markup:
    accuracy = number(
        panel.slice_accuracy, run.name, "logits.slice_accuracy", "percent", panel.pair
    )
    slices = number(len(panel.logits), run.name, "logits.slices", "count", panel.pair)
    return say("{}{}: {}% of {} slices correct", mark, panel.title, accuracy, slices)


def _separation(runs: Sequence[Run], features: Mapping[str, FeatureAnalysis]) -> list[Block]:
    """Say in numbers how apart the classes are, and of which subjects slices are misclassified."""
    rows: list[list[object]] = []
    wrong: list[list[object]] = []
    for run in runs:
        analysis = features[run.name]
        icc = {(one.of, one.by): one.icc for one in analysis.intraclass}
        for space, of in (("logits", "logit margin"), ("features", "features")):
            result, prefix = getattr(analysis, space), f"{space}.test"
            ratios: list[object] = [MISSING] * len(RATIOS)
            if analysis.reference:
                ratios = [*cells_of(result, RATIOS, run.name, prefix)]
            alike = Cell(icc.get((of, "subject")), run=run.name, quantity=f"{prefix}.icc")
            spread = cells_of(result, SPREAD, run.name, prefix)
            rows.append([named(run), space, *spread, *ratios, alike])
        for row in analysis.wrong.to_dict("records"):
            key = f"wrong.{row['subject_id']}.{row['label']}"
            counts = cells_of(row, ("wrong", "total"), run.name, key)
            wrong.append([named(run), str(row["subject_id"]), str(row["label"]), *counts])
    caption = (
        "Test slices in the space of the logits and in that of the features. Scatter is mean "
        "squared distance; overlap is the area that two classes share along their discriminant, "
        f"fitted on other subjects{_over_pairs(runs)}; ratios are to the frozen run of the same "
        "split. The intraclass correlation (of the margin for logits) says how alike the slices of "
        "one subject are within their class: near 1, the network distinguishes subjects, not "
        "slices."
    )
    columns = [
        *(Column("Run"), Column("Space"), *SPREAD.values(), *RATIOS.values()),
        Column("Intraclass correlation", "", "fraction"),
    ]
    blocks: list[Block] = [TableBlock("separation", Table(caption, columns, rows))]
    if wrong:
        caption = "Misclassified test slices, by subject."
        table = Table(caption, WRONG, wrong)
        title = f"Misclassified slices, by subject ({len(wrong)} rows)"
        blocks.append(Fold(title, [TableBlock("wrong", table)]))
    return blocks


def _over_pairs(runs: Sequence[Run]) -> str:
    """Say how one overlap stands for the pairs of several classes."""
    K = max(len(run.class_names) for run in runs)
    if K == 2:
        return ""
    limit = f" (of at most {MOST_CLASSES} classes)"
    return ", the mean over all pairs" + (limit if K > MOST_CLASSES else "")
