"""Simple rivals of a network: what the larger class, covariates or small pixels alone reach.

Each is a linear head on features that nothing trained, fitted on one row per scan; its logits of
slices have the scan's as their mean. Source: docs/science.md, section 12.
"""

import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

Array = NDArray[Any]
SIDE: Final = 32  # pixels of a shrunk slice
STRENGTHS: Final = tuple(10.0**power for power in range(-5, 4))  # C of scikit-learn: 1 / penalty
STEPS: Final = 300  # of the solver
ABSENT: Final = -30.0  # logit of a class that training lacks
CHUNK: Final = 256  # slices that are shrunk at once
NUMBERED: Final = ("site",)  # columns whose numbers are names


@dataclass(frozen=True, eq=False)
class Fitted:
    """A linear head on raw features: weight (K, D), bias (K,), in float32.

    strength is C, the inverse of the penalty, None where nothing was chosen.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float | None = None

    def logits(self, features: Array) -> NDArray[np.float32]:
        """Return logits (N, K) of features (N, D)."""
        exact = features.astype(np.float64) @ self.weight.astype(np.float64).T + self.bias
        return exact.astype(np.float32)


def fit_majority(labels: Array, classes: int, width: int = 1) -> Fitted:
    """Return the head that predicts the shares of the classes among labels (n,), whatever it reads.

    Where classes are equally large it decides for the first of them.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    bias = np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1.0))
    return Fitted(np.zeros((classes, width), np.float32), bias.astype(np.float32))


def fit_linear(
    features: Array, labels: Array, subset: Array, classes: int, *, one_scale: bool = False
) -> Fitted:
    """Return a logistic regression with an L2 penalty, chosen by the loss over validation.

    features (M, D), labels (M,) and subset (M,), "train", "val" or "test", have one row per scan.
    one_scale: all features are divided by one standard deviation (pixels), not each by its own; by
    the training rows, as are the means. A feature that is constant there has no weight.

    The strength has the least mean log-loss over the validation rows, and is the strongest penalty
    among equal ones; where there are none, C = 1. A training subset of one class alone, or of
    constant features, leaves the shares of its classes.
    """
    train, val = subset == "train", subset == "val"
    x, y = features.astype(np.float64), labels[train]
    present = np.unique(y)
    centre, spread = x[train].mean(axis=0), x[train].std(axis=0)
    varying = spread > 1e-9 * max(1.0, float(np.abs(x[train]).max(initial=0.0)))
    if len(present) < 2 or not varying.any():
        return fit_majority(y, classes, x.shape[1])
    scale = np.full(len(spread), np.sqrt((spread**2).mean())) if one_scale else spread
    z = (x[:, varying] - centre[varying]) / scale[varying]
    judged = val & np.isin(labels, present)
    best, least = None, np.inf
    for strength in STRENGTHS if judged.any() else (1.0,):
        weight, bias = _logistic(z[train], y, strength)
        loss = _loss(z[judged] @ weight.T + bias, np.searchsorted(present, labels[judged]))
        if best is None or loss < least:
            best, least = (weight, bias, strength), loss
    assert best is not None
    weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, ABSENT)
    weight[np.ix_(present, np.flatnonzero(varying))] = best[0] / scale[varying]
    bias[present] = best[1] - weight[present] @ centre
    chosen = best[2] if judged.any() else None
    return Fitted(weight.astype(np.float32), bias.astype(np.float32), chosen)


def _logistic(x: Array, y: Array, strength: float) -> tuple[Array, Array]:
    """Return weight (k, D) and bias (k,) for the k classes of y (n,)."""
    from sklearn.exceptions import ConvergenceWarning  # takes a second to load
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly no penalty: it is near enough
        model.fit(x, y)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes: the margin, half of it for each
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _loss(logits: Array, labels: Array) -> float:
    """Return the mean log-loss of logits (n, k) with labels (n,); 0 of none."""
    if not len(labels):
        return 0.0
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return slices (N, H, W) as their means over 32 × 32 areas, (N, 1024), rounded."""
    parts = []
    for start in range(0, len(pixels), CHUNK):
        part = torch.from_numpy(np.array(pixels[start : start + CHUNK])).float()
        small = torch.nn.functional.adaptive_avg_pool2d(part[:, None], SIDE)  # (n, 1, 32, 32)
        parts.append(small.flatten(1).round().to(torch.uint8).numpy())
    return np.concatenate(parts) if parts else np.zeros((0, SIDE**2), np.uint8)


def encode(table: pd.DataFrame, train: Array) -> tuple[NDArray[np.float32], list[str]]:
    """Return covariates as numbers (N, D), and what each column is.

    Numbers of `table` (N, ·) stay; anything else, and what is a site by its name, is one column for
    each value of the training rows `train` (N,), one of each training scan. A missing number is
    their median, a missing or new value none of theirs; either way a column says that it was
    missing, where some are. Columns without any value in training are left out.
    """
    columns: dict[str, Array] = {}
    for name in map(str, table.columns):
        values = table[name]
        missing = values.isna().to_numpy()
        if missing[train].all():
            continue
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, copy=True)
        if name.casefold() not in NUMBERED and (np.isfinite(numbers) | missing).all():
            numbers[missing] = np.median(numbers[train & ~missing])
            columns[name] = numbers
        else:
            texts = values.astype(str).to_numpy(str)
            for text in np.unique(texts[train & ~missing]):
                columns[f"{name}={text}"] = (texts == text) & ~missing
        if missing.any():
            columns[f"{name} missing"] = missing
    if not columns:
        return np.zeros((len(table), 0), np.float32), []
    return np.column_stack([*columns.values()]).astype(np.float32), list(columns)
