"""Class by class: confusion matrices, and how each class differs from the rest."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.results.table import NARROW
from headscope.record import Run
from headscope.reporting.blocks import Block, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import named, score_cell
from headscope.reporting.numbers import CONFIDENCE
from headscope.tables import Cell, Column, Table

MOST_LISTED: Final = 10  # confusions of a run
MOST_CLASSES: Final = 30  # classes above which they have no table of their own
OF_CLASS: Final = {
    "subject_sensitivity": Column("Sensitivity, subjects", "%", "percent"),
    "subject_specificity": Column("Specificity, subjects", "%", "percent"),
    "subject_auc": Column("AUC, subjects", "", "fraction"),
    "slice_sensitivity": Column("Sensitivity, slices", "%", "percent"),
    "slice_auc": Column("AUC, slices", "", "fraction"),
}
SUBJECTS, SLICES = Column("Subjects", "", "count"), Column("Slices", "", "count")


def class_blocks(runs: Sequence[Run]) -> list[Block]:
    """Return confusion matrices of each run's test and, of three classes and more, tables."""
    tested = [run for run in runs if "slice_confusion" in (run.metrics.get("test") or {})]
    if not tested:
        return []
    blocks: list[Block] = [Text(*dict.fromkeys(note for run in tested for note in _notes(run)))]
    K = max(len(run.class_names) for run in tested)
    if K <= MOST_CLASSES:
        blocks.append(Fold("Confusion matrices", [_matrices(tested)]))
    if K > NARROW:
        blocks.append(Fold("The commonest confusions", [_confusions(tested)]))
    if 2 < K <= MOST_CLASSES:
        blocks.append(Fold("Class by class: each against the rest", [_classes(tested)]))
    return blocks


def _matrices(runs: Sequence[Run]) -> TableBlock:
    """Count test slices and subjects by true class (row) and predicted class (column)."""
    names = [str(name) for name in runs[0].class_names]
    rows: list[list[object]] = []
    for run in runs:
        for level in ("slice", "subject"):
            for name, counts in zip(names, _table(run, level), strict=False):
                cells = [
                    Cell(int(count), run=run.name, quantity=f"matrix.{level}.{name}.{other}")
                    for other, count in zip(names, counts, strict=True)
                ]
                rows.append([named(run), f"{level}s", name, *cells])
    columns = [*map(Column, ("Run", "Of", "True class")), *(Column(n, "", "count") for n in names)]
    over = ["", "", "", *["Predicted class"] * len(names)]
    caption = "Confusion matrices of the test, by slices and by subjects."
    return TableBlock("confusion", Table(caption, columns, rows), over)


def _confusions(runs: Sequence[Run]) -> TableBlock:
    rows: list[list[object]] = []
    for run in runs:
        slices, subjects = _table(run, "slice"), _table(run, "subject")
        wrong = np.where(np.eye(len(slices), dtype=bool), 0, slices)
        for at in np.argsort(-wrong, axis=None, kind="stable")[:MOST_LISTED]:
            true, predicted = (int(k) for k in divmod(at, len(slices)))
            count = int(wrong[true, predicted])
            if count == 0:
                break
            values: dict[str, float | None] = {
                "slices": count,
                "share": float(count / slices[true].sum()),
                "subjects": int(subjects[true, predicted]) if subjects.size else None,
            }
            names = [str(run.class_names[k]) for k in (true, predicted)]
            cells = cells_of(values, values, run.name, ".".join(["confusion", *names]))
            rows.append([named(run), *names, *cells])
    caption = (
        f"The commonest confusions of each run's test, at most {MOST_LISTED} per run. Share: of "
        "the slices of the true class."
    )
    share = Column("Share", "%", "percent")
    columns = *map(Column, ("Run", "Class", "Predicted")), SLICES, share, SUBJECTS
    return TableBlock("confusions", Table(caption, columns, rows))


def _classes(runs: Sequence[Run]) -> TableBlock:
    rows: list[list[object]] = []
    for run in runs:
        slices, subjects = _table(run, "slice"), _table(run, "subject")
        for k, name in enumerate(map(str, run.class_names)):
            of_class = int(subjects[k].sum()) if subjects.size else None
            counts = {"subjects": of_class, "slices": int(slices[k].sum())}
            cells = cells_of(counts, counts, run.name, f"class.{name}")
            rows.append([named(run), name, *cells, *(_score(run, name, key) for key in OF_CLASS)])
    caption = (
        f"Each class against the rest on test, with {CONFIDENCE} intervals. Each interval is of "
        "its class alone: of twenty such, one misses the truth."
    )
    columns = *map(Column, ("Run", "Class")), SUBJECTS, SLICES, *OF_CLASS.values()
    return TableBlock("classes", Table(caption, columns, rows))


def _score(run: Run, name: str, key: str) -> Cell:
    level, _, score = key.partition("_")
    of_class: dict[str, Any] = run.metrics["test"].get(f"{level}_per_class") or {}
    return score_cell((of_class.get(name) or {}).get(score), run, f"class.{name}.{key}")


def _notes(run: Run) -> list[str]:
    """Say which classes the test of a run lacks, or knows from one subject."""
    fold = f", fold {run.setting.fold}" if run.setting.fold else ""
    split = f"{run.setting.split} split, seed {run.setting.seed}{fold}"
    notes = []
    untested = _names(run, _table(run, "slice").sum(axis=1) == 0)
    if untested:
        notes.append(
            f"The test of the {split} has no slices of {untested}: no mean over classes counts it."
        )
    subjects = _table(run, "subject")
    lone = _names(run, subjects.sum(axis=1) == 1) if subjects.size else ""
    if lone:
        notes.append(
            f"The test of the {split} has a single subject of {lone}: how subjects of a class "
            "differ cannot be told from one, so its scores have no bootstrap intervals."
        )
    return notes


def _names(run: Run, which: NDArray[np.bool_]) -> str:
    return ", ".join(str(run.class_names[k]) for k in np.flatnonzero(which))


def _table(run: Run, level: str) -> NDArray[np.int64]:
    """Return counts (K, K) by true and predicted class, (0, 0) where subjects are not known."""
    table = run.metrics["test"].get(f"{level}_confusion")
    return np.array(table, dtype=np.int64) if table else np.zeros((0, 0), dtype=np.int64)
