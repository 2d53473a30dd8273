"""What could make a cohort's accuracy look better than it is, found before anything is trained.

Duplicates and subjects under two ids (`duplicates`), labels that contradict each other, what
crosses the subsets of a split (`crossings`), and facts that tell the label without anatomy
(`shortcuts`). `wording` says it in words; `store_audit` keeps an experiment's in `audit.json`.
"""

import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.audit_record import (
    Audit,
    Pair,
    Shortcut,
    Subsets,
    read_audit,
    save_audit,
    split_files,
)
from headscope.auditing.crossings import (
    Units,
    check_split,
    find_subsets,
    join_duplicates,
    read_split,
    scan_subsets,
)
from headscope.auditing.duplicates import COPY, MOST_LISTED, Matches, find_matches, number_scans
from headscope.auditing.inferring import infer_subjects
from headscope.auditing.shortcuts import find_shortcuts, scan_facts, slice_facts
from headscope.auditing.wording import (
    label_finding,
    match_findings,
    note_matches,
    shortcut_finding,
    split_findings,
)
from headscope.cohort.joining.listed import INFERRED
from headscope.cohort.layouts import Cohort, find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.cohort.selection import GIVEN, SUBSETS
from headscope.console import busy
from headscope.errors import InputError
from headscope.files import NO_ID, any_names, write_table
from headscope.manifest import DAMAGE, reason_of
from headscope.slicing.inferred import Sets, set_of_split, sets_of
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet, open_slices
from headscope.slicing.write import write_slices
from headscope.splits.assign import KEYS
from headscope.threads import one_blas_thread

SIZE: Final = 96  # pixels; what the comparison in detail wants
MOST_SHOWN: Final = 200  # pairs that keep their pictures
VALIDATION_LATER: Final = (
    "The given partition has no validation: a run draws it from training, and may then count fewer "
    "duplicates between training and test than are counted here."
)
IDS: Final = ["scan", "subject_id", "session_id", "label"]

FileOf = Callable[[str], Path]


@busy("Auditing")
@any_names
def audit(
    path: Path | str,
    *,
    out: Path | str | None = None,
    plane: str = "axial",
    count: int = 30,
    copy_threshold: float = COPY,
    workers: int | None = None,
    pseudonym_key: Path | str | None = None,
    write_subjects: Path | str | None = None,
    **options: Any,
) -> Audit:
    """Check a folder of scans, an experiment, or a stored set of slices.

    Parameters
    ----------
    path
        Scans, which are sliced small first; or an experiment, whose audit is that of `audit.json`,
        made there if it is missing or out of date; or stored slices.
    out
        Folder for the slices of scans; a temporary one by default.
    plane, count, workers
        How scans are sliced.
    copy_threshold
        Least correlation of a copy's slices at 24×24 pixels, 0.9 to 1.
    pseudonym_key
        A key file: ids of scans become keyed hashes, and no path is kept.
    write_subjects
        A file for the subjects inferred from pixels (`infer_subjects`), to be corrected by hand and
        given back as `subjects`.
    **options
        Those of `find_cohort`: label, classes, threshold, where, subjects.

    Raises
    ------
    InputError
        `path` is none of the three, or holds exported runs without slices; the threshold is
        outside 0.9 to 1, the key is none, stored slices are to be pseudonymised, or
        `write_subjects` is a folder.

    Examples
    --------
    >>> audit = hs.audit("scans", count=2, workers=1)
    >>> audit.scans, audit.findings[0].check, audit.findings[0].level
    (12, 'Identical scans', 'fine')
    """
    path = Path(path)
    if not 0.9 <= copy_threshold <= 1:
        raise InputError(f"Copy threshold {copy_threshold} is not valid: choose 0.9 to 1.")
    if write_subjects is not None and Path(write_subjects).is_dir():
        raise InputError(f"{write_subjects} is a folder: --write-subjects names a file.")
    for folder in (path / "slices", path):
        if (folder / "slices.json").is_file():
            if pseudonym_key is not None:
                raise InputError(
                    f"{path} holds slices, which keep the ids that they were taken with: "
                    "--pseudonym-key is for a folder of scans."
                )
            slices = open_slices(folder)
            if write_subjects is not None:
                slices.check_pixels()
                write_table(Path(write_subjects), infer_subjects(slices))
            return _audit_stored(path, slices, copy_threshold)
    if not (path / "experiment.toml").is_file() and any(path.glob("runs/*/metrics.json")):
        raise InputError(
            f"{path} holds runs without their slices: audit the experiment that trained them."
        )
    cohort = find_cohort(path, plane=plane, **options)
    with tempfile.TemporaryDirectory(prefix="headscope-") as temporary:
        folder = Path(temporary) if out is None else Path(out)
        if pseudonym_key is not None:
            cohort = pseudonymise_cohort(cohort, Path(pseudonym_key), folder)
        slices = write_slices(cohort, folder, SliceSpec(plane, count, SIZE), workers=workers)
        name = str(path) if pseudonym_key is None else "pseudonymised scans"
        if write_subjects is not None:
            write_table(Path(write_subjects), infer_subjects(slices))
        return audit_slices(
            slices,
            name,
            files_of(cohort),
            [],
            correlation=copy_threshold,
            given=_given_split(cohort, slices),
        )


