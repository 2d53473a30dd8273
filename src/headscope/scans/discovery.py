"""The files below a folder that are scans, and what each of them is."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from headscope.scans.dicom import Series, choose_series, dicom_files, find_series, is_dicom
from headscope.scans.header import matrix_of, scan_files

WRITTEN: Final = {"experiment.toml", "slices.json", "pictures.json"}  # mark folders of our results
SUFFIXES: Final = (".nii", ".nii.gz", ".mgh", ".mgz", ".hdr", ".hdr.gz")
PICTURES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
READY_SLICE: Final = re.compile(r"_(?:(axl|cor|sag)\.|(axial|coronal|sagittal)_slice-)")
OASIS1_SPACE: Final = re.compile(r"OAS1_\d{4}_MR\d_mpr(?:-\d|_n\d)_anon(_111_t88|_sbj)?")
PLANE_MARKS: Final = {"axl": "axial", "cor": "coronal", "sag": "sagittal"}
UNREAD: Final = {  # what may hold scans or pictures, and is not read
    *(".mha", ".mhd", ".nrrd", ".nhdr", ".mnc", ".par", ".rec", ".gipl", ".vtk", ".brik", ".head"),
    *(".img without .hdr", ".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".dcm.gz"),
    *(".bmp", ".webp", ".gif", ".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".npy", ".npz"),
}
SUFFIX: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}(\.(gz|bz2|xz|zst|zip))?$", re.ASCII)
HIDDEN: Final = "hidden"
WRITTEN_BY_US: Final = "folders that headscope wrote"
LOCKED: Final = "folders that cannot be read"
DEEPEST: Final = 100  # folders in one another, of which no data set has as many
TOO_DEEP: Final = f"folders deeper than {DEEPEST} levels, which are not looked into"
Kind = Literal["volume", "slice", "series", "picture"]


@dataclass(frozen=True)
class ScanFile:
    """A scan on disk and what it is, so that nothing opens it again to find out.

    `path` is the file, the header of a pair, or the folder of a DICOM series (the first file of
    one, where a folder holds several). `kind` is "volume" (NIfTI, Analyze, MGH), "slice" (a file
    of these formats with two axes and no orientation), "series" (DICOM) or "picture" (JPEG, PNG,
    TIFF). `plane` is that of a ready slice, where a table or the file's name tells it.
    """

    path: Path
    kind: Kind
    plane: str | None = None

    @classmethod
    def at(cls, path: Path) -> "ScanFile":
        """Look at a path, whether or not anything is there."""
        if is_picture(path.name):
            return cls(path, "picture")
        return cls(path, "series" if path.is_dir() or is_dicom(path) else "volume")

    def stored(self) -> list[Path]:
        """Return the files of the scan: header, voxels and SPM's matrix, or those of its folder."""
        if self.kind == "series":
            return dicom_files(self.path if self.path.is_dir() else self.path.parent)
        header, data = scan_files(self.path)
        matrix = [] if header == data else [matrix_of(header)]
        return list(dict.fromkeys([header, data, *(file for file in matrix if file.is_file())]))


@dataclass(frozen=True)
class Survey:
    """All that is below a folder: its scans, and how many files of each other kind.

    `left_out` are the localizers, reports, screenshots and smaller series beside DICOM series.
    """

    scans: list[ScanFile]
    others: Counter[str] = field(default_factory=Counter)
    left_out: list[Series] = field(default_factory=list)


def find_scans(folder: Path) -> list[ScanFile]:
    """Return the scans below a folder, or its pictures where it holds no scans, sorted by path.

    One entry, the header, stands for a .hdr/.img pair, and the folder for the DICOM series in it
    (the first file of each, where it holds several). Hidden files and folders are passed over, and
    so are folders in `folder` that headscope wrote. Linked folders are followed, each real folder
    once; one that may not be read counts as a scan, so that it is named among the problems.
    """
    return survey(folder).scans


