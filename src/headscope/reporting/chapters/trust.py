"""What the accuracy is worth: further figures, comparisons, and the chapter on leakage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from markupsafe import Markup

from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.permutation import PermutationTest
from headscope.analysis.leakage.reidentification import Probe, Reidentification
from headscope.analysis.leakage.split_gap import Gap
from headscope.analysis.results.comparisons import Comparisons, Difference
from headscope.analysis.results.settings import SettingResult
from headscope.figures.leakage import plot_dose, plot_gap, plot_identity, plot_permutations
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import (
    Cell,
    Chapter,
    Folded,
    Grid,
    Part,
    Plate,
    Words,
    bounded,
    named,
)
from headscope.reporting.pictures import drawn
from headscope.text import MISSING

LEVELS: Final = ("subject", "slice")
SHARES: Final = ("balanced_accuracy", "sensitivity", "specificity")
SCORES: Final = ("f1", "mcc", "average_precision", "brier", "ece")
GAPS: Final = {
    "slice_accuracy": "Slice accuracy",
    "subject_accuracy": "Subject accuracy",
    "slice_balanced_accuracy": "Balanced accuracy over slices",
    "subject_balanced_accuracy": "Balanced accuracy over subjects",
    "slice_auc": "AUC over slices",
    "subject_auc": "AUC over subjects",
}


def failure_parts(failures: Mapping[str, str]) -> list[Part]:
    """Name the runs that failed at the latest start, so that nobody takes the table for whole."""
    if not failures:
        return []
    words = Markup("<b>{} of the planned runs failed</b> and are not in these tables:")
    each = [f"{run}: {reason}" for run, reason in failures.items()]
    return [Words([words.format(len(failures))]), Words(each, listed=True)]


def run_parts(results: Sequence[SettingResult]) -> list[Part]:
    """Show each run by itself where a setting has several: what was pooled and averaged."""
    several = [result for result in results if len(result.runs) > 1]
    if not several:
        return []
    rows: list[list[Cell]] = []
    for run in (run for result in several for run in result.runs):
        test = run.metrics.get("test") or {}
        shown = (("slice_accuracy", "percent"), ("subject_accuracy", "percent"),
                 ("slice_auc", "fraction"), ("subject_auc", "fraction"))  # fmt: skip
        cells = [_bounded(test.get(name) or {}, run, name, show) for name, show in shown]
        rows.append([named(run), run.setting.fold_text or MISSING, *cells])
    grid = Grid(
        Markup(
            "<b>Table 2, run by run.</b> Each test by itself, with 95% intervals over its subjects."
        ),
        (
            ("Run", ""),
            ("Fold", ""),
            ("Slice accuracy", "%"),
            ("Subject accuracy", "%"),
            ("AUC over slices", ""),
            ("AUC over subjects", ""),
        ),
        rows,
        left=2,
    )
    return [Folded("Each run by itself", [grid])]


def _bounded(score: Mapping[str, float | None], run: Run, name: str, show: str) -> Markup:
    ends = score.get("low"), score.get("high")
    return bounded(score.get("value"), *ends, run.name, f"test_{name}", show)


def more_figures(runs: Sequence[Run]) -> Folded:
    """Return what Table 2 has no room for: further figures of each run's test, at both levels."""
    rows = [_figures_of(run, level) for run in runs for level in LEVELS]
    known = {str(run.metrics.get("test", {}).get("positive_class")) for run in runs} - {"None"}
    positive = f"; sensitivity is the share of {', '.join(sorted(known))}" if known else ""
    if not known and any(len(run.class_names) > 2 for run in runs):
        positive = (
            "; sensitivity, specificity, F1 and average precision are means of each class against "
            "the rest"
        )
    grid = Grid(
        Markup(
            "<b>Table 2, further figures</b> of the test, over subjects and over slices{}. F1, "
            "Matthews correlation (MCC), average precision, Brier score and expected calibration "
            "error run from 0 (MCC: −1) to 1. Wilson's interval takes subjects as independent and "
            "slices not at all."
        ).format(positive),
        (
            ("Run", ""),
            ("Over", ""),
            ("Accuracy, Wilson", "%"),
            ("Balanced accuracy", "%"),
            ("Sensitivity", "%"),
            ("Specificity", "%"),
            ("F1", ""),
            ("MCC", ""),
            ("Average precision", ""),
            ("Brier score", ""),
            ("Calibration error", ""),
        ),
        rows,
        left=2,
    )
    return Folded("Further figures: sensitivity, specificity, F1, MCC, Brier score …", [grid])


