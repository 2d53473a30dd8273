"""Many linear heads trained at once on stored features, by the recipe of a recorded run.

A frozen run's classifier is all that trained, so it can be trained again from `features.npz`,
`head.npz` and `run.toml` alone: SGD with momentum and weight decay on softmax cross-entropy, the
same batches in the same order. What differs between heads are the labels they are taught; one
product of a batch with all their weights serves them all.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from headscope.analysis.units import examples_of
from headscope.pooling import scans_of
from headscope.record import Run

Array = NDArray[Any]
FROZEN = ("frozen", "frozen-adabn")
CHUNK_BYTES = 32 * 2**20  # of weights that are trained at once


@dataclass(frozen=True)
class HeadRecipe:
    """How a run's classifier was trained: one learning rate per epoch, and where it started.

    weight (K, D) and bias (K,) are those before training. With best, trained weights are those of
    the epoch of lowest validation loss, else those of the last.
    """

    learning_rates: tuple[float, ...]
    batch_size: int
    momentum: float
    weight_decay: float
    seed: int
    weight: Array
    bias: Array
    best: bool = False


def trains_again(run: Run) -> bool:
    """Whether a run's classifier can be trained again from its record: frozen, its start kept."""
    return run.settings["regime"] in FROZEN and "initial_weight" in run.head


def head_recipe(run: Run) -> HeadRecipe:
    """Read the recipe of a run whose backbone was frozen: the rates are in its history."""
    settings = run.settings
    factor = float(settings.get("head_learning_rate", 1.0))
    return HeadRecipe(
        learning_rates=tuple(factor * rate for rate in run.history["learning_rate"]),
        batch_size=int(settings["batch_size"]),
        momentum=float(settings["momentum"]),
        weight_decay=float(settings["weight_decay"]),
        seed=int(settings["seed"]),
        weight=run.head["initial_weight"].astype(np.float32),
        bias=run.head["initial_bias"].astype(np.float32),
        best=settings.get("select") == "best",
    )


def train_again(run: Run, labels: Array) -> tuple[Array, Array]:
    """Train a run's head again on each of labels (N, R) of its slices, as `train_heads` does.

    A head that trained on scans does so again, each with the label of its slices.
    """
    stored, _ = examples_of(run)
    if run.setting.unit == "scan":
        labels = labels[scans_of(run.predictions, run.features["subset"]).first]
    train, val = (np.flatnonzero(stored["subset"] == name) for name in ("train", "val"))
    return train_heads(stored["features"], labels, train, head_recipe(run), val)


def train_heads(
    features: Array,
    labels: Array,
    train_rows: Array,
    recipe: HeadRecipe,
    val_rows: Array | None = None,
) -> tuple[Array, Array]:
    """Train R heads on features (N, D) and labels (N, R); return weights (R, K, D), biases (R, K).

    All heads start alike and see the same rows in the same order; float32 throughout. The
    batches are those of training: the order of epoch e is a function of (seed, e), and their
    sizes differ by one at most. `val_rows` are needed where the recipe keeps the best epoch.
    """
    classes, width = recipe.weight.shape
    step = max(1, CHUNK_BYTES // (4 * classes * (width + 1)))
    inputs = np.ones((len(features), width + 1), dtype=np.float32)
    inputs[:, :width] = features  # the last column carries the bias
    parts = [
        _train_chunk(inputs, labels[:, start : start + step], train_rows, recipe, val_rows)
        for start in range(0, labels.shape[1], step)
    ]
    trained = np.concatenate(parts)  # (R, K, D + 1)
    return trained[:, :, :width], trained[:, :, width]


def _train_chunk(
    inputs: Array, labels: Array, train_rows: Array, recipe: HeadRecipe, val_rows: Array | None
) -> Array:
    """Train as many heads as fit; return (R, K, D + 1)."""
    classes, heads = len(recipe.weight), labels.shape[1]
    start = np.column_stack([recipe.weight, recipe.bias]).astype(np.float32)  # (K, D + 1)
    weight = np.repeat(start.T, heads, axis=1)  # (D + 1, K·R): column k·R + r
    targets = _one_hot(labels, classes)  # (N, K, R)
    velocity, decay = np.zeros_like(weight), np.empty_like(weight)
    best, lowest = weight.copy(), np.full(heads, np.inf)
    parts = max(1, -(-len(train_rows) // recipe.batch_size))
    for epoch, rate in enumerate(recipe.learning_rates):
        order = np.random.default_rng((recipe.seed, epoch)).permutation(train_rows)
        for rows in np.array_split(order, parts):
            x = inputs[rows]  # (B, D + 1)
            error = softmax((x @ weight).reshape(len(rows), classes, heads), axis=1)
            error -= targets[rows]  # (B, K, R)
            error /= np.float32(len(rows))
            velocity *= np.float32(recipe.momentum)
            velocity += x.T @ error.reshape(len(rows), -1)
            np.multiply(weight, np.float32(recipe.weight_decay), out=decay)
            velocity += decay
            np.multiply(velocity, np.float32(rate), out=decay)
            weight -= decay
        if recipe.best and val_rows is not None:
            loss = _losses(inputs[val_rows] @ weight, targets[val_rows])
            better = np.tile(loss < lowest, classes)
            best[:, better] = weight[:, better]
            lowest = np.minimum(loss, lowest)
    final = best if recipe.best and val_rows is not None else weight
    return final.T.reshape(classes, heads, -1).transpose(1, 0, 2)


def _one_hot(labels: Array, classes: int) -> Array:
    """(N, R) → (N, K, R)."""
    return (labels[:, None, :] == np.arange(classes)[:, None]).astype(np.float32)


def _losses(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy of each head, (R,); logits (V, K·R), targets (V, K, R)."""
    shaped = logits.reshape(targets.shape).astype(np.float64)
    return -(log_softmax(shaped, axis=1) * targets).sum(axis=1).mean(axis=0)