def _audit_stored(path: Path, slices: SliceSet, correlation: float) -> Audit:
    """Audit stored slices; an experiment's audit by the usual threshold is kept in it."""
    slices.check_pixels()
    file_of = _file_of(path)
    if correlation == COPY and (path / "experiment.toml").is_file():
        return with_pictures(store_audit(path, slices, file_of), slices.pixels)
    return audit_slices(slices, str(path), file_of, split_files(path), correlation=correlation)


def store_audit(experiment: Path, slices: SliceSet, file_of: FileOf | None) -> Audit:
    """Return the audit of an experiment's slices and splits.

    `audit.json` keeps it; it is made again where slices or splits have changed since.
    """
    stored = read_audit(experiment, exact=True)
    if stored is not None:
        return stored
    slices.check_pixels()
    sets = sets_of(experiment, slices)
    result = audit_slices(slices, str(experiment), file_of, split_files(experiment), sets=sets)
    save_audit(experiment, result)
    return result


def with_pictures(result: Audit, pixels: NDArray[np.uint8]) -> Audit:
    """Return an audit whose first pairs hold their middle slices."""
    pairs = [
        replace(pair, pictures=np.stack([pixels[row] for row in pair.rows]))
        if n < MOST_SHOWN
        else pair
        for n, pair in enumerate(result.pairs)
    ]
    return replace(result, pairs=pairs)


@one_blas_thread
def audit_slices(
    slices: SliceSet,
    path: str,
    file_of: FileOf | None,
    splits: Sequence[Path],
    *,
    correlation: float = COPY,
    given: pd.DataFrame | None = None,
    sets: Sets | None = None,
) -> Audit:
    """Check stored slices; `file_of` tells a scan's file, or is None where that is unknown.

    `splits` are files, `given` is one of slices by the folders of the data; `sets` are the slices
    under inferred subjects too, whose ids some splits name.
    """
    table, sets = slices.table, sets or {None: slices}
    scan = number_scans(table[IDS])
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    scans = table[IDS].iloc[starts].reset_index(drop=True)
    named, units = scans["subject_id"] != NO_ID, _units(scans, scan)
    unit = "subjects" if named.all() else "pictures"
    # 1. one head twice
    plane = pd.factorize(table["plane"])[0]
    matches = find_matches(slices.pixels, scan, units.subject, plane=plane, correlation=correlation)
    # 2. what crosses each split, and labels
    tables = {file.stem: read_split(file) for file in splits}
    beneath = {file.stem: set_of_split(sets, file).table for file in splits}
    tables |= {} if given is None else {GIVEN: given}
    inside = {n: find_subsets(beneath.get(n, table), split) for n, split in tables.items()}
    checks = [
        check_split(name, tables[name], rows, units, matches) for name, rows in inside.items()
    ]
    sides = {name: scan_subsets(rows, units) for name, rows in inside.items()}
    conflicts = _conflicts(scans[named])
    # 3. what tells the label without anatomy, over heads: a duplicate is no second subject
    loose = sets.get(f"{INFERRED}-loose")
    subject = units.subject
    if loose is not None:
        subject = pd.factorize(loose.table["subject_id"].iloc[starts])[0].astype(np.intp)
    shortcuts = _shortcuts(slices, starts, scans, file_of, join_duplicates(matches, subject))
    result = Audit(
        path=path,
        layout=str(slices.settings.get("layout", "slices")),
        unit=unit,
        scans=len(scans),
        subjects=int(scans["subject_id"][named].nunique()),
        slices=len(table),
        classes=_class_sizes(scans, slices.class_names, units),
        findings=[
            *match_findings(matches, scans, units, checks, unit),
            label_finding(conflicts, bool(named.all())),
            *split_findings(checks, unit),
            *map(shortcut_finding, shortcuts),
        ],
        pairs=_pairs(matches, scans, starts, len(table), sides),
        visits=(len(matches.visits), sum(match.kind != "" for match in matches.visits)),
        conflicts=conflicts,
        splits=checks,
        shortcuts=shortcuts,
        notes=[*slices.notes, *note_matches(matches, bool(named.all())), *_note_given(given)],
    )
    return with_pictures(result, slices.pixels)


