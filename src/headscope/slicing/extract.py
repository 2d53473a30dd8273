"""One volume → its mid-slices: the same anatomy, brightness and proportions in every scan.

A picture's top is anterior (axial) or superior (coronal, sagittal). Its left is the subject's left
(axial, coronal: the neurological convention, which is that of RAS) or posterior (sagittal).
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.scans.volume import PLANES, Scan, ScanError
from headscope.slicing.background import CT, FAINT, darken_background, looks_like_ct
from headscope.slicing.resampling import FINE, resample
from headscope.slicing.spec import SliceSpec

WINDOW: Final = (1.0, 98.0)  # percentiles of the foreground that become black and white
HEAD_MM: Final = 100.0  # depth below the vertex over which the window is found: a bright neck would
# darken every brain by its length in the field of view
SAMPLE_MM: Final = 2.0  # spacing of the grid on which foreground and window are searched
SAMPLES: Final = 2**19  # voxels of that grid that are enough
TINIEST: Final = 1e-30  # span of a window; of a smaller one float32 cannot hold the factor
UNSEEN: Final = 8  # greys above a slice's darkest that nobody sees
EMPTY_SHARE: Final = 0.005  # of a slice's pixels; one with fewer above that shows nothing
TOGETHER: Final = 6  # slices drawn at once: few enough for a processor's cache
AREA: Final = 2**22  # pixels drawn at once, where a slice is large


def take_slices(
    scan: Scan, spec: SliceSpec, notes: list[str] | None = None
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """Take the slices of a scan, plane after plane, and from low to high within each.

    They are consecutive, or those nearest to a distance of `spacing_mm`, and centred as
    `SliceSpec` describes. A grid of one slice gives that slice.

    Brightness runs over the window of `spec`, or from the 1st to the 98th percentile of the
    foreground, from the vertex to 100 mm below it: without the neck's fat. Proportions follow the
    scan's `spacing_mm`; the shorter side is padded with black.

    Parameters
    ----------
    scan
        A volume in canonical RAS.
    spec
        Which slices are taken.
    notes
        Gets a sentence for each thing that was assumed of the scan.

    Returns
    -------
    pixels
        The slices (n, size, size), uint8.
    indices
        By plane, the positions (count,) of its slices along the plane's axis, from 0.

    Raises
    ------
    ScanError
        The grid has fewer than `count` slices at this distance, or is a slice of another plane.
    """
    planes = _planes(scan, spec)
    for plane in planes:
        _check_depth(scan, plane, spec)
    notes = [] if notes is None else notes
    scan = darken_background(scan, notes)
    if spec.window is None and looks_like_ct(scan):
        notes.append(CT)
    head = _find_head(scan)
    indices = {plane: _indices(scan, head, plane, spec) for plane in planes}
    pixels = np.zeros((sum(map(len, indices.values())), spec.size, spec.size), dtype=np.uint8)
    window = head.low, head.high
    if spec.window is not None:
        low, high = ((value - scan.intercept) / scan.slope for value in spec.window)
        window = low, high
    row = 0
    for plane, positions in indices.items():
        part = pixels[row : row + len(positions)]
        _draw(part, scan, PLANES[plane], positions, window)
        row += len(positions)
    return pixels, indices


def draw_picture(
    grey: NDArray[Any],
    size: int,
    window: tuple[float, float] | None,
    notes: list[str] | None = None,
) -> NDArray[np.uint8]:
    """Return a ready picture (H, W) of square pixels as a slice (size, size), as one of a scan.

    Without a window, percentiles of the foreground give one.
    """
    scan = Scan(grey[::-1].T[..., None], (1.0, 1.0, 1.0))  # (H, W) → (I, J, 1)
    if window is None:
        scan = darken_background(scan, notes if notes is not None else [])
        head = _find_head(scan)
        window = head.low, head.high
    pictures = np.zeros((1, size, size), dtype=np.uint8)
    _draw(pictures, scan, PLANES["axial"], np.zeros(1, dtype=np.int64), window)
    return pictures[0]


def count_empty(pixels: NDArray[np.uint8]) -> int:
    """Return how many slices (n, H, W) show nothing: nearly all of their pixels are one grey."""
    darkest = pixels.min(axis=(1, 2), keepdims=True)
    lit = (pixels > np.minimum(darkest, 255 - UNSEEN) + UNSEEN).mean(axis=(1, 2))  # (n,)
    return int(np.count_nonzero(lit < EMPTY_SHARE))


def _planes(scan: Scan, spec: SliceSpec) -> tuple[str, ...]:
    """Return the planes to take; where all are asked for, a grid of one slice gives its own."""
    thin = _thin_planes(scan)
    return (thin[0],) if spec.plane == "all" and thin else spec.planes


def _thin_planes(scan: Scan) -> list[str]:
    """Return the planes of which the grid holds one slice."""
    return [plane for plane, axis in PLANES.items() if scan.volume.shape[axis] == 1]


def _check_depth(scan: Scan, plane: str, spec: SliceSpec) -> None:
    """Refuse a grid of another plane, and one that does not hold the slices asked for."""
    axis, shape, spacing_mm = PLANES[plane], scan.volume.shape, spec.spacing_mm
    depth = shape[axis]
    if min(n for other, n in enumerate(shape) if other != axis) < 2:
        thin = _thin_planes(scan)
        one = f", one {thin[0]} slice" if len(thin) == 1 else ""
        grid = "×".join(map(str, shape))
        raise ScanError(scan.path, f"shows no {plane} slices: its grid is {grid}{one}")
    step = _step(scan, axis, spacing_mm)
    if depth == 1 or ((spec.count - 1) * step <= depth - 1 and step >= 1):
        return
    if step < 1:
        voxel = f"its voxels are {scan.spacing_mm[axis]:.3g} mm deep"
        raise ScanError(scan.path, f"has no {plane} slices {spacing_mm:g} mm apart: {voxel}")
    apart = "" if spacing_mm is None else f", {spacing_mm:g} mm apart,"
    raise ScanError(scan.path, f"has {depth} {plane} slices, and {spec.count}{apart} are asked for")


def _step(scan: Scan, axis: int, spacing_mm: float | None) -> float:
    """Return the distance between slices in voxels."""
    return 1.0 if spacing_mm is None else spacing_mm / scan.spacing_mm[axis]


def _indices(scan: Scan, head: "_Head", plane: str, spec: SliceSpec) -> NDArray[np.int64]:
    """Return the indices (n,) of the slices about the centre, moved into the grid as a whole."""
    axis = PLANES[plane]
    depth, step = scan.volume.shape[axis], _step(scan, axis, spec.spacing_mm)
    if depth == 1:
        return np.zeros(1, dtype=np.int64)
    span = (spec.count - 1) * step
    first = math.floor(_centre(scan, head, axis, spec) - span / 2)
    first = min(max(first, 0), math.floor(depth - 1 - span))
    return first + np.rint(np.arange(spec.count) * step).astype(np.int64)


@dataclass(frozen=True)
class _Head:
    """What stands out of the background, on a grid of every `step`-th voxel, and its window."""

    foreground: NDArray[np.bool_]
    step: list[int]
    vertex: int
    low: float
    high: float


def _find_head(scan: Scan) -> _Head:
    """Find the foreground on a grid of about 2 mm, and the window over the head.

    A fine grid is sampled sparser from side to side, never in depth. The background's limit is a
    tenth of the way from the 2nd to the 98th percentile, as in Smith 2002 (BET, section 2.2); a
    background that is not zero, as in OASIS-2, is no obstacle.
    """
    step = [max(1, round(SAMPLE_MM / spacing)) for spacing in scan.spacing_mm]
    if math.prod(-(-n // by) for n, by in zip(scan.volume.shape, step, strict=True)) > SAMPLES:
        step = [2 * step[0], 2 * step[1], step[2]]
    coarse = scan.volume[:: step[0], :: step[1], :: step[2]].copy(order="K")
    if coarse.min() == coarse.max():  # all structure is finer than the grid
        step, coarse = [1, 1, 1], scan.volume
    darkest, brightest = _percentiles(coarse[::2, ::2], (2, 98))
    if darkest == brightest:  # nearly all is background; a voxel of 1e30 is not the head
        brightest = float(np.percentile(coarse[coarse != darkest], 98))
        darkest = min(darkest, brightest)
    foreground = coarse > darkest + FAINT * (brightest - darkest)
    if not foreground.any():
        raise ScanError(scan.path, f"shows nothing: every voxel is {coarse.min()}")
    vertex = _extent(foreground, 2)[1]
    head = slice(max(0, vertex - round(HEAD_MM / (scan.spacing_mm[2] * step[2]))), None)
    inside, lit = (part[..., head].ravel(order="K") for part in (coarse, foreground))
    low, high = _percentiles(inside[lit], WINDOW)
    return _Head(foreground, step, vertex, low, high if high > low else low + 1)


def _percentiles(values: NDArray[Any], which: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles; integers of 16 bits and less are counted, which is faster."""
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        lowest = int(values.min())
        counts = np.cumsum(np.bincount(values.ravel(order="K").astype(np.intp) - lowest))
        ranks = np.array(which) / 100 * (values.size - 1)
        below = np.searchsorted(counts, np.floor(ranks), side="right")
        above = np.searchsorted(counts, np.ceil(ranks), side="right")
        low, high = lowest + below + (ranks - np.floor(ranks)) * (above - below)
    else:
        low, high = np.percentile(values, which)
    return float(low), float(high)


