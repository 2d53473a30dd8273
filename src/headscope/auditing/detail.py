"""How well the fine structure of two scans agrees, whatever else their pictures have in common.

A head is recognised by its folds. A strip at the edge, burnt-in text, a frame, a crosshair or a
logo is sharper than any fold and at the same place in many pictures, so that a plain correlation
takes all heads that bear it for one. Three things keep it out: detail is capped, pixels that are
extreme in many subjects are left out, and a head must agree in most of its tiles.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from headscope.audit_record import FINE_SIDE, MOST_TURN, REACH

FINE_WIDTH: Final = 2.0  # pixels; structure smoother than this is taken away
CAP: Final = 2.5  # robust standard deviations of a slice's detail; no pixel weighs more
COMMON: Final = ((2.5, 0.33), (4.0, 0.10))  # detail that such a share of subjects has at a pixel
FEWEST_COMMON: Final = 3  # subjects, where that share is fewer; such pixels are left out
MOST_SEEN: Final = 400  # subjects of a plane in which pixels in common are sought
TURNS: Final = np.arange(-MOST_TURN, MOST_TURN + 0.1, 0.5)  # degrees
HOPELESS: Final = 0.3  # whole correlation below which tiles are not asked: no head is one by it
TILES: Final = 5  # along each axis; odd, so that a crosshair in the middle crosses 9 of 25
TILE: Final = 14  # pixels
FEWEST_TILES: Final = 5  # with detail in both slices
LEAST_ENERGY: Final = 0.1  # mean square of a tile's detail that counts, in robust variances
DEPTHS: Final = (0.5, 0.25, 0.75)  # of the slices that are compared in detail

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Index = NDArray[np.intp]


class Detail:
    """Compares the fine structure of scans; a slice is read and transformed once for a while."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        starts: Index,
        counts: Index,
        subject: Index,
        plane: Index,
    ) -> None:
        """Take slices (N, H, W); those of scan s are rows starts[s] to starts[s] + counts[s].

        `subject` and `plane` (S,) number those of each scan.
        """
        self._pixels = pixels
        self._starts = starts
        self._counts = counts
        self._common = lru_cache(None)(lambda number: self._find_common(subject, plane, number))
        self._plane = np.repeat(plane, counts)  # (N,)
        self._fine = lru_cache(2048)(self._masked)
        self._still = lru_cache(2048)(lambda row: _spectra(self._fine(row)[None]))
        self._turned = lru_cache(512)(lambda row: _spectra(_turn(self._fine(row), TURNS)).conj())

    def __call__(self, a: int, b: int, shift: int) -> float:
        """Return the mean over three depths of how well two scans agree, `shift` slices apart."""
        low, high = max(0, -shift), min(self._counts[a], self._counts[b] - shift)
        depths = {low + int((high - low) * share) for share in DEPTHS}
        first, second = self._starts[a], self._starts[b] + shift
        return float(np.mean([self._agree(int(first + k), int(second + k)) for k in depths]))

    def _agree(self, a: int, b: int) -> float:
        """Return the lesser of the whole correlation, best aligned, and the median over tiles."""
        product = self._still(a) * self._turned(b)  # (turns, 96, 49)
        over_moves = fft.irfft2(product, s=(FINE_SIDE, FINE_SIDE))
        near = np.r_[0 : REACH + 1, -REACH:0]
        values = over_moves[:, near[:, None], near]
        whole = float(values.max())
        if whole < HOPELESS:
            return whole
        turn, down, right = np.unravel_index(values.argmax(), values.shape)
        (aligned,) = _turn(self._fine(b), TURNS[turn : turn + 1])
        aligned = np.roll(aligned * _inner(), (near[down], near[right]), axis=(0, 1))
        return min(whole, _median_of_tiles(self._fine(a) * _inner(), aligned))

    def _masked(self, row: int) -> Floats:
        common = self._common(int(self._plane[row]))
        return np.where(common, 0, np.clip(_fine(self._pixels[row]), -CAP, CAP))

    def _find_common(self, subject: Index, plane: Index, number: int) -> Flags:
        """Return which pixels are common to subjects of a plane, from a middle slice of each."""
        scans = np.flatnonzero(plane == number)
        scans = scans[np.unique(subject[scans], return_index=True)[1]]
        scans = scans[:: -(-len(scans) // MOST_SEEN)]
        rows = self._starts[scans] + self._counts[scans] // 2
        return find_common([_fine(self._pixels[row]) for row in rows])


@cache
def _inner() -> Floats:
    """The window (side, side) that weighs the edge of a picture less: a frame is no head."""
    from scipy.signal.windows import tukey  # takes half a second to load

    window = tukey(FINE_SIDE, 0.2).astype(np.float32)
    return np.outer(window, window)


def shrink(pixels: NDArray[np.uint8], side: int) -> Floats:
    """Return slices (n, H, W) averaged down to (n, side, side)."""
    small = np.empty((len(pixels), side, side), dtype=np.float32)
    for n, picture in enumerate(pixels):
        resized = Image.fromarray(picture).convert("F").resize((side, side), Image.Resampling.BOX)
        small[n] = np.asarray(resized)
    return small


def unit_rows(rows: Floats) -> Floats:
    """Scale rows to mean 0 and length 1; a row without any contrast becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-6)


def find_common(fine: Sequence[Floats]) -> Flags:
    """Return which pixels (96, 96) are extreme, with the same sign, in many subjects.

    fine: the detail (96, 96) of one slice per subject, in robust standard deviations. Pixels count
    at which 33% of the subjects exceed 2.5, or 10% exceed 4, and their neighbours. A head that is
    there under several ids has few such pixels, so it loses little by them.
    """
    common = np.zeros((FINE_SIDE, FINE_SIDE), dtype=bool)
    for size, share in COMMON:
        least = max(FEWEST_COMMON, share * len(fine))
        common |= sum((picture >= size).astype(int) for picture in fine) >= least
        common |= sum((picture <= -size).astype(int) for picture in fine) >= least
    return ndimage.binary_dilation(common)


def _fine(picture: NDArray[np.uint8]) -> Floats:
    """Return the detail (96, 96) of a slice, in robust standard deviations."""
    (small,) = shrink(picture[None], FINE_SIDE)
    fine = small - ndimage.gaussian_filter(small, FINE_WIDTH)
    size = np.abs(fine)
    structured = size[size > 1.0]  # grey levels: black has no detail
    if not len(structured):
        return np.zeros_like(fine)
    scale = 1.4826 * np.median(structured)
    return (fine / scale).astype(np.float32)


def _turn(fine: Floats, turns: NDArray[np.float64]) -> Floats:
    picture = Image.fromarray(fine)
    return np.stack([np.asarray(picture.rotate(turn, Image.Resampling.BILINEAR)) for turn in turns])


def _spectra(fine: Floats) -> NDArray[np.complex64]:
    """Return spectra (n, 96, 49) of which a product is that of correlations."""
    inner = fine * _inner()
    return fft.rfft2(unit_rows(inner.reshape(len(inner), -1)).reshape(inner.shape))


def _median_of_tiles(first: Floats, second: Floats) -> float:
    """Return the median over tiles of their correlation; 0 where few have detail in both."""
    a, b = _tiles(first), _tiles(second)  # (25, 196)
    energy_a, energy_b = (a**2).mean(axis=1), (b**2).mean(axis=1)
    full = np.minimum(energy_a, energy_b) > LEAST_ENERGY
    if full.sum() < FEWEST_TILES:
        return 0.0
    return float(np.median((a * b).mean(axis=1)[full] / np.sqrt(energy_a * energy_b)[full]))


def _tiles(fine: Floats) -> Floats:
    edge = (FINE_SIDE - TILES * TILE) // 2
    inner = fine[edge : edge + TILES * TILE, edge : edge + TILES * TILE]
    tiles = inner.reshape(TILES, TILE, TILES, TILE).swapaxes(1, 2)  # (5, 5, 14, 14)
    return tiles.reshape(TILES**2, -1)