def _figures_of(run: Run, level: str) -> list[Cell]:
    test = run.metrics.get("test") or {}

    def shown(name: str, show: str) -> Markup:
        value = test.get(f"{level}_{name}") or {}
        ends = value.get("low"), value.get("high")
        return bounded(value.get("value"), *ends, run.name, f"test_{level}_{name}", show)

    share = test.get(f"{level}_accuracy") or {}
    ends = share.get("wilson_low"), share.get("wilson_high")
    wilson = bounded(share.get("value"), *ends, run.name, f"test_{level}_wilson", "percent")
    return [
        named(run),
        f"{level}s",
        wilson,
        *(shown(name, "percent") for name in SHARES),
        *(shown(name, "fraction") for name in SCORES),
    ]


def comparison_parts(found: Comparisons) -> list[Part]:
    """Set every two settings that were tested on the same subjects side by side."""
    if not found.rows:
        return []
    names, rows = ("subject_accuracy", "subject_auc"), []
    tests = [dict.fromkeys(getattr(row, name).test for row in found.rows) for name in names]
    for row in found.rows:
        pair = f"{row.first} | {row.second} | {row.split}"
        rows.append(
            [
                row.first,
                row.second,
                row.split,
                number(row.subjects, pair, "subjects", "count"),
                _points(row.subject_accuracy, pair, "subject_accuracy"),
                number(row.subject_accuracy.p_holm, pair, "subject_accuracy.p", "probability"),
                _points(row.slice_accuracy, pair, "slice_accuracy"),
                _points(row.subject_auc, pair, "subject_auc", scale=1, show="fraction"),
                number(row.subject_auc.p_holm, pair, "subject_auc.p", "probability"),
            ]
        )
    grid = Grid(
        Markup(
            "<b>Table 3.</b> Every two settings tested on the same subjects, first less second, "
            "with 95% intervals from the same draws of subjects for both. p of subject accuracy: "
            "{}; of the AUC: {}; both corrected by Holm over the pairs of a split."
        ).format(*map(" or ".join, tests)),
        (
            ("First", ""),
            ("Second", ""),
            ("Split", ""),
            ("Subjects", ""),
            ("Subject accuracy", "points"),
            ("p", ""),
            ("Slice accuracy", "points"),
            ("AUC over subjects", ""),
            ("p", ""),
        ),
        rows,
        left=3,
    )
    meaning = (
        "Settings side by side, by subject accuracy. Each interval is of its pair alone; p is "
        "corrected for all pairs of a split, so an interval without 0 may stand beside a pair that "
        "cannot be told apart."
    )
    return [
        Words([meaning]),
        Words(found.sentences, listed=True),
        grid,
        *([Words(found.notes)] if found.notes else []),
    ]


def _points(
    found: Difference, run: str, quantity: str, scale: float = 100, show: str = "points"
) -> Markup:
    ends = scale * found.low, scale * found.high
    return bounded(scale * found.value, *ends, run, f"difference.{quantity}", show)


def leakage_chapter(found: Leakage, figures: Path) -> Chapter:
    """Say what the split is worth: gap, permuted labels, identity, dose."""
    rows: list[list[Cell]] = [
        [each.check, _level(each.level), each.text] for each in found.findings
    ]
    parts: list[Part] = [
        Words(
            (
                "The paper splits slices, so neighbours of one scan stand in training and in test. "
                "Here is what that is worth. Labels permuted by subject are the sharpest test: "
                "nothing about the classes can be learned from them, so what stays above chance "
                "was learned of the people.",
            )
        ),
        Grid(
            Markup("<b>Table 4.</b> What was asked of the runs, and what came out."),
            (("Question", ""), ("Outcome", ""), ("Found", "")),
            rows,
            left=3,
        ),
    ]
    parts += _gaps(found.gaps, figures)
    parts += _permutations(found.permuted, figures)
    parts += _identity(found.reidentification, figures)
    parts += _doses(found, figures)
    if found.gaps:
        parts.append(Folded("The gap in numbers", [_gap_grid(found.gaps)]))
    if found.reidentification:
        parts.append(Folded("The probes in numbers", [_identity_grid(found.reidentification)]))
    if found.notes:
        parts.append(Words(found.notes))
    return Chapter("leakage", "What the split is worth", parts)


def _gaps(gaps: Sequence[Gap], figures: Path) -> list[Part]:
    if not gaps:
        return []
    alt = "Accuracy under both splits, joined by the gap, a row a network and regime."
    caption = Markup(
        "<b>Figure 4.</b> The same networks under both splits: accuracy of slices and of subjects, "
        "joined by the gap."
    )
    return [Plate(drawn(plot_gap(gaps), figures / "leakage-gap", alt), caption)]


