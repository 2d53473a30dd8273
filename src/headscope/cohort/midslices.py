"""One volume → its mid-slices: the same anatomy, brightness and proportions in every scan.

A picture's top is anterior (axial) or superior (coronal, sagittal). Its left is the subject's left
(axial, coronal: the neurological convention, which is RAS as it lies) or posterior (sagittal).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headscope.cohort.scans import PLANES, Scan, ScanError
from headscope.errors import InputError

AUTO: Final = "vertex:70mm"
WINDOW: Final = (1.0, 98.0)  # percentiles of the foreground that become black and white
HEAD_MM: Final = 100.0  # the window is that of the head, so far down from the vertex: a bright neck
# would darken every brain by its length in the picture
SAMPLE_MM: Final = 2.0  # foreground and window are found on a grid of about this spacing


def take_slices(
    scan: Scan, plane: str = "axial", count: int = 30, size: int = 224, centre: str = "auto"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return `count` consecutive slices (n, size, size) and their indices (n,), from low to high.

    centre is "volume" (the middle of the grid, as in the paper), "foreground" (the middle of what
    stands out of the background), or "vertex:70mm": the point so far below the top of the head
    and in the middle of the head above it, in every plane. "auto" is "vertex:70mm". A grid of one
    slice gives that slice.

    Brightness runs from the 1st to the 98th percentile of the foreground of the head: of the whole
    volume down to 100 mm below the vertex, without the neck's fat. Proportions are true by
    `spacing_mm`; the shorter side is padded with black.

    Raises
    ------
    ScanError
        The grid holds fewer than `count` slices, or lies in another plane.
    InputError
        A plane, count, size or centre is none.
    """
    axis = check_options(plane, count, size, centre)
    depth = scan.volume.shape[axis]
    across = [n for other, n in enumerate(scan.volume.shape) if other != axis]
    if min(across) < 2:
        raise ScanError(scan.path, f"shows no {plane} slices: its grid is {_shape_text(scan)}")
    if 1 < depth < count:
        raise ScanError(scan.path, f"has {depth} {plane} slices, and {count} are asked for")
    head = _find_head(scan)
    first = math.floor(_centre(scan, head, axis, centre) - count / 2 + 0.5)
    first = min(max(first, 0), max(depth - count, 0))
    indices = np.arange(first, min(first + count, depth))
    pictures = [_picture(scan, axis, int(index), size, head.low, head.high) for index in indices]
    return np.stack(pictures), indices


def check_options(plane: str, count: int, size: int, centre: str) -> int:
    """Return the axis of `plane`, or say which option is none (InputError)."""
    if plane not in PLANES:
        raise InputError(f"Plane {plane!r} is none: choose axial, coronal or sagittal.")
    if count < 1 or size < 1:
        raise InputError(f"Count {count} and size {size} of slices must be 1 or more.")
    _depth_mm(centre)
    return PLANES[plane]


def _shape_text(scan: Scan) -> str:
    return "×".join(map(str, scan.volume.shape))


@dataclass(frozen=True)
class _Head:
    """What stands out of the background, on a grid of every `step`-th voxel, and its window."""

    foreground: NDArray[np.bool_]
    step: list[int]
    low: float
    high: float


def _find_head(scan: Scan) -> _Head:
    """Find the foreground on a grid of about 2 mm, and the window over the head.

    The background's limit lies a tenth of the way from the 2nd to the 98th percentile, as in
    Smith 2002 (BET, section 2.2); a background that is not zero, as in OASIS-2, is no obstacle.
    """
    step = [max(1, round(SAMPLE_MM / spacing)) for spacing in scan.spacing_mm]
    coarse = scan.volume[:: step[0], :: step[1], :: step[2]]
    if coarse.min() == coarse.max():  # what there is to see is finer than the grid
        step, coarse = [1, 1, 1], scan.volume
    darkest, brightest = np.percentile(coarse, [2, 98])
    if darkest == brightest:
        darkest, brightest = float(coarse.min()), float(coarse.max())
    foreground = coarse > darkest + 0.1 * (brightest - darkest)
    if not foreground.any():
        raise ScanError(scan.path, f"shows nothing: every voxel is {coarse.min()}")
    top = _extent(foreground, 2)[1]
    head = slice(max(0, top - round(HEAD_MM / (scan.spacing_mm[2] * step[2]))), None)
    low, high = np.percentile(coarse[..., head][foreground[..., head]], WINDOW)
    return _Head(foreground, step, float(low), float(high if high > low else low + 1))


def _centre(scan: Scan, head: _Head, axis: int, centre: str) -> float:
    """Return the position along `axis`, in slices, about which the slices are taken."""
    if centre == "volume":
        return scan.volume.shape[axis] / 2
    foreground, depth_mm = head.foreground, _depth_mm(centre)
    if depth_mm is not None:
        spacing_mm = scan.spacing_mm[2] * head.step[2]
        below = _extent(foreground, 2)[1] - depth_mm / spacing_mm
        if axis == 2:
            return (below + 0.5) * head.step[2]
        foreground = foreground[:, :, max(0, round(below)) :]
    low, high = _extent(foreground, axis)
    return ((low + high) / 2 + 0.5) * head.step[axis]


def _depth_mm(centre: str) -> float | None:
    """Return the depth below the vertex, or None where `centre` names no vertex."""
    name = AUTO if centre == "auto" else centre
    if name in ("volume", "foreground"):
        return None
    kind, _, depth = name.partition(":")
    try:
        value = float(depth.removesuffix("mm"))
    except ValueError:
        value = math.nan
    if kind != "vertex" or not 0 <= value <= 1000:
        raise InputError(
            f"Centre {centre!r} is none: choose volume, foreground, or a depth below the vertex "
            "such as vertex:70mm."
        )
    return value


def _extent(foreground: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the first and last slice that hold a fair part (5%) of the fullest one's foreground.

    Noise in the air and the tip of a nose do not count.
    """
    other = tuple(a for a in range(3) if a != axis)
    area = foreground.sum(axis=other)
    held = np.flatnonzero(area > 0.05 * area.max())
    return int(held[0]), int(held[-1])


def _picture(
    scan: Scan, axis: int, index: int, size: int, low: float, high: float
) -> NDArray[np.uint8]:
    """Return one slice upright, windowed, in true proportions, padded square (size, size)."""
    whole = slice(None)
    flat = scan.volume[tuple(index if a == axis else whole for a in range(3))]  # (I, J) or the like
    upright = flat.T[::-1]  # rows from the top: anterior or superior first
    grey = (np.clip(upright, low, high).astype(np.float64) - low) * (255 / (high - low))
    across, up = (spacing for a, spacing in enumerate(scan.spacing_mm) if a != axis)
    height_mm, width_mm = grey.shape[0] * up, grey.shape[1] * across
    side_mm = max(height_mm, width_mm)
    height = max(1, round(size * height_mm / side_mm))
    width = max(1, round(size * width_mm / side_mm))
    resized = Image.fromarray(grey.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    picture = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    picture[top : top + height, left : left + width] = np.rint(np.asarray(resized))
    return picture
