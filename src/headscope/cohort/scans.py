"""One scan file → its volume in canonical RAS and its spacing in millimetres.

Analyze 7.5, SPM Analyze, NIfTI-1 and -2 (single files and pairs) and MGH, plain or gzipped. nibabel
reads the headers; the voxels are read here, once, in the type they are stored in, and only after
the size that the header claims was held against the file.

Orientation where the file stores none (Analyze without a .mat file, NIfTI with both codes zero):
a volume is taken to lie as `analyze_orientation` says, by default "LAS", which is the convention
of Analyze and nibabel's choice. A single slice of two axes is taken as it lies, its axes in
R, A, S order without the axis across its plane; its left and right cannot be known.
"""

import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import permutations, product
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.spm2analyze import Spm2AnalyzeHeader
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray
from scipy.io import loadmat

from headscope.errors import InputError

PLANES: Final = {"sagittal": 0, "coronal": 1, "axial": 2}
SUFFIXES: Final = (".nii", ".nii.gz", ".mgh", ".mgz", ".hdr", ".hdr.gz")
HEADER_BYTES: Final = 1024  # enough for every header read here: 348, 540 and 284 bytes
LARGEST_VOLUME: Final = 2**30  # bytes of one stored volume; 512³ voxels of 8 bytes
DEFLATE_RATIO: Final = 1032  # deflate packs at most so many bytes into one
SPACING_RANGE_MM: Final = (1e-3, 1e2)
NIFTI: Final = {
    b"n+1\0": nib.Nifti1Header,
    b"ni1\0": nib.Nifti1Header,
    b"n+2\0": nib.Nifti2Header,
    b"ni2\0": nib.Nifti2Header,
}
MM_PER_UNIT: Final = {1: 1e3, 3: 1e-3}  # NIfTI xyzt_units: metre and micron; the rest is mm

_UNREADABLE: Final[tuple[type[Exception], ...]] = (  # type: ignore[assignment]  # isal's stub
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    zlib.error,
    IsalError,
    HeaderDataError,
    HeaderTypeError,
    ImageFileError,
    WrapStructError,
)


class ScanError(InputError):
    """A scan cannot be used; `path` and `reason` say which and why."""

    def __init__(self, path: Path, reason: str) -> None:
        """Keep both as arguments, so that the error survives the way from another process."""
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

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


@dataclass(frozen=True)
class _Header:
    """What is needed of a header to read the voxels."""

    data: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    affine: NDArray[np.float64]
    oriented: bool
    slope: float
    intercept: float


def read_scan(
    path: Path,
    *,
    plane: str = "axial",
    volume: int | None = None,
    analyze_orientation: str = "LAS",
) -> Scan:
    """Read one scan into canonical RAS.

    `plane` says how a file of two axes without orientation lies; `volume` chooses one of several
    volumes of a 4-D file, from 0; `analyze_orientation` holds where a file stores none. NaN, which
    SPM writes outside the brain, becomes 0.

    Raises
    ------
    ScanError
        The file is missing, damaged, not a scan, of several volumes, or without any contrast.
    """
    path = Path(path)
    try:
        with np.errstate(all="ignore"):
            header = _read_header(path)
            _check_header(header)
            voxels = _read_voxels(header, volume)
            return replace(_canonical(header, voxels, plane, analyze_orientation), path=path)
    except _Refused as error:
        raise ScanError(path, str(error)) from None
    except FileNotFoundError as error:
        raise ScanError(path, f"cannot be read: {error.filename} does not exist") from error
    except PermissionError as error:
        raise ScanError(path, "cannot be read: permission denied") from error
    except MemoryError as error:
        raise ScanError(path, "cannot be read: it does not fit into memory") from error
    except _UNREADABLE as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise ScanError(path, f"is damaged or no scan ({reason})") from error


def scan_shape(path: Path) -> tuple[int, ...]:
    """Return the stored shape, trailing singleton axes dropped, from the header alone."""
    path = Path(path)
    try:
        with np.errstate(all="ignore"):
            return _squeezed(_read_header(path).shape)
    except _Refused as error:
        raise ScanError(path, str(error)) from None
    except _UNREADABLE as error:
        raise ScanError(path, f"is damaged or no scan ({error})") from error


