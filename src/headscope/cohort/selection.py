"""Which of the files below a folder are scans: masks, maps, copies and other contrasts are not."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import numpy as np

from headscope.cohort.folders import fold_levels
from headscope.cohort.tables import counted, listed
from headscope.cohort.values import Layout, Note
from headscope.console import track
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.dicom import Series
from headscope.scans.discovery import UNREAD, Kind, ScanFile, is_picture, plane_named
from headscope.scans.labelmaps import is_label_map, is_label_picture
from headscope.scans.naming import (
    AUGMENTED,
    DERIVATIVES,
    FREESURFER,
    MAPS,
    OTHER_DATA,
    STEM,
    any_structural,
    contrast_of,
    is_contrast,
    reason_left_out,
    subset_of,
)

if TYPE_CHECKING:
    import pandas as pd

GIVEN: Final = "given"  # the column of subsets that a folder or a column names, and such a split
SUBSETS: Final = ("train", "val", "test")
SUBSET_COLUMNS: Final = ("subset", "split", "partition", "set")
FALLBACKS: Final = (DERIVATIVES, OTHER_DATA, MAPS, AUGMENTED)  # used where there is nothing else
MOST_KINDS: Final = 12  # of other files that a note names
LIMIT_STREAM: Final = 0x11417  # seeds the draw of `limit_subjects`
MANY: Final = 500  # scans, of which looking takes a second


@dataclass(frozen=True)
class Selection:
    """The paths of scans, those that were left out, and notes on why."""

    names: list[str]
    left: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def select_scans(data: Path, names: Sequence[str], contrast: str | None) -> Selection:
    """Return the paths that show anatomy by their names, and of those the wanted contrast."""
    stems = {STEM.sub("", PurePosixPath(name).name) for name in names}
    reasons = {name: reason_left_out(name, stems) for name in names}
    chosen = [name for name in names if reasons[name] is None]
    counts = Counter(reason for reason in reasons.values() if reason is not None)
    notes = []
    if not chosen:
        reason = next((reason for reason in FALLBACKS if counts.pop(reason, 0)), None)
        if reason is None:
            raise InputError(
                f"{data} holds no scans but {counted(len(names), 'file')} that are "
                f"{' and '.join(counts)} by their names, the first {names[0]}: to use them, list "
                "them in a scans.tsv with path, subject_id and label."
            )
        chosen = [name for name in names if reasons[name] == reason]
        notes.append(Note(f"All scans are {reason} by their names: there is nothing else to use."))
    if counts:
        what = ", ".join(f"{reason} ({count})" for reason, count in counts.items())
        notes.append(Note(f"Left out by their names: {what}.", about="left out"))
    best = _best_of_freesurfer(chosen)
    if len(best) < len(chosen):
        left = counted(len(chosen) - len(best), "volume")
        order = ", ".join(FREESURFER[:5])
        text = f"Of FreeSurfer's volumes of a scan the first of {order}, … is taken, not {left}."
        notes.append(Note(text, about="left out"))
    taken, of_contrast = take_contrast(data, best, contrast)
    left_out = sorted(set(names) - set(taken))
    return Selection(taken, left_out, [*notes, *of_contrast])


def drop_label_maps(data: Path, kinds: Mapping[str, Kind], selection: Selection) -> Selection:
    """Leave out what is a label map by its voxels, where names are silent and scans remain."""
    volumes = [
        name for name in selection.names if kinds[name] == "volume" and not plane_named(name)
    ]
    many = len(volumes) > MANY
    looked = track(volumes, "Looking for label maps", len(volumes)) if many else volumes
    flat = {name for name in looked if is_label_map(ScanFile(data / name, "volume"))}
    flat |= {name for name in _beside_others(selection.names) if is_label_picture(data / name)}
    if not flat:
        return selection
    pictures = sum(map(is_picture, flat))
    unit = "picture" if pictures == len(flat) else "file" if pictures else "volume"
    held = "hold few whole numbers in patches of one value, as masks and label maps do"
    if flat == set(selection.names):
        note = Note(f"All scans {held}: nothing else is there to use.")
        return Selection(selection.names, selection.left, [*selection.notes, note])
    note = Note(f"Left out, as they {held}: {counted(len(flat), unit)}.", about="left out")
    return Selection(
        [name for name in selection.names if name not in flat],
        sorted({*selection.left, *flat}),
        [*selection.notes, note],
    )


def _beside_others(names: Sequence[str]) -> list[str]:
    """Return the pictures X_word that stand beside a picture X."""
    stems = {name: STEM.sub("", name) for name in names if is_picture(name)}
    bases = set(stems.values())
    shorter = {name: re.sub(r"[ _.-]+[A-Za-z]+$", "", stem) for name, stem in stems.items()}
    return [name for name, base in shorter.items() if base != stems[name] and base in bases]


def note_others(others: Counter[str]) -> list[Note]:
    """Say how many files of other kinds there are: those that may hold scans by themselves."""
    folders = {kind: others[kind] for kind in others if kind.startswith("folders")}
    others = others - Counter(folders)
    unread = Counter({kind: others[kind] for kind in others if kind in UNREAD})
    notes = [Note(f"{kind.capitalize()}: {count}.") for kind, count in folders.items()]
    if unread:
        text = f"Not read, though they may show scans: {_kinds(unread)}. Convert them to NIfTI "
        notes.append(Note(f"{text}(pictures to PNG).", about="left out"))
    if others - unread:
        notes.append(Note(f"Files of other kinds: {_kinds(others - unread)}."))
    return notes


def note_series(data: Path, left_out: Sequence[Series]) -> list[Note]:
    """Count what is beside the DICOM series that are taken, by kind, and name the first."""
    notes = []
    for kind, number in Counter(series.kind for series in left_out).most_common():
        some = [series for series in left_out if series.kind == kind]
        files = counted(sum(series.files for series in some), "file")
        first = min(series.path for series in some).relative_to(data)
        text = f"Left out beside the DICOM series taken: {number} × {kind} ({files})."
        notes += [
            Note(text, about="left out"),
            Note(f"The first {kind} is {first}.", names_ids=True),
        ]
    return notes


def note_contrasts(scans: "pd.DataFrame") -> list[Note]:
    """Say which contrasts the names of scans hold, where there are several."""
    contrasts = scans["path"].map(contrast_of)
    counts = contrasts.value_counts().sort_index()
    if len(counts) < 2 or not any_structural(list(counts.index)):
        return []
    named = scans["subject_id"] != NO_ID
    keys = [scans.loc[named, name] for name in ("subject_id", "session_id")]
    several = int(contrasts[named].groupby(keys).nunique().gt(1).sum())
    listing = ", ".join(f"{name} ({counted(count, 'scan')})" for name, count in counts.items())
    where = f", several in {counted(several, 'session')}" if several else ""
    return [Note(f"Contrasts by the names: {listing}{where}; --contrast chooses one.")]


def with_given(layout: Layout) -> Layout:
    """Add the column `given` where a column or folders name the subset of every scan."""
    scans = layout.scans
    if GIVEN in scans:
        return layout
    for column in (name for name in scans.columns if name.lower() in SUBSET_COLUMNS):
        subsets = scans[column].map(subset_of)
        if {"train", "test"} <= {subset[0] for subset in subsets if subset} and subsets.all():
            note = Note(f"The column {column} names the subsets of a given partition.")
            notes = [*layout.notes, note]
            return replace(layout, scans=scans.assign(given=subsets.str[0]), notes=notes)
    facts = fold_levels(list(scans["path"])).facts
    if GIVEN not in facts:
        return layout
    return replace(layout, scans=scans.assign(given=np.array(facts[GIVEN], dtype=object)))


def refuse_experiment(data: Path) -> None:
    """Refuse the folder of an experiment of other scans: what is in it are results (InputError)."""
    settings = data / "experiment.toml"
    if not (settings.is_file() and (data / "runs").is_dir()):
        return
    try:
        scans = tomllib.loads(settings.read_text(encoding="utf-8")).get("data")
    except ValueError:
        scans = None
    if scans and (data / scans).resolve() == data.resolve():
        return
    named = f", {(data / scans).resolve()}" if scans else ""
    raise InputError(f"{data} is an experiment, which holds results: give its scans{named}.")


def note_given(scans: "pd.DataFrame") -> list[Note]:
    """Say what a given partition holds, and which subjects are in several of its subsets."""
    if GIVEN not in scans:
        return []
    parts = ", ".join(
        f"{name} {scans_of_subjects(group['subject_id'])}"
        for name in SUBSETS
        if len(group := scans[scans[GIVEN] == name])
    )
    named = scans[scans["subject_id"] != NO_ID]
    text = f"Given partition: {parts}; --splits given uses it."
    if not {"train", "test"} <= set(scans[GIVEN]):
        text = f"Given partition: {parts}; --splits given needs train and test."
    elif "val" not in set(scans[GIVEN]):
        unit = "subject" if len(named) == len(scans) else "slice"
        text += f" Validation is then drawn from train, by {unit}."
    lacking = [
        f"{name} has no {label}"
        for name in SUBSETS
        for label in sorted(set(scans["label"]) - set(scans.loc[scans[GIVEN] == name, "label"]))
        if name in set(scans[GIVEN])
    ]
    if lacking:
        text += f" It needs each class in each subset, and {listed(lacking)}."
    notes = [Note(text)]
    shared = int(named.groupby("subject_id")[GIVEN].nunique().gt(1).sum())
    if shared:
        are = "is" if shared == 1 else "are"
        text = (
            f"{counted(shared, 'subject')} {are} in several of its subsets: its accuracy says "
            "nothing about new subjects."
        )
        notes.append(Note(text))
    return notes


def limit_subjects(scans: "pd.DataFrame", count: int) -> "tuple[pd.DataFrame, Note]":
    """Return the scans of `count` subjects per class, drawn by one seed, and a note on it.

    A subject is drawn with all of its scans, those of other classes too, and of scans without ids
    each is drawn alone. Where the data give subsets, as many are drawn per class of each.
    """
    by = ["label", *([GIVEN] if GIVEN in scans.columns else [])]
    unit = scans["subject_id"].where(scans["subject_id"] != NO_ID, scans["path"])
    rng = np.random.default_rng(LIMIT_STREAM)
    drawn: set[str] = set()
    for _, part in scans.assign(unit=unit).groupby(by, sort=True):
        units = np.sort(part["unit"].unique())
        # subjects of several classes that are drawn already count
        order = sorted(rng.permutation(units), key=lambda name: name not in drawn)
        drawn |= set(order[:count])
    limited = scans[unit.isin(drawn)]
    what = "pictures" if (scans["subject_id"] == NO_ID).all() else "subjects"
    text = (
        f"A first try: {count} {what} per class were drawn, or all where there are fewer: "
        f"{len(limited):,} of {len(scans):,} scans (limit = {count}). Its scores are no result "
        "of the cohort."
    )
    return limited.reset_index(drop=True), Note(text, about="left out")


def scans_of_subjects(subjects: "pd.Series[str]") -> str:
    """Say how many scans of how many subjects there are: one id per scan."""
    if len(subjects) and (subjects == NO_ID).all():
        return f"{counted(len(subjects), 'picture')} without subject ids"
    return f"{counted(len(subjects), 'scan')} of {counted(subjects.nunique(), 'subject')}"


def _kinds(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count} {kind}" for kind, count in ordered[:MOST_KINDS]]
    rest = sum(count for _, count in ordered[MOST_KINDS:])
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def _best_of_freesurfer(names: Sequence[str]) -> list[str]:
    """Return the names with one volume of each FreeSurfer folder `mri`: the best that is there."""
    best: dict[str, tuple[int, str]] = {}
    for name in names:
        rank = _freesurfer_rank(name)
        if rank is not None:
            folder = name.split("/mri/", 1)[0]
            best[folder] = min(best.get(folder, rank), rank)
    chosen = {name for _, name in best.values()}
    return [name for name in names if name in chosen or _freesurfer_rank(name) is None]


def _freesurfer_rank(name: str) -> tuple[int, str] | None:
    path = PurePosixPath(name)
    if path.suffix.lower() not in (".mgz", ".mgh") or "/mri/" not in f"/{name}":
        return None
    stem = STEM.sub("", path.name)
    return FREESURFER.index(stem) if stem in FREESURFER else len(FREESURFER), name


def take_contrast(data: Path, names: list[str], wanted: str | None) -> tuple[list[str], list[Note]]:
    """Return the names of one contrast, or all where none is wanted."""
    if wanted is None:
        return names, []
    contrasts = {name: contrast_of(name) for name in names}
    counts = Counter(contrast or "none in the name" for contrast in contrasts.values())
    matches = is_contrast(wanted, {contrast for contrast in contrasts.values() if contrast})
    if not matches:
        raise InputError(
            f"No scan of {data} is of the contrast {wanted!r}: their names hold "
            f"{listed([f'{name} ({count})' for name, count in sorted(counts.items())])}."
        )
    others = ", ".join(
        f"{name} ({counted(count, 'scan')})"
        for name, count in sorted(counts.items())
        if name not in matches
    )
    notes = [Note(f"Contrast by the names: {' and '.join(sorted(matches))}.")]
    if others:
        text = f"Left out, as they are of other contrasts: {others}."
        notes.append(Note(text, about="left out"))
    return [name for name in names if contrasts[name] in matches], notes
