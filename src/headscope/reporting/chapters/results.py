"""The chapter on results: the table of settings, what it has no room for, and comparisons."""

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from headscope.analysis.results.comparisons import Comparison, Comparisons
from headscope.analysis.results.settings import SettingResult
from headscope.analysis.results.table import SHARED, epochs_text
from headscope.metrics import GROUPS, MOST_DRAWN
from headscope.metrics.precision import precisions
from headscope.record import RIVAL, Run
from headscope.reporting.blocks import Block, Chapter, Fold, TableBlock, Text
from headscope.reporting.chapters.classes import class_blocks
from headscope.reporting.chapters.runs import group_by, named, score_cell
from headscope.reporting.numbers import CONFIDENCE, bounded, say
from headscope.supplement.study import count_classes
from headscope.tables import Cell, Column, Table
from headscope.text import MISSING

SLICES: Final = "Slice accuracy (%)"
AREA: Final = "Area under the ROC curve, test"
SETTINGS: Final = (  # title of a column, and the one that it shares
    (Column("Regime"), ""),
    (Column("Split"), ""),
    (Column("Runs"), ""),
    (Column("Epochs"), ""),
    (Column("training"), SLICES),
    (Column("validation"), SLICES),
    (Column("test"), SLICES),
    (Column("Subject accuracy, test", "%"), ""),
    (Column("Larger class, of subjects", "%"), ""),
    (Column("slices"), AREA),
    (Column("subjects"), AREA),
    (Column("Test subjects"), ""),
    (Column("Training time", "min:sec"), ""),
)
TESTS: Final = {
    "slice_accuracy": Column("Slice accuracy", "%", "percent"),
    "subject_accuracy": Column("Subject accuracy", "%", "percent"),
    "slice_auc": Column("AUC over slices", "", "fraction"),
    "subject_auc": Column("AUC over subjects", "", "fraction"),
}
FURTHER: Final = {
    "balanced_accuracy": Column("Balanced accuracy", "%", "percent"),
    "sensitivity": Column("Sensitivity", "%", "percent"),
    "specificity": Column("Specificity", "%", "percent"),
    "f1": Column("F1", "", "fraction"),
    "mcc": Column("MCC", "", "fraction"),
    "average_precision": Column("Average precision", "", "fraction"),
    "brier": Column("Brier score", "", "fraction"),
    "ece": Column("Calibration error", "", "fraction"),
}
COMPARED: Final = (
    "First",
    "Second",
    "Split",
    Column("Subjects", "", "count"),
    Column("Subject accuracy", "points", "points"),
    Column("p", "", "probability"),
    Column("Slice accuracy", "points", "points"),
    Column("AUC over subjects", "", "fraction"),
    Column("p", "", "probability"),
)
MEANING: Final = (
    "Slice accuracy counts slices, subject accuracy counts subjects: a subject's probability is "
    "{}{}. With more than two classes an area under the ROC curve is the mean of each class "
    "against the rest. Full digits are in <code>{}</code>, those of each run in {}."
)
OF_GROUPS: Final = (
    f"Of more than {MOST_DRAWN:,} test subjects, intervals are of draws of {GROUPS} groups of "
    "subjects, dealt at random within class by a fixed seed."
)
WIDE: Final = 0.5  # of an interval over seeds, above which the page says why
OF_SEEDS: Final = (
    "Over several seeds an interval also holds what other splits and trainings would give. Where a "
    "few seeds disagree it may reach from 0 to 1, even beside a small p: so few cannot tell, and "
    "more of them (<code>--seeds</code>) make it narrower."
)
MOST_SAID: Final = 6  # comparisons in words, whatever they tell
MIXED: Final = ("shared_subjects", "test_duplicates", "test_equal_slices")
OF_RIVALS: Final = "; of what is no network, that of the mean logits"
AGGREGATES: Final = {
    "mean": "the mean over its slices",
    "logits": "that of the mean logits of its slices",
    "vote": "the share of its slices that are predicted as the class",
}


def results_chapter(
    table: pd.DataFrame,
    results: Sequence[SettingResult],
    failures: Mapping[str, str],
    left_out: Sequence[str],
    files: tuple[str, Markup] = ("table.tsv", Markup("<code>runs.tsv</code>")),
) -> Chapter:
    """Show what each setting reached: `table` is that of `settings_table`, with its markers.

    left_out holds a sentence on each run, or other part of the record, that has changed; files
    name where the table is written, and that of the runs.
    """
    runs = [run for result in results for run in result.runs]
    names = dict.fromkeys(str(run.settings.get("aggregate", "mean")) for run in runs)
    aggregate = " or ".join(AGGREGATES[name] for name in names)
    rivals = OF_RIVALS if [*names] != ["logits"] and (table["regime"] == RIVAL).any() else ""
    grouped = [OF_GROUPS] if any(result.subjects > MOST_DRAWN for result in results) else []
    grouped += [Markup(OF_SEEDS)] if _seeds_disagree(table) else []  # noqa: S704
    blocks = [
        _settings_table(table),
        Text(say(MEANING, aggregate, rivals, *files), *grouped, style="notes"),
        *_failures(failures),
        *([Text(*left_out, style="notes")] if left_out else []),
        *precision_folds(results),
    ]
    return Chapter("results", "Accuracies, as in Table 2 of the paper", blocks, short="Table 2")


