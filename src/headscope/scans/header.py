"""What stands in the header of a scan, read without its voxels and held against its file.

nibabel parses NIfTI-1 and -2, Analyze and MGH headers. Extensions, descriptions and names in them
are not looked at.
"""

import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from isal import igzip
from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.spm2analyze import Spm2AnalyzeHeader
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

GZIPPED: Final = b"\x1f\x8b"
HEADER_BYTES: Final = 1024  # enough for every header read here: 348, 540 and 284 bytes
MGH_OFFSET: Final = 284  # bytes before the voxels of an MGH file
DEFLATE_RATIO: Final = 1032  # deflate packs at most so many bytes into one
SPACING_RANGE_MM: Final = (1e-3, 1e2)
LARGEST_VOLUME: Final = 2**30  # bytes of one stored volume; 512³ voxels of 8 bytes
LARGEST_OFFSET: Final = 2**26  # bytes before the voxels: a header and its extensions
NIFTI: Final = {
    b"n+1\0": nib.Nifti1Header,
    b"ni1\0": nib.Nifti1Header,
    b"n+2\0": nib.Nifti2Header,
    b"ni2\0": nib.Nifti2Header,
}
MM_PER_UNIT: Final = {1: 1e3, 3: 1e-3}  # NIfTI xyzt_units: metre and micron; the rest is mm

UNREADABLE: Final[tuple[type[Exception], ...]] = (  # type: ignore[assignment]  # isal's stub
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
    MGHError,
)


class Refused(Exception):  # noqa: N818 (turned into a ScanError with the path before it leaves)
    """Why a scan is refused."""


@dataclass(frozen=True)
class Header:
    """What is needed of a header to read the voxels."""

    data: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    affine: NDArray[np.float64]
    oriented: bool
    slope: float
    intercept: float

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Millimetres from voxel to voxel along the first three stored axes, (3,)."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))


def read_header(path: Path) -> Header:
    """Read the header of any format, known by its magic number, not by its name alone."""
    header_path, data_path = scan_files(path)
    for file in (header_path, data_path):
        if file.exists() and not file.is_file():  # a pipe would be waited for without end
            raise Refused("cannot be read: it is no regular file")
    if header_path.exists() and header_path.stat().st_size == 0:
        raise Refused("is empty")
    head = _read_head(header_path)
    if path.name.lower().endswith((".mgh", ".mgz")):
        return _mgh_header(head, data_path)
    kind = NIFTI.get(head[344:348]) or NIFTI.get(head[4:8])
    if kind is not None:
        return _nifti_header(kind, head, data_path)
    if header_path == data_path:
        raise Refused("is no NIfTI file: its magic number is wrong")
    return _analyze_header(head, header_path, data_path)


def _read_head(path: Path) -> bytes:
    """Return the first bytes; of a gzipped file no more than they are unpacked."""
    with path.open("rb") as file:
        head = file.read(4 * HEADER_BYTES)
    if head.startswith(GZIPPED):
        head = IgzipDecompressor(flag=DECOMP_GZIP).decompress(head, HEADER_BYTES)
        if len(head) < HEADER_BYTES:  # a short or damaged file, or one packed in many parts
            return read_bytes(path, 0, HEADER_BYTES)
    return head[:HEADER_BYTES]


