"""One scan file → its volume in canonical RAS and its spacing in millimetres.

Analyze 7.5, SPM Analyze, NIfTI-1 and -2 (single files and pairs) and MGH, plain or gzipped. nibabel
reads the headers; the voxels are read here, once, in the type they are stored in, and only after
the size that the header claims was held against the file. DICOM series are read in `dicom`.

Orientation where the file stores none (Analyze without a .mat file, NIfTI with both codes zero):
a volume is taken to lie as `analyze_orientation` says, by default "LAS", which is the convention
of Analyze and nibabel's choice. A single slice of two axes is taken as it lies, its axes in
R, A, S order without the axis across its plane; its left and right cannot be known.
"""

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.scans.dicom import dicom_files, find_series, is_dicom, read_series
from headscope.scans.header import (
    LARGEST_VOLUME,
    UNREADABLE,
    Header,
    Refused,
    check_header,
    matrix_of,
    read_bytes,
    read_header,
    scan_files,
    shape_text,
    squeezed,
)

PLANES: Final = {"sagittal": 0, "coronal": 1, "axial": 2}
TRANSIENT: Final = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)
OWN: Final = {"experiment.toml", "slices.json", "pictures.json"}  # in folders that we wrote
SUFFIXES: Final = (".nii", ".nii.gz", ".mgh", ".mgz", ".hdr", ".hdr.gz")


class ScanError(InputError):
    """A scan cannot be used; `path` and `reason` say which and why; `reason` holds no names.

    `transient` says that the machine failed rather than the file, so another try may do better.
    """

    def __init__(self, path: Path, reason: str, transient: bool = False) -> None:
        """Keep all as arguments, so that the error survives the way from another process."""
        super().__init__(path, reason, transient)
        self.path = path
        self.reason = reason
        self.transient = transient

    def __str__(self) -> str:
        """Return one sentence."""
        return f"{self.path} {self.reason}."


@dataclass(frozen=True)
class Scan:
    """A volume (I, J, K) in canonical RAS: i runs to the right, j forward, k up.

    `volume` keeps the stored type; `slope` (never negative) and `intercept` turn it into the
    intensities that the file means.
    """

    volume: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    slope: float = 1.0
    intercept: float = 0.0
    path: Path = Path("scan")


def read_scan(
    path: Path,
    *,
    plane: str = "axial",
    volume: int | None = None,
    analyze_orientation: str = "LAS",
) -> Scan:
    """Read one scan, a file or the folder of a DICOM series, into canonical RAS.

    `plane` says how a file of two axes without orientation lies; `volume` chooses one of several
    volumes of a 4-D file, from 0; `analyze_orientation` holds where a file stores none. NaN, which
    SPM writes outside the brain, becomes 0.

    Raises
    ------
    ScanError
        The file is missing, damaged, not a scan, of several volumes, or without any contrast.
    InputError
        It is DICOM, and SimpleITK is not installed.
    """
    path = Path(path)
    with refusing(path), np.errstate(all="ignore"):
        if path.is_dir() or is_dicom(path):
            header, voxels = read_series(path, volume)
            check_header(header)
        else:
            header = read_header(path)
            check_header(header)
            voxels = _read_voxels(header, volume)
        return replace(_canonical(header, voxels, plane, analyze_orientation), path=path)


def stores_plane(path: Path) -> bool:
    """Whether a scan says how it lies: all do, but a single slice of two axes without orientation.

    Raises
    ------
    ScanError
        It is missing, damaged or no scan.
    """
    if path.is_dir() or is_dicom(path):
        return True
    with refusing(path), np.errstate(all="ignore"):
        header = read_header(path)
        return header.oriented or len(squeezed(header.shape)) > 2


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file sets off into a ScanError, whose reason holds no name of it."""
    try:
        yield
    except InputError:  # a wrong option, not a damaged file
        raise
    except Refused as error:
        raise ScanError(path, str(error)) from None
    except FileNotFoundError as error:
        missing = "".join(Path(error.filename or path).suffixes[-1:]) or "file"
        raise ScanError(path, f"cannot be read: its {missing} does not exist") from error
    except PermissionError as error:
        raise ScanError(path, "cannot be read: permission denied", True) from error
    except MemoryError as error:
        raise ScanError(path, "cannot be read: it does not fit into memory", True) from error
    except UNREADABLE as error:
        named = isinstance(error, OSError) and error.strerror
        reason = str(named or error).replace(str(path), "it").rstrip(".") or type(error).__name__
        if isinstance(error, LookupError):
            reason = f"unknown code {reason}"
        reason = " ".join(reason.split())
        failed = isinstance(error, OSError) and error.errno in TRANSIENT
        raise ScanError(path, f"is damaged or no scan ({reason})", failed) from error


def find_scan_files(folder: Path) -> list[Path]:
    """Return the scans below `folder`, sorted.

    One entry, the header, stands for a .hdr/.img pair, and the folder for the DICOM series in it
    (the first file of each, where it holds several). Hidden files and folders are passed over.
    Linked folders are followed, each real folder once; one that may not be read counts as a scan,
    so that it is named among the problems.
    """
    found: list[Path] = []
    locked: list[Path] = []
    for place, files in walk_files(folder, locked):
        dicom = [place / name for name in files if is_dicom(place / name)]
        found += find_series(place, dicom) if dicom else []
        found += [place / name for name in files if name.lower().endswith(SUFFIXES)]
    return sorted(found + locked)


def walk_files(folder: Path, locked: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files; those that may not be read go to `locked`.

    Folders in `folder` that headscope wrote are passed over: pictures in them are no new scans.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            locked.append(Path(error.filename))

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (seen and OWN.intersection(files)):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), sorted(name for name in files if not name.startswith("."))


def stored_files(path: Path) -> list[Path]:
    """Return the files of a scan: header, voxels and SPM's matrix, or those of its folder."""
    if path.is_dir():
        return dicom_files(path)
    if is_dicom(path):
        return dicom_files(path.parent)
    header, data = scan_files(path)
    matrix = [] if header == data else [matrix_of(header)]
    return list(dict.fromkeys([header, data, *(file for file in matrix if file.is_file())]))


