"""The chapter on the cohort: how many subjects, sessions and slices each subset holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from headscope.analysis import cohort_table, shared_subjects
from headscope.files import NO_ID
from headscope.record import Run
from headscope.reporting.blocks import ABOVE, Chapter, TableBlock, Text
from headscope.reporting.chapters.runs import group_by
from headscope.reporting.numbers import number, say
from headscope.tables import Cell, Column, Table

TITLES: Final = {"train": "training", "val": "validation", "test": "test"}
UNITS: Final = ("subjects", "sessions", "slices")
MOST_BESIDE: Final = 3  # classes above which they stand below each other: beside, they run off


@dataclass(frozen=True)
class Split:
    """One split, fold and seed, by the first run that trained by it.

    counts holds the row of `cohort_table` by subset and class; subjects_of the subjects of each
    class, of pictures without ids none; shared the subjects in training and test.
    """

    run: Run
    shared: int
    counts: Mapping[tuple[str, str], Mapping[Any, Any]]
    subjects: int
    subjects_of: Mapping[str, int]


def split_of(run: Run) -> Split:
    """Count what the subsets of a run hold."""
    named = run.predictions[run.predictions["subject_id"] != NO_ID]
    subjects = named.groupby("label")["subject_id"].nunique()
    return Split(
        run=run,
        shared=shared_subjects(run),
        counts={(row["subset"], row["label"]): row for row in cohort_table(run).to_dict("records")},
        subjects=int(named["subject_id"].nunique()),
        subjects_of={name: int(subjects.get(name, 0)) for name in run.class_names},
    )


def cohort_chapter(runs: Sequence[Run], slices: Path | None) -> Chapter:
    """Count what each subset holds; `slices` is the file of settings of the slices, with notes."""
    groups = group_by(runs, lambda run: (run.setting.split, *run.setting.fit))
    splits = [split_of(group[0]) for _, group in groups]
    notes = []
    if slices is not None and slices.is_file():
        notes = json.loads(slices.read_text(encoding="utf-8")).get("notes", [])
    notes_below = Text(*map(str, notes), style="notes")
    blocks = Text(_introduction(splits[0])), _table(splits), notes_below
    subjects = f"{splits[0].subjects} subjects" if splits[0].subjects else "no subject ids"
    result = f"{subjects}, {len(splits[0].run.predictions):,} slices"
    return Chapter("cohort", "Cohort and splits", blocks, result)


def _introduction(split: Split) -> Markup:
    run = split.run
    slices = number(len(run.predictions), run.name, "slices", "count")
    if not split.subjects:
        return say(
            "The pictures name no subjects: of {} slices it is not known which show the same "
            "subject. Scores over subjects and intervals are undefined.",
            slices,
        )
    classes = [
        say("{} of class {}", number(count, run.name, f"subjects.{name}", "count"), name)
        for name, count in split.subjects_of.items()
    ]
    return say(
        "{} subjects gave {} slices: {}. The unit of inference is the subject, since slices of "
        "one head are near copies of each other.",
        number(split.subjects, run.name, "subjects", "count"),
        slices,
        Markup(", ").join(classes),
    )


def _table(splits: Sequence[Split]) -> TableBlock:
    """Count by subset (row) and class (column), or the other way round where classes are many."""
    names = splits[0].run.class_names
    subsets = list(dict.fromkeys(subset for subset, _ in splits[0].counts))
    few = len(names) <= MOST_BESIDE
    over = names if few else [TITLES[subset] for subset in subsets]
    columns = [
        *("Split", "Subset" if few else "Class"),
        *(Column(unit, "", "count") for _ in over for unit in UNITS),
        Column("Subjects in training and test", "", "count"),
    ]
    rows: list[list[object]] = []
    tinted: list[int] = []
    for split in splits:
        lines = [[(subset, name) for name in names] for subset in subsets]
        if not few:
            lines = [[(subset, name) for subset in subsets] for name in names]
        if split.shared:
            tinted += range(len(rows), len(rows) + len(lines))
        first, last = _name(split), _cell(split, "shared_subjects", split.shared)
        if not split.subjects:
            last = _cell(split, "shared_subjects", None)
        for line in lines:
            title = TITLES[line[0][0]] if few else str(line[0][1])
            counts = [
                _cell(split, f"{unit}.{subset}.{name}", split.counts[subset, name][unit])
                for subset, name in line
                for unit in UNITS
            ]
            rows.append([first, title, *counts, last])
            first = last = ABOVE
    caption = (
        "What each subset holds. Counts of subjects in different subsets add up only where a "
        "split keeps subjects apart."
    )
    titles = ["", "", *(str(title) for title in over for _ in UNITS), ""]
    return TableBlock("cohort", Table(caption, columns, rows), titles, tinted)


def _cell(split: Split, quantity: str, count: int | None) -> Cell:
    return Cell(count, run=split.run.name, quantity=quantity)


def _name(split: Split) -> Cell:
    setting = split.run.setting
    fold = f"fold {setting.fold_text}, " if setting.fold_text else ""
    name = Markup('<span class="nowrap">{}, {}seed {}</span>')
    if split.shared:
        name += Markup('<small class="marker">slices of one subject {}on both sides</small>')
    may_be = "" if split.subjects else "may be "
    return Cell(name.format(setting.split, fold, setting.seed, may_be))
