"""The background of a volume, by its value at the border, made its darkest where it is not.

Intensities that were z-scored within the head leave a background of 0 in the middle of the range; a
negative has a bright one; NaN, a fill value or the corners of a turned grid may lie anywhere.
"""

import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.scans.volume import Scan

SIDE: Final = 32  # voxels an axis of the sample in which the background is searched
THIN: Final = 8  # an axis of fewer slices has no border: the head may fill all of them
FAINT: Final = 0.1  # of the range above the darkest: what is not brighter is background (BET)
EVEN: Final = 0.05  # of the range: a border that differs by less is one grey and noise
COMMON: Final = 0.5  # share of a border that makes a value its own
SECOND: Final = 0.1  # share of the border at which air shows beside a fill value
LEAST: Final = 0.02  # share of the volume
REPAIRED: Final = "A background that is not the darkest grey was found at the border and made black"
PADDED: Final = "A fill value below the air around the head was set to that of air"
CT_AIR: Final = (-1050.0, -950.0)  # Hounsfield units
CT: Final = (
    "A background near -1000 is that of a CT, of which percentiles leave a brain few greys; "
    "--window 0,80 would show it"
)
UNCLEAR: Final = (
    "The background cannot be told by the border, so that slices may have another height or "
    "brightness than those of other scans"
)


def darken_background(scan: Scan, notes: list[str]) -> Scan:
    """Return a scan whose background is its darkest part; add a note where that was not so.

    The background is the value that most of the border has, or the middle of a border that hardly
    varies, and whatever of it is connected with the border. The lower face does not count: a neck
    leaves there.
    """
    sample, border = _sample(scan.volume)
    edge, face = sample[border >= _sides(scan.volume)], sample[border > 0]
    values, counts = np.unique(edge, return_counts=True)
    constant = counts.max() >= COMMON * edge.size
    level = float(values[counts.argmax()] if constant else np.median(edge))
    rest = sample[sample != level]
    low, high = np.percentile(rest, (2, 98)).tolist() if rest.size else (level, level)
    if low == high:
        return scan
    dark = low + FAINT * (high - low)
    if level <= dark:  # the rule
        air = _air(face[face != level], face.size, low, high) if constant else None
        if air is not None and air - level > FAINT * (high - low):
            notes.append(PADDED)
            return replace(scan, volume=np.maximum(scan.volume, scan.volume.dtype.type(air)))
        return _darken_corners(scan, face, dark, level, notes)
    lower, upper = np.percentile(edge, (10, 90)).tolist()
    if not constant and upper - lower > EVEN * (high - low):
        notes.append(UNCLEAR)
        return scan
    spread = 0.0 if constant else 1.5 * (upper - lower)
    near = _near(scan.volume, level, spread)
    background = _from_border(near) if constant else _from_border_widely(near)
    if background.mean() < LEAST:
        notes.append(UNCLEAR)
        return scan
    notes.append(REPAIRED)
    air = _air(face[~_near(face, level, spread)], face.size, low, high)
    if air is None and level < high - FAINT * (high - low):  # a mask wider than the head
        from scipy.ndimage import binary_dilation

        shell = scan.volume[binary_dilation(background, iterations=2) & ~background]
        air = _air(shell, shell.size, low, high)
    return _fill(scan, background, air)


def _darken_corners(
    scan: Scan, face: NDArray[Any], dark: float, air: float, notes: list[str]
) -> Scan:
    """Return the scan with air in a fill value beside it, as in the corners of a turned grid."""
    values, counts = np.unique(face[face > dark], return_counts=True)
    if not counts.size or counts.max() < SECOND * face.size:
        return scan
    corners = _from_border(_near(scan.volume, float(values[counts.argmax()]), 0.0))
    if corners.mean() < LEAST:
        return scan
    notes.append(REPAIRED)
    return _fill(scan, corners, air)


def looks_like_ct(scan: Scan) -> bool:
    """Return whether a volume whose background is darkest has air in Hounsfield units there."""
    sample, border = _sample(scan.volume)
    air = np.median(sample[border >= _sides(scan.volume)]) * scan.slope + scan.intercept
    return bool(CT_AIR[0] <= air <= CT_AIR[1])


def _sample(volume: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Return voxels of the volume, its ends among them, and at how many borders each of them is."""
    steps = [np.linspace(0, n - 1, min(n, SIDE)) for n in volume.shape]
    places = [np.rint(positions).astype(np.intp) for positions in steps]
    sample = volume[np.ix_(*places)]
    border = np.zeros(sample.shape, dtype=np.int8)
    wide = [axis for axis, n in enumerate(volume.shape) if n >= THIN]
    for axis in wide or range(3):
        if volume.shape[axis] > 1:
            ends = (-1,) if axis == 2 and len(wide) > 1 else (0, -1)
            for end in ends:
                border[(slice(None),) * axis + (end,)] += 1
    return sample, border


def _sides(volume: NDArray[Any]) -> int:
    """Return how many sides of a volume meet where no head is: a picture has one-sided edges."""
    return 2 if min(volume.shape) >= THIN else 1


def _air(values: NDArray[Any], size: int, low: float, high: float) -> float | None:
    """Return the grey of air beside a fill value at the border: dark, even and of some extent."""
    if values.size < SECOND * size:
        return None
    lower, middle, upper = np.percentile(values, (10, 50, 90)).tolist()
    even = upper - lower <= EVEN * (high - low)
    return middle if even and middle <= low + FAINT * (high - low) else None


def _near(values: NDArray[Any], level: float, spread: float) -> NDArray[np.bool_]:
    """Return which values are at most `spread` from `level`."""
    if spread == 0:
        return values == values.dtype.type(level)
    return (values >= level - spread) & (values <= level + spread)


def _from_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the parts of a mask that touch the border of the volume."""
    from scipy.ndimage import label  # rarely needed, and slow to load

    parts, count = label(np.ascontiguousarray(mask.T))  # scans are stored with i fastest
    parts = parts.T
    touching = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        if mask.shape[axis] > 1:
            ends = np.moveaxis(parts, axis, 0)
            touching[ends[0]] = touching[ends[-1]] = True
    touching[0] = False
    return touching[parts]


def _from_border_widely(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the parts of a mask that touch the border, without paths of a voxel or two.

    Of a head some voxels are as grey as a noisy background, which must not be followed inside.
    """
    from scipy.ndimage import binary_dilation, binary_opening

    wide = binary_opening(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1, 1:-1]
    return binary_dilation(_from_border(wide)) & mask


def _fill(scan: Scan, background: NDArray[np.bool_], air: float | None) -> Scan:
    """Return the scan with air in its background, or what is so dark that all else stands out."""
    volume, head = scan.volume, ~background
    if air is None:
        darkest = float(volume.min(where=head, initial=volume.max()))
        brightest = float(volume.max(where=head, initial=volume.min()))
        air = math.floor(darkest - (FAINT + 0.02) * (brightest - darkest))
    single = volume.dtype.itemsize <= 2 or volume.dtype == np.float32
    volume = volume.astype(np.float32 if single else np.float64)
    volume[background] = air
    return replace(scan, volume=volume)
