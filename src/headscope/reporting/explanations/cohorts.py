"""The chapter on cohorts from elsewhere, and what they add to the page's first words."""

from collections.abc import Sequence
from math import isnan
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis.explanations.external import CohortResult, CohortRow, External
from headscope.analysis.results.settings import SettingResult, choose_apart
from headscope.record.evaluation import SharedHead
from headscope.reporting.blocks import Block, Chapter, TableBlock, Text
from headscope.reporting.chapters import audit
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import CONFIDENCE, ends_of, number, say
from headscope.tables import Cell, Column, Table

MOST_PAIRS: Final = 12  # that the page shows
KINDS: Final = audit.KINDS | {"shared": "some slices are equal in every pixel"}
MEANING: Final = (
    "The networks of each setting scored every subject of a cohort that they were not trained on, "
    "sliced as their own. A drop is their own test less this one; its interval draws the subjects "
    "of both tests independently."
)
CALIBRATION: Final = (
    "Whether a subject’s probability is right there. In the large: 0 if as many subjects are of "
    "the class as predicted, below 0 if fewer are. Slope: 1 if right, below 1 if probabilities are "
    "too extreme, 0 if they tell nothing. Undefined where a threshold separates the classes."
)
SCORES: Final = {
    "accuracy": Column("Accuracy", "%", "percent"),
    "auc": Column("AUC", "", "fraction"),
    "sensitivity": Column("Sensitivity", "%", "percent"),
    "specificity": Column("Specificity", "%", "percent"),
}


def explain_by_cohorts(
    cohorts: Sequence[CohortResult],
    notes: Sequence[str],
    results: Sequence[SettingResult],
    pixels: NDArray[np.uint8] | None,
) -> Explanation:
    """Return what evaluations on other cohorts add."""
    sentences = cohort_sentences(cohorts, results)
    return Explanation(
        below=sentences,
        flags=cohort_flags(cohorts),
        sentences=sentences,
        chapter=cohorts_chapter(cohorts, notes, pixels),
        notes=notes,
    )


def cohorts_chapter(
    cohorts: Sequence[CohortResult], notes: Sequence[str], pixels: NDArray[np.uint8] | None
) -> Chapter | None:
    """Show what the settings reach on cohorts from elsewhere; None where there are none.

    notes speak of evaluations that are left out; pixels (N, H, W) are the experiment's slices.
    """
    if not (cohorts or notes):
        return None
    blocks: list[Block] = [Text(MEANING), Text(*notes, style="notes")]
    for cohort in cohorts:
        blocks += [_scores(cohort), *_calibration(cohort), *_overlap(cohort, pixels)]
        blocks.append(Text(*cohort.notes, style="notes"))
    return Chapter("cohorts", "Cohorts from elsewhere", blocks, _result(cohorts))


def cohort_flags(cohorts: Sequence[CohortResult]) -> list[Markup]:
    """Return a flag for each cohort that shares heads, or whose classes may be swapped."""
    swapped = [
        say("<b>Swapped classes?</b> {}: {}", cohort.name, doubt)
        for cohort in cohorts
        for doubt in cohort.doubts
    ]
    return swapped + [
        say(
            "<b>Not a cohort from elsewhere:</b> {} of {} {} of {} show a head that is in the "
            'experiment too. <a href="#cohorts">Which</a>',
            number(len(cohort.overlap.new_subjects), _key(cohort), "subjects_in_both", "count"),
            number(cohort.overlap.counted[0], _key(cohort), cohort.overlap.counted[1], "count"),
            *(cohort.overlap.counted[1], cohort.name),
        )
        for cohort in cohorts
        if cohort.overlap.heads
    ]


