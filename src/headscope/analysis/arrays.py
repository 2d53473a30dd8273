"""Checks of what analyses take: points, labels, ids, heads and pairs that agree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.errors import InputError

Pair = tuple[int, int]
ROUNDING = 1e-24  # of the mean square: what float64 leaves of points that coincide


def check_points(values: ArrayLike, name: str, least: int = 0) -> NDArray[np.float64]:
    """Return points (N, D) as float64, `least` or more, or raise InputError."""
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] < least or points.shape[1] < 1:
        shape = f"(K, D) with K of {least} or more" if least else "(N, D)"
        raise InputError(f"{name} has shape {points.shape}; {shape} is needed.")
    if not np.isfinite(points).all():
        raise InputError(f"{name} holds values that are not finite.")
    return points


def check_labels(values: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return labels (N,) as whole numbers from 0, or raise InputError."""
    labels = np.asarray(values)
    if labels.shape != (count,):
        raise InputError(f"labels has shape {labels.shape}; {count} slices need ({count},).")
    if count and (labels.dtype.kind not in "iub" or labels.min() < 0):
        raise InputError("labels are indices of classes: whole numbers from 0.")
    return labels.astype(np.int64)


def check_ids(values: ArrayLike, count: int, name: str) -> NDArray[np.str_]:
    """Return ids (N,) as text, or raise InputError."""
    ids = np.asarray(values)
    if ids.shape != (count,):
        raise InputError(f"{name} has shape {ids.shape}; {count} slices need ({count},).")
    return ids.astype(str)


def check_names(class_names: Sequence[str] | None, K: int, of: str) -> list[str]:
    """Return K names, 'class 0' … by default, or raise InputError."""
    names = [f"class {k}" for k in range(K)] if class_names is None else list(class_names)
    if len(names) != K:
        raise InputError(f"{len(names)} class names were given for {K} {of}.")
    return names


def check_classes(labels: NDArray[np.int64], K: int) -> None:
    """Raise InputError if a label names none of K classes."""
    if len(labels) and labels.max() >= K:
        raise InputError(f"label {labels.max()} names none of {K} classes, 0 to {K - 1}.")


def check_pair(pair: Pair, K: int) -> Pair:
    """Return the pair if it names two of K classes, or raise InputError."""
    first, second = pair
    if first == second or not (0 <= first < K and 0 <= second < K):
        raise InputError(f"pair {pair} names no two of {K} classes, 0 to {K - 1}.")
    return first, second


def check_head(
    weight: ArrayLike,
    bias: ArrayLike | None,
    initial: ArrayLike | None,
    class_names: Sequence[str] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, list[str]]:
    """Return weight (K, D), the initial one or None, and K names, or raise InputError."""
    W = check_points(weight, "weight", least=2)
    names = check_names(class_names, len(W), "rows of weights")
    if bias is not None and np.shape(bias) != (len(W),):
        raise InputError(f"bias has shape {np.shape(bias)}; weight {W.shape} needs ({len(W)},).")
    if initial is None:
        return W, None, names
    start = check_points(initial, "initial", least=2)
    if start.shape != W.shape:
        raise InputError(f"initial has shape {start.shape}, weight {W.shape}.")
    return W, start, names