def files_of(cohort: Cohort) -> FileOf:
    """Return what tells the file of each scan by the name that the slices have for it."""
    files = cohort.scans["path"].map(cohort.root.joinpath)
    return dict(zip(cohort.names, files, strict=True)).__getitem__


def _file_of(experiment: Path) -> FileOf | None:
    """Return what tells the file of an experiment's scan, if scans are still there."""
    settings = experiment / "experiment.toml"
    if not settings.is_file():
        return None
    try:
        data = Path(str(tomllib.loads(settings.read_text(encoding="utf-8")).get("data", "")))
    except DAMAGE as error:
        raise InputError(f"{settings} is damaged: {reason_of(error)}.") from None
    folder = experiment / data  # paths are taken from the file's own folder
    if not folder.exists():
        return None
    return (folder if folder.is_dir() else folder.parent).joinpath


def _units(scans: pd.DataFrame, scan: NDArray[np.intp]) -> Units:
    """Number the subjects by their ids; a scan without one is a subject of its own."""
    named = (scans["subject_id"] != NO_ID).to_numpy()
    alone = np.arange(len(scans))
    subject = pd.factorize(scans["subject_id"], sort=True)[0] + len(scans)
    subject = np.where(named, subject, alone)
    return Units(scan, subject, subject if named.all() else alone)


def _given_split(cohort: Cohort, slices: SliceSet) -> pd.DataFrame | None:
    """Return the split of slices by the folders of the data; None where they give none."""
    if not {"train", "test"} <= set(cohort.scans.get(GIVEN, ())):
        return None
    subsets = dict(zip(cohort.names, cohort.scans[GIVEN], strict=True))
    return slices.table[KEYS["slice"]].assign(subset=slices.table["scan"].map(subsets))


def _note_given(given: pd.DataFrame | None) -> list[str]:
    """Say why a run may count fewer duplicates in the training of a given partition."""
    return [] if given is None or (given["subset"] == "val").any() else [VALIDATION_LATER]


def _class_sizes(scans: pd.DataFrame, class_names: Sequence[str], units: Units) -> dict[str, int]:
    """Count the subjects of each class, or its pictures where they name no subject."""
    labels = scans["label"].to_numpy(str)
    return {name: len(np.unique(units.unit[labels == name])) for name in class_names}


def _shortcuts(
    slices: SliceSet,
    starts: NDArray[np.intp],
    scans: pd.DataFrame,
    file_of: FileOf | None,
    head: NDArray[np.intp],
) -> list[Shortcut]:
    files = None if file_of is None else scans["scan"].map(file_of)
    facts = pd.concat([scan_facts(files, len(scans)), slice_facts(slices.pixels, starts)], axis=1)
    return find_shortcuts(facts, scans["label"].to_numpy(str), head)


def _pairs(
    matches: Matches,
    scans: pd.DataFrame,
    starts: NDArray[np.intp],
    slices: int,
    of_scan: dict[str, NDArray[np.bool_]],
) -> list[Pair]:
    """Return the matches with what is known of their scans; `of_scan` holds (S, 3) by split."""
    middles = starts + np.diff([*starts, slices]) // 2
    names = {column: scans[column].to_numpy(str) for column in IDS}

    def both(column: str, two: list[int]) -> tuple[str, str]:
        first, second = names[column][two]
        return str(first), str(second)

    def subsets(inside: NDArray[np.bool_], scan: int) -> Subsets:
        return tuple(np.array(SUBSETS)[inside[scan]].tolist())

    pairs = []
    for match in matches.pairs[:MOST_LISTED]:
        two = [match.first, match.second]
        pairs.append(
            Pair(
                kind=match.kind,
                scans=both("scan", two),
                subjects=both("subject_id", two),
                sessions=both("session_id", two),
                labels=both("label", two),
                subsets={
                    name: (subsets(inside, two[0]), subsets(inside, two[1]))
                    for name, inside in of_scan.items()
                },
                rows=(int(middles[two[0]]), int(middles[two[1]])),
                correlation=round(match.correlation, 4),
                deviation=round(match.deviation, 4),
                detail=round(match.detail, 4),
            )
        )
    return pairs


def _conflicts(scans: pd.DataFrame) -> dict[str, list[str]]:
    labels = scans.groupby("subject_id")["label"].unique()
    return {str(name): sorted(map(str, names)) for name, names in labels.items() if len(names) > 1}