def cohort_sentences(
    cohorts: Sequence[CohortResult], results: Sequence[SettingResult]
) -> list[Markup]:
    """Say what the setting that validation chooses reaches on each cohort."""
    apart = [result for result in results if result.apart] or list(results)
    best = choose_apart(apart)[0]
    return [
        _sentence(cohort, row)
        for cohort in cohorts
        for row in cohort.rows
        if (row.inside.architecture, row.inside.name, row.inside.split)
        == (best.architecture, best.name, best.split)
    ]


def _sentence(cohort: CohortResult, row: CohortRow) -> Markup:
    level = "subject" if row.subjects else "slice"
    score, key = row.scores[f"{level}_accuracy"], f"{_key(cohort)}/{row.key}"
    count = row.subjects or row.slices
    again = len(cohort.overlap.new_subjects) == cohort.overlap.counted[0]
    return say(
        "On {} {}s of {}, {}, {} ({}) predicts {}%{} correctly, {}{}.",
        number(count, key, f"{level}s", "count"),
        level,
        cohort.name,
        "whose heads are all in the experiment too" if again else "a cohort from elsewhere",
        row.inside.architecture,
        row.inside.name,
        number(score.value, key, f"{level}_accuracy", "percent"),
        _ends(score.low, score.high, key, f"{level}_accuracy", "percent"),
        _drop(score, key, f"{level}_accuracy"),
        _larger(row, key),
    )


def _larger(row: CohortRow, key: str) -> Markup:
    if not row.prevalence:
        return Markup()
    largest, (_, share) = max(row.prevalence.items(), key=lambda item: item[1][1])
    value = number(share, key, f"prevalence_{largest}", "percent")
    return say("; predicting {} for all gives {}%", largest, value)


def _drop(score: External, key: str, quantity: str) -> Markup:
    """Say how far a score is from that of the own test, and whether that is more than chance."""
    if isnan(score.drop):
        return Markup("where its own test names no subjects")
    place = key, f"{quantity}_drop", "points"
    # of the drop: above its own test that is below zero
    ends = _ends(100 * score.drop_low, 100 * score.drop_high, *place, of=" of the drop")
    if not score.drop:
        return say("as in its own test{}", ends)
    way, points = "below" if score.drop > 0 else "above", number(100 * abs(score.drop), *place)
    clear = "" if score.drop_low > 0 or score.drop_high < 0 else ", not told from none"
    if isnan(score.drop_low):
        clear = " (no interval can be given)"
    return say("{} points {} its own test{}{}", points, way, ends, clear)


def _ends(low: float, high: float, key: str, quantity: str, form: str, of: str = "") -> Markup:
    if isnan(low) or isnan(high):
        return Markup()
    ends = ends_of((low, high), key, quantity, form)
    return say(" ({} interval{} {} to {})", CONFIDENCE, of, *ends)


def _key(cohort: CohortResult) -> str:
    return f"evaluations/{cohort.name}"


def _result(cohorts: Sequence[CohortResult]) -> str:
    parts = []
    for cohort in cohorts:
        (count, unit), heads = cohort.overlap.counted, len(cohort.overlap.new_subjects)
        shared = f", {heads} with heads of the experiment" if heads else ""
        parts.append(f"{cohort.name}: {count} {unit}{shared}")
    return "; ".join(parts) or "none that is whole"


def _scores(cohort: CohortResult) -> TableBlock:
    first = cohort.rows[0]
    level = "subject" if first.subjects else "slice"
    names = {name: SCORES[name] for name in SCORES if f"{level}_{name}" in first.scores}
    rows = [_named(row) + _score_cells(cohort, row, level, [*names]) for row in cohort.rows]
    columns, over = [Column("Setting"), Column("Runs", "", "count")], ["", ""]
    for column in names.values():
        points = "points" if column.unit else ""
        columns += [
            Column("there", column.unit, column.format),
            Column("own test", column.unit, column.format),
            Column("drop", points, "points" if points else column.format),
        ]
        over += [column.name] * 3
    caption = (
        f"{cohort.name}: scores over {first.subjects or first.slices} {level}s "
        f"with {CONFIDENCE} intervals over subjects, beside those of the own test. Of several runs "
        "the mean."
    )
    return TableBlock("cohorts", Table(caption, columns, rows), over)