def _seeds_disagree(table: pd.DataFrame) -> bool:
    """Whether an interval over subjects and several seeds is too wide to tell anything."""
    names = [f"test_subject_{name}" for name in ("accuracy", "auc")]
    wide = (table[f"{n}_high"] - table[f"{n}_low"] > WIDE for n in names)
    several = (table[f"{n}_seed_sd"].notna() for n in names)
    return any((one & other).any() for one, other in zip(wide, several, strict=True))


def precision_folds(results: Sequence[SettingResult]) -> list[Fold]:
    """Return a fold on the test that keeps subjects apart: how wide intervals are, what it finds.

    Of the first seed; nothing where no setting keeps subjects apart.
    """
    apart = [result for result in results if result.apart]
    if not apart:
        return []
    best = max(apart, key=lambda result: len(result.fits))
    rows = pd.concat(
        [run.predicted("test") for run in best.runs if run.setting.seed == best.seeds[0]]
    )
    made = precisions([*count_classes(best.runs[0], rows).values()])
    title = "What a test of so many subjects can tell"
    return [Fold(title, [TableBlock("precision", made.tables()[0])])]


def scores_chapter(results: Sequence[SettingResult], compared: Comparisons) -> Chapter:
    """Show each run by itself, its further scores, its classes, and settings side by side."""
    runs = [run for result in results for run in result.runs]
    pairs = [*compared.rows, *compared.rivals]
    apart = sum(row.distinguishable for row in pairs)
    networks = sum(not run.is_rival for run in runs)
    result = f"{networks} run{'' if networks == 1 else 's'}"
    if networks < len(runs):
        result += " and simple rivals"
    if pairs:
        of_pairs = f"{apart or 'none'} of {len(pairs)} pairs of settings"
        if len(pairs) == 1:
            of_pairs = "the two settings" if apart else "the two settings not"
        result += f"; {of_pairs} told apart"
    blocks = *_comparisons(compared), *_single_runs(results), _further_scores(runs)
    blocks = *blocks, *class_blocks(runs)
    return Chapter("scores", "Scores, classes and comparisons", blocks, result)


def _settings_table(table: pd.DataFrame) -> TableBlock:
    rows: list[list[object]] = []
    headings: dict[int, str] = {}
    tinted: list[int] = []
    for network, settings in group_by(table.to_dict("records"), lambda row: row["architecture"]):
        headings[len(rows)] = str(network)
        mixed = [any(pd.notna(row.get(n)) and row[n] for n in MIXED) for row in settings]
        tinted += [k for k, is_mixed in enumerate(mixed, len(rows)) if is_mixed]
        rows += map(_setting, settings)
    caption = (
        f"One row per setting, as Table 2 of the paper: folds pooled, seeds averaged, {CONFIDENCE} "
        "intervals over test subjects (and seeds). The larger class: what predicting the "
        "commonest class for all gives. Tinted rows have slices of one subject, or duplicates, in "
        "training and in test."
    )
    columns, over = zip(*SETTINGS, strict=True)
    return TableBlock("results", Table(caption, columns, rows), over, tinted, headings)


def _setting(row: Mapping[Any, Any]) -> list[object]:
    def score(name: str, form: str = "percent") -> Markup:
        """Return a score with the bootstrap's interval, or else Wilson's, or none."""
        way = "_wilson" if isnan(row.get(f"{name}_low", nan)) else ""
        ends = [row.get(f"{name}{way}_{end}", nan) for end in ("low", "high")]
        return bounded(row[name], ends, row["run"], name, form, way)

    constant, runs = row["one_class_runs"], row["runs"]
    many = "" if runs == 1 else f"{constant} of {runs} runs: "
    seeds = f"seed{'s' if ',' in row['seed'] else ''} {row['seed']}"
    folds = f"{row['folds']} folds, " if row["folds"] else ""
    return [
        Cell(row["name"], detail=row["regime"] if row["name"] != row["regime"] else ""),
        _marked(row["split"], row["marker"].replace(SHARED, "subjects shared")),
        Cell(score("runs", "count"), detail=folds + seeds if runs > 1 else ""),
        epochs_text(row),
        score("train_slice_accuracy"),
        score("val_slice_accuracy"),
        score("test_slice_accuracy"),
        _marked(score("test_subject_accuracy"), f"{many}one class for all" if constant else ""),
        score("subject_majority"),
        score("test_slice_auc", "fraction"),
        score("test_subject_auc", "fraction"),
        score("test_subjects", "count"),
        score("train_seconds", "time"),
    ]


def _marked(cell: str, marker: str) -> str:
    return cell + say('<small class="marker">{}</small>', marker) if marker else cell


def _failures(failures: Mapping[str, str]) -> list[Block]:
    """Name the runs that failed at the latest start, which the tables lack."""
    if not failures:
        return []
    sentence = "<b>{} of the planned runs failed</b> and are not in these tables:"
    reasons = (f"{run}: {reason}" for run, reason in failures.items())
    return [Text(say(sentence, len(failures))), Text(*reasons, style="list")]


