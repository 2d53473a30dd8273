"""Runs side by side: the table of results (Table 2), the cohort's counts, the logits of Fig. 2."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis.arrays import check_pair
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import RIVAL, RIVALS, SUBSETS, Run
from headscope.tables import Cell, Column, Table
from headscope.text import percent

Row = Mapping[Any, Any]
SLICE_KEYS = ["subject_id", "session_id", "plane", "slice_index", "label"]
SHARES = ("subject_accuracy", "subject_sensitivity", "subject_specificity")
REGIMES = ("frozen", "frozen-adabn", "layerwise", "lp-ft", "finetune", "scratch-meanvar", "scratch")
SHARED = "slices of one subject on both sides"
NARROW = 6  # classes above which a matrix needs half a page
NAMELESS = "no subject ids: slices of one subject may be on both sides"
GIVEN_NAMELESS = f"given partition, {NAMELESS}"
INFERRED = "subjects inferred from pixels"
TABLE_NOTE = (
    "One row per setting: folds are pooled, seeds averaged. Accuracies are percentages of slices "
    "or of subjects; intervals resample subjects, or are Wilson's where the bootstrap cannot tell. "
    "The larger class is what predicting the commonest class of the test for all gives."
)
TESTED = (
    "slice_accuracy",
    "subject_accuracy",
    "subject_balanced_accuracy",
    "subject_sensitivity",
    "subject_specificity",
    "slice_auc",
    "subject_auc",
)


@dataclass(frozen=True)
class Score:
    """A score of a setting's tests with its 95% interval over subjects; NaN where undefined.

    low, high: by the bootstrap; wilson_low, wilson_high: Wilson's, of shares of subjects that were
    tested once each under one label. sd: standard deviation (n − 1) between seeds.
    """

    value: float
    low: float = nan
    high: float = nan
    wilson_low: float = nan
    wilson_high: float = nan
    sd: float = nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap's interval, or Wilson's where it has none, or None."""
        for ends in ((self.low, self.high), (self.wilson_low, self.wilson_high)):
            if not any(map(isnan, ends)):
                return ends
        return None


@dataclass(frozen=True, eq=False)
class LogitScatter:
    """The two logits of each slice of a subset: the points of Fig. 2.

    `logits` (n, 2), `label` (n,) with 0 and 1 for the two classes, `correct` (n,) whether the
    largest of all K logits is the slice's class. Slices of other classes are left out; or else
    (`against_others`) all slices are there, each with the logit of its class and the largest of the
    others, and `label` numbers all K `class_names`.
    """

    title: str
    network: str
    class_names: tuple[str, ...]
    pair: tuple[int, int]
    class_count: int
    subset: str
    logits: NDArray[np.float64]
    label: NDArray[np.int64]
    correct: NDArray[np.bool_]
    against_others: bool = False

    @property
    def slice_accuracy(self) -> float:
        """Share of the slices shown that are predicted correctly; NaN if there are none."""
        return float(self.correct.mean()) if len(self.correct) else float("nan")


def logit_scatter(run: Run, pair: tuple[int, int] = (0, 1), subset: str = "test") -> LogitScatter:
    """Take the logits of two classes from a run's `features.npz`. Source: the paper's Fig. 2.

    Raises
    ------
    InputError
        The pair names no two classes of the run.
    """
    names = run.class_names
    check_pair(pair, len(names))
    stored = run.features
    inside = (stored["subset"] == subset) & np.isin(stored["label"], pair)
    logits = stored["logits"][inside].astype(np.float64)  # (n, K)
    label = stored["label"][inside]
    return LogitScatter(
        title=run.setting.title,
        network=run.setting.network,
        class_names=(names[pair[0]], names[pair[1]]),
        pair=pair,
        class_count=len(names),
        subset=subset,
        logits=logits[:, list(pair)],  # (n, 2)
        label=(label == pair[1]).astype(np.int64),
        correct=logits.argmax(axis=1) == label if len(logits) else np.zeros(0, dtype=bool),
    )