def _named(row: CohortRow) -> list[object]:
    inside = row.inside
    return [
        Cell(f"{inside.name}, {inside.split} split", detail=inside.architecture),
        len(inside.runs),
    ]


def _score_cells(
    cohort: CohortResult, row: CohortRow, level: str, names: Sequence[str]
) -> list[object]:
    cells: list[object] = []
    place = f"{_key(cohort)}/{row.key}"
    for name in names:
        quantity, scale = f"{level}_{name}", 100 if SCORES[name].unit else 1
        score = row.scores[quantity]
        drop = scale * score.drop, scale * score.drop_low, scale * score.drop_high
        cells += [
            Cell(score.value, score.low, score.high, run=place, quantity=quantity),
            Cell(score.inside, run=place, quantity=f"{quantity}_inside"),
            Cell(*drop, run=place, quantity=f"{quantity}_drop"),
        ]
    return cells


def _calibration(cohort: CohortResult) -> list[Block]:
    rows: list[list[object]] = []
    for row in cohort.rows:
        for part in row.calibration:
            place = f"{_key(cohort)}/{row.key}/{part.class_name}"
            here, there = row.prevalence[part.class_name]
            cells = [
                Cell(part.large, part.large_low, part.large_high, run=place, quantity="large"),
                Cell(part.slope, part.slope_low, part.slope_high, run=place, quantity="slope"),
                Cell(part.expected, run=place, quantity="expected"),
                Cell(there, run=place, quantity="observed"),
                Cell(here, run=place, quantity="inside"),
            ]
            rows.append([*_named(row), part.class_name, *cells])
    if not rows:
        return []
    columns = (
        *(Column("Setting"), Column("Runs", "", "count"), Column("Class")),
        *(Column("In the large", "log-odds", "fraction"), Column("Slope", "", "fraction")),
        *(Column(name, "%", "percent") for name in ("predicted", "there", "own test")),
    )
    over = [""] * 5 + ["Subjects of the class"] * 3
    caption = f"{cohort.name}: calibration over subjects, and how common the class is."
    return [
        TableBlock("cohort-calibration", Table(caption, columns, rows), over),
        Text(CALIBRATION),
    ]


def _overlap(cohort: CohortResult, pixels: NDArray[np.uint8] | None) -> list[Block]:
    """Show the pairs of scans that show one head, with their slices where they are there."""
    heads = cohort.overlap.heads
    if not heads:
        return []
    path = cohort.path / "slices" / "slices.npy"
    there = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
    pictures = not cohort.overlap.subjects
    rows = [
        [
            *(audit.scan_of(pair, n, _slice(pair, n, of)) for n, of in enumerate((pixels, there))),
            audit.ALIKE_PICTURES if pictures and pair.kind == "alike" else KINDS[pair.kind],
            Cell(pair.detail, run=f"{_key(cohort)}/head{rank}", quantity="detail"),
        ]
        for rank, pair in enumerate(heads[:MOST_PAIRS])
    ]
    more = f", of which {MOST_PAIRS} are shown" if len(heads) > MOST_PAIRS else ""
    gone = "" if pixels is not None else " The experiment’s slices are no longer there."
    what = "pictures" if pictures else "scans"
    caption = f"{cohort.name}: {len(heads)} pairs of {what} that show one head{more}.{gone}"
    columns = ("Experiment", "Elsewhere", "What it is", Column("Detail", "", "fraction"))
    return [TableBlock("cohort-heads", Table(caption, columns, rows))]


def _slice(pair: SharedHead, n: int, pixels: audit.Slices | None) -> audit.Slices | None:
    return None if pixels is None or pair.rows[n] >= len(pixels) else pixels[pair.rows[n]]
