"""The files below a folder that are scans, and what each of them is."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
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


def find_scans(folder: Path, left_out: list[Series] | None = None) -> list[ScanFile]:
    """Return the scans below a folder, or its pictures where it holds no scans, sorted by path.

    One entry, the header, stands for a .hdr/.img pair, and the folder for the DICOM series in it
    (the first file of each, where it holds several). Hidden files and folders are passed over, and
    so are folders in `folder` that headscope wrote. Linked folders are followed, each real folder
    once; one that may not be read counts as a scan, so that it is named among the problems.

    Localizers, reports, screenshots and smaller series beside a DICOM series go to `left_out`.
    """
    scans: list[ScanFile] = []
    pictures: list[ScanFile] = []
    locked: list[Path] = []
    series: list[Series] = []
    for place, names in _walk(folder, locked):
        dicom = [place / name for name in names if is_dicom(place / name)]
        series += find_series(place, dicom) if dicom else []
        volumes = [place / name for name in names if name.lower().endswith(SUFFIXES)]
        scans += [ScanFile(path, "volume") for path in volumes]
        pictures += [ScanFile(place / name, "picture") for name in names if is_picture(name)]
    taken, others = choose_series(series, besides=bool(scans))
    if left_out is not None:
        left_out += others
    scans += [ScanFile(path, "series") for path in [*(one.path for one in taken), *locked]]
    return sorted(scans or pictures, key=lambda file: file.path)


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


def _walk(folder: Path, locked: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files; those that may not be read go to `locked`."""

    def note_locked(error: OSError) -> None:
        if isinstance(error, PermissionError):
            locked.append(Path(error.filename))

    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=note_locked, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (seen and WRITTEN.intersection(names)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), [name for name in names if not name.startswith(".")]
