"""Class by class: whom each run took for whom, and how each class is told from the rest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.figures import plot_confusion
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import Cell, Folded, Grid, Part, Plate, Words, bounded, named
from headscope.reporting.pictures import drawn

NAMED: Final = 6  # classes above which the commonest confusions are also told by name
MOST_LISTED: Final = 10  # confusions of a run
MOST_CLASSES: Final = 30  # classes above which they have no table of their own
OF_CLASS: Final = (
    ("subject_sensitivity", "percent"),
    ("subject_specificity", "percent"),
    ("subject_auc", "fraction"),
    ("slice_sensitivity", "percent"),
    ("slice_auc", "fraction"),
)


def class_parts(runs: Sequence[Run], figures: Path) -> list[Part]:
    """Return confusion matrices of each run's test and, of three classes and more, tables."""
    tested = [run for run in runs if "slice_confusion" in (run.metrics.get("test") or {})]
    if not tested:
        return []
    notes = list(dict.fromkeys(note for run in tested for note in _thin(run)))
    parts: list[Part] = [Words(notes)] if notes else []
    plates = [_plate(run, figures) for run in tested]
    parts.append(Folded("Who was taken for whom: confusion matrices", plates))
    K = max(len(run.class_names) for run in tested)
    if K > NAMED:
        parts.append(Folded("The commonest confusions", [_confusions(tested)]))
    if 2 < K <= MOST_CLASSES:
        parts.append(Folded("Class by class: each against the rest", [_classes(tested)]))
    return parts


def _plate(run: Run, figures: Path) -> Plate:
    test = run.metrics["test"]
    title, network = run.setting.title, run.setting.network
    figure = plot_confusion(
        test["slice_confusion"],
        test.get("subject_confusion"),
        run.class_names,
        title=title,
        network=network,
    )
    alt = f"{title}: test slices and subjects by true and predicted class."
    caption = Markup(
        "<b>Confusion matrices.</b> {}, {}: test slices and subjects by true class (row) and the "
        "class they were called; shades are shares of the row."
    ).format(title, network)
    picture = drawn(figure, figures / f"confusion-{run.name}", alt)
    return Plate(picture, caption, wide=len(run.class_names) > NAMED)


def _confusions(runs: Sequence[Run]) -> Grid:
    """List the commonest confusions of each run, by slices."""
    rows: list[list[Cell]] = []
    for run in runs:
        slices, subjects = (_table(run, level) for level in ("slice", "subject"))
        wrong = np.where(np.eye(len(slices), dtype=bool), 0, slices)
        for cell in np.argsort(-wrong, axis=None, kind="stable")[:MOST_LISTED]:
            true, called = (int(at) for at in divmod(cell, len(slices)))
            if wrong[true, called] == 0:
                break
            key = f"confusion.{run.class_names[true]}.{run.class_names[called]}"
            of = int(slices[true].sum())
            people = int(subjects[true, called]) if subjects.size else None
            rows.append(
                [
                    named(run),
                    str(run.class_names[true]),
                    str(run.class_names[called]),
                    number(int(wrong[true, called]), run.name, f"{key}.slices", "count"),
                    number(wrong[true, called] / of, run.name, f"{key}.share", "percent"),
                    number(people, run.name, f"{key}.subjects", "count"),
                ]
            )
    caption = Markup(
        "<b>The commonest confusions</b> of each run's test, at most {} a run. Share: of the "
        "slices of the true class."
    ).format(MOST_LISTED)
    columns = (
        ("Run", ""),
        ("Class", ""),
        ("Called", ""),
        ("Slices", ""),
        ("Share", "%"),
        ("Subjects", ""),
    )
    return Grid(caption, columns, rows, left=3)


def _classes(runs: Sequence[Run]) -> Grid:
    """Set each class against the rest."""
    rows: list[list[Cell]] = []
    for run in runs:
        test = run.metrics["test"]
        slices, subjects = (_table(run, level) for level in ("slice", "subject"))
        for k, name in enumerate(run.class_names):
            people = int(subjects[k].sum()) if subjects.size else None
            rows.append(
                [
                    named(run),
                    str(name),
                    number(people, run.name, f"class.{name}.subjects", "count"),
                    number(int(slices[k].sum()), run.name, f"class.{name}.slices", "count"),
                    *(_figure(run, test, str(name), each, show) for each, show in OF_CLASS),
                ]
            )
    caption = Markup(
        "<b>Each class against the rest</b> on test, with 95% intervals. Each interval is of its "
        "class alone: of twenty such, one misses the truth."
    )
    columns = (
        ("Run", ""),
        ("Class", ""),
        ("Subjects", ""),
        ("Slices", ""),
        ("Sensitivity, subjects", "%"),
        ("Specificity, subjects", "%"),
        ("AUC, subjects", ""),
        ("Sensitivity, slices", "%"),
        ("AUC, slices", ""),
    )
    return Grid(caption, columns, rows, left=2)


def _figure(run: Run, test: dict[str, Any], name: str, key: str, show: str) -> Markup:
    level, _, figure = key.partition("_")
    value = ((test.get(f"{level}_per_class") or {}).get(name) or {}).get(figure) or {}
    ends = value.get("low"), value.get("high")
    return bounded(value.get("value"), *ends, run.name, f"class.{name}.{key}", show)


def _thin(run: Run) -> list[str]:
    """Say which classes the test of a run lacks, or knows from one subject."""
    split = f"{run.settings['split']} split, seed {run.settings['seed']}"
    if run.settings.get("fold"):
        split += f", fold {run.settings['fold']}"
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
            "differ cannot be told from one, so its figures have no bootstrap intervals."
        )
    return notes


def _names(run: Run, which: NDArray[np.bool_]) -> str:
    return ", ".join(str(run.class_names[k]) for k in np.flatnonzero(which))


def _table(run: Run, level: str) -> NDArray[np.int64]:
    """Return counts (K, K) by true class and call, (0, 0) where subjects are not known."""
    found = run.metrics["test"].get(f"{level}_confusion")
    return np.array(found, dtype=np.int64) if found else np.zeros((0, 0), dtype=np.int64)
