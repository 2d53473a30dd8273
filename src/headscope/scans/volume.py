"""One scan file → its volume in canonical RAS and its spacing in millimetres.

Analyze 7.5, SPM Analyze, NIfTI-1 and -2 (single files and pairs) and MGH, plain or gzipped. nibabel
reads the headers; the voxels are read here, once, in the type they are stored in, and only after
the size that the header claims was compared with the file. DICOM series are read in `dicom`.

Orientation where the file stores none (Analyze without a .mat file, NIfTI with both codes zero):
a volume is taken to be oriented as `analyze_orientation` says. If that is "auto", OASIS-1's names
decide, then the orient field of an Analyze header, then "LAS", which is the convention of Analyze
and nibabel's choice. The axes of a single slice of two axes are taken in R, A, S order without the
axis across its plane; its left and right cannot be known. The scan's notes say what was assumed.
"""

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.scans.dicom import read_series
from headscope.scans.discovery import ScanFile, orientation_named, plane_named
from headscope.scans.header import (
    UNREADABLE,
    Header,
    Refused,
    check_header,
    choose_volume,
    read_bytes,
    read_header,
    shape_text,
    squeeze_shape,
)

PLANES: Final = {"sagittal": 0, "coronal": 1, "axial": 2}
AXES: Final = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
AUTO: Final = "auto"  # orientation by name, by header, or the convention of Analyze
ANALYZE: Final = "LAS"
FAR: Final = 1e3  # ranges of all other intensities by which a broken one is away from them
BEYOND: Final = 0.15  # ranges; a background of -inf is dark enough for the head to stand out
SAMPLED: Final = 32  # voxels an axis, enough to see that range
NOT_A_NUMBER: Final = "Voxels that are no number (NaN) count as 0"
INFINITE: Final = "Infinite voxels count as a little darker or brighter than all others"
OUTLIERS: Final = "Voxels a thousand times brighter or darker than all others were brought near"
TRANSIENT: Final = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)


