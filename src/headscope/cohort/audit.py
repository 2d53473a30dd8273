"""What could make a cohort's accuracy look better than it is, found before anything is trained.

Duplicates and people under two ids (`duplicates`), labels that contradict each other, subjects in
two subsets of a split, and facts that tell the label without anatomy (`shortcuts`).
"""

import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.duplicates import COPY, Match, Matches, find_matches
from headscope.cohort.layouts import find_cohort
from headscope.cohort.privacy import pseudonymised
from headscope.cohort.shortcuts import Shortcut, find_shortcuts, scan_facts, slice_facts
from headscope.cohort.slices import SliceSet, open_slices, write_slices
from headscope.cohort.tables import counted, listed
from headscope.errors import InputError
from headscope.files import NO_ID, read_table

SIZE: Final = 96  # pixels; what the comparison in detail wants
MOST_SHOWN: Final = 200  # pairs that keep their pictures
IDS: Final = ["scan", "subject_id", "session_id", "label"]
NOBODY: Final = "nobody knows which slices show one subject"
LEVELS: Final = ("serious", "notice", "fine", "not checked")


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: level is "serious", "notice", "fine" or "not checked"."""

    check: str
    level: str
    text: str


@dataclass(frozen=True)
class Pair:
    """Two scans that show one head; each field of two holds the first's and the second's.

    subsets tells of each split by subject in which they stand apart: "subject-seed0: train, test".
    pictures (2, H, W) are their middle slices.
    """

    kind: str
    scans: tuple[str, str]
    subjects: tuple[str, str]
    sessions: tuple[str, str]
    labels: tuple[str, str]
    subsets: list[str]
    correlation: float
    deviation: float
    detail: float
    pictures: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SplitCheck:
    """One split: what it deals out, subjects or slices, and the subjects in several subsets."""

    name: str
    unit: str
    subjects: int
    shared: list[str]


@dataclass(frozen=True)
class Audit:
    """What was found in a cohort, check by check in `findings`, and what it rests on.

    visits are pairs of scans known to be of one person, and how many of them were recognised: how
    well a person under two ids would be found here. conflicts are subjects with several labels.
    """

    path: str
    layout: str
    scans: int
    subjects: int
    slices: int
    classes: dict[str, int]
    findings: list[Finding]
    pairs: list[Pair]
    visits: tuple[int, int]
    conflicts: dict[str, list[str]]
    splits: list[SplitCheck]
    shortcuts: list[Shortcut]
    notes: list[str]

    @property
    def serious(self) -> bool:
        """Whether any check found something serious."""
        return any(finding.level == "serious" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pictures, ready for JSON."""
        facts = {"serious": self.serious} | asdict(self)
        for pair in facts["pairs"]:
            del pair["pictures"]
        return facts

    def __str__(self) -> str:
        """Return a line for each check."""
        return "\n".join(f"{f.level:11}  {f.check}: {f.text}" for f in self.findings)


def audit(
    path: Path,
    *,
    out: Path | None = None,
    plane: str = "axial",
    count: int = 30,
    correlation: float = COPY,
    workers: int | None = None,
    pseudonymise: Path | None = None,
    **options: Any,
) -> Audit:
    """Check a folder of scans, an experiment, or a stored set of slices.

    Scans are sliced small first, into `out` if given; `options` are those of `find_cohort` (label,
    classes, threshold, where). `correlation` is the least of a copy's slices at 24×24 pixels.
    `pseudonymise` names a key file: ids of scans become keyed hashes, and no path is kept.

    Raises
    ------
    InputError
        `path` is none of the three, the correlation lies outside 0.9 to 1, the key is none, or
        stored slices are to be pseudonymised.
    """
    path = Path(path)
    if not 0.9 <= correlation <= 1:
        raise InputError(f"Correlation {correlation} is no threshold of copies: choose 0.9 to 1.")
    for folder in (path / "slices", path):
        if (folder / "slices.json").is_file():
            if pseudonymise is not None:
                raise InputError(
                    f"{path} holds slices, which keep the ids that they were taken with: "
                    "--pseudonymise is for a folder of scans."
                )
            tables = sorted((path / "splits").glob("*.tsv"))
            splits = [file for file in tables if not file.name.endswith(".balance.tsv")]
            stored, file_of = open_slices(folder), _file_of(path)
            return audit_slices(stored, str(path), file_of, splits, correlation=correlation)
    cohort = find_cohort(path, plane=plane, **options)
    with tempfile.TemporaryDirectory(prefix="headscope-") as temporary:
        folder = Path(temporary) if out is None else Path(out)
        if pseudonymise is not None:
            cohort = pseudonymised(cohort, Path(pseudonymise), folder)
        slices = write_slices(cohort, folder, plane=plane, count=count, size=SIZE, workers=workers)
        files = dict(zip(cohort.names, cohort.scans["path"].map(cohort.root.joinpath), strict=True))
        name = str(path) if pseudonymise is None else "pseudonymised scans"
        return audit_slices(slices, name, files.__getitem__, [], correlation=correlation)


