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
from scipy.special import log_softmax

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


def train_heads(
    features: Array,
    labels: Array,
    train_rows: Array,
    recipe: HeadRecipe,
    val_rows: Array | None = None,
    gram: Array | None = None,
) -> tuple[Array, Array]:
    """Train heads on features (N, D); return weights (S·R, K, D) and biases (S·R, K).

    All heads start alike; float32 throughout. The batches are those of training: the order of
    epoch e is a function of (seed, e), and their sizes differ by one at most. `val_rows` are
    needed where the recipe keeps the best epoch.

    Parameters
    ----------
    features, labels
        (N, D), and (N, R) for so many heads.
    train_rows
        (n,), or (S, n) for R heads on each of so many sets of rows.
    recipe, val_rows
        How they are trained, and the rows (V,) by which an epoch is chosen.
    gram
        What `inner_products` gives of the features, (N, N), where the caller has it already.
    """
    classes, width = recipe.weight.shape
    sets = np.atleast_2d(train_rows)  # (S, n)
    inputs = _with_ones(features)
    start = np.column_stack([recipe.weight, recipe.bias]).astype(np.float32)  # (K, D + 1)
    offset = inputs @ start.T  # (N, K): the logits of the start
    union = np.unique(sets)
    dual = len(union) <= width
    if dual:
        read = inputs @ inputs[union].T if gram is None else gram.take(union, axis=1)  # (N, U)
    step = max(1, CHUNK_BYTES // (4 * len(sets) * classes * (len(union) if dual else width + 1)))
    trained = []
    for first in range(0, labels.shape[1], step):
        part = labels[:, first : first + step]
        if dual:
            moved, decay = _descend(read, offset, part, sets, recipe, val_rows, union)
            moved = np.tensordot(moved, inputs[union], (1, 0))  # (S, K·R, D + 1)
        else:
            moved, decay = _descend(inputs, offset, part, sets, recipe, val_rows)
            moved = moved.transpose(0, 2, 1)
        heads = moved.reshape(*decay.shape, -1) + decay[..., None] * start[:, None]
        trained.append(heads.transpose(0, 2, 1, 3))  # (S, R, K, D + 1)
    weights = np.concatenate(trained, axis=1).reshape(-1, classes, width + 1)
    return weights[:, :, :width], weights[:, :, width]


def inner_products(features: Array) -> Array | None:
    """Return the inner products (N, N) of all slices, by which heads train; None of too many."""
    if len(features) > features.shape[1]:
        return None
    inputs = _with_ones(features)
    return inputs @ inputs.T


def _descend(
    inputs: Array,
    offset: Array,
    labels: Array,
    sets: Array,
    recipe: HeadRecipe,
    val_rows: Array | None,
    union: Array | None = None,
) -> tuple[Array, Array]:
    """Return what training adds to the start, (S, width, K·R), and the start's factor, (S, K, R).

    inputs (N, width) are the slices themselves, or, with `union`, their inner products with those
    rows: gradients are sums of slices, so that a head is the start, decayed, and a combination of
    slices, whose coefficients are trained in place of the weights. A product less for each batch.
    """
    (N, classes), heads, count = offset.shape, labels.shape[1], len(sets)
    targets = _one_hot(labels, classes)  # (N, K, R)
    moved = np.zeros((count, inputs.shape[1], classes * heads), dtype=np.float32)
    velocity, change = np.zeros_like(moved), np.empty_like(moved)
    shape = (count, classes, heads)
    factor, slowing = 1.0, 0.0  # of the start, and its velocity
    best, factors = moved.copy(), np.ones(shape, np.float32)
    lowest = np.full((count, heads), np.inf)
    at = np.arange(count)[:, None]
    place = np.zeros(N, dtype=np.intp)
    if union is not None:
        place[union] = np.arange(len(union))
    parts = max(1, -(-sets.shape[1] // recipe.batch_size))
    # one block for every batch: fresh pages cost more than what is copied into them
    held = np.empty(count * -(-sets.shape[1] // parts) * inputs.shape[1], dtype=np.float32)
    for epoch, rate in enumerate(recipe.learning_rates):
        rng = np.random.default_rng((recipe.seed, epoch))
        order = np.take(sets, rng.permutation(sets.shape[1]), axis=1)
        for rows in map(np.ascontiguousarray, np.array_split(order, parts, axis=1)):
            x = held[: rows.size * inputs.shape[1]].reshape(*rows.shape, -1)  # (S, B, width)
            inputs.take(rows, axis=0, out=x, mode="clip")
            error = (x @ moved).reshape(*rows.shape, classes, heads)
            error += (np.float32(factor) * offset.take(rows, axis=0))[..., None]
            error = _softmax(error) - targets.take(rows, axis=0)
            gradient = error.reshape(*rows.shape, -1) / np.float32(rows.shape[1])
            velocity *= np.float32(recipe.momentum)
            velocity += np.multiply(moved, np.float32(recipe.weight_decay), out=change)
            if union is None:
                velocity += x.swapaxes(1, 2) @ gradient
            else:
                velocity[at, place[rows]] += gradient
            moved -= np.multiply(velocity, np.float32(rate), out=change)
            slowing = recipe.momentum * slowing + recipe.weight_decay * factor
            factor -= rate * slowing
        if recipe.best and val_rows is not None:
            logits = (inputs[val_rows] @ moved).reshape(count, len(val_rows), classes, heads)
            logits += (np.float32(factor) * offset[val_rows])[..., None]
            loss = _losses(logits, targets[val_rows])  # (S, R)
            better = np.broadcast_to((loss < lowest)[:, None], shape)
            np.copyto(best, moved, where=better.reshape(count, 1, -1))
            np.copyto(factors, np.float32(factor), where=better)
            lowest = np.minimum(loss, lowest)
    if recipe.best and val_rows is not None:
        return best, factors
    return moved, np.full(shape, factor, np.float32)


def _with_ones(features: Array) -> Array:
    """Return features (N, D + 1) in float32, the last column of ones: it carries the bias."""
    inputs = np.ones((len(features), features.shape[1] + 1), dtype=np.float32)
    inputs[:, :-1] = features
    return inputs


def _one_hot(labels: Array, classes: int) -> Array:
    """(N, R) → (N, K, R)."""
    return (labels[:, None, :] == np.arange(classes)[:, None]).astype(np.float32)


def _softmax(logits: Array) -> Array:
    """Return probabilities for logits (S, B, K, R); classes come first, which is faster."""
    raised = np.ascontiguousarray(np.moveaxis(logits, 2, 0))
    raised -= raised.max(axis=0)
    np.exp(raised, out=raised)
    raised /= raised.sum(axis=0)
    return np.moveaxis(raised, 0, 2)


def _losses(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy of each head, (S, R); logits (S, V, K, R), targets (V, K, R)."""
    return -(log_softmax(logits.astype(np.float64), axis=2) * targets).sum(axis=2).mean(axis=1)
