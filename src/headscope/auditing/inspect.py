"""What a cohort holds, from names, tables and headers alone, and what a run of it would cost."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from nibabel.orientations import axcodes2ornt, io_orientation

from headscope.cohort.demographics import RECOGNISED
from headscope.cohort.layouts import Cohort, find_cohort
from headscope.cohort.tables import counted
from headscope.console import track
from headscope.files import NO_ID
from headscope.metrics.precision import Precisions, precisions
from headscope.scans.dicom import read_series_header
from headscope.scans.discovery import ScanFile, plane_named
from headscope.scans.frames import is_installed
from headscope.scans.header import check_header, read_header, shape_text, squeeze_shape
from headscope.scans.volume import AUTO, PLANES, ScanError, assume_orientation, refusing
from headscope.slicing.spec import SliceSpec, planes_of
from headscope.tables import Shown, Table

BASE_BYTES: Final = 150 * 2**20  # a process with NumPy and pandas, before it reads a scan
COPIES: Final = 2.5  # of the largest volume: its file, its voxels, what is drawn from them
TESTED: Final = 0.3  # of the subjects of a class, by the ratio 5:2:3
UNREAD: Final = "–"  # what only reading the files would tell
SUFFIX_NAMES: Final = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI, gzipped",
    ".hdr": "header and image",
    ".hdr.gz": "header and image, gzipped",
    ".mgh": "MGH",
    ".mgz": "MGH, gzipped",
}


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(Shown):
    """What a cohort holds.

    `classes` has one row per class (label, subjects, sessions, scans), `grids` one per format,
    shape and spacing_mm in R, A, S order with its number of scans, `covariates` the columns that
    `--covariates` can name with what they hold, `problems` path and reason of each scan whose
    header cannot be used. `slices`, `store_bytes` (their file) and `memory_bytes`
    (each process that slices) say what a run would cost, `tested` what a test of three in ten
    subjects could tell (5:2:3, as `run` splits them).
    """

    layout: str
    notes: list[str]
    subjects: int
    sessions: int
    classes: pd.DataFrame
    grids: pd.DataFrame
    covariates: pd.DataFrame
    problems: pd.DataFrame
    slices: int
    store_bytes: int
    memory_bytes: int
    tested: Precisions | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain = {
            name: value.to_dict("records") if isinstance(value, pd.DataFrame) else value
            for name, value in vars(self).items()
        }
        return plain | {"tested": self.tested and self.tested.as_dict()}

    def tables(self) -> list[Table]:
        """Return classes with what is worth knowing, then grids, then problems."""
        frames = (
            ("Files", self.grids),
            ("Covariates", self.covariates),
            ("Problems", self.problems),
        )
        return [
            Table.from_frame(self.layout, self.classes, [*self.notes, *self.outlook]),
            *(Table.from_frame(title, frame) for title, frame in frames if len(frame)),
        ]

    @property
    def outlook(self) -> list[str]:
        """What a run would cost, and what its test could tell."""
        return [self.cost, *([self.tested.sentence] if self.tested else [])]

    @property
    def cost(self) -> str:
        """One sentence on slices, disk and memory."""
        return (
            f"A run would take {self.slices:,} slices: {_size_text(self.store_bytes)} on disk, and "
            f"about {_size_text(self.memory_bytes)} of memory for each process that slices."
        )


@dataclass(frozen=True)
class Facts:
    """What a header says of a scan: shape and spacing_mm in R, A, S order, notes on both."""

    kind: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    nbytes: int
    notes: tuple[str, ...] = ()


def inspect_data(
    data: Path | str,
    *,
    plane: str = "axial",
    count: int = 30,
    size: int = 224,
    **options: Any,
) -> Inspection:
    """Recognise the scans below `data` and inspect them; options are those of `find_cohort`.

    Raises
    ------
    InputError
        As `find_cohort`, or a plane, count or size is none.

    Examples
    --------
    >>> inspection = hs.inspect("scans", count=4)
    >>> inspection.subjects, inspection.slices
    (12, 48)
    """
    SliceSpec(plane, count, size)  # refuses options without meaning
    return inspect_cohort(
        find_cohort(Path(data), plane=plane, need_classes=False, **options), plane, count, size
    )


def inspect_cohort(
    cohort: Cohort, plane: str = "axial", count: int = 30, size: int = 224
) -> Inspection:
    """Read the header of every scan of a cohort, and no voxels."""
    scans = cohort.scans
    grids: Counter[tuple[str, str, str]] = Counter()
    notes = [note.text for note in cohort.notes]
    problems, slices, largest, short, series = [], 0, 0, 0, 0
    assumed: Counter[str] = Counter()
    paths = zip(scans["path"], cohort.files, strict=True)
    for path, file in track(paths, "Reading headers", len(scans)):
        try:
            facts = scan_facts(file, plane)
        except ScanError as error:
            problems.append((path, error.reason))
            continue
        assumed.update(facts.notes)
        spacing = " × ".join(f"{mm:.3g}" for mm in facts.spacing_mm)
        grids[
            (facts.kind, shape_text(facts.shape) if facts.shape else UNREAD, spacing or UNREAD)
        ] += 1
        given = _slices_of(facts, plane, count)
        slices += given
        short += given == 0
        series += math.prod(facts.shape[3:]) > 1
        largest = max(largest, facts.nbytes)
    notes += [f"{note}: {n} of {counted(len(scans), 'scan')}." for note, n in assumed.items()]
    if short:
        notes.append(_short_note(short, plane, count))
    if series:
        verb = "holds" if series == 1 else "hold"
        notes.append(f"{counted(series, 'scan')} {verb} several volumes: --volume chooses one.")
    rows = [(*grid, number) for grid, number in grids.most_common()]
    keys, named = ["subject_id", "session_id"], scans["subject_id"] != NO_ID
    return Inspection(
        layout=cohort.layout,
        notes=notes,
        subjects=scans.loc[named, "subject_id"].nunique(),
        sessions=len(scans[named].drop_duplicates(keys)),
        classes=_classes(cohort),
        grids=pd.DataFrame(rows, columns=["format", "grid", "spacing_mm", "scans"]),
        covariates=_covariates(cohort),
        problems=pd.DataFrame(problems, columns=["path", "reason"]),
        slices=slices,
        store_bytes=slices * size**2,
        memory_bytes=round(BASE_BYTES + COPIES * largest),
        tested=_tested(cohort),
    )


def scan_facts(scan: ScanFile, plane: str) -> Facts:
    """Return what the header of a scan says; `plane` is that of a slice which names none.

    Raises
    ------
    ScanError
        It is missing, damaged, or of what is no scan.
    """
    path = scan.path
    if scan.kind == "picture" or (scan.kind == "series" and not is_installed()):
        with refusing(path):
            files = scan.stored()
            kind = "picture" if scan.kind == "picture" else f"DICOM, {counted(len(files), 'file')}"
            return Facts(kind, (), (), sum(file.stat().st_size for file in files))
    with refusing(path), np.errstate(all="ignore"):
        if scan.kind == "series":
            header, depths = read_series_header(path)
            paths = {frame.path for same in depths for frame in same}
            kind = f"DICOM, {counted(len(paths), 'file')}"
        else:
            header = read_header(path)
            suffix = "".join(Path(path.name.lower()).suffixes[-2:])
            kind = SUFFIX_NAMES.get(suffix) or SUFFIX_NAMES[Path(suffix).suffix]
        check_header(header)
        shape = squeeze_shape(header.shape)
        spacing = header.spacing_mm[: len(shape)]
        axes = list(range(min(len(shape), 3)))
        orientation, notes = io_orientation(header.affine), header.notes
        if not header.oriented:
            plane = scan.plane or plane_named(path.name) or plane
            letters, note = assume_orientation(header, header.data.name, AUTO, plane)
            orientation, notes = axcodes2ornt(letters), (*notes, note)
        if len(axes) == 3:
            axes = np.argsort(orientation[:, 0]).tolist()
        in_order = [*axes, *range(3, len(shape))]
    return Facts(
        kind,
        tuple(shape[axis] for axis in in_order),
        tuple(float(spacing[axis]) for axis in axes if axis < len(spacing)),
        math.prod(shape[:3]) * header.dtype.itemsize,
        notes,
    )


def _slices_of(facts: Facts, plane: str, count: int) -> int:
    """Return how many slices a scan gives: one where it is one."""
    if facts.kind == "picture" or len(facts.shape) == 2 or 1 in facts.shape[:3]:
        return 1
    planes = planes_of(plane)
    if not facts.shape:  # DICOM: its depth is known once its files are read
        return count * len(planes)
    if any(facts.shape[PLANES[name]] < count for name in planes):
        return 0  # such a scan is refused as a whole
    return count * len(planes)


def _short_note(scans: int, plane: str, count: int) -> str:
    which = f"{count} slices of each plane" if plane == "all" else f"{count} {plane} slices"
    verb = "has" if scans == 1 else "have"
    return f"{counted(scans, 'scan')} {verb} fewer than {which} and would give none: lower --count."


def _classes(cohort: Cohort) -> pd.DataFrame:
    subjects = cohort.scans["subject_id"].mask(cohort.scans["subject_id"] == NO_ID)
    groups = cohort.scans.assign(
        subject_id=subjects, visit=subjects + "\t" + cohort.scans["session_id"]
    ).groupby("label")
    counts = groups.agg(
        subjects=("subject_id", "nunique"), sessions=("visit", "nunique"), scans=("path", "size")
    )
    return counts.loc[cohort.class_names].reset_index()


def _covariates(cohort: Cohort) -> pd.DataFrame:
    """Return the columns that could be covariates, those first that are taken without asking."""
    usable = [covariate for covariate in cohort.covariates if not covariate.problem]
    usable.sort(key=lambda covariate: covariate.name not in RECOGNISED)
    rows = [(item.column, item.name, item.content, item.missing) for item in usable]
    return pd.DataFrame(rows, columns=["column", "covariate", "values", "subjects_without"])


def _tested(cohort: Cohort) -> Precisions | None:
    """Return what a test of the usual share of the subjects could tell; None without ids."""
    named = cohort.scans[cohort.scans["subject_id"] != NO_ID]
    if not len(named) or len(cohort.class_names) < 2:
        return None
    subjects = named.groupby("label")["subject_id"].nunique()
    return precisions([round(TESTED * subjects.get(name, 0)) for name in cohort.class_names])


def _size_text(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{max(size / 2**20, 1):.0f} MiB"