def _single_runs(results: Sequence[SettingResult]) -> list[Block]:
    """Show each run by itself where a setting has several: what was pooled and averaged."""
    runs = [run for result in results if len(result.runs) > 1 for run in result.runs]
    if not runs:
        return []
    rows = [[named(run), run.setting.fold_text or MISSING, *_scores(run, TESTS)] for run in runs]
    caption = f"Run by run: each test by itself, with {CONFIDENCE} intervals over its subjects."
    table = Table(caption, ("Run", "Fold", *TESTS.values()), rows)
    return [Fold("Each run by itself", [TableBlock("runs", table)])]


def _scores(run: Run, columns: Mapping[str, Column], level: str = "") -> list[Cell]:
    """Return the scores of a run's test with their intervals."""
    test = run.metrics.get("test") or {}
    return [score_cell(test.get(level + name), run, f"test_{level}{name}") for name in columns]


def _further_scores(runs: Sequence[Run]) -> Fold:
    """Show what the first table has no room for: further scores of each run, at both levels."""
    positive = {str(run.metrics.get("test", {}).get("positive_class")) for run in runs} - {"None"}
    meaning = f"; sensitivity is the share of {', '.join(sorted(positive))}" if positive else ""
    several = any(len(run.class_names) > 2 for run in runs)
    brier = " (Brier score: to 2, as it sums over the classes)" if several else ""
    if not positive and several:
        meaning = (
            "; sensitivity, specificity, F1 and average precision are means of each class against "
            "the rest"
        )
    rows = []
    for run in runs:
        for level in ("subject", "slice"):
            share = (run.metrics.get("test") or {}).get(f"{level}_accuracy")
            accuracy = score_cell(share, run, f"test_{level}_wilson", "wilson_")
            rows.append([named(run), f"{level}s", accuracy, *_scores(run, FURTHER, f"{level}_")])
    caption = (
        f"Further scores of the test, over subjects and over slices{meaning}. F1, Matthews "
        "correlation (MCC), average precision, Brier score and expected calibration error run "
        f"from 0 (MCC: −1) to 1{brier}. Wilson's interval takes subjects as independent and "
        "slices not at all."
    )
    wilson = Column("Accuracy, Wilson", "%", "percent")
    table = Table(caption, ["Run", "Over", wilson, *FURTHER.values()], rows)
    title = "Further scores: sensitivity, specificity, F1, MCC, Brier score …"
    return Fold(title, [TableBlock("further", table)])


def _comparisons(compared: Comparisons) -> list[Block]:
    """Set every two settings that were tested on the same subjects side by side."""
    pairs = [*compared.rows, *compared.rivals]
    if not pairs:
        return [Text(*compared.notes)] if compared.notes else []
    tests = [
        " or ".join(dict.fromkeys(getattr(row, name).test for row in pairs))
        for name in ("subject_accuracy", "subject_auc")
    ]
    caption = (
        f"Every two settings tested on the same subjects, first less second, with {CONFIDENCE} "
        f"intervals from the same draws of subjects for both. p of subject accuracy: {tests[0]}; "
        f"of the AUC: {tests[1]}; both corrected by Holm over the pairs of a split, those of two "
        "networks and those with a simple rival each by themselves."
    )
    meaning = (
        "Settings side by side, by subject accuracy. Each interval is of its pair alone; p is "
        "corrected for all pairs of a split, so an interval without 0 may stand beside a pair that "
        "cannot be told apart."
    )
    return [
        Text(meaning),
        Text(*_told_apart(compared), style="list"),
        TableBlock("comparisons", Table(caption, COMPARED, list(map(_compared, pairs)))),
        Text(*compared.notes),
    ]


def _told_apart(compared: Comparisons) -> list[str]:
    """Return each comparison in words; of many only those that tell settings apart."""
    pairs = compared.pairs
    worded = zip(pairs, compared.sentences, strict=True)
    sentences = [text for row, text in worded if len(pairs) <= MOST_SAID or row.distinguishable]
    if not sentences:
        sentences = [f"None of the {len(pairs)} pairs can be told apart by subject accuracy."]
    elif rest := len(pairs) - len(sentences):
        sentences.append(f"The other pairs ({rest}) cannot be told apart by subject accuracy.")
    return sentences


def _compared(row: Comparison) -> list[object]:
    pair = f"{row.first} | {row.second} | {row.split}"

    cells = [Cell(row.subjects, run=pair, quantity="subjects")]
    for name, scale in (("subject_accuracy", 100), ("slice_accuracy", 100), ("subject_auc", 1)):
        result = getattr(row, name)
        value, low, high = (scale * part for part in (result.value, result.low, result.high))
        cells.append(Cell(value, low, high, run=pair, quantity=f"difference.{name}"))
        if name.startswith("subject"):
            cells.append(Cell(result.p_holm, run=pair, quantity=f"{name}.p"))
    return [row.first, row.second, row.split, *cells]
