"""The chapter on logits: where each network puts its test slices, drawn and in numbers."""

from collections.abc import Mapping, Sequence
from typing import Final

from headscope.analysis.parallel import at_once
from headscope.analysis.representation.features import FeatureAnalysis, analyse_features
from headscope.analysis.representation.separation import MOST_CLASSES
from headscope.record import Run
from headscope.reporting.blocks import Block, Chapter, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import named, scan_notes, spread, twin
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
MOST_WRONG: Final = 1000  # rows of all runs together, of subjects with misclassified slices
LEAST_WRONG: Final = 50  # of a run, however many runs there are
WRONG: Final = (
    *("Run", "Subject", "Class"),
    Column("Misclassified", "slices", "count"),
    Column("Of", "slices", "count"),
)


def logits_chapter(runs: Sequence[Run]) -> Chapter:
    """Say in numbers how apart the classes are in the logits and in the features."""
    features = _features(runs)
    meaning = (
        "How far the classes are apart where the final layer puts the test slices, and in the "
        "features that it reads. Slices of one subject make up small clouds of their own, which "
        "the intraclass correlation measures."
    )
    overlaps = [analysis.logits.overlap for analysis in features.values()]
    result = f"classes overlap by {spread(overlaps, 'fraction')} of their area"
    blocks: list[Block] = [Text(meaning, *scan_notes(runs)), *_separation(runs, features)]
    return Chapter("logits", "Logits and features in numbers", blocks, result)


def _features(runs: Sequence[Run]) -> dict[str, FeatureAnalysis]:
    results: dict[str, FeatureAnalysis] = {}
    beside = {run.name: frozen for run in runs if (frozen := twin(run, runs)) not in (None, run)}

    def analysed(run: Run) -> FeatureAnalysis:
        return analyse_features(run, reference=beside.get(run.name))

    for later in (False, True):  # references first
        some = [run for run in runs if (run.name in beside) == later]
        results |= zip([run.name for run in some], at_once(analysed, some), strict=True)
    return results


def _separation(runs: Sequence[Run], features: Mapping[str, FeatureAnalysis]) -> list[Block]:
    """Say in numbers how apart the classes are, and of which subjects slices are misclassified."""
    rows: list[list[object]] = []
    wrong: list[list[object]] = []
    most, subjects = max(LEAST_WRONG, MOST_WRONG // len(runs)), 0
    for run in runs:
        analysis = features[run.name]
        icc = {(part.of, part.by): part.icc for part in analysis.intraclass}
        for space, of in (("logits", "logit margin"), ("features", "features")):
            result, prefix = getattr(analysis, space), f"{space}.test"
            measures = SPREAD | RATIOS if analysis.reference else SPREAD
            cells: list[object] = [*cells_of(result, measures, run.name, prefix)]
            cells += [MISSING] * (len(SPREAD | RATIOS) - len(measures))
            alike = Cell(icc.get((of, "subject")), run=run.name, quantity=f"{prefix}.icc")
            rows.append([named(run), space, *cells, alike])
        subjects += len(analysis.wrong)
        for row in analysis.wrong.head(most).to_dict("records"):
            key = f"wrong.{row['subject_id']}.{row['label']}"
            counts = cells_of(row, ("wrong", "total"), run.name, key)
            wrong.append([named(run), str(row["subject_id"]), str(row["label"]), *counts])
    caption = (
        "Test slices in the space of the logits and in that of the features. Scatter is mean "
        "squared distance; overlap is the area that two classes share along their discriminant, "
        f"fitted on other subjects{_over_pairs(runs)}; ratios, of roots of scatter, are to the "
        "frozen run of the same split. The intraclass correlation (of the margin for logits) says "
        "how alike the slices of one subject are within their class: near 1, the network "
        "distinguishes subjects, not slices."
    )
    alike_column = Column("Intraclass correlation", "", "fraction")
    columns = *map(Column, ("Run", "Space")), *(SPREAD | RATIOS).values(), alike_column
    blocks: list[Block] = [TableBlock("separation", Table(caption, columns, rows))]
    if wrong:
        caption, of = "Misclassified test slices, by subject.", ""
        if subjects > len(wrong):
            of = f" of {subjects:,}"
            caption += (
                f" Of each run the {most} subjects with the largest share of them; "
                "predictions.tsv of a run has all."
            )
        table = Table(caption, WRONG, wrong)
        title = f"Misclassified slices, by subject ({len(wrong)}{of} rows)"
        blocks.append(Fold(title, [TableBlock("wrong", table)]))
    return blocks


def _over_pairs(runs: Sequence[Run]) -> str:
    """Say how one overlap stands for the pairs of several classes."""
    K = max(len(run.class_names) for run in runs)
    limit = f" (of at most {MOST_CLASSES} classes)" if K > MOST_CLASSES else ""
    return f", the mean over all pairs{limit}" if K > 2 else ""
