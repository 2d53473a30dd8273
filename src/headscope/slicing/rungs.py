"""Slices that keep less and less of the brain: the rungs of the ablation ladder.

Each takes slices (N, H, W), uint8, with the millimetres of a pixel, and returns as many. What is
taken away becomes the background's grey. Source: docs/science.md, section 15.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headscope.slicing.background import EVEN, FAINT

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

SIGMA_MM: Final = 4.0  # of the blur
RIM_MM: Final = 10.0  # depth of the rim
SCALP_MM: Final = 5.0  # radius of what an opening takes away: bridges between scalp and brain
FAINTEST: Final = 8  # greys above the background that count as none
WHITE: Final = 99.5  # percentile of a slice that stands for its brightest
SPECK: Final = 0.01  # of the largest part's area: smaller parts are noise
DARK_SHARE: Final = 0.1  # of a border that is black: the background is black
STRIPPED: Final = 0.85  # share of the silhouette that the brain fills where no skull is around it
COARSE_MM: Final = 2.0  # pixels above which a skull is no dark line any more (OASIS-2, nichart_t1)
SIDE_MM: Final = 220.0  # what the side of a slice shows, where nothing says it


def _each(change: Callable[[Pixels, float], NDArray[Any]]) -> Callable[[Pixels, float], Pixels]:
    """Return what changes one slice as what changes slices, rounded."""

    @wraps(change)
    def change_all(pixels: Pixels, pixel_mm: float) -> Pixels:
        if not len(pixels):
            return pixels.copy()
        changed = (np.rint(change(slice_, pixel_mm)) for slice_ in pixels)
        return np.stack([np.clip(slice_, 0, 255).astype(np.uint8) for slice_ in changed])

    return change_all


@_each
def blur(slice_: Pixels, pixel_mm: float) -> NDArray[Any]:
    """Return slices without detail: a Gaussian of 4 mm."""
    return ndimage.gaussian_filter(slice_.astype(np.float32), SIGMA_MM / pixel_mm)


@_each
def binarise(slice_: Pixels, _: float) -> NDArray[Any]:
    """Return what is foreground in white, all else in the background's grey."""
    return np.where(foreground(slice_), _ink(slice_), level(slice_))


@_each
def fill(slice_: Pixels, _: float) -> NDArray[Any]:
    """Return the silhouette in white: the foreground with its holes filled."""
    return np.where(silhouette(slice_), _ink(slice_), level(slice_))


@_each
def keep_rim(slice_: Pixels, pixel_mm: float) -> NDArray[Any]:
    """Return the outer 10 mm of the silhouette."""
    inside = silhouette(slice_)
    rim = inside & (_depth(inside) <= RIM_MM / pixel_mm)
    return np.where(rim, slice_, level(slice_))


@_each
def remove_brain(slice_: Pixels, pixel_mm: float) -> NDArray[Any]:
    """Return what is outside of the brain: skull, scalp, face."""
    return np.where(silhouette(slice_) & ~brain(slice_, pixel_mm), slice_, level(slice_))


@_each
def shuffle(slice_: Pixels, _: float) -> NDArray[Any]:
    """Return slices whose pixels within the silhouette are shuffled: its greys and outline alone.

    The random numbers of a slice come from its own pixels, so that a slice is the same in any set.
    """
    inside, out = silhouette(slice_), slice_.copy()
    seed = int(slice_.sum(dtype=np.int64)) * 65_537 + int(inside.sum())
    out[inside] = np.random.default_rng(seed).permutation(slice_[inside])
    return out


RUNGS: Final[dict[str, tuple[str, Callable[[Pixels, float], Pixels]]]] = {  # most kept first
    "blurred": ("blurred (σ = 4 mm)", blur),
    "binary": ("binarised at the foreground", binarise),
    "silhouette": ("silhouette filled", fill),
    "rim": ("rim only (outer 10 mm)", keep_rim),
    "no-brain": ("brain removed", remove_brain),
    "histogram": ("intensity histogram alone", shuffle),
}


def level(slice_: Pixels) -> int:
    """Return the background's grey of a slice (H, W): black, or that of an even bright border."""
    ring = np.concatenate([slice_[0], slice_[-1], slice_[1:-1, 0], slice_[1:-1, -1]])
    if (ring <= FAINT * 255).mean() >= DARK_SHARE:
        return 0
    low, middle, high = np.percentile(ring, (10, 50, 90)).tolist()
    return round(middle) if high - low <= EVEN * 255 else 0


def foreground(slice_: Pixels) -> Mask:
    """Return what stands out of the background of a slice (H, W).

    By more than a tenth of the way from the background to the brightest, as in BET (Smith 2002),
    in parts that are no specks of noise.
    """
    apart = np.abs(slice_.astype(np.int16) - level(slice_))
    mask = apart > max(FAINTEST, FAINT * float(np.percentile(apart, WHITE)))
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    area = np.bincount(parts.ravel())
    area[0] = 0
    return (area >= SPECK * area.max())[parts] & mask


def silhouette(slice_: Pixels) -> Mask:
    """Return the foreground of a slice (H, W) with its holes filled."""
    return ndimage.binary_fill_holes(foreground(slice_))


def brain(slice_: Pixels, pixel_mm: float) -> Mask:
    """Return the brain of a slice (H, W), and what else is as deep in the head.

    The foreground is opened by 5 mm, which cuts what bridges a skull: its largest part is the core
    of the brain. With all foreground below the rim, and what is between, it is the brain: of a
    stripped one nearly all, of a whole head what is inside of scalp and skull.
    """
    everywhere, radius = foreground(slice_), SCALP_MM / pixel_mm
    out = np.zeros_like(everywhere)
    if not everywhere.any():
        return out
    box = ndimage.find_objects(everywhere.astype(np.uint8))[0]
    inside = everywhere[box]
    whole = ndimage.binary_fill_holes(inside)
    cores, count = ndimage.label(_depth(inside) > radius)
    if not count:
        return out
    area = np.bincount(cores.ravel())
    area[0] = 0
    grown = _distance(cores == area.argmax()) <= radius
    deep = inside & (grown | (_depth(whole) > RIM_MM / pixel_mm))
    closed = _depth(_distance(deep) <= RIM_MM / pixel_mm) > RIM_MM / pixel_mm
    out[box] = whole & ndimage.binary_fill_holes(closed | deep)
    return out


def brain_share(pixels: Pixels, pixel_mm: float) -> float:
    """Return the median share of the silhouette that the brain fills, over slices; NaN of none."""
    shares = [
        float(brain(slice_, pixel_mm).sum() / inside.sum())
        for slice_ in pixels
        if (inside := silhouette(slice_)).any()
    ]
    return float(np.median(shares)) if shares else float("nan")


def _depth(mask: Mask) -> NDArray[np.float64]:
    """Return how far each pixel is inside a mask (H, W), in pixels; the border is an edge."""
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def _distance(mask: Mask) -> NDArray[np.float64]:
    """Return how far each pixel is from a mask (H, W), in pixels."""
    return ndimage.distance_transform_edt(~mask)


def _ink(slice_: Pixels) -> int:
    """Return white, or black on a bright background."""
    return 255 if level(slice_) < 128 else 0
