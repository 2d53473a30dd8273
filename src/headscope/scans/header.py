"""The header of a scan, read without its voxels and checked against its file.

nibabel parses NIfTI-1 and -2, Analyze and MGH headers. Extensions, descriptions and names in them
are not looked at. What a header leaves open or states wrongly, and what is read in its place, goes
to the notes of the header; what cannot be a head is refused.
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

from headscope.scans.affine import UNITS, geometry_notes, is_sound, read_affine, unit_code
from headscope.scans.affine import Refused as Refused
from headscope.scans.affine import matrix_of as matrix_of
from headscope.scans.affine import squeeze_shape as squeeze_shape

GZIPPED: Final = b"\x1f\x8b"
CHUNK: Final = 2**18
TAIL_CHUNKS: Final = 2**10
HEADER_BYTES: Final = 1024  # enough for every header read here: 348, 540 and 284 bytes
MGH_OFFSET: Final = 284  # bytes before the voxels of an MGH file
DEFLATE_RATIO: Final = 1032  # deflate packs at most so many bytes into one
SPACING_RANGE_MM: Final = (1e-3, 1e2)
EXTENT_RANGE_MM: Final = (4.0, 2000.0)  # longest side of a grid: a mouse's brain to a whole body
LARGEST_VOLUME: Final = 2**30  # bytes of one stored volume; 512³ voxels of 8 bytes
LARGEST_SIDE: Final = 2**15  # voxels along an axis, as many as NIfTI-1 can claim
LARGEST_SLICE: Final = 2**25  # voxels in a plane
FREESURFER: Final = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # LIA
LARGEST_OFFSET: Final = 2**26  # bytes before the voxels: a header and its extensions
NIFTI: Final = {
    b"n+1\0": nib.Nifti1Header,
    b"ni1\0": nib.Nifti1Header,
    b"n+2\0": nib.Nifti2Header,
    b"ni2\0": nib.Nifti2Header,
}
ORIENT: Final = {1: "LSA", 2: "ASL", 3: "LPS", 4: "LIA", 5: "AIL"}  # Analyze 7.5; 0 is mostly unset

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
    unit: str = "mm"
    orientation: str | None = None  # of an Analyze header that names one, such as ASL
    notes: tuple[str, ...] = ()  # what was assumed or mended; they hold no names

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Millimetres from voxel to voxel along the first three stored axes, (3,)."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))


def read_header(path: Path) -> Header:
    """Read a header, whatever the file's name; Refused where it is of none of these formats."""
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
    notes: list[str] = []
    shape = tuple(map(int, header.get_data_shape()))
    if any(size < 1 for size in shape[3:]):
        notes.append("An axis behind the third is said to be empty and counts as one volume")
    shape = (*shape[:3], *(max(size, 1) for size in shape[3:]))
    affine, oriented = read_affine(header, header_path, shape, notes)
    if kind is MGHHeader and int.from_bytes(head[28:30], signed=True) < 1:  # its goodRASFlag
        affine = FREESURFER.copy()  # nibabel would take LSP
        notes.append("No orientation is stored; it is taken as LIA of 1 mm, as by FreeSurfer")
    slope, intercept = _scaling(header, notes)
    orient = head[252] if kind is Spm2AnalyzeHeader else 0
    unit = "mm" if kind not in NIFTI.values() else UNITS.get(unit_code(header), ("mm", 1.0))[0]
    return Header(
        data=data,
        shape=shape,
        dtype=header.get_data_dtype(),
        offset=_offset(header, data, single=header_path == data, notes=notes),
        affine=affine,
        oriented=oriented,
        slope=slope,
        intercept=intercept,
        unit=unit,
        orientation=None if oriented else ORIENT.get(orient),
        notes=(*notes, *geometry_notes(affine, shape, oriented)),
    )