def _nifti_header(kind: Any, head: bytes, data: Path) -> Header:
    header = kind(head[: kind.sizeof_hdr], check=False)  # extensions are not looked at
    if int(header["sizeof_hdr"]) != kind.sizeof_hdr:
        raise Refused(f"is damaged: its header claims {header['sizeof_hdr']} bytes")
    oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    shape = header.get_data_shape()
    affine = header.get_best_affine() if oriented else _plain_affine(header)
    slope, intercept = header.get_slope_inter()
    return Header(
        data=data,
        shape=shape,
        dtype=header.get_data_dtype(),
        offset=max(int(header["vox_offset"]), 0),
        affine=affine * _millimetres(int(header["xyzt_units"]) & 7),
        oriented=oriented,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _analyze_header(head: bytes, header_path: Path, data: Path) -> Header:
    header = Spm2AnalyzeHeader(head[: Spm2AnalyzeHeader.sizeof_hdr], check=False)
    if int(header["sizeof_hdr"]) != 348:
        raise Refused(f"is no Analyze header: it claims {header['sizeof_hdr']} bytes, not 348")
    slope, intercept = header.get_slope_inter()
    matrix = matrix_of(header_path)
    oriented = matrix.is_file()
    return Header(
        data=data,
        shape=tuple(map(int, header.get_data_shape())),
        dtype=header.get_data_dtype(),
        offset=max(int(header["vox_offset"]), 0),
        affine=_spm_affine(matrix) if oriented else _plain_affine(header),
        oriented=oriented,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _mgh_header(head: bytes, data: Path) -> Header:
    size = MGHHeader.template_dtype.itemsize
    header = MGHHeader(
        head[:size].ljust(size, b"\0"), check=False
    )  # what follows the voxels is not looked at
    if int(header["version"]) != 1:
        raise Refused(f"is no MGH file: its version is {header['version']}, not 1")
    return Header(
        data=data,
        shape=tuple(map(int, header.get_data_shape())),
        dtype=header.get_data_dtype(),
        offset=MGH_OFFSET,
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
    from scipy.io import loadmat  # rarely needed, and slow to load
    from scipy.io.matlab import MatReadError

    try:
        stored = loadmat(path)
    except NotImplementedError:
        raise Refused("has a .mat file of MATLAB 7.3 beside it: save that with -v6") from None
    except MatReadError as error:
        raise Refused(f"has a damaged .mat file beside it ({error})") from None
    name = next((name for name in ("mat", "M") if name in stored), None)
    if name is None or np.shape(stored[name]) != (4, 4):
        raise Refused("has a .mat file beside it that holds no 4×4 matrix 'mat' or 'M'")
    return np.asarray(stored[name], dtype=np.float64)


def matrix_of(header: Path) -> Path:
    """Return where SPM keeps the affine of an Analyze header, whether or not there is one."""
    return header.with_name(re.split(r"\.hdr", header.name, flags=re.IGNORECASE)[0] + ".mat")


def _millimetres(unit: int) -> NDArray[np.float64]:
    factor = MM_PER_UNIT.get(unit, 1.0)
    return np.array([[factor]] * 3 + [[1.0]])


def check_header(header: Header) -> None:
    """Refuse what no scan can be, before anything of that size is allocated."""
    if not header.shape or min(header.shape) < 1 or len(squeezed(header.shape)) < 2:
        raise Refused(f"is no volume: its shape is {shape_text(header.shape)}")
    if header.dtype.kind not in "iuf":
        raise Refused(f"holds no intensities: its voxels are of type {header.dtype}")
    linear = header.affine[:3, :3]
    spacing = header.spacing_mm[: len(header.shape)]
    if not np.isfinite(linear).all() or not np.isfinite([header.slope, header.intercept]).all():
        raise Refused("is damaged: its header holds numbers that are not finite")
    if spacing.min() < SPACING_RANGE_MM[0] or spacing.max() > SPACING_RANGE_MM[1]:
        sizes = " × ".join(f"{size:.4g}" for size in spacing)
        raise Refused(f"is damaged: its header claims a spacing of {sizes} mm")
    if header.oriented and abs(np.linalg.det(linear / header.spacing_mm)) < 1e-2:
        raise Refused("is damaged: its affine is singular")
    if header.offset > LARGEST_OFFSET:
        raise Refused(f"is damaged: its header claims that voxels begin at byte {header.offset}")
    if header.slope == 0:
        raise Refused("is damaged: its intensities are scaled by 0")


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


def read_bytes(path: Path, start: int, size: int) -> bytes:
    """Return up to `size` bytes from `start`, unpacked where the file is gzipped."""
    with path.open("rb") as file:
        stored = os.fstat(file.fileno()).st_size
        if file.read(2) != GZIPPED:
            file.seek(min(start, stored))
            return file.read(min(size, stored))
        if start + size > DEFLATE_RATIO * stored + HEADER_BYTES:
            raise Refused(
                f"is truncated: {stored} packed bytes cannot hold the {size} that its header claims"
            )
        file.seek(0)
        with igzip.IGzipFile(fileobj=file) as stream:
            stream.seek(start)
            unpacked = stream.read(size)
            stream.read(1)  # at the end of the file this compares the checksum
            return unpacked


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop trailing singleton axes, but keep a volume's third where there are more behind it."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as 91×109×91."""
    return "×".join(map(str, shape)) or "()"
