"""The affine of a scan: from sform, qform, SPM's matrix or the spacing alone, with notes on it.

A file whose affine is wrong in a way that another field mends is read by that field, which a note
says. Notes hold no names.
"""

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError
from nibabel.spm2analyze import Spm2AnalyzeHeader
from numpy.typing import NDArray

SHEAR: Final = 0.05  # cosine between two axes of a volume above which it is said
OBLIQUE: Final = 0.87  # cosine of an axis to the nearest of the body, below which it is said (30°)
UNLIKE: Final = 0.1  # share by which the spacings of sform and pixdim may differ without a word
HEAD_RANGE_MM: Final = (80.0, 700.0)  # longest side of what is likely the grid of a human head
UNITS: Final = {1: ("metre", 1e3), 3: ("micron", 1e-3)}  # NIfTI xyzt_units; the rest is mm
LARGEST_MATRIX: Final = 2**18  # bytes of a .mat file, which for one volume takes a few hundred


class Refused(Exception):  # noqa: N818 (turned into a ScanError with the path before it leaves)
    """Why a scan is refused."""


def read_affine(
    header: Any, path: Path, shape: tuple[int, ...], notes: list[str]
) -> tuple[NDArray[np.float64], bool]:
    """Return the affine (4, 4) in mm, and whether it is stored or made of the spacing alone."""
    if isinstance(header, MGHHeader):
        return header.get_affine(), True
    if isinstance(header, Spm2AnalyzeHeader):
        matrix = matrix_of(path)
        if matrix.is_file():
            return _spm_affine(matrix, notes), True
        return _plain_affine(header, shape, notes), False
    affine = _nifti_affine(header, shape, notes)
    oriented = affine is not None
    affine = affine if oriented else _plain_affine(header, shape, notes)
    affine[:3] *= UNITS.get(unit_code(header), ("mm", 1.0))[1]
    return affine, oriented


def _nifti_affine(header: Any, shape: tuple[int, ...], notes: list[str]) -> Any:
    """Return the sform, else the qform, in the header's unit, or None where both codes are 0."""
    sform = _fill_plane(header.get_sform(), shape, notes) if header["sform_code"] > 0 else None
    if header["qform_code"] <= 0 or (sform is not None and is_sound(sform)):
        if sform is not None:
            _compare_forms(header, sform, notes)
        return sform
    qform = _qform(header, shape, notes)
    if sform is not None:
        notes.append(
            "The sform is no orientation (zeros, or axes that coincide), so the qform counts"
        )
    return qform


def _qform(header: Any, shape: tuple[int, ...], notes: list[str]) -> NDArray[np.float64]:
    """Return the qform, with a handedness of 1 where none is stored, as the standard has it."""
    if abs(header["pixdim"][0]) != 1:
        notes.append("The qform stores no handedness (qfac is neither 1 nor -1), which counts as 1")
        header["pixdim"][0] = 1
    header["pixdim"][1:4] = _spacing(header, shape, notes)
    return np.asarray(header.get_qform(), dtype=np.float64)


def _plain_affine(header: Any, shape: tuple[int, ...], notes: list[str]) -> NDArray[np.float64]:
    return np.diag([*_spacing(header, shape, notes), 1.0])


def _spacing(header: Any, shape: tuple[int, ...], notes: list[str]) -> NDArray[np.float64]:
    """Return the spacing (3,) of pixdim: negative ones count by their size, absent ones as 1."""
    spacing = header["pixdim"][1:4].astype(np.float64)
    absent = ~np.isfinite(spacing) | (spacing == 0)
    if absent[: len(squeeze_shape(shape))].any():
        notes.append("The spacing along an axis is not stored (pixdim is 0) and counts as 1 mm")
    if (spacing < 0)[: len(shape)].any():
        notes.append("A negative spacing is stored and counts without its sign")
    return np.where(absent, 1.0, np.abs(spacing))


def _fill_plane(
    affine: NDArray[np.float64], shape: tuple[int, ...], notes: list[str]
) -> NDArray[np.float64]:
    """Give a single slice whose third column is zero the normal of its plane."""
    if len(squeeze_shape(shape)) == 2 and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = np.linalg.norm(normal)
        if np.isfinite(length) and length > 0:
            notes.append(
                "The sform of a single slice lacks its third axis, which is taken at right angles"
            )
            affine[:3, 2] = normal / length
    return affine


