"""Runs side by side: the table of results (Table 2), the cohort's counts, the logits of Fig. 2."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import SUBSETS, Run
from headscope.tables import Cell, Column, Table
from headscope.text import percent

SHARES = ("subject_accuracy", "subject_sensitivity", "subject_specificity")
REGIMES = ("frozen", "frozen-adabn", "layerwise", "lp-ft", "finetune", "scratch-meanvar", "scratch")
SHARED = "slices of one subject on both sides"
NAMELESS = "no subject ids: slices of one subject may stand on both sides"
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


@dataclass(frozen=True, eq=False)
class LogitScatter:
    """The two logits of each slice of a subset: the points of Fig. 2.

    `logits` (n, 2), `label` (n,) with 0 and 1 for the two classes, `correct` (n,) whether the
    largest of all K logits is the slice's class. Slices of other classes are left out.
    """

    title: str
    network: str
    class_names: tuple[str, str]
    pair: tuple[int, int]
    class_count: int
    subset: str
    logits: NDArray[np.float64]
    label: NDArray[np.int64]
    correct: NDArray[np.bool_]

    @property
    def slice_accuracy(self) -> float:
        """Share of the slices shown that lie on the right side; NaN if there are none."""
        return float(self.correct.mean()) if len(self.correct) else float("nan")


def logit_scatter(run: Run, pair: tuple[int, int] = (0, 1), subset: str = "test") -> LogitScatter:
    """Take the logits of two classes from a run's `features.npz`. Source: the paper's Fig. 2.

    Raises
    ------
    InputError
        The pair names no two classes of the run.
    """
    names = run.class_names
    if pair[0] == pair[1] or not all(0 <= k < len(names) for k in pair):
        raise InputError(f"pair {pair} names no two of the classes {', '.join(names)}.")
    stored = run.features
    kept = (stored["subset"] == subset) & np.isin(stored["label"], pair)
    logits = stored["logits"][kept].astype(np.float64)  # (n, K)
    label = stored["label"][kept]
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


def results_table(runs: Iterable[Run]) -> pd.DataFrame:
    """Return one row a run: raw fractions and seconds, with 95% intervals over subjects.

    Sorted by architecture, split (by subject first), regime and seed. `shared_subjects` counts
    the test subjects of whom the network saw other slices in training. Sensitivity is that of
    `positive_class`; shares of subjects also have Wilson's interval. Figures that a record lacks
    are NaN. Source: Table 2.
    """
    rows = [_result(run) for run in sorted(runs, key=run_rank)]
    if not rows:
        raise InputError("A table of results needs at least one run.")
    return pd.DataFrame(rows)


def shared_subjects(run: Run) -> int:
    """Count the test subjects of whom slices stand in the training subset too.

    Pictures without ids count as one subject, who stands everywhere.
    """
    subjects = run.predictions.groupby("subset")["subject_id"].agg(set).to_dict()
    return len(subjects.get("train", set()) & subjects.get("test", set()))


def cohort_table(run: Run) -> pd.DataFrame:
    """Return one row a subset and class: how many subjects, sessions and slices it holds."""
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
    columns = [
        *map(Column, ("Network", "Regime", "Split", "Seeds", "Folds", "Epochs")),
        Column("Training slice accuracy", "%", "percent"),
        Column("Validation slice accuracy", "%", "percent"),
        Column("Test slice accuracy", "%", "percent", interval=True),
        Column("Test subject accuracy", "%", "percent", interval=True),
        Column("Larger class, of slices / subjects", "%"),
        Column("Test slice AUC", format="fraction", interval=True),
        Column("Test subject AUC", format="fraction", interval=True),
        Column("Test subjects"),
        Column("Training time", "min:sec", "time"),
        Column("Marker"),
    ]
    rows = [
        (
            row["architecture"],
            regime_text(row["name"], row["regime"]),
            row["split"],
            row["seed"],
            row["folds"] or "",
            row["epochs"],
            row["train_slice_accuracy"],
            row["val_slice_accuracy"],
            _cell(row, "test_slice_accuracy"),
            _cell(row, "test_subject_accuracy"),
            f"{percent(row['slice_majority'])} / {percent(row['subject_majority'])}",
            _cell(row, "test_slice_auc"),
            _cell(row, "test_subject_auc"),
            row["test_subjects"],
            row["train_seconds"],
            row["marker"],
        )
        for row in table.to_dict("records")
    ]
    return Table("Results", columns, rows, [TABLE_NOTE])


def markdown_table(table: pd.DataFrame) -> str:
    """Return `full_table` as Markdown."""
    return full_table(table).to_markdown() + "\n"


def short_table(table: pd.DataFrame) -> Table:
    """Return `settings_table` for a terminal: what fits in some hundred columns."""
    columns = [
        *map(Column, ("Network", "Regime", "Split", "Runs", "Epochs")),
        Column("Train %", format="percent"),
        Column("Val %", format="percent"),
        Column("Test slice % [95%]", format="percent"),
        Column("Test subject % [95%]", format="percent"),
        Column("Larger class %", format="percent"),
        Column("Subject AUC [95%]", format="fraction"),
        Column("min:sec", format="time"),
    ]
    rows = [
        (
            row["architecture"],
            row["name"],
            row["split"],
            row["runs"],
            row["epochs"],
            row["train_slice_accuracy"],
            row["val_slice_accuracy"],
            _cell(row, "test_slice_accuracy"),
            _cell(row, "test_subject_accuracy"),
            row["subject_majority"],
            _cell(row, "test_subject_auc"),
            row["train_seconds"],
        )
        for row in table.to_dict("records")
    ]
    return Table("", columns, rows)


def regime_text(name: str, regime: str) -> str:
    """Return the regime, after the row's own name if it has one."""
    return regime if name == regime else f"{name} ({regime})"


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
        "train_slice_accuracy": _value(metrics, "train", "slice_accuracy"),
        "val_slice_accuracy": _value(metrics, "val", "slice_accuracy"),
    }
    for name in TESTED:
        row[f"test_{name}"] = _value(metrics, "test", name)
        row[f"test_{name}_low"] = _value(metrics, "test", name, "low")
        row[f"test_{name}_high"] = _value(metrics, "test", name, "high")
        if name in SHARES:
            row[f"test_{name}_wilson_low"] = _value(metrics, "test", name, "wilson_low")
            row[f"test_{name}_wilson_high"] = _value(metrics, "test", name, "wilson_high")
    row["positive_class"] = test.get("positive_class") or ""
    row["test_slices"] = test.get("slices", 0)
    row["test_subjects"] = test.get("subjects", 0)
    row["train_seconds"] = float(metrics.get("train_seconds", float("nan")))
    row["shared_subjects"] = shared_subjects(run)
    nameless = (run.predictions["subject_id"] == NO_ID).any()
    row["marker"] = NAMELESS if nameless else SHARED if row["shared_subjects"] else ""
    return row


def _value(metrics: dict[str, Any], subset: str, name: str, part: str = "value") -> float:
    value = ((metrics.get(subset) or {}).get(name) or {}).get(part)
    return float("nan") if value is None else float(value)


def run_rank(run: Run) -> tuple[Any, ...]:
    """Order by architecture, honest split first, regime from least to most trained, seed, fold."""
    known = run.settings
    family = str(known["regime"]).partition(":")[0]
    regime = REGIMES.index(family) if family in REGIMES else len(REGIMES)
    split, name = known["split"], run.setting.variant
    epochs = run.metrics.get("epochs", known.get("epochs")) or 0
    fit = known["seed"], known.get("fold") or 0, run.name
    return known["architecture"], split != "subject", split, regime, epochs, name, *fit


def _cell(row: dict[Any, Any], name: str) -> Cell:
    """Return a score with its interval: the bootstrap's, or else Wilson's."""
    for way in ("", "_wilson"):
        cell = Cell(row[name], row.get(f"{name}{way}_low"), row.get(f"{name}{way}_high"))
        if cell.bounded:
            break
    return cell