def find_scan_files(folder: Path) -> list[Path]:
    """Return the scans below `folder`, sorted; one entry, the header, for a .hdr/.img pair.

    Hidden files and folders are passed over. Linked folders are followed, each real folder once.
    """
    found = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(place, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def scan_files(path: Path) -> tuple[Path, Path]:
    """Return the files of header and voxels, which are one but for .hdr/.img."""
    match = re.fullmatch(r"(.+)\.(?:hdr|img)(?:\.gz)?", path.name, re.IGNORECASE | re.DOTALL)
    if match is None:
        return path, path
    header, data = (
        [path.with_name(match[1] + suffix) for suffix in suffixes]
        for suffixes in ((".hdr", ".hdr.gz", ".HDR"), (".img", ".img.gz", ".IMG"))
    )
    return next((p for p in header if p.exists()), header[0]), next(
        (p for p in data if p.exists()), data[0]
    )


class _Refused(Exception):  # noqa: N818 (turned into a ScanError with the path before it leaves)
    """Why a scan is refused."""


def _read_header(path: Path) -> _Header:
    header_path, data_path = scan_files(path)
    if header_path.is_file() and header_path.stat().st_size == 0:
        raise _Refused("is empty")
    head = _read_bytes(header_path, 0, HEADER_BYTES)
    if path.name.lower().endswith((".mgh", ".mgz")):
        return _mgh_header(head, data_path)
    kind = NIFTI.get(head[344:348]) or NIFTI.get(head[4:8])
    if kind is not None:
        return _nifti_header(kind, head, data_path)
    if header_path == data_path:
        raise _Refused("is no NIfTI file: its magic number is wrong")
    return _analyze_header(head, header_path, data_path)


def _nifti_header(kind: Any, head: bytes, data: Path) -> _Header:
    header = kind(head[: kind.sizeof_hdr], check=False)  # extensions are not looked at
    if int(header["sizeof_hdr"]) != kind.sizeof_hdr:
        raise _Refused(f"is damaged: its header claims {header['sizeof_hdr']} bytes")
    oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    shape = header.get_data_shape()
    affine = header.get_best_affine() if oriented else _plain_affine(header)
    slope, intercept = header.get_slope_inter()
    return _Header(
        data=data,
        shape=shape,
        dtype=header.get_data_dtype(),
        offset=max(int(header["vox_offset"]), 0),
        affine=affine * _millimetres(int(header["xyzt_units"]) & 7),
        oriented=oriented,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _analyze_header(head: bytes, header_path: Path, data: Path) -> _Header:
    header = Spm2AnalyzeHeader(head[: Spm2AnalyzeHeader.sizeof_hdr], check=False)
    if int(header["sizeof_hdr"]) != 348:
        raise _Refused(f"is no Analyze header: it claims {header['sizeof_hdr']} bytes, not 348")
    slope, intercept = header.get_slope_inter()
    matrix = header_path.with_name(header_path.name.split(".hdr")[0] + ".mat")
    oriented = matrix.is_file()
    return _Header(
        data=data,
        shape=header.get_data_shape(),
        dtype=header.get_data_dtype(),
        offset=max(int(header["vox_offset"]), 0),
        affine=_spm_affine(matrix) if oriented else _plain_affine(header),
        oriented=oriented,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _mgh_header(head: bytes, data: Path) -> _Header:
    header = MGHHeader.from_fileobj(BytesIO(head), check=False)
    if int(header["version"]) != 1:
        raise _Refused(f"is no MGH file: its version is {header['version']}, not 1")
    return _Header(
        data=data,
        shape=header.get_data_shape(),
        dtype=header.get_data_dtype(),
        offset=header.get_data_offset(),
        affine=header.get_affine(),
        oriented=True,
        slope=1.0,
        intercept=0.0,
    )


def _plain_affine(header: Any) -> NDArray[np.float64]:
    """Return the spacing alone: where nothing is stored, axes run as they are told to."""
    return np.diag([*np.abs(header["pixdim"][1:4].astype(np.float64)), 1.0])


def _spm_affine(path: Path) -> NDArray[np.float64]:
    """Return the affine of SPM's .mat file, which counts voxels from 1."""
    stored = loadmat(path)
    return np.asarray(stored["mat" if "mat" in stored else "M"], dtype=np.float64)


def _millimetres(unit: int) -> NDArray[np.float64]:
    factor = MM_PER_UNIT.get(unit, 1.0)
    return np.array([[factor]] * 3 + [[1.0]])


def _check_header(header: _Header) -> None:
    """Refuse what no scan can be, before anything of that size is allocated."""
    if not header.shape or min(header.shape) < 1 or len(_squeezed(header.shape)) < 2:
        raise _Refused(f"is no volume: its shape is {_shape_text(header.shape)}")
    if header.dtype.kind not in "iuf":
        raise _Refused(f"holds no intensities: its voxels are of type {header.dtype}")
    linear = header.affine[:3, :3]
    spacing = np.sqrt((linear**2).sum(axis=0))[: len(header.shape)]
    if not np.isfinite(linear).all() or not np.isfinite([header.slope, header.intercept]).all():
        raise _Refused("is damaged: its header holds numbers that are not finite")
    if spacing.min() < SPACING_RANGE_MM[0] or spacing.max() > SPACING_RANGE_MM[1]:
        sizes = " × ".join(f"{size:.4g}" for size in spacing)
        raise _Refused(f"is damaged: its header claims a spacing of {sizes} mm")
    if header.oriented and abs(np.linalg.det(linear / np.sqrt((linear**2).sum(axis=0)))) < 1e-2:
        raise _Refused("is damaged: its affine is singular")
    if header.slope == 0:
        raise _Refused("is damaged: its intensities are scaled by 0")


def _read_voxels(header: _Header, volume: int | None) -> NDArray[Any]:
    """Return the one volume, (I, J) or (I, J, K), as stored."""
    shape = _squeezed(header.shape)
    spatial, volumes = shape[:3], math.prod(shape[3:])
    if volumes > 1 and volume is None:
        raise _Refused(
            f"holds {volumes} volumes (shape {_shape_text(shape)}): choose one with 'volume', "
            f"0 to {volumes - 1}"
        )
    if volume is not None and not 0 <= volume < volumes:
        raise _Refused(f"holds {volumes} volumes: there is no volume {volume}")
    size = math.prod(spatial) * header.dtype.itemsize
    if size > LARGEST_VOLUME:
        raise _Refused(
            f"is too large: its header claims {_shape_text(spatial)} voxels, {size / 2**30:.3g} GiB"
        )
    start = header.offset + size * (volume or 0)
    stored = _read_bytes(header.data, start, size)
    if len(stored) < size:
        raise _Refused(f"is truncated: {len(stored)} of {size} bytes of voxels stand in it")
    return np.frombuffer(stored, header.dtype, math.prod(spatial)).reshape(spatial, order="F")


def _read_bytes(path: Path, start: int, size: int) -> bytes:
    """Return up to `size` bytes from `start`, unpacked where the file is gzipped."""
    with path.open("rb") as file:
        stored = os.fstat(file.fileno()).st_size
        if file.read(2) != b"\x1f\x8b":
            file.seek(start)
            return file.read(min(size, stored))
        if start + size > DEFLATE_RATIO * stored + HEADER_BYTES:
            raise _Refused(
                f"is truncated: {stored} packed bytes cannot hold the {size} that its header claims"
            )
        file.seek(0)
        with igzip.IGzipFile(fileobj=file) as stream:
            stream.seek(start)
            unpacked = stream.read(size)
            stream.read(1)  # at the end of the file this compares the checksum
            return unpacked


def _canonical(header: _Header, voxels: NDArray[Any], plane: str, assumed: str) -> Scan:
    """Turn stored voxels into RAS; a view, nothing is copied."""
    spacing = np.sqrt((header.affine[:3, :3] ** 2).sum(axis=0))
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
            raise _Refused("holds infinite intensities")
        if not finite.all():
            volume = np.where(finite, volume, volume.dtype.type(0))
            if not finite.any():
                raise _Refused("holds no intensities: every voxel is NaN")
    if volume.min() == volume.max():
        raise _Refused(f"shows nothing: every voxel is {volume.min()}")
    if slope < 0:
        volume, slope, intercept = volume * slope + intercept, 1.0, 0.0
    return Scan(volume, (float(spacing[0]), float(spacing[1]), float(spacing[2])), slope, intercept)


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


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop trailing singleton axes, but keep a volume's third where there are more behind it."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _shape_text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"
