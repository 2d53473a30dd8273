"""The header of a scan, read without its voxels and checked against its file.

nibabel parses NIfTI-1 and -2, Analyze and MGH headers. Extensions, descriptions and names in them
are not looked at.
"""

import math
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
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError
from nibabel.spm2analyze import Spm2AnalyzeHeader
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

GZIPPED: Final = b"\x1f\x8b"
HEADER_BYTES: Final = 1024  # enough for every header read here: 348, 540 and 284 bytes
MGH_OFFSET: Final = 284  # bytes before the voxels of an MGH file
DEFLATE_RATIO: Final = 1032  # deflate packs at most so many bytes into one
SPACING_RANGE_MM: Final = (1e-3, 1e2)
LARGEST_VOLUME: Final = 2**30  # bytes of one stored volume; 512³ voxels of 8 bytes
LARGEST_SIDE: Final = 2**15  # voxels along an axis, as many as NIfTI-1 can claim
LARGEST_SLICE: Final = 2**25  # voxels in a plane
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
    """Read the header of any format, known by its magic number, not by its name alone.

    Raises
    ------
    Refused
        The file is empty, no regular file, or has no header of these formats.
    """
    header_path, data = scan_files(path)
    for file in (header_path, data):
        if file.exists() and not file.is_file():  # a pipe would be waited for without end
            raise Refused("cannot be read: it is no regular file")
    if header_path.exists() and header_path.stat().st_size == 0:
        raise Refused("is empty")
    head = _read_head(header_path)
    if path.name.lower().endswith((".mgh", ".mgz")):
        kind: Any = MGHHeader
        head = head.ljust(kind.template_dtype.itemsize, b"\0")  # its footer follows the voxels
    else:
        no_magic = None if header_path == data else Spm2AnalyzeHeader
        kind = NIFTI.get(head[344:348], NIFTI.get(head[4:8], no_magic))
        if kind is None:
            raise Refused("is no NIfTI file: its magic number is wrong")
    header = kind(head[: kind.template_dtype.itemsize], check=False)  # without extensions
    name, value = ("version", 1) if kind is MGHHeader else ("sizeof_hdr", kind.sizeof_hdr)
    if int(header[name]) != value:
        what = {MGHHeader: "MGH", Spm2AnalyzeHeader: "Analyze"}.get(kind, "NIfTI")
        raise Refused(f"is no {what} file: its {name} is {header[name]}, not {value}")
    shape = tuple(map(int, header.get_data_shape()))
    affine, oriented = _affine(header, header_path)
    slope, intercept = header.get_slope_inter()
    return Header(
        data=data,
        shape=shape,
        dtype=header.get_data_dtype(),
        offset=MGH_OFFSET if kind is MGHHeader else max(int(header["vox_offset"]), 0),
        affine=affine,
        oriented=oriented,
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _affine(header: Any, path: Path) -> tuple[NDArray[np.float64], bool]:
    """Return the affine (4, 4) in mm, and whether it is stored or made of the spacing alone."""
    if isinstance(header, MGHHeader):
        return header.get_affine(), True
    plain = np.diag([*np.abs(header["pixdim"][1:4].astype(np.float64)), 1.0])
    if isinstance(header, Spm2AnalyzeHeader):
        matrix = matrix_of(path)
        return (_spm_affine(matrix), True) if matrix.is_file() else (plain, False)
    oriented = bool(header["sform_code"] > 0 or header["qform_code"] > 0)
    affine = header.get_best_affine() if oriented else plain
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine, oriented


def _read_head(path: Path) -> bytes:
    """Return the first bytes; of a gzipped file no more than they are unpacked."""
    with path.open("rb") as file:
        head = file.read(4 * HEADER_BYTES)
    if head.startswith(GZIPPED):
        head = IgzipDecompressor(flag=DECOMP_GZIP).decompress(head, HEADER_BYTES)
        if len(head) < HEADER_BYTES:  # a short or damaged file, or one packed in many parts
            return read_bytes(path, 0, HEADER_BYTES)
    return head[:HEADER_BYTES]


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


def check_header(header: Header) -> None:
    """Refuse what no scan can be, before anything of that size is allocated."""
    if not header.shape or min(header.shape) < 1 or len(squeeze_shape(header.shape)) < 2:
        raise Refused(f"is no volume: its shape is {shape_text(header.shape)}")
    sides = header.shape[:3]
    if max(header.shape) > LARGEST_SIDE or math.prod(sorted(sides)[-2:]) > LARGEST_SLICE:
        size = f"{math.prod(sides) * header.dtype.itemsize / 2**30:.3g} GiB"
        raise Refused(f"is too large: its header claims {shape_text(sides)} voxels, {size}")
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
        [path.with_name(match[1] + end) for end in (suffix, f"{suffix}.gz", suffix.upper())]
        for suffix in (".hdr", ".img")
    )
    return (
        next((file for file in header if file.exists()), header[0]),
        next((file for file in data if file.exists()), data[0]),
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


def choose_volume(volumes: int, volume: int | None, shape: str = "") -> int:
    """Return the number of the volume to read; it must be named where a scan holds several."""
    if volumes > 1 and volume is None:
        raise Refused(
            f"holds {volumes} volumes{shape}: choose one with 'volume', 0 to {volumes - 1}"
        )
    if volume is not None and not 0 <= volume < volumes:
        raise Refused(f"holds {volumes} volumes: there is no volume {volume}")
    return volume or 0


def squeeze_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop trailing singleton axes, but keep a volume's third where there are more behind it."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as 91×109×91."""
    return "×".join(map(str, shape)) or "()"
