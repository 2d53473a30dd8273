"""Many linear heads trained at once on stored features, by the recipe of a recorded run.

A frozen run's classifier is all that trained, so it can be trained again from `features.npz`,
`head.npz` and `run.toml` alone: SGD with momentum or AdamW, with weight decay, on softmax
cross-entropy, the same batches in the same order. What differs between heads are the labels they
are taught; one product of a batch with all their weights serves them all. Where batches are drawn
by class the labels decide them too, and heads are trained one by one.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from headscope.analysis.blocks import BLOCK_ROWS, row_blocks
from headscope.analysis.units import examples_of
from headscope.grouping import scans_of
from headscope.record import Run
from headscope.schedule import balanced_weights, epoch_order, rate_of

Array = NDArray[Any]
FROZEN = ("frozen", "frozen-adabn")
CHUNK_BYTES = 32 * 2**20  # of weights that are trained at once
NEAR = 2**15  # weights that a step of SGD takes at once: what a processor holds near
BETA2, EPSILON = 0.999, 1e-8  # of AdamW


@dataclass(frozen=True)
class HeadRecipe:
    """How a run's classifier was trained: one learning rate per epoch, and where it started.

    weight (K, D) and bias (K,) are those before training. With best, trained weights are those of
    the epoch of lowest validation loss, else those of the last. With patience there are rates for
    all epochs that training could have had. The rest is as in `training.recipe.Recipe`.
    """

    learning_rates: tuple[float, ...]
    batch_size: int
    momentum: float
    weight_decay: float
    seed: int
    weight: Array
    bias: Array
    best: bool = False
    optimizer: str = "sgd"
    balanced: bool = False
    label_smoothing: float = 0.0
    weighted: bool = False
    patience: int | None = None

    @property
    def validates(self) -> bool:
        """Whether the validation loss decides something."""
        return self.best or self.patience is not None

    @property
    def plain(self) -> bool:
        """Whether each slice comes once an epoch and counts alike, and steps are those of SGD."""
        return self.optimizer == "sgd" and not (self.balanced or self.weighted)


def trains_again(run: Run) -> bool:
    """Whether a run's classifier can be trained again from its record: frozen, its start kept."""
    return run.settings["regime"] in FROZEN and "initial_weight" in run.head


def head_recipe(run: Run) -> HeadRecipe:
    """Read the recipe of a run whose backbone was frozen: the rates are in its history."""
    settings = run.settings
    factor = float(settings.get("head_learning_rate", 1.0))
    return HeadRecipe(
        learning_rates=tuple(factor * rate for rate in _rates(run)),
        batch_size=int(settings["batch_size"]),
        momentum=float(settings["momentum"]),
        weight_decay=float(settings["weight_decay"]),
        seed=int(settings["seed"]),
        weight=run.head["initial_weight"].astype(np.float32),
        bias=run.head["initial_bias"].astype(np.float32),
        best=settings.get("select") == "best",
        optimizer=str(settings.get("optimizer", "sgd")),
        balanced=settings.get("class_weights") == "balanced",
        label_smoothing=float(settings.get("label_smoothing", 0.0)),
        weighted=settings.get("sampling") == "weighted",
        patience=settings.get("patience"),
    )