def is_sound(affine: NDArray[np.float64]) -> bool:
    """Return whether the three axes are finite, of some length, and do not coincide."""
    linear = affine[:3, :3]
    lengths = np.sqrt((linear**2).sum(axis=0))
    if not np.isfinite(linear).all() or lengths.min() <= 0:
        return False
    return bool(abs(np.linalg.det(linear / lengths)) >= 1e-2)


def _compare_forms(header: Any, sform: NDArray[np.float64], notes: list[str]) -> None:
    """Say where sform and qform turn or space the voxels differently; the sform counts."""
    lengths, spacing = np.sqrt((sform[:3, :3] ** 2).sum(axis=0)), np.abs(header["pixdim"][1:4])
    if ((spacing > 0) & (np.abs(lengths / np.maximum(spacing, 1e-9) - 1) > UNLIKE)).any():
        notes.append("The spacing of the sform is not that of pixdim; the sform counts")
    if header["qform_code"] <= 0:
        return
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):  # unsound, and not needed
        return
    if not is_sound(qform):
        return
    codes = ["".join(aff2axcodes(affine)) for affine in (sform, qform)]
    if codes[0] != codes[1]:
        notes.append(f"The sform says {codes[0]} and the qform {codes[1]}; the sform counts")


def geometry_notes(
    affine: NDArray[np.float64], shape: tuple[int, ...], oriented: bool
) -> list[str]:
    """Say what is unusual about a sound affine: its size, shear and angle to the body's axes."""
    notes = []
    linear = affine[:3, :3]
    spacing = np.sqrt((linear**2).sum(axis=0))
    longest = float((spacing[: len(shape)] * shape[:3]).max(initial=0))
    if not HEAD_RANGE_MM[0] <= longest <= HEAD_RANGE_MM[1] and len(squeeze_shape(shape)) > 2:
        than = "smaller" if longest < HEAD_RANGE_MM[0] else "larger"
        notes.append(f"The grid is {than} than that of a human head (is its unit right?)")
    if not oriented or not is_sound(affine):
        return notes
    axes = linear / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR:
        notes.append("The axes are not at right angles; slices follow them as if they were")
    if np.abs(axes).max(axis=0).min() < OBLIQUE:
        notes.append("The axes are more than 30° off those of the body; slices follow the nearest")
    return notes


def unit_code(header: Any) -> int:
    """Return the code of the unit of length in a NIfTI header."""
    return int(header["xyzt_units"]) & 7


def _spm_affine(path: Path, notes: list[str]) -> NDArray[np.float64]:
    """Return the affine of SPM's .mat file, which counts voxels from 1.

    `mat` is the affine. Files of SPM99 have `M` alone, whose x runs as stored: SPM mirrors it
    (spm_flip_analyze_images), and so does nibabel.
    """
    from scipy.io import loadmat, whosmat  # rarely needed, and slow to load
    from scipy.io.matlab import MatReadError

    size = path.stat().st_size
    if size > LARGEST_MATRIX:
        raise Refused(f"has a .mat file of {size} bytes beside it, too large for one matrix")
    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        name = next((name for name in ("mat", "M") if shapes.get(name, ())[:2] == (4, 4)), None)
        if name is None or math.prod(shapes[name]) > LARGEST_MATRIX:
            raise Refused("has a .mat file beside it that holds no 4×4 matrix 'mat' or 'M'")
        matrix = np.asarray(loadmat(path, variable_names=[name])[name], dtype=np.float64)
    except NotImplementedError:
        raise Refused("has a .mat file of MATLAB 7.3 beside it: save that with -v6") from None
    except MatReadError as error:
        raise Refused(f"has a damaged .mat file beside it ({error})") from None
    if matrix.ndim > 2:
        notes.append("The .mat file holds a matrix for each volume; the first counts")
        matrix = matrix.reshape(4, 4, -1)[..., 0]
    if name == "M":
        notes.append("The .mat file holds M alone, which is mirrored left to right as SPM reads it")
        matrix = np.diag([-1.0, 1, 1, 1]) @ matrix
    return matrix


def matrix_of(header: Path) -> Path:
    """Return where SPM keeps the affine of an Analyze header, whether or not there is one."""
    return header.with_name(re.split(r"\.hdr", header.name, flags=re.IGNORECASE)[0] + ".mat")


def squeeze_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop trailing singleton axes, but keep a volume's third where there are more behind it."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
