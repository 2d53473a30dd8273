"""Chapters on leakage: every check of every setting, then each check with its evidence."""

from collections.abc import Iterable, Sequence
from itertools import product
from math import isnan, nan
from operator import attrgetter
from typing import Any, Final

import numpy as np

from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.dose_response import DoseResponse
from headscope.analysis.leakage.permutation import PermutationTest
from headscope.analysis.leakage.reidentification import Probe, Reidentification
from headscope.analysis.leakage.split_gap import Gap, GapScore
from headscope.analysis.results.settings import SettingResult
from headscope.audit_record import Audit
from headscope.reporting.blocks import Block, Box, Chapter, Fold, TableBlock, Text
from headscope.reporting.chapters.audit import findings_table
from headscope.reporting.chapters.runs import group_by, mark
from headscope.reporting.numbers import CONFIDENCE, number
from headscope.reporting.plots import DotRow, Dots, Line, LinePlot, Mark
from headscope.tables import Cell, Column, Table
from headscope.text import MISSING, signed_points

GAPS: Final = {
    "slice_accuracy": "Slice accuracy",
    "subject_accuracy": "Subject accuracy",
    "slice_balanced_accuracy": "Balanced accuracy over slices",
    "subject_balanced_accuracy": "Balanced accuracy over subjects",
    "slice_auc": "AUC over slices",
    "subject_auc": "AUC over subjects",
}
GAP: Final = (
    *("Network", "Score"),
    Column("Seeds", "", "count"),
    Column("Split by subject", "%", "points"),
    Column("Split by slice", "%", "points"),
    Column("Gap", "points", "points"),
)
DOSE: Final = (
    "Dose–response of leakage. Of a growing share of the test subjects one half of the slices goes "
    "into training, which stays as large as it was; the other half is judged."
)
PROBES: Final = {
    "nearest_subject": Column("Subject, nearest neighbour", "%", "percent"),
    "linear_subject": Column("Subject, linear", "%", "percent"),
    "nearest_class": Column("Class, nearest neighbour", "%", "percent"),
    "linear_class": Column("Class, linear", "%", "percent"),
}


def leakage_chapter(leakage: Leakage) -> Chapter:
    """Say what the split is worth."""
    meaning = (
        "The paper splits slices, so neighbours of one scan are in training and in test. Here is "
        "what that is worth. Labels permuted by subject are the sharpest test: nothing about the "
        "classes can be learned from them, so what stays above chance was learned of the subjects."
    )
    caption = "What was asked of the runs, and the outcome."
    findings = findings_table("leakage", caption, leakage.findings)
    blocks: list[Block] = [Text(meaning), findings]
    if leakage.gaps:
        blocks.append(_gaps(leakage.gaps))
    if leakage.permuted:
        blocks.append(_permutations(leakage.permuted))
    if leakage.reidentification:
        blocks.append(_identity(leakage.reidentification))
    if leakage.dose_responses:
        doses = Box("curves", [_dose(dose) for dose in leakage.dose_responses])
        blocks += [doses, Text(DOSE, style="notes")]
    if leakage.gaps:
        blocks.append(Fold("The gap in numbers", [_gap_table(leakage.gaps)]))
    if leakage.reidentification:
        blocks.append(Fold("The probes in numbers", [_identity_table(leakage.reidentification)]))
    blocks.append(Text(*leakage.notes))
    serious = sum(finding.level == "serious" for finding in leakage.findings)
    result = f"{serious} of {len(leakage.findings)} checks serious"
    return Chapter("leakage", "Leakage, check by check", blocks, result)


def _gaps(gaps: Sequence[Gap]) -> Dots:
    rows = []
    for gap in gaps:
        marks = [
            mark([float(np.mean(values))], k, hollow=level == "subject")
            for level in ("slice", "subject")
            for score in [gap.scores[f"{level}_accuracy"]]
            for k, values in enumerate((score.by_subject, score.by_slice))
        ]
        rows.append(DotRow(gap.architecture, gap.variant, marks))
    caption = (
        "The same networks under both splits: accuracy of slices (filled) and of subjects (hollow)."
    )
    return Dots(rows, caption, kinds=("subjects apart", "slices mixed"), key="gap")


