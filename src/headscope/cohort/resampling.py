"""A stack of grey pictures → the same at another size: triangle filter, antialiased, reproducible.

The filter is that of Pillow's `BILINEAR`: two neighbours where a picture grows, all pixels under a
wider triangle where it shrinks. Both passes are products with banded matrices, a band at a time.
Every number in them is a whole multiple of a power of two and small enough for float32 to hold
each sum exactly, so the order in which a machine adds up does not matter: the same bytes come out
for any processor, library and number of threads, which products of floats do not promise.
"""

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
    pictures in `box` (rows, columns); all about it is black and costs no work. The pictures lie
    beside one another in it, so that each product is one for all of them.
    """
    rows, count, columns = grey.shape
    high, wide = into.shape[1:]
    down = np.zeros((high, count * columns), dtype=np.float32)
    for new, old, weights in _bands(shape[0], high, box[0].start, box[0].stop, 1):
        np.matmul(weights, grey.reshape(rows, -1)[old], out=down[new])
    np.rint(down, out=down)
    resampled = np.zeros((high * count, wide), dtype=np.float32)
    for new, old, weights in _bands(shape[1], wide, box[1].start, box[1].stop, 1 / FINE):
        np.matmul(down.reshape(-1, columns)[:, old], weights.T, out=resampled[:, new])
    np.rint(resampled, out=resampled)
    into[:] = resampled.reshape(high, count, wide).swapaxes(0, 1)


@lru_cache(maxsize=8)
def _bands(
    before: int, after: int, low: int, high: int, factor: float
) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return `factor` times the weights of pixels `low` to `high`, by bands of new pixels.

    Each is a slice of new pixels, one of old ones, counted from `low`, and their matrix.
    """
    matrix = _weights(before, after)[:, low:high] * np.float32(factor)
    bands = []
    for start in range(0, after, BAND):
        touched, used = np.nonzero(matrix[start : start + BAND])
        if touched.size:
            new = slice(start + int(touched.min()), start + int(touched.max()) + 1)
            old = slice(int(used.min()), int(used.max()) + 1)
            bands.append((new, old, matrix[new, old]))
    return bands


@lru_cache(maxsize=8)
def _weights(before: int, after: int) -> NDArray[np.float32]:
    """Return the matrix (after, before) of the triangle filter; its rows add up to 1 exactly."""
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    away = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1)
    weights = np.maximum(0, 1 - away)
    sums = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    matrix = np.diff(np.rint(sums * UNIT), axis=1, prepend=0) / UNIT
    return matrix.astype(np.float32)
