"""What the analyses of slices take: points, labels and ids that agree in number."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.errors import InputError

ROUNDING = 1e-24  # of the mean square: what float64 leaves of points that coincide


def check_points(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return points (N, D) as float64, or raise InputError."""
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 1:
        raise InputError(f"{name} has shape {points.shape}; (N, D) is needed.")
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
