"""Features of many slices, read some rows at a time, and samples where all would be too many.

Features (N, D) may be a memory map of more than a memory holds. What is read of it is copied block
by block, and its pages are given back, so that memory follows the block and not N.
"""

import mmap
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
BLOCK_BYTES: Final = 64 * 2**20
BLOCK_ROWS: Final = 8192
SEED: Final = 0  # of every sample, so that a result is the same each time


def row_blocks(
    values: Array, rows: Array | None = None, dtype: DTypeLike = np.float64
) -> Iterator[tuple[slice, Array]]:
    """Yield which of `rows` come next, and a copy of those rows of values (N, D) in a precision."""
    count = len(values) if rows is None else len(rows)
    width = max(1, int(np.prod(values.shape[1:])) * np.dtype(dtype).itemsize)
    step = min(max(1, BLOCK_BYTES // width), BLOCK_ROWS)
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        block = values[part].copy() if rows is None else values[rows[part]]
        _give_back(values)
        yield part, block.astype(dtype, copy=False)


def take_rows(values: Array, rows: Array, dtype: DTypeLike | None = None) -> Array:
    """Return rows of values (N, D) in their own precision or another."""
    taken = np.empty((len(rows), *values.shape[1:]), dtype=dtype or values.dtype)
    for part, block in row_blocks(values, rows, taken.dtype):
        taken[part] = block
    return taken


def sample_slices(count: int, most: int) -> Array:
    """Return the places of all slices, or of `most` of them drawn at random, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def sample_subjects(subject: Array, most: int) -> Array:
    """Return the places of all slices, or of those of so many subjects as have `most` together.

    subject (n,) are whole numbers or ids; subjects are drawn at random, two at least.
    """
    if len(subject) <= most:
        return np.arange(len(subject))
    names, owner, counts = np.unique(subject, return_inverse=True, return_counts=True)
    order = np.random.default_rng(SEED).permutation(len(names))
    some = order[: max(2, int(np.searchsorted(np.cumsum(counts[order]), most, side="right")))]
    return np.flatnonzero(np.isin(owner, some))


def _give_back(values: Array) -> None:
    """Give back the pages of a memory map, which count as this process's memory once read."""
    base: Any = values
    while isinstance(base, np.ndarray):
        mapped = getattr(base, "_mmap", None)
        if mapped is not None:
            if hasattr(mmap, "MADV_DONTNEED"):  # Windows has none
                mapped.madvise(mmap.MADV_DONTNEED)
            return
        base = base.base