def all_slices(run: Run) -> LogitScatter:
    """Return every test slice once: the pair of logits, or those that decide among several.

    Of two classes it is `logit_scatter`; of more, a slice is misclassified where the largest other
    logit is above that of its class, so that errors are those of Table 2.
    """
    names = run.class_names
    if len(names) == 2:
        return logit_scatter(run)
    stored = run.features
    inside = stored["subset"] == "test"
    logits, label = stored["logits"][inside].astype(np.float64), stored["label"][inside]
    rows = np.arange(len(label))
    others = logits.copy()
    others[rows, label] = -np.inf
    return replace(
        logit_scatter(run),
        class_names=tuple(names),
        logits=np.stack([logits[rows, label], others.max(axis=1)], axis=1),  # (n, 2)
        label=label.astype(np.int64),
        correct=logits.argmax(axis=1) == label,
        against_others=True,
    )


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row per run: raw fractions and seconds, with 95% intervals over subjects.

    Sorted by architecture, split (by subject first), regime and seed, simple rivals last.
    `shared_subjects` counts the test subjects with other slices in training. Sensitivity is that of
    `positive_class`; shares of subjects also have Wilson's interval. Scores that a record lacks
    are NaN. Source: Table 2.
    """
    rows = [_result(run) for run in sorted(runs, key=run_rank)]
    if not rows:
        raise InputError("A table of results needs at least one run.")
    return pd.DataFrame(rows)


def shared_subjects(run: Run) -> int:
    """Count the test subjects with slices in the training subset.

    Pictures without ids count as one subject, which is everywhere.
    """
    subjects = run.predictions.groupby("subset")["subject_id"].agg(set).to_dict()
    return len(subjects.get("train", set()) & subjects.get("test", set()))


def cohort_table(run: Run) -> pd.DataFrame:
    """Return one row per subset and class: how many subjects, sessions and slices it holds."""
    ids = run.predictions["subject_id"]
    predictions = run.predictions.assign(subject_id=ids.mask(ids == NO_ID))
    visits = predictions.drop_duplicates(["subset", "label", "subject_id", "session_id"])
    keys = ["subset", "label"]
    counted = pd.DataFrame(
        {
            "subjects": predictions.groupby(keys)["subject_id"].nunique(),
            "sessions": visits.groupby(keys).size(),
            "slices": predictions.groupby(keys).size(),
        }
    )
    rows = [(subset, name) for subset in SUBSETS for name in run.class_names]
    index = pd.MultiIndex.from_tuples(rows, names=["subset", "label"])
    return counted.reindex(index, fill_value=0).reset_index()


def full_table(table: pd.DataFrame) -> Table:
    """Return `settings_table` as the paper's Table 2: percentages, intervals, min:sec."""
    shares = ("slice_majority", "subject_majority")
    columns: dict[Column, Callable[[Row], object]] = {
        Column("Network"): itemgetter("architecture"),
        Column("Regime"): lambda row: regime_text(row["name"], row["regime"]),
        Column("Split"): itemgetter("split"),
        Column("Seeds"): itemgetter("seed"),
        Column("Folds"): lambda row: row["folds"] or "",
        Column("Epochs"): epochs_text,
        Column("Training slice accuracy", "%", "percent"): itemgetter("train_slice_accuracy"),
        Column("Validation slice accuracy", "%", "percent"): itemgetter("val_slice_accuracy"),
        Column("Test slice accuracy", "%", "percent", True): _bounded("test_slice_accuracy"),
        Column("Test subject accuracy", "%", "percent", True): _bounded("test_subject_accuracy"),
        Column("Larger class, of slices / subjects", "%"): lambda row: " / ".join(
            percent(row[name]) for name in shares
        ),
        Column("Test slice AUC", "", "fraction", True): _bounded("test_slice_auc"),
        Column("Test subject AUC", "", "fraction", True): _bounded("test_subject_auc"),
        Column("Test subjects"): itemgetter("test_subjects"),
        Column("Training time", "min:sec", "time"): itemgetter("train_seconds"),
        Column("Marker"): itemgetter("marker"),
    }
    between = [] if "inferred" not in table else [it for it in table["inferred"].unique() if it]
    return _table("Results", columns, table, [TABLE_NOTE, *between])


def markdown_table(table: pd.DataFrame) -> str:
    """Return `full_table` as Markdown."""
    return full_table(table).to_markdown() + "\n"


def short_table(table: pd.DataFrame) -> Table:
    """Return `settings_table` for a terminal: what fits in some hundred columns."""
    columns: dict[Column, Callable[[Row], object]] = {
        Column("Network"): itemgetter("architecture"),
        Column("Regime"): itemgetter("name"),
        Column("Split"): itemgetter("split"),
        Column("Runs"): itemgetter("runs"),
        Column("Epochs"): epochs_text,
        Column("Train %", format="percent"): itemgetter("train_slice_accuracy"),
        Column("Val %", format="percent"): itemgetter("val_slice_accuracy"),
        Column("Test slice % [95%]", format="percent"): _bounded("test_slice_accuracy"),
        Column("Test subject % [95%]", format="percent"): _bounded("test_subject_accuracy"),
        Column("Larger class %", format="percent"): itemgetter("subject_majority"),
        Column("Subject AUC [95%]", format="fraction"): _bounded("test_subject_auc"),
        Column("min:sec", format="time"): itemgetter("train_seconds"),
    }
    notes = [] if "inferred" not in table else [note for note in table["inferred"].unique() if note]
    return _table("", columns, table, notes)