def _rates(run: Run) -> list[float]:
    """Return the rates of the history, or of all epochs where patience may have cut it short."""
    settings = run.settings
    if settings.get("patience") is None:
        return [float(rate) for rate in run.history["learning_rate"]]
    names = ("learning_rate", "schedule", "epochs", "drop_every", "drop_factor")
    schedule = {name: settings[name] for name in names}
    return [rate_of(epoch, **schedule) for epoch in range(int(settings["epochs"]))]


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
    gram: Array | None = None,
) -> tuple[Array, Array]:
    """Train heads on features (N, D); return weights (S·R, K, D) and biases (S·R, K).

    All heads start alike; float32 throughout. The batches are those of training: the order of
    epoch e is a function of (seed, e), and their sizes differ by one at most.

    labels are (N, R) for so many heads; train_rows (n,), or (S, n) for R heads on each of so many
    sets of rows; val_rows (V,) those by which an epoch is chosen, where the recipe validates; gram
    what `inner_products` gives of the features, where the caller has it already.
    """
    sets = np.atleast_2d(train_rows)  # (S, n)
    if len(sets) > 1 and not recipe.plain:
        alone = [train_heads(features, labels, rows, recipe, val_rows) for rows in sets]
        weights, biases = map(np.concatenate, zip(*alone, strict=True))
        return weights, biases
    classes, width = recipe.weight.shape
    start = np.column_stack([recipe.weight, recipe.bias]).astype(np.float32)  # (K, D + 1)
    union, val_rows = np.unique(sets), val_rows if recipe.validates else None
    rows = union if val_rows is None else np.union1d(union, val_rows)
    inputs, points, begin = _with_ones(features, rows), None, start.T
    labels, sets = labels[rows], np.searchsorted(rows, sets)
    val_rows = None if val_rows is None else np.searchsorted(rows, val_rows)
    places: Array | None = np.searchsorted(rows, union)
    if recipe.plain and len(union) <= width:
        taught = inputs[places]  # (U, D + 1)
        points = np.concatenate([taught, start])  # (U + K, D + 1)
        begin = np.eye(len(points), classes, -len(union), dtype=np.float32)
        read = inputs @ taught.T if gram is None else gram[rows].take(union, axis=1)
        inputs = np.concatenate([read, inputs @ start.T], axis=1)  # (rows, U + K)
    else:
        places = None
    step = max(1, CHUNK_BYTES // (4 * classes * len(begin) * len(sets)))
    step = 1 if recipe.weighted else step
    parts = [
        _train_chunk(inputs, labels[:, first : first + step], sets, recipe, val_rows, begin, places)
        for first in range(0, labels.shape[1], step)
    ]  # fmt: skip
    flat: Array = np.concatenate(parts, axis=1).reshape(-1, len(begin))
    trained = (flat if points is None else flat @ points).reshape(-1, classes, width + 1)
    return trained[:, :, :width], trained[:, :, width]


def inner_products(features: Array) -> Array | None:
    """Return the inner products (N, N) of all slices, by which heads train; None of too many."""
    if len(features) > features.shape[1]:
        return None
    inputs = _with_ones(features, np.arange(len(features)))
    return inputs @ inputs.T


def _with_ones(features: Array, rows: Array) -> Array:
    """Return rows of features (n, D + 1) in float32, the last column of ones: it carries the bias.

    Only those that are needed: of many slices a copy of all would fill the memory.
    """
    inputs = np.ones((len(rows), features.shape[1] + 1), dtype=np.float32)
    for part, block in row_blocks(features, rows, np.float32):
        inputs[part, :-1] = block
    return inputs


def _train_chunk(
    inputs: Array,
    labels: Array,
    sets: Array,
    recipe: HeadRecipe,
    val_rows: Array | None,
    begin: Array,
    union: Array | None,
) -> Array:
    """Train as many heads as fit, on S sets of rows (S, n); return (S, R, K, P).

    inputs (N, P) are the slices themselves, and begin (P, K) the start. Or, with `union` (U,), they
    are their inner products with the slices of those rows and with the start: gradients are sums of
    slices, so a head is a combination of slices and of the start, whose coefficients are trained
    in place of the weights, as SGD is the same in either. A product less for each batch.
    """
    (P, classes), heads, count = begin.shape, labels.shape[1], len(sets)
    weight = np.repeat(np.repeat(begin, heads, axis=1)[None], count, axis=0)  # (S, P, K·R)
    weights = _class_weights(labels[sets[0]], classes, recipe)  # (K, R)
    step: Step = (_AdamW if recipe.optimizer == "adamw" else _SGD)(weight, recipe)
    watch = _Watch(weight, heads, recipe) if recipe.validates and val_rows is not None else None
    drawn_by = labels[sets[0], 0] if recipe.weighted else None
    parts = max(1, -(-sets.shape[1] // recipe.batch_size))
    places = None if union is None else np.searchsorted(union, sets)
    # one block for every batch: fresh pages cost more than what is copied into them
    held = np.empty(count * -(-sets.shape[1] // parts) * P, dtype=np.float32)
    gradient, sets_of = np.zeros_like(weight), np.arange(count)[:, None]
    for epoch, rate in enumerate(recipe.learning_rates):
        order = epoch_order(np.arange(sets.shape[1]), recipe.seed, epoch, drawn_by)
        for batch in np.array_split(order, parts):
            rows = sets.take(batch, axis=1)  # (S, B)
            x = inputs.take(rows, axis=0, out=held[: rows.size * P].reshape(*rows.shape, P),
                            mode="clip")  # fmt: skip
            error = _softmax((x @ weight).reshape(*rows.shape, classes, heads))
            goal, mass = _targets(labels.take(rows, axis=0), weights, recipe)
            if recipe.balanced or recipe.label_smoothing:
                error *= goal.sum(axis=2, keepdims=True)
            error -= goal
            error /= mass.sum(axis=1)[:, None, None]
            error = error.reshape(*rows.shape, -1)
            if places is None:
                np.matmul(x.swapaxes(1, 2), error, out=gradient)
                step(weight, gradient, np.float32(rate))
                continue
            at = sets_of, places.take(batch, axis=1)
            gradient[at] = error
            step(weight, gradient, np.float32(rate))
            gradient[at] = 0
        if watch is not None and val_rows is not None:
            losses = _losses(inputs, labels, val_rows, weight, weights, recipe)
            if watch.ends(weight, losses):
                break
    final = weight if watch is None else watch.stored
    return final.reshape(count, P, classes, heads).transpose(0, 3, 2, 1)


class Step(Protocol):
    """One step down the gradient, in place."""

    def __call__(self, weight: Array, gradient: Array, rate: np.float32) -> None:
        """Change weight (S, P, K·R); the gradient may be overwritten."""


class _SGD:
    """As `torch.optim.SGD`."""

    def __init__(self, weight: Array, recipe: HeadRecipe) -> None:
        self.velocity, self.scratch = np.zeros(weight.size, np.float32), np.empty(NEAR, np.float32)
        self.momentum, self.decay = np.float32(recipe.momentum), np.float32(recipe.weight_decay)

    def __call__(self, weight: Array, gradient: Array, rate: np.float32) -> None:
        weights, gradients = weight.reshape(-1), gradient.reshape(-1)  # views
        for first in range(0, len(weights), NEAR):
            w, v, g = (x[first : first + NEAR] for x in (weights, self.velocity, gradients))
            some = self.scratch[: len(w)]
            v *= self.momentum
            v += g
            np.multiply(w, self.decay, out=some)
            v += some
            np.multiply(v, rate, out=some)
            w -= some


class _AdamW:
    """As `torch.optim.AdamW`, whose first beta is the recipe's momentum."""

    def __init__(self, weight: Array, recipe: HeadRecipe) -> None:
        self.first, self.second = np.zeros_like(weight), np.zeros_like(weight)
        self.beta, self.decay, self.steps = recipe.momentum, recipe.weight_decay, 0

    def __call__(self, weight: Array, gradient: Array, rate: np.float32) -> None:
        self.steps += 1
        weight *= np.float32(1 - float(rate) * self.decay)
        self.first += np.float32(1 - self.beta) * (gradient - self.first)
        np.square(gradient, out=gradient)
        self.second *= np.float32(BETA2)
        self.second += np.float32(1 - BETA2) * gradient
        np.sqrt(self.second, out=gradient)
        gradient /= np.float32((1 - BETA2**self.steps) ** 0.5)
        gradient += np.float32(EPSILON)
        weight -= np.float32(float(rate) / (1 - self.beta**self.steps)) * self.first / gradient


class _Watch:
    """What the validation loss of each head decides: its best weights, and when it ends."""

    def __init__(self, weight: Array, heads: int, recipe: HeadRecipe) -> None:
        self.recipe, self.classes = recipe, len(recipe.weight)
        shape = len(weight), heads
        self.lowest, self.since = np.full(shape, np.inf), np.zeros(shape, dtype=int)
        self.ended = np.zeros(shape, dtype=bool)
        self.stored = weight.copy()  # what is kept: of the best epoch, or of the end

    def ends(self, weight: Array, loss: Array) -> bool:
        """Take the losses (S, R) of an epoch; return whether all have ended."""
        better = (loss < self.lowest) & ~self.ended
        self.since = np.where(better, 0, self.since + 1)
        self.lowest = np.where(better, loss, self.lowest)
        new = better if self.recipe.best else ~self.ended
        np.copyto(self.stored, weight, where=np.tile(new, self.classes)[:, None])
        if self.recipe.patience is not None:
            self.ended |= self.since >= self.recipe.patience
        return bool(self.ended.all())


def _class_weights(labels: Array, classes: int, recipe: HeadRecipe) -> Array:
    """Return the weight of each class (K, R) for the labels (n, R) of training slices."""
    weights = np.ones((classes, labels.shape[1]), dtype=np.float32)
    if recipe.balanced:
        for r in range(labels.shape[1]):
            weights[:, r] = balanced_weights(labels[:, r], classes)
    return weights


def _targets(labels: Array, weights: Array, recipe: HeadRecipe) -> tuple[Array, Array]:
    """Return targets (…, K, R) of slices with labels (…, R), and their weights (…, R), as of torch.

    Class weights w (K, R) and label smoothing e make the loss Σ_c t_c (−log p_c) with
    t_c = (1 − e) w_y [c = y] + e w_c / K, over the sum of w_y in the batch. Made batch by batch:
    those of all slices would take K times four bytes for each label.
    """
    classes = len(weights)
    hot = (labels[..., None, :] == np.arange(classes)[:, None]).astype(np.float32)
    if not (recipe.balanced or recipe.label_smoothing):
        return hot, np.ones(labels.shape, dtype=np.float32)
    mass = weights[labels, np.arange(labels.shape[-1])]
    smoothing = np.float32(recipe.label_smoothing)
    targets = (1 - smoothing) * mass[..., None, :] * hot
    return targets + smoothing / np.float32(classes) * weights, mass


def _softmax(logits: Array) -> Array:
    """Return probabilities for logits (S, B, K, R); classes come first, which is faster."""
    raised = np.ascontiguousarray(np.moveaxis(logits, 2, 0))
    raised -= raised.max(axis=0)
    np.exp(raised, out=raised)
    raised /= raised.sum(axis=0)
    return np.ascontiguousarray(np.moveaxis(raised, 0, 2))


def _losses(
    inputs: Array, labels: Array, rows: Array, weight: Array, weights: Array, recipe: HeadRecipe
) -> Array:
    """Mean loss of each head on validation slices, (S, R); weight (S, P, K·R), weights (K, R)."""
    loss: Any = 0.0
    total: Any = 0.0
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        targets, mass = _targets(labels[part], weights, recipe)
        logits = (inputs[part] @ weight).reshape(len(weight), *targets.shape)  # (S, B, K, R)
        logs = log_softmax(logits.astype(np.float64), axis=2)
        loss, total = loss + (logs * targets).sum(axis=(1, 2)), total + mass.sum(axis=0)
    return -loss / total