def survey(folder: Path) -> Survey:
    """Return the scans as `find_scans` does, and count every other file by its suffix."""
    scans: list[ScanFile] = []
    pictures: list[ScanFile] = []
    others: Counter[str] = Counter()
    locked: list[Path] = []
    series: list[Series] = []
    for place, names in _walk(folder, locked, others):
        dicom = [name for name in names if is_dicom(place / name)]
        series += find_series(place, [place / name for name in dicom]) if dicom else []
        volumes = [name for name in names if name.lower().endswith(SUFFIXES)]
        scans += [ScanFile(place / name, "volume") for name in volumes]
        pictures += [ScanFile(place / name, "picture") for name in names if is_picture(name)]
        used = {*dicom, *volumes, *_beside(volumes, names)}
        others.update(suffix_of(name) for name in names if name not in used)
    taken, left_out = choose_series(series, besides=bool(scans))
    scans += [ScanFile(path, "series") for path in [*(one.path for one in taken), *locked]]
    if not scans:
        for file in pictures:
            others[suffix_of(file.path.name)] -= 1
    return Survey(sorted(scans or pictures, key=lambda file: file.path), +others, left_out)


def suffix_of(name: str) -> str:
    """Return the kind of a file that is no scan: its suffix in lower case."""
    match = SUFFIX.search(name)
    suffix = match[0].lower() if match else "without suffix"
    return ".img without .hdr" if suffix in (".img", ".img.gz") else suffix


def _beside(volumes: list[str], names: list[str]) -> list[str]:
    """Return the names that belong to headers among `volumes`: voxels, and SPM's matrix."""
    stems = {re.sub(r"\.hdr(\.gz)?$", "", name, flags=re.IGNORECASE) for name in volumes}
    belongs = re.compile(r"(.+)\.(img(\.gz)?|mat)", re.IGNORECASE | re.DOTALL)
    return [name for name in names if (match := belongs.fullmatch(name)) and match[1] in stems]


def is_picture(name: str) -> bool:
    """Return whether a file is a picture, by its suffix."""
    return name.lower().endswith(PICTURES)


def plane_named(name: str) -> str | None:
    """Return the plane in the name of a ready slice, None without one.

    OASIS-2 names them …_cor.nii.gz, and `headscope slice` …_coronal_slice-012.png.
    """
    match = READY_SLICE.search(name)
    return match and (match[2] or PLANE_MARKS[match[1]])


def orientation_named(name: str) -> str | None:
    """Return the orientation of a scan of OASIS-1 by its name, None of any other.

    Its Analyze files store none. Raw scans (mpr-1_anon) and the subject's own space (sbj_111) are
    sagittal, from back to front, up and to the left, as Clinica's converter has it; atlas space
    (t88) is transverse.
    """
    match = OASIS1_SPACE.search(name)
    if match is None:
        return None
    return "LAS" if match[1] == "_111_t88" else "ASL"


def _walk(
    folder: Path, locked: list[Path], others: Counter[str]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files; those that may not be read go to `locked`."""

    def note_locked(error: OSError) -> None:
        if isinstance(error, PermissionError):
            locked.append(Path(error.filename))
        else:
            others[LOCKED] += 1  # a path that is too long, a folder that has gone, a bad disk

    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, onerror=note_locked, followlinks=True):
        stat = Path(place).stat()
        real = (stat.st_dev, stat.st_ino)
        ours = bool(seen) and bool(WRITTEN.intersection(names))
        if real in seen or ours:
            others[WRITTEN_BY_US] += ours and real not in seen
            folders.clear()
            continue
        seen.add(real)
        if place.count(os.sep) - str(folder).count(os.sep) >= DEEPEST:
            others[TOO_DEEP] += len(folders)
            folders.clear()
        others[HIDDEN] += sum(name.startswith(".") for name in names)
        others[HIDDEN] += sum(name.startswith(".") and _holds(place, name) for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), [name for name in names if not name.startswith(".")]


def _holds(place: str, name: str) -> bool:
    """Return whether anything is in a folder."""
    try:
        with os.scandir(Path(place) / name) as entries:
            return next(entries, None) is not None
    except OSError:
        return True
