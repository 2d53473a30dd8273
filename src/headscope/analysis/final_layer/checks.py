"""Checks of weights before they are analysed: shapes that agree, finite values, two rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.final_layer.null import Array, Pair
from headscope.errors import InputError


def checked(
    weight: ArrayLike,
    bias: ArrayLike | None,
    initial: ArrayLike | None,
    class_names: Sequence[str] | None,
) -> tuple[Array, Array | None, list[str]]:
    """Return weight (K, D), the initial one or None, and K names; InputError if they disagree."""
    W = _matrix(weight, "weight")
    names = [f"class {k}" for k in range(len(W))] if class_names is None else list(class_names)
    if len(names) != len(W):
        raise InputError(f"{len(names)} class names were given for {len(W)} rows of weights.")
    if bias is not None and np.shape(bias) != (len(W),):
        raise InputError(f"bias has shape {np.shape(bias)}; weight {W.shape} needs ({len(W)},).")
    if initial is None:
        return W, None, names
    start = _matrix(initial, "initial")
    if start.shape != W.shape:
        raise InputError(f"initial has shape {start.shape}, weight {W.shape}.")
    return W, start, names


def _matrix(values: ArrayLike, name: str) -> Array:
    matrix: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.shape[1] < 1:
        raise InputError(f"{name} has shape {matrix.shape}; (K, D) with K of 2 or more is needed.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} holds values that are not finite.")
    return matrix


def check_pair(pair: Pair, K: int) -> Pair:
    """Return the pair if it names two of K rows; InputError if not."""
    first, second = pair
    if first == second or not (0 <= first < K and 0 <= second < K):
        raise InputError(f"pair {pair} names no two different rows of 0 to {K - 1}.")
    return first, second