def _scaling(header: Any, notes: list[str]) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none, as the NIfTI standard has it."""
    if isinstance(header, nib.Nifti1Header):
        slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
        if slope and np.isfinite(slope) and not np.isfinite(intercept):
            notes.append("The intercept of the intensities is not finite and counts as 0")
            return slope, 0.0
    slope, intercept = header.get_slope_inter()
    return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)


def _offset(header: Any, data: Path, *, single: bool, notes: list[str]) -> int:
    """Return where the voxels begin; in a single NIfTI file never within the header."""
    if isinstance(header, MGHHeader):
        return MGH_OFFSET
    offset = float(header["vox_offset"])
    if not single:
        return max(int(offset), 0)
    behind = int(header.single_vox_offset)
    if behind <= offset < np.inf:
        return int(offset)
    voxels = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    if header.sizeof_hdr <= offset < behind and _unpacked_size(data) < behind + voxels:
        return int(offset)  # written without the four bytes that announce extensions
    notes.append("The voxels are said to begin within the header and are read from behind it")
    return behind


def _unpacked_size(path: Path) -> int:
    """Return how many bytes a file holds; a packed one says so at its end, up to 4 GiB."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIPPED
        file.seek(-4 if packed else 0, os.SEEK_END)
        return int.from_bytes(file.read(4), "little") if packed else file.tell()


def _read_head(path: Path) -> bytes:
    """Return the first bytes; of a gzipped file no more than they are unpacked."""
    with path.open("rb") as file:
        head = file.read(4 * HEADER_BYTES)
    if head.startswith(GZIPPED):
        head = IgzipDecompressor(flag=DECOMP_GZIP).decompress(head, HEADER_BYTES)
        if len(head) < HEADER_BYTES:  # a short or damaged file, or one packed in many parts
            return read_bytes(path, 0, HEADER_BYTES)
    return head[:HEADER_BYTES]


def check_header(header: Header) -> None:
    """Refuse what no scan can be, before anything of that size is allocated."""
    if not header.shape or min(header.shape) < 1 or len(squeeze_shape(header.shape)) < 2:
        raise Refused(f"is no volume: its shape is {shape_text(header.shape)}")
    spatial = squeeze_shape(header.shape)[:3]
    plane = math.prod(sorted(spatial)[-2:])
    size = math.prod(spatial) * header.dtype.itemsize
    if max(header.shape) > LARGEST_SIDE or plane > LARGEST_SLICE or size > LARGEST_VOLUME:
        gib = f"{size / 2**30:.3g} GiB"
        raise Refused(f"is too large: its header claims {shape_text(spatial)} voxels, {gib}")
    if header.dtype.kind not in "iuf":
        raise Refused(f"holds no intensities: its voxels are of type {header.dtype}")
    linear = header.affine[:3, :3]
    spacing = header.spacing_mm[: len(header.shape)]
    if not np.isfinite(linear).all() or not np.isfinite([header.slope, header.intercept]).all():
        raise Refused("is damaged: its header holds numbers that are not finite")
    unit = "" if header.unit == "mm" else f", read from its unit, the {header.unit}"
    if spacing.min() < SPACING_RANGE_MM[0] or spacing.max() > SPACING_RANGE_MM[1]:
        raise Refused(f"is damaged: its header claims a spacing of {_mm_text(spacing)}{unit}")
    if header.oriented and not is_sound(header.affine):
        raise Refused("is damaged: its affine is singular")
    extent = spacing * header.shape[:3]
    if not EXTENT_RANGE_MM[0] <= extent.max() <= EXTENT_RANGE_MM[1]:
        raise Refused(f"is no head: its header claims a size of {_mm_text(extent)}{unit}")
    if header.offset > LARGEST_OFFSET:
        raise Refused(f"is damaged: its header claims that voxels begin at byte {header.offset}")
    if header.slope == 0:
        raise Refused("is damaged: its intensities are scaled by 0")


def _mm_text(lengths: NDArray[np.float64]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths) + " mm"


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


def read_bytes(path: Path, start: int, size: int, *, check: bool = False) -> bytes:
    """Return up to `size` bytes from `start`, unpacked where the file is gzipped.

    `check`: what lies behind them is unpacked too, up to 256 MiB, to compare the checksum.
    """
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
            rest = TAIL_CHUNKS if check else 1
            while rest and stream.read(CHUNK):  # at the end of the file this compares the checksum
                rest -= 1
            return unpacked


def choose_volume(volumes: int, volume: int | None, shape: str = "") -> int:
    """Return the number of the volume to read; it must be named where a scan holds several."""
    if volumes > 1 and volume is None:
        raise Refused(
            f"holds {volumes} volumes{shape}: choose one with 'volume', 0 to {volumes - 1}"
        )
    if volume is not None and not 0 <= volume < volumes:
        held = "1 volume" if volumes == 1 else f"{volumes} volumes"
        raise Refused(f"holds {held}: there is no volume {volume}")
    return volume or 0


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as 91×109×91."""
    return "×".join(map(str, shape)) or "()"