def audit_slices(
    slices: SliceSet,
    path: str,
    file_of: Callable[[str], Path] | None,
    split_files: Sequence[Path],
    *,
    correlation: float = COPY,
) -> Audit:
    """Check stored slices; `file_of` tells a scan's file, or is None where that is unknown."""
    table = slices.table
    scan = _scan_numbers(table)
    starts = np.flatnonzero(np.diff(scan, prepend=-1))
    scans = table[IDS].iloc[starts].reset_index(drop=True)
    known = scans["subject_id"] != NO_ID
    person = scans["subject_id"].where(known, scans["scan"]).to_numpy(str)
    # 1. one head twice
    matches = find_matches(
        slices.pixels,
        scan,
        person,
        plane=pd.factorize(table["plane"])[0],
        correlation=correlation,
    )
    splits = {file.stem: read_split(file) for file in split_files}
    middles = starts + np.diff([*starts, len(scan)]) // 2
    pairs = [
        _pair(match, scans, splits, slices.pixels[middles[[match.first, match.second]]], number)
        for number, match in enumerate(matches.pairs)
    ]
    # 2. labels and splits
    conflicts = _conflicts(scans[known])
    checked = [check_split(name, split) for name, split in splits.items()]
    # 3. what tells the label without anatomy
    files = None if file_of is None else scans["scan"].map(file_of)
    facts = pd.concat([scan_facts(files, len(scans)), slice_facts(slices.pixels, starts)], axis=1)
    shortcuts = find_shortcuts(facts, scans["label"].to_numpy(str), person)
    findings = [
        *_pair_findings(pairs, matches, scans),
        _label_finding(conflicts, bool(known.all())),
        *_split_findings(checked),
        *map(_shortcut_finding, shortcuts),
    ]
    return Audit(
        path=path,
        layout=str(slices.settings.get("layout", "slices")),
        scans=len(scans),
        subjects=int(scans["subject_id"][known].nunique()),
        slices=len(table),
        classes={
            name: int(scans.loc[scans["label"] == name, "subject_id"].nunique())
            for name in slices.class_names
        },
        findings=findings,
        pairs=pairs,
        visits=(len(matches.visits), sum(match.kind != "" for match in matches.visits)),
        conflicts=conflicts,
        splits=checked,
        shortcuts=shortcuts,
        notes=[*slices.notes, *_notes(matches, bool(known.all()))],
    )


def read_split(path: Path) -> pd.DataFrame:
    """Read a split: subject_id, subset, and, by slice, what else names a slice."""
    split = read_table(path)
    lacking = [name for name in ("subject_id", "subset") if name not in split.columns]
    if lacking:
        raise InputError(f"{path} is no split: it lacks the column {lacking[0]!r}.")
    return split


def check_split(name: str, split: pd.DataFrame) -> SplitCheck:
    """Return which subjects stand in several subsets of a split, as far as ids are known."""
    subsets = split[split["subject_id"] != NO_ID].groupby("subject_id")["subset"].nunique()
    unit = "slice" if "slice_index" in split.columns else "subject"
    return SplitCheck(name, unit, len(subsets), sorted(subsets.index[subsets > 1].astype(str)))


def _file_of(experiment: Path) -> Callable[[str], Path] | None:
    """Return what tells the file of an experiment's scan, if scans still lie there."""
    settings = experiment / "experiment.toml"
    if not settings.is_file():
        return None
    data = Path(str(tomllib.loads(settings.read_text(encoding="utf-8")).get("data", "")))
    folder = experiment / data  # paths are taken from the file's own folder
    if not folder.exists():
        return None
    return (folder if folder.is_dir() else folder.parent).joinpath


def _scan_numbers(table: pd.DataFrame) -> NDArray[np.intp]:
    """Number the scans from 0; a file that is listed twice counts as two, which then are equal."""
    new = (table[IDS] != table[IDS].shift()).any(axis=1)
    return new.cumsum().to_numpy(np.intp) - 1


def _pair(
    match: Match,
    scans: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
    pictures: NDArray[np.uint8],
    number: int,
) -> Pair:
    both = scans.iloc[[match.first, match.second]]
    apart = []
    for name, split in splits.items():
        subsets = [
            list(split.loc[split["subject_id"] == subject, "subset"].unique())
            for subject in both["subject_id"]
        ]
        if "slice_index" not in split.columns and subsets[0] != subsets[1] and all(subsets):
            apart.append(f"{name}: {subsets[0][0]}, {subsets[1][0]}")
    values = {column: tuple(both[column].astype(str)) for column in IDS}
    return Pair(
        kind=match.kind,
        scans=values["scan"],
        subjects=values["subject_id"],
        sessions=values["session_id"],
        labels=values["label"],
        subsets=apart,
        correlation=round(match.correlation, 4),
        deviation=round(match.deviation, 4),
        detail=round(match.detail, 4),
        pictures=pictures if number < MOST_SHOWN else None,
    )