def _gap_table(gaps: Sequence[Gap]) -> TableBlock:
    rows: list[list[object]] = []
    for gap, key in product(gaps, GAPS):
        if key in gap.scores:
            run, score = f"{gap.architecture}-{gap.variant}", gap.scores[key]
            means = [
                Cell(100 * sum(values) / len(values), run=run, quantity=f"{side}.{key}")
                for side in ("by_subject", "by_slice")
                for values in [getattr(score, side)]
            ]
            seeds = Cell(len(gap.seeds), run=run, quantity="gap.seeds")
            cell = _points(score, run, f"gap.{key}")
            rows.append([f"{gap.architecture}, {gap.variant}", GAPS[key], seeds, *means, cell])
    caption = (
        f"The leakage gap, slice less subject split, in per cent (AUC times 100), with a "
        f"{CONFIDENCE} interval over subjects; subjects of both tests are drawn as one. With one "
        "seed the interval speaks of these networks alone; with several, the variance between "
        "seeds is in it. Networks that predict one class for all test slices have no gap."
    )
    return TableBlock("gap", Table(caption, GAP, rows))


def _points(score: GapScore, run: str, quantity: str) -> Cell:
    ends = 100 * score.gap, 100 * score.low, 100 * score.high
    return Cell(*ends, run=run, quantity=quantity)


def _permutations(tests: Sequence[PermutationTest]) -> Dots:
    """Set what was observed beside the permutations, run by run."""
    rows = []
    for test in tests:
        score, kind = test.scores["slice_balanced_accuracy"], int(test.split == "slice")
        value, low, high = (100 * end for end in (score.mean, score.low, score.high))
        marks = [Mark(value, low, high, kind, hollow=True), mark([score.observed], kind)]
        below = f"{test.variant}, {test.split} split, seed {test.seed}"
        rows.append(DotRow(test.architecture, below, marks, 100 / test.classes))
    draws = " or ".join(dict.fromkeys(f"{test.draws} draws, {test.source}" for test in tests))
    caption = (
        "Balanced slice accuracy of the test as observed (filled), and with labels permuted by "
        f"subject (hollow: mean, with the middle {CONFIDENCE} of {draws}). Dashed is chance, where "
        "a leak-free split has its permutations."
    )
    return Dots(rows, caption, kinds=("subjects apart", "slices mixed"), key="permutations")