def _table(
    title: str,
    columns: Mapping[Column, Callable[[Row], object]],
    table: pd.DataFrame,
    notes: Sequence[str] = (),
) -> Table:
    rows = [[cell(row) for cell in columns.values()] for row in table.to_dict("records")]
    return Table(title, list(columns), rows, notes)


def _bounded(name: str) -> Callable[[Row], Cell]:
    """Return what shows a score with its interval: the bootstrap's, or else Wilson's."""

    def cell(row: Row) -> Cell:
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        if low is None or isnan(low):
            low, high = (row.get(f"{name}_wilson_{end}") for end in ("low", "high"))
        return Cell(row[name], low, high)

    return cell


def epochs_text(row: Row) -> object:
    """Return the epochs of a row of a table; nothing for a simple rival, which has none."""
    return "" if row["regime"] == RIVAL else row["epochs"]


def regime_text(name: str, regime: str) -> str:
    """Return the regime, after the row's own name if it has one."""
    return name if name in (regime, f"{regime}-scan") else f"{name} ({regime})"


def _result(run: Run) -> dict[str, Any]:
    settings, metrics = run.settings, run.metrics
    test = metrics.get("test") or {}
    row: dict[str, Any] = {
        "run": run.name,
        "architecture": settings["architecture"],
        "name": run.setting.variant,
        "regime": settings["regime"],
        "split": settings["split"],
        "seed": settings["seed"],
        "fold": run.setting.fold_text,
        "epochs": metrics.get("epochs", settings.get("epochs")),
        "train_slice_accuracy": run.score("train", "slice_accuracy"),
        "val_slice_accuracy": run.score("val", "slice_accuracy"),
    }
    for name in TESTED:
        row |= score_columns(name, recorded_score(run, name))
    row["positive_class"] = test.get("positive_class") or ""
    row["test_slices"] = test.get("slices", 0)
    row["test_subjects"] = test.get("subjects", 0)
    row["train_seconds"] = float(metrics.get("train_seconds", float("nan")))
    row["shared_subjects"] = shared_subjects(run)
    marker = mixed_marker(run, row["shared_subjects"])
    row["marker"] = "; ".join(filter(None, [marker, first_try(run)]))
    return row


def mixed_marker(run: Run, shared: int) -> str:
    """Say why a run's accuracy may be inflated, and whether its subjects are inferred."""
    if not run.named:
        return GIVEN_NAMELESS if run.setting.split == "given" else NAMELESS
    inferred = INFERRED if run.setting.subjects else ""
    return "; ".join(filter(None, [SHARED if shared else "", inferred]))


def first_try(run: Run) -> str:
    """Say that a run had some subjects of each class alone; nothing where it had all."""
    limit = run.settings.get("limit")
    unit = "subject" if run.named else "picture"
    return f"first try: {limit} {unit}{'s' * (limit > 1)} per class" if limit else ""


def recorded_score(run: Run, name: str) -> Score:
    """Return a score of the test as `metrics.json` holds it."""
    parts = ("value", "low", "high", "wilson_low", "wilson_high")
    return Score(*(run.score("test", name, part) for part in parts))


def score_columns(name: str, score: Score) -> dict[str, float]:
    """Return a score's columns of a table; Wilson's ends of shares of subjects alone."""
    columns = {f"test_{name}": score.value}
    columns |= {f"test_{name}_low": score.low, f"test_{name}_high": score.high}
    if name in SHARES:
        columns[f"test_{name}_wilson_low"] = score.wilson_low
        columns[f"test_{name}_wilson_high"] = score.wilson_high
    return columns


def run_rank(run: Run) -> tuple[Any, ...]:
    """Order by architecture, split, regime from least to most trained, and fit; rivals last."""
    setting = run.setting
    rival = RIVALS.index(setting.architecture) if setting.is_rival else -1
    family = setting.regime.partition(":")[0]
    regime = REGIMES.index(family) if family in REGIMES else len(REGIMES)
    split = setting.split
    fit = setting.variant, setting.seed, setting.fold or 0, run.name
    return rival, setting.architecture, split != "subject", split, regime, run.epochs, *fit