def _conflicts(scans: pd.DataFrame) -> dict[str, list[str]]:
    labels = scans.groupby("subject_id")["label"].unique()
    return {str(subject): sorted(map(str, own)) for subject, own in labels.items() if len(own) > 1}


def _pair_findings(pairs: list[Pair], matches: Matches, scans: pd.DataFrame) -> list[Finding]:
    texts = {
        "identical": ("Identical scans", "equal in every pixel"),
        "copy": ("Copied scans", "copies that were turned, compressed or brightened"),
        "alike": ("One head, two ids", "likely one person's, scanned twice"),
    }
    findings = []
    for kind, (check, words) in texts.items():
        own = [pair for pair in pairs if pair.kind == kind]
        across = [
            pair for pair in own if pair.subjects[0] != pair.subjects[1] or NO_ID in pair.subjects
        ]
        if not own:
            findings.append(Finding(check, "fine", f"none among {counted(len(scans), 'scan')}"))
            continue
        classes = sum(pair.labels[0] != pair.labels[1] for pair in own)
        subsets = sum(bool(pair.subsets) for pair in own)
        text = (
            f"{counted(len(own), 'pair')}, {words}: {len(across)} between subjects, {classes} "
            f"between classes, {subsets} between subsets, as {' and '.join(own[0].scans)}"
        )
        findings.append(Finding(check, "serious" if across or classes else "notice", text))
    findings.append(_shared_finding(matches, scans))
    return findings


def _shared_finding(matches: Matches, scans: pd.DataFrame) -> Finding:
    check = "Slices in several scans"
    if not matches.shared:
        return Finding(check, "fine", "none")
    people, names = scans["subject_id"].to_numpy(), scans["scan"].to_numpy()
    across = sum(people[a] != people[b] for a, b in matches.shared)
    a, b = matches.shared[0]
    text = (
        f"{counted(len(matches.shared), 'pair')} of scans have identical slices, {across} of them "
        f"between subjects, as {names[a]} and {names[b]}"
    )
    return Finding(check, "serious" if across else "notice", text)


def _label_finding(conflicts: dict[str, list[str]], known: bool) -> Finding:
    check = "Labels of a subject"
    if not known:
        return Finding(check, "not checked", NOBODY)
    if not conflicts:
        return Finding(check, "fine", "every subject has one")
    first = next(iter(conflicts))
    text = (
        f"{counted(len(conflicts), 'subject')} in several classes, as {first} in "
        f"{' and '.join(conflicts[first])}: right if they changed between visits, else one is wrong"
    )
    return Finding(check, "serious", text)


def _split_findings(checked: list[SplitCheck]) -> list[Finding]:
    if not checked:
        return [Finding("Splits", "not checked", "there are none yet")]
    findings = []
    for split in checked:
        check = f"Split {split.name}"
        if not split.subjects:
            findings.append(Finding(check, "not checked", NOBODY))
        elif not split.shared:
            text = f"no subject of {split.subjects} stands in two subsets"
            findings.append(Finding(check, "fine", text))
        elif split.unit == "slice":
            text = (
                f"{len(split.shared)} of {split.subjects} subjects stand in several subsets, as a "
                "split by slice means to: its accuracy says nothing about new people"
            )
            findings.append(Finding(check, "notice", text))
        else:
            text = f"in several subsets stand {listed(split.shared[:5])}"
            findings.append(Finding(check, "serious", f"{len(split.shared)} subjects {text}"))
    return findings


def _shortcut_finding(shortcut: Shortcut) -> Finding:
    check = f"Shortcut: {shortcut.family}"
    if shortcut.auc is None:
        same = shortcut.note.startswith("the same")
        return Finding(check, "fine" if same else "not checked", shortcut.note)
    text = f"AUC {shortcut.auc:.2f} ({shortcut.low:.2f} to {shortcut.high:.2f})"
    if not shortcut.raised:
        return Finding(check, "fine", f"{text}, which may be chance")
    if shortcut.serious:
        return Finding(check, "serious", f"{text}: it tells the label")
    return Finding(check, "notice", f"{text}, which anatomy can explain")


def _notes(matches: Matches, known: bool) -> list[str]:
    notes = []
    if matches.visits:
        found = sum(match.kind != "" for match in matches.visits)
        notes.append(
            f"Pairs of scans known to be of one person that are recognised as one head: {found} of "
            f"{len(matches.visits)}. About that share of people under two ids would be found."
        )
    if not known:
        notes.append("Without subject ids every scan counts as a person of its own.")
    if matches.cut:
        notes.append("More pairs of scans resemble each other than could be compared in detail.")
    return notes