def _identity(results: Sequence[Reidentification]) -> Dots:
    rows = []
    for (network, variant), group in group_by(results, attrgetter("architecture", "variant")):
        marks = [
            mark([getattr(result, name).accuracy for result in group], k // 2, hollow=k % 2 == 1)
            for k, name in enumerate(PROBES)
        ]
        chance = float(np.mean([result.nearest_class.chance for result in group]))
        rows.append(DotRow(network, variant, marks, 100 * chance))
    caption = (
        "Do the features tell subjects apart, or diagnoses? Test slices identified by their "
        "nearest neighbour (filled) and by a linear probe (hollow), bars over runs; dashed is "
        "chance of a class."
    )
    return Dots(rows, caption, kinds=("subject", "class"), key="identity")


def _identity_table(results: Sequence[Reidentification]) -> TableBlock:
    rows: list[list[object]] = []
    for result in results:
        subjects = Cell(result.subjects, run=result.run, quantity="identity.subjects")
        probes = [_probe(getattr(result, name), result.run, name) for name in PROBES]
        rows.append([result.run, result.over, subjects, *probes])
    caption = (
        "Accuracy of probes on the features of test slices, chance below. A subject is to be "
        "re-identified from other sessions, or from other slices; a class is to be predicted from "
        "other subjects."
    )
    first = Column("Run"), Column("Re-identified over"), Column("Subjects", "", "count")
    return TableBlock("identity", Table(caption, [*first, *PROBES.values()], rows))


def _probe(probe: Probe, run: str, name: str) -> Cell:
    chance = "chance " + number(probe.chance, run, f"{name}.chance", "percent")
    return Cell(probe.accuracy, detail=chance, run=run, quantity=f"{name}.accuracy")


def _dose(dose: DoseResponse) -> LinePlot:
    """Draw accuracy by the share of subjects let in; dashed is that of slices mixed."""
    spread = zip(dose.shares, dose.means, dose.spreads, strict=True)
    points = [(x, y, max(0.0, y - sd), min(1.0, y + sd)) for x, y, sd in spread]
    line = Line(f"mean of {len(dose.accuracies[0])} draws ± standard deviation", points)
    mixed = None if isnan(dose.paper) else ((0.0, dose.paper), (1.0, dose.paper))
    rise = signed_points(100 * (dose.means[-1] - dose.means[0]))
    return LinePlot(
        f"{dose.architecture}, {dose.variant}",
        "test subjects with slices in training",
        "test slice accuracy",
        [line],
        mixed,
        below=f"{rise} points{'; dashed: slices mixed' if mixed else ''}",
    )


CHECKED: Final = (
    *("Regime", "Split"),
    Column("Test subjects also in training", "", "count"),
    Column("Test units with a duplicate in training", "", "count"),
    Column("Nearest training slice is of the same subject", "%", "percent"),
    Column("Permuted labels: balanced accuracy", "%", "percent"),
    Column("Subject re-identified", "%", "percent"),
    Column("Leakage gap", "points", "points"),
)


def checks_chapter(
    results: Sequence[SettingResult], leakage: Leakage, audit: Audit | None
) -> Chapter:
    """Set every setting beside every check that was made of it."""
    measured = {
        "neighbour": _means((check, check.share) for check in leakage.neighbours),
        "permuted": _means(
            (check, check.scores["slice_balanced_accuracy"].mean) for check in leakage.permuted
        ),
        "identified": _means(
            (check, check.nearest_subject.accuracy) for check in leakage.reidentification
        ),
    }
    rows: list[list[object]] = []
    tinted: list[int] = []
    headings: dict[int, str] = {}
    for network, group in group_by(results, lambda result: result.architecture):
        headings[len(rows)] = network
        for result in group:
            if result.shared_subjects:
                tinted.append(len(rows))
            place = result.architecture, result.name, result.split
            shared = nan if result.nameless else result.shared_subjects
            values = {
                "shared": shared,
                "duplicated": _duplicates(result, audit),
                **{name: shares.get(place, nan) for name, shares in measured.items()},
            }
            cells = [
                MISSING if isnan(value) else Cell(value, run=result.key, quantity=f"checks.{name}")
                for name, value in values.items()
            ]
            rows.append([result.name, result.split, *cells, _gap_cell(result, leakage)])
    caption = (
        "What the split is worth: one row per setting, means over its runs; the two counts are "
        "those of the run with most. With subjects apart "
        "no nearest slice is of the same subject, and labels permuted by subject lead to chance; "
        "rows on a tinted ground share subjects between training and test. The gap is slice "
        "accuracy by slice less by subject."
    )
    table = TableBlock("checks", Table(caption, CHECKED, rows), (), tinted, headings)
    return Chapter("checks", "What the split is worth", [table], short="Leakage")


def _means(values: Iterable[tuple[Any, float]]) -> dict[tuple[str, str, str], float]:
    groups = group_by(values, lambda pair: (pair[0].architecture, pair[0].variant, pair[0].split))
    return {place: float(np.mean([value for _, value in pairs])) for place, pairs in groups}


def _duplicates(result: SettingResult, audit: Audit | None) -> float:
    """Count the tested units with a duplicate in training, in the worst split of the setting."""
    checks = [audit.split(run.settings.get("split_sha256")) for run in result.runs if audit]
    return max((check.duplicated for check in checks if check is not None), default=nan)


def _gap_cell(result: SettingResult, leakage: Leakage) -> Cell | str:
    """Return the gap beside the split that keeps subjects apart; none beside a constant."""
    for gap in leakage.gaps:
        if (gap.architecture, gap.variant) == (result.architecture, result.name) and result.apart:
            if not gap.measurable:
                return "one class predicted"
            return _points(gap.scores["slice_accuracy"], result.key, "checks.gap")
    return MISSING
