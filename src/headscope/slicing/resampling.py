"""A stack of grey pictures → the same at another size: triangle filter, antialiased, reproducible.

The filter is that of Pillow's `BILINEAR`: two neighbours where a picture grows, all pixels under a
wider triangle where it shrinks. Both passes are products with banded matrices, band by band.
Every number in them is a whole multiple of a power of two and small enough for float32 to hold
each sum exactly, so the order in which a machine adds up does not matter: the same bytes come out
for any processor, library and number of threads, which products of floats do not promise.
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

FINE: Final = 2**4  # greys are multiples of 1/16 before and between the passes,
UNIT: Final = 2**12  # weights of 1/4096: 255 · 16 · 4096 < 2^24
BAND: Final = 16  # rows of a matrix in one product


def resample(
    grey: NDArray[np.float32],
    into: NDArray[np.uint8],
    shape: tuple[int, int],
    box: tuple[slice, slice],
) -> None:
    """Resample pictures of `shape` (H, W) to those of `into` (n, height, width), black before.

    grey (h, n, w) holds sixteenths of greys as whole numbers, 0 to 255 · 16: the part of the
    pictures in `box` (rows, columns); the rest is black and costs no work. The pictures are side by
    side in it, so that one product serves all of them.
    """
    rows, count, columns = grey.shape
    vertical, downwards = _bands(shape[0], into.shape[1], box[0].start, box[0].stop, 1)
    horizontal, across = _bands(shape[1], into.shape[2], box[1].start, box[1].stop, 1 / FINE)
    down = np.empty((vertical.stop - vertical.start, count * columns), dtype=np.float32)
    for new, old, weights in downwards:
        np.matmul(weights, grey.reshape(rows, -1)[old], out=down[new])
    np.rint(down, out=down)
    down = down.reshape(-1, columns)
    resampled = np.empty((len(down), horizontal.stop - horizontal.start), dtype=np.float32)
    for new, old, weights in across:
        np.matmul(down[:, old], weights.T, out=resampled[:, new])
    np.rint(resampled, out=resampled)
    beside = resampled.reshape(len(down) // count, count, resampled.shape[1])
    into[:, vertical, horizontal] = beside.swapaxes(0, 1)


@lru_cache(maxsize=8)
def _bands(
    before: int, after: int, low: int, high: int, factor: float
) -> tuple[slice, list[tuple[slice, slice, NDArray[np.float32]]]]:
    """Return which new pixels see old ones from `low` to `high`, and the weights by bands of them.

    A band is a slice of those new pixels, one of the old, counted from `low`, and a matrix, which
    holds `factor` times the weights.
    """
    scale, bands = before / after, []
    reach = max(scale, 1) + 1
    first = max(0, math.floor((low - reach) / scale))
    stop = min(after, math.ceil((high + reach) / scale))
    for start in range(first, stop, BAND):
        rows = range(start, min(start + BAND, stop))
        begin = max(0, math.floor(rows[0] * scale - reach))
        end = min(before, math.ceil((rows[-1] + 1) * scale + reach))
        inside = slice(max(begin, low), max(begin, low, min(end, high)))
        weights = _weights(before, after, rows, range(begin, end))
        part = weights[:, inside.start - begin : inside.stop - begin] * np.float32(factor)
        new = slice(start - first, start - first + len(rows))
        bands.append((new, slice(inside.start - low, inside.stop - low), part))
    return slice(first, stop), bands


def _weights(
    before: int, after: int, rows: range | None = None, columns: range | None = None
) -> NDArray[np.float32]:
    """Return the matrix (after, before) of the triangle filter; its rows add up to 1 exactly.

    Or some rows of it, and the columns outside of which these are 0: a picture of millions of
    pixels a side has no room for all.
    """
    scale = before / after
    rows, columns = rows or range(after), columns or range(before)
    centres = (np.arange(rows.start, rows.stop) + 0.5) * scale
    away = np.arange(columns.start, columns.stop) + 0.5 - centres[:, None]
    np.abs(away, out=away)
    away /= max(scale, 1)
    sums = np.cumsum(np.maximum(0, 1 - away), axis=1)  # one by one, in the same order everywhere
    sums /= sums[:, -1:].copy()
    matrix = np.diff(np.rint(sums * UNIT), axis=1, prepend=0) / UNIT
    return matrix.astype(np.float32)