def _read_voxels(header: Header, volume: int | None) -> NDArray[Any]:
    """Return the one volume, (I, J) or (I, J, K), as stored."""
    shape = squeezed(header.shape)
    spatial, volumes = shape[:3], math.prod(shape[3:])
    if volumes > 1 and volume is None:
        raise Refused(
            f"holds {volumes} volumes (shape {shape_text(shape)}): choose one with 'volume', "
            f"0 to {volumes - 1}"
        )
    if volume is not None and not 0 <= volume < volumes:
        raise Refused(f"holds {volumes} volumes: there is no volume {volume}")
    size = math.prod(spatial) * header.dtype.itemsize
    if size > LARGEST_VOLUME:
        raise Refused(
            f"is too large: its header claims {shape_text(spatial)} voxels, {size / 2**30:.3g} GiB"
        )
    start = header.offset + size * (volume or 0)
    stored = read_bytes(header.data, start, size)
    if len(stored) < size:
        raise Refused(f"is truncated: {len(stored)} of {size} bytes of voxels stand in it")
    return np.frombuffer(stored, header.dtype, math.prod(spatial)).reshape(spatial, order="F")


def _canonical(header: Header, voxels: NDArray[Any], plane: str, assumed: str) -> Scan:
    """Turn stored voxels into RAS; a view, nothing is copied."""
    spacing = header.spacing_mm
    if not header.oriented and voxels.ndim == 2:
        axis = PLANES[plane]
        voxels = np.expand_dims(voxels, axis)  # (I, J) → (I, J, 1), (I, 1, K) or (1, J, K)
        spacing = np.insert(spacing[:2], axis, 1.0)
        orientation = axcodes2ornt("RAS")
    elif header.oriented:
        voxels = voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim))
        orientation = io_orientation(header.affine)
    else:
        orientation = axcodes2ornt(_checked_orientation(assumed))
    axes = np.argsort(orientation[:, 0])
    return _with_contrast(
        apply_orientation(voxels, orientation), spacing[axes], header.slope, header.intercept
    )


def _with_contrast(
    volume: NDArray[Any], spacing: NDArray[np.float64], slope: float, intercept: float
) -> Scan:
    """Refuse a volume that shows nothing; keep the slope positive and every voxel finite."""
    if volume.dtype.kind == "f":
        finite = np.isfinite(volume)
        if np.isinf(volume).any():
            raise Refused("holds infinite intensities")
        if not finite.all():
            volume = np.where(finite, volume, volume.dtype.type(0))
            if not finite.any():
                raise Refused("holds no intensities: every voxel is NaN")
    if _is_even(volume[::5, ::5, ::5]) and _is_even(volume):  # a look at a few settles most
        raise Refused(f"shows nothing: every voxel is {volume.min()}")
    if slope < 0:
        volume, slope, intercept = volume * slope + intercept, 1.0, 0.0
    return Scan(volume, (float(spacing[0]), float(spacing[1]), float(spacing[2])), slope, intercept)


def _is_even(volume: NDArray[Any]) -> bool:
    return bool(volume.min() == volume.max())


def _checked_orientation(codes: str) -> str:
    valid = {"".join(code) for code in _orientations()}
    if codes not in valid:
        raise InputError(
            f"Orientation {codes!r} is none: three letters, one each of L/R, P/A and I/S, "
            "such as LAS or RAS."
        )
    return codes


def _orientations() -> Iterator[tuple[str, ...]]:
    for letters in product("RL", "AP", "SI"):
        yield from permutations(letters)