def _gap_grid(gaps: Sequence[Gap]) -> Grid:
    rows: list[list[Cell]] = []
    for gap in gaps:
        name = f"{gap.architecture}-{gap.variant}"
        for key, words in GAPS.items():
            if key not in gap.scores:
                continue
            each = gap.scores[key]
            by_subject, by_slice = (
                sum(values) / len(values) for values in (each.by_subject, each.by_slice)
            )
            ends = 100 * each.low, 100 * each.high
            rows.append(
                [
                    f"{gap.architecture}, {gap.variant}",
                    words,
                    number(len(gap.seeds), name, "gap.seeds", "count"),
                    number(100 * by_subject, name, f"by_subject.{key}", "points"),
                    number(100 * by_slice, name, f"by_slice.{key}", "points"),
                    bounded(100 * each.gap, *ends, name, f"gap.{key}", "points"),
                ]
            )
    return Grid(
        Markup(
            "<b>Table 5.</b> The leakage gap, slice less subject split, in per cent (AUC times "
            "100), with a 95% "
            "interval over subjects; subjects of both tests are drawn as one. With one seed the "
            "interval speaks of these networks alone; with several, the variance between seeds is "
            "in it. Networks that predict one class for all test slices have no gap."
        ),
        (
            ("Network", ""),
            ("Figure", ""),
            ("Seeds", ""),
            ("Split by subject", "%"),
            ("Split by slice", "%"),
            ("Gap", "points"),
        ),
        rows,
        left=2,
    )


def _permutations(tests: Sequence[PermutationTest], figures: Path) -> list[Part]:
    parts: list[Part] = []
    for name in dict.fromkeys((each.architecture, each.variant) for each in tests):
        own = [each for each in tests if (each.architecture, each.variant) == name]
        title = ", ".join(name)
        alt = f"Distribution of test accuracy under permuted labels, by split; {title}."
        stem = figures / f"permuted-{'-'.join(name).replace('/', '-')}"
        caption = Markup(
            "<b>Figure 5.</b> {}: balanced slice accuracy of the test with labels permuted by "
            "subject ({} draws a run, {}), and as observed. A fair split lies about chance."
        ).format(title, own[0].draws, own[0].source)
        parts.append(Plate(drawn(plot_permutations(own), stem, alt), caption))
    return parts


def _identity(found: Sequence[Reidentification], figures: Path) -> list[Part]:
    if not found:
        return []
    alt = "How well features tell subjects and classes apart, a row a regime, with chance."
    caption = Markup(
        "<b>Figure 6.</b> Do the features tell people apart, or diagnoses? Test slices; chance in "
        "grey."
    )
    return [Plate(drawn(plot_identity(found), figures / "identity", alt), caption)]


def _identity_grid(found: Sequence[Reidentification]) -> Grid:
    rows: list[list[Cell]] = [
        [
            each.run,
            each.over,
            number(each.subjects, each.run, "identity.subjects", "count"),
            *(
                _probe(getattr(each, name), each.run, name)
                for name in ("nearest_subject", "linear_subject", "nearest_class", "linear_class")
            ),
        ]
        for each in found
    ]
    return Grid(
        Markup(
            "<b>Table 6.</b> Accuracy of probes on the features of test slices, chance below. A "
            "person is to be known again from other sessions, or from other slices; a class from "
            "other people."
        ),
        (
            ("Run", ""),
            ("Known again over", ""),
            ("Subjects", ""),
            ("Person, nearest neighbour", "%"),
            ("Person, linear", "%"),
            ("Class, nearest neighbour", "%"),
            ("Class, linear", "%"),
        ),
        rows,
        left=2,
    )


def _probe(probe: Probe, run: str, name: str) -> Markup:
    return Markup("{} <small>chance {}</small>").format(
        number(probe.accuracy, run, f"{name}.accuracy", "percent"),
        number(probe.chance, run, f"{name}.chance", "percent"),
    )


def _doses(found: Leakage, figures: Path) -> list[Part]:
    parts: list[Part] = []
    for dose in found.dose_responses:
        title = f"{dose.architecture}, {dose.variant}"
        stem = figures / f"dose-{dose.architecture}-{dose.variant}".replace("/", "-")
        alt = f"Slice accuracy by the share of test subjects let into training; {title}."
        caption = Markup(
            "<b>Figure 7.</b> {}: the dose of leakage. Of a growing share of the test subjects one "
            "half of the slices goes into training, which stays as large as it was; the other half "
            "is judged."
        ).format(title)
        parts.append(Plate(drawn(plot_dose(dose), stem, alt), caption))
    return parts


def _level(level: str) -> Markup:
    kind = {"serious": "bad", "fine": "good"}.get(level, "")
    return Markup('<span class="{}">{}</span>').format(kind, level)