def _centre(scan: Scan, head: _Head, axis: int, spec: SliceSpec) -> float:
    """Return the position along `axis`, in slices, about which the slices are taken."""
    if spec.centre == "volume":
        return scan.volume.shape[axis] / 2
    foreground, depth_mm = head.foreground, spec.depth_mm
    if depth_mm is not None:
        spacing_mm = scan.spacing_mm[2] * head.step[2]
        below = head.vertex - depth_mm / spacing_mm
        if axis == 2:
            return (below + 0.5) * head.step[2]
        foreground = foreground[:, :, max(0, round(below)) :]
    low, high = _extent(foreground, axis)
    return ((low + high) / 2 + 0.5) * head.step[axis]


def _extent(foreground: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Return the first and last slice that hold a fair part (5%) of the fullest one's foreground.

    Noise in the air and the tip of a nose do not count.
    """
    other = tuple(a for a in range(3) if a != axis)
    area = foreground.view(np.uint8).sum(axis=other, dtype=np.int32)
    full = np.flatnonzero(area > 0.05 * area.max())
    return int(full[0]), int(full[-1])


def _draw(
    pictures: NDArray[np.uint8],
    scan: Scan,
    axis: int,
    indices: NDArray[np.int64],
    window: tuple[float, float],
) -> None:
    """Draw slices into black (n, size, size): upright, windowed, in true proportions, centred."""
    volume = np.moveaxis(scan.volume, axis, 0)  # (depth, I, J) or the like
    width_voxels, height_voxels = volume.shape[1:]
    across, up = (spacing for a, spacing in enumerate(scan.spacing_mm) if a != axis)
    width_mm, height_mm = width_voxels * across, height_voxels * up
    size, side_mm = pictures.shape[1], max(width_mm, height_mm)
    width = max(1, round(size * width_mm / side_mm))
    height = max(1, round(size * height_mm / side_mm))
    left, above = (size - width) // 2, (size - height) // 2
    upright = pictures[:, above : above + height, left : left + width][:, ::-1]  # rows from below
    box = _lit(volume, indices, window[0])
    if box is None:
        return
    together = max(1, min(TOGETHER, AREA // (height_voxels * width_voxels)))
    for start in range(0, len(indices), together):
        some = slice(start, start + together)
        part = volume[_run(indices[some])][:, box[0], box[1]].transpose(2, 0, 1)
        shape = height_voxels, width_voxels
        resample(_windowed(part, window), upright[some], shape, (box[1], box[0]))


def _run(indices: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return indices as a slice where they follow one another: it takes a view, not a copy."""
    first, last = int(indices[0]), int(indices[-1])
    return slice(first, last + 1) if last - first == len(indices) - 1 else indices


def _lit(
    volume: NDArray[Any], indices: NDArray[np.int64], low: float
) -> tuple[slice, slice] | None:
    """Return the rows and columns outside of which every one of the slices is black."""
    lit = volume[_run(indices)].max(axis=0) > low
    if not lit.any():
        return None
    rows, columns = (np.flatnonzero(lit.any(axis=other)) for other in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _windowed(part: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """Return sixteenths of greys as whole numbers, black 0 and white 255 · 16."""
    low, high = window
    wide = part.dtype.itemsize > 2 and (part.dtype != np.float32 or high - low < TINIEST)
    grey = np.subtract(part, low, dtype=np.float64 if wide else np.float32, casting="unsafe")
    np.clip(grey, 0, high - low, out=grey)
    grey *= 255 * FINE / (high - low)
    np.rint(grey, out=grey)
    return np.ascontiguousarray(grey, dtype=np.float32)