class ScanError(InputError):
    """A scan cannot be used; `path` and `reason` say which and why; `reason` holds no names.

    `transient` says that the machine failed rather than the file, so another try may succeed.
    """

    def __init__(self, path: Path, reason: str, transient: bool = False) -> None:
        """Store all as arguments, so that the error can be pickled by another process."""
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
    intensities that the file means. `notes` say what was assumed or mended, without names.
    """

    volume: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    slope: float = 1.0
    intercept: float = 0.0
    path: Path = Path("scan")
    notes: tuple[str, ...] = ()  # sentences without a dot or a name: what was assumed or repaired


def read_scan(
    scan: ScanFile | Path,
    *,
    plane: str = "axial",
    volume: int | None = None,
    analyze_orientation: str = AUTO,
) -> Scan:
    """Read one scan, a file or the folder of a DICOM series, into canonical RAS.

    Parameters
    ----------
    scan : ScanFile or Path
        The scan; the kind of a path is determined first.
    plane : str
        The plane of a file of two axes without orientation, where `scan` knows none.
    volume : int, optional
        Which volume of a 4-D file to read, from 0.
    analyze_orientation : str
        Orientation of a volume whose file stores none, such as "LAS"; "auto" as above.

    Returns
    -------
    Scan
        Its NaN, which SPM writes outside the brain, are 0. `notes` say what was repaired.

    Raises
    ------
    ScanError
        The file is missing, damaged, not a scan, of several volumes, or without any contrast.
    InputError
        It is DICOM, and SimpleITK is not installed.
    """
    file = scan if isinstance(scan, ScanFile) else ScanFile.at(scan)
    with refusing(file.path), np.errstate(all="ignore"):
        if file.kind == "series":
            header, voxels = read_series(file.path, volume)
            check_header(header)
        else:
            header = read_header(file.path)
            check_header(header)
            voxels = _read_voxels(header, volume)
        canonical = _canonical(header, voxels, file.plane or plane, analyze_orientation)
        return replace(canonical, path=file.path)


def with_plane(file: ScanFile) -> ScanFile:
    """Return a file with its kind and plane as its header and, where that is silent, its name tell.

    A file of two axes without orientation is a slice; volumes and series store their orientation.

    Raises
    ------
    ScanError
        It is missing, damaged or no scan.
    """
    if file.kind == "series":
        return file
    if file.kind == "volume":
        with refusing(file.path), np.errstate(all="ignore"):
            header = read_header(file.path)
            if header.oriented or len(squeeze_shape(header.shape)) > 2:
                return file
            file = replace(file, kind="slice")
    return replace(file, plane=plane_named(file.path.name))


def check_orientation(letters: str) -> None:
    """Refuse what is neither auto nor an orientation of three axes (InputError)."""
    if letters != AUTO and sorted(AXES.get(letter, -1) for letter in letters) != [0, 1, 2]:
        raise InputError(
            f"Unknown orientation {letters!r}: choose auto, or three letters, one each of L/R, P/A "
            "and I/S, such as LAS or RAS."
        )


def assume_orientation(header: Header, name: str, stated: str, plane: str) -> tuple[str, str]:
    """Return the letters of a file's axes, whose header stores none, and the note that says so."""
    none = "No orientation is stored"
    if len(squeeze_shape(header.shape)) == 2:
        return "RAS", f"{none}; slices of two axes are taken as {plane} and not mirrored"
    by_name = orientation_named(name)
    if stated != AUTO:
        return stated, f"{none}; it is taken as {stated}, as analyze_orientation says"
    if by_name is not None:
        return by_name, f"{none}; it is taken as {by_name}, as OASIS-1 has it in scans of that kind"
    if header.orientation is not None:
        return (
            header.orientation,
            f"The orient field of the Analyze header says {header.orientation}",
        )
    return ANALYZE, f"{none}; it is taken as {ANALYZE}, the convention of Analyze"


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file raises into a ScanError, whose reason holds no name of it."""
    try:
        yield
    except InputError:  # a wrong option, not a damaged file
        raise
    except Refused as error:
        raise ScanError(path, str(error)) from None
    except FileNotFoundError as error:
        missing = Path(error.filename or path).suffix or "file"
        raise ScanError(path, f"cannot be read: its {missing} does not exist") from error
    except PermissionError as error:
        raise ScanError(path, "cannot be read: permission denied", transient=True) from error
    except MemoryError as error:
        reason = "cannot be read: it does not fit into memory"
        raise ScanError(path, reason, transient=True) from error
    except UNREADABLE as error:
        reason = str((isinstance(error, OSError) and error.strerror) or error)
        reason = reason.replace(str(path), "it").rstrip(".") or type(error).__name__
        if isinstance(error, LookupError):
            reason = f"unknown code {reason}"
        reason = f"is damaged or no scan ({' '.join(reason.split())})"
        transient = isinstance(error, OSError) and error.errno in TRANSIENT
        raise ScanError(path, reason, transient) from error


def _read_voxels(header: Header, volume: int | None) -> NDArray[Any]:
    """Return the one volume, (I, J) or (I, J, K), as stored."""
    shape = squeeze_shape(header.shape)
    spatial = shape[:3]
    number = choose_volume(math.prod(shape[3:]), volume, f" (shape {shape_text(shape)})")
    size = math.prod(spatial) * header.dtype.itemsize
    stored = read_bytes(header.data, header.offset + size * number, size, check=True)
    if len(stored) < size:
        raise Refused(f"is truncated: {len(stored)} of {size} bytes of voxels are in it")
    return np.frombuffer(stored, header.dtype, math.prod(spatial)).reshape(spatial, order="F")


def _canonical(header: Header, voxels: NDArray[Any], plane: str, assumed: str) -> Scan:
    """Turn stored voxels into RAS; a view, nothing is copied."""
    spacing, notes = header.spacing_mm, header.notes
    if header.oriented:
        voxels = voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim))
        orientation = io_orientation(header.affine)
    else:
        check_orientation(assumed)
        letters, note = assume_orientation(header, header.data.name, assumed, plane)
        orientation = axcodes2ornt(letters)
        notes = (*notes, note)
        if voxels.ndim == 2:
            axis = PLANES[plane]
            voxels = np.expand_dims(voxels, axis)  # (I, J) → (I, J, 1), (I, 1, K) or (1, J, K)
            spacing = np.insert(spacing[:2], axis, 1.0)
    i, j, k = spacing[np.argsort(orientation[:, 0])].tolist()
    volume = apply_orientation(voxels, orientation)
    return _with_contrast(
        Scan(volume, (i, j, k), header.slope, header.intercept, header.data, notes)
    )


def with_finite(values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """Return intensities of which a few broken ones do not decide, and notes on what was repaired.

    NaN become 0, infinite ones a seventh of the range darker or brighter than the others; what is
    a thousand times that range away from the others is drawn nearer.
    """
    if values.dtype.kind != "f":
        return values, []
    notes: list[str] = []
    low, high = float(values.min()), float(values.max())
    sample = values[tuple(slice(None, None, max(1, n // SAMPLED)) for n in values.shape)]
    if not math.isfinite(low + high):
        finite = np.isfinite(values)
        if not finite.any():
            raise Refused("holds infinite intensities, or none: every voxel is NaN or infinite")
        notes += [NOT_A_NUMBER] if np.isnan(values).any() else []
        notes += [INFINITE] if np.isinf(values).any() else []
        low = float(values.min(where=finite, initial=np.inf))
        high = float(values.max(where=finite, initial=-np.inf))
        sample = sample[np.isfinite(sample)]
    least, most = np.percentile(sample, (0.1, 99.9)).tolist() if sample.size else (low, high)
    far = FAR * (most - least) or math.inf
    if high > most + far or low < least - far:
        notes.append(OUTLIERS)
        low, high = max(low, least - far), min(high, most + far)
    if notes:
        largest = float(np.finfo(values.dtype).max)
        beyond = BEYOND * (high - low)  # what was infinite stays apart from the others
        ends = max(low - beyond, -largest), min(high + beyond, largest)
        values = np.nan_to_num(values, nan=0.0, neginf=ends[0], posinf=ends[1]).clip(*ends)
    return values, notes


def _with_contrast(scan: Scan) -> Scan:
    """Refuse a volume that shows nothing; keep the slope positive and every voxel finite."""
    volume, notes = with_finite(scan.volume)
    scan = replace(scan, notes=(*scan.notes, *notes))
    few = volume[::5, ::5, ::5]  # enough to see a contrast in most scans
    if few.min() == few.max() and volume.min() == volume.max():
        raise Refused(f"shows nothing: every voxel is {volume.min()}")
    if scan.slope < 0:
        return replace(scan, volume=volume * scan.slope + scan.intercept, slope=1.0, intercept=0.0)
    return replace(scan, volume=volume)
