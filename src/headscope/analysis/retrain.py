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
from scipy.special import log_softmax, softmax

from headscope.record import Run
from headscope.schedule import balanced_weights, epoch_order, rate_of

Array = NDArray[Any]
FROZEN = ("frozen", "frozen-adabn")
CHUNK_BYTES = 32 * 2**20  # of weights that are trained at once
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
    sizes differ by one at most. `val_rows` are needed where the recipe validates.
    """
    classes, width = recipe.weight.shape
    step = 1 if recipe.weighted else max(1, CHUNK_BYTES // (4 * classes * (width + 1)))
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
    targets, mass = _targets(labels, train_rows, classes, recipe)  # (N, K, R), (N, R)
    step: Step = (_AdamW if recipe.optimizer == "adamw" else _SGD)(weight, recipe)
    watch = _Watch(weight, heads, recipe) if recipe.validates and val_rows is not None else None
    drawn_by = labels[train_rows, 0] if recipe.weighted else None
    parts = max(1, -(-len(train_rows) // recipe.batch_size))
    for epoch, rate in enumerate(recipe.learning_rates):
        order = epoch_order(train_rows, recipe.seed, epoch, drawn_by)
        for rows in np.array_split(order, parts):
            x = inputs[rows]  # (B, D + 1)
            error = softmax((x @ weight).reshape(len(rows), classes, heads), axis=1)
            goal = targets[rows]  # (B, K, R)
            if recipe.balanced or recipe.label_smoothing:
                error *= goal.sum(axis=1, keepdims=True)
            error -= goal
            error /= mass[rows].sum(axis=0)
            step(weight, x.T @ error.reshape(len(rows), -1), np.float32(rate))
        if watch is not None and val_rows is not None:
            loss = _losses(inputs[val_rows] @ weight, targets[val_rows], mass[val_rows])
            if watch.ends(weight, loss):
                break
    final = weight if watch is None else watch.stored
    return final.T.reshape(classes, heads, -1).transpose(1, 0, 2)


class Step(Protocol):
    """One step down the gradient, in place."""

    def __call__(self, weight: Array, gradient: Array, rate: np.float32) -> None:
        """Change weight (D + 1, K·R); the gradient may be overwritten."""


class _SGD:
    """As `torch.optim.SGD`."""

    def __init__(self, weight: Array, recipe: HeadRecipe) -> None:
        self.velocity, self.scratch = np.zeros_like(weight), np.empty_like(weight)
        self.momentum, self.decay = np.float32(recipe.momentum), np.float32(recipe.weight_decay)

    def __call__(self, weight: Array, gradient: Array, rate: np.float32) -> None:
        self.velocity *= self.momentum
        self.velocity += gradient
        np.multiply(weight, self.decay, out=self.scratch)
        self.velocity += self.scratch
        np.multiply(self.velocity, rate, out=self.scratch)
        weight -= self.scratch


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
        self.lowest, self.since = np.full(heads, np.inf), np.zeros(heads, dtype=int)
        self.ended = np.zeros(heads, dtype=bool)
        self.stored = weight.copy()  # what is kept: of the best epoch, or of the end

    def ends(self, weight: Array, loss: Array) -> bool:
        """Take the losses (R,) of an epoch; return whether no head goes on."""
        better = (loss < self.lowest) & ~self.ended
        self.since = np.where(better, 0, self.since + 1)
        self.lowest = np.where(better, loss, self.lowest)
        new = better if self.recipe.best else ~self.ended
        columns = np.tile(new, self.classes)
        self.stored[:, columns] = weight[:, columns]
        if self.recipe.patience is not None:
            self.ended |= self.since >= self.recipe.patience
        return bool(self.ended.all())


def _targets(
    labels: Array, train_rows: Array, classes: int, recipe: HeadRecipe
) -> tuple[Array, Array]:
    """Return weighted targets (N, K, R) and the weights of the slices (N, R), as of torch.

    Class weights w and label smoothing e make the loss Σ_c t_c (−log p_c) with t_c = (1 − e) w_y
    [c = y] + e w_c / K, over the sum of w_y in the batch.
    """
    weights = np.ones((classes, labels.shape[1]), dtype=np.float32)  # (K, R)
    if recipe.balanced:
        for r in range(labels.shape[1]):
            weights[:, r] = balanced_weights(labels[train_rows, r], classes)
    mass = np.take_along_axis(weights, labels, axis=0)  # (N, R)
    smoothing = np.float32(recipe.label_smoothing)
    targets = (1 - smoothing) * mass[:, None, :] * _one_hot(labels, classes)
    return targets + smoothing / np.float32(classes) * weights, mass


def _one_hot(labels: Array, classes: int) -> Array:
    """(N, R) → (N, K, R)."""
    return (labels[:, None, :] == np.arange(classes)[:, None]).astype(np.float32)


def _losses(logits: Array, targets: Array, mass: Array) -> Array:
    """Mean loss of each head, (R,); logits (V, K·R), targets (V, K, R), mass (V, R)."""
    shaped = logits.reshape(targets.shape).astype(np.float64)
    return -(log_softmax(shaped, axis=1) * targets).sum(axis=(0, 1)) / mass.sum(axis=0)
