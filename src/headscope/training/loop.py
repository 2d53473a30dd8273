"""The loop in four functions: train_epoch, evaluate, extract, fit.

An epoch's order depends on (seed, epoch) alone and the random numbers of a step on (seed, epoch,
step), so a run that continues from a resume file needs no replay and ends bit-identical on a CPU.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headscope.console import track
from headscope.errors import RunError
from headscope.models.classifier import tap
from headscope.models.state import load_state
from headscope.schedule import balanced_weights, epoch_order
from headscope.training.device import (
    autocast,
    compile_network,
    fixed_batch,
    seed_step,
    steady_memory,
)
from headscope.training.loader import Inputs, batches, step_seeds
from headscope.training.recipe import Recipe, make_optimizer, set_learning_rate
from headscope.training.resume import History, Progress, ResumeFile

Rows = NDArray[np.int64]
Scores = tuple[float, float]
Watch = Callable[[Mapping[str, Any]], object]


def ignore(row: Mapping[str, Any]) -> None:
    """Take the row of an epoch and do nothing."""


@dataclass(frozen=True)
class Data:
    """The data of a training: inputs with their labels (N,), and the rows of two subsets.

    training_inputs are the inputs of a training step: augmented, or the same. class_weights (K,)
    weigh the slices in the loss; None: all alike.
    """

    inputs: Inputs
    training_inputs: Inputs
    labels: Tensor
    train_rows: Rows
    val_rows: Rows
    class_weights: Tensor | None = None

    def labels_of(self, rows: Rows) -> Tensor:
        """Return the labels (B,) of some rows, on the device."""
        return self.labels[torch.from_numpy(rows).to(self.labels.device, non_blocking=True)]

    def order(self, recipe: Recipe, seed: int, epoch: int) -> Rows:
        """Return the training rows of an epoch in their order, as the recipe draws them."""
        weighted = recipe.sampling == "weighted"
        classes = self.labels_of(self.train_rows).cpu().numpy() if weighted else None
        return epoch_order(self.train_rows, seed, epoch, classes)

    def weighted(self, recipe: Recipe, classes: int) -> "Data":
        """Return the same data with the class weights of a recipe, of its training slices."""
        if recipe.class_weights == "none":
            return self
        weights = balanced_weights(self.labels_of(self.train_rows).cpu().numpy(), classes)
        return replace(self, class_weights=torch.from_numpy(weights).float().to(self.labels.device))

    def loss(self, logits: Tensor, y: Tensor, recipe: Recipe, reduction: str = "mean") -> Tensor:
        """Return the cross-entropy of logits (B, K) by the recipe."""
        return cross_entropy(
            logits,
            y,
            weight=self.class_weights,
            label_smoothing=recipe.label_smoothing,
            reduction=reduction,
        )


def train_epoch(
    model: nn.Module,
    data: Data,
    order: Rows,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    seeds: list[int],
    progress: Progress,
) -> Iterator[int]:
    """Train on the rows of `order`, from the step of `progress`; yield the step after each.

    seeds holds one seed per step; progress.sums (2,) adds up losses and correct predictions.
    """
    device, sums = data.labels.device, progress.sums
    for rows in batches(order, recipe.batch_size)[progress.step :]:
        # 1. the step's own random numbers and slices
        seed_step(seeds[progress.step], device)
        x, y = data.training_inputs(rows), data.labels_of(rows)  # (B, ...), (B,)
        # 2. forward
        with autocast(recipe.precision, device):
            logits = model(x).float()  # (B, K)
        loss = data.loss(logits, y, recipe)
        # 3. backward, and one step down
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # 4. the sums stay on the device: reading them would wait for it
        with torch.no_grad():
            correct = (logits.argmax(dim=1) == y).sum()
            sums += torch.stack([loss.double() * len(rows), correct])
        progress.step += 1
        yield progress.step


@torch.inference_mode()
def evaluate(model: nn.Module, data: Data, rows: Rows, recipe: Recipe) -> Scores:
    """Return mean loss and accuracy over `rows`, in eval mode."""
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=data.labels.device)
    for part in batches(rows, recipe.batch_size):
        y = data.labels_of(part)
        with autocast(recipe.precision, sums.device):
            logits = model(data.inputs(part)).float()
        loss = data.loss(logits, y, recipe, "sum")
        sums += torch.stack([loss.double(), (logits.argmax(dim=1) == y).sum()])
    weights = data.class_weights
    total = len(rows) if weights is None else float(weights[data.labels_of(rows)].double().sum())
    loss, correct = sums.tolist()
    return loss / (total or 1), correct / len(rows)  # of classes alone that training lacks: 0


@torch.inference_mode()
def extract(
    model: nn.Module,
    inputs: Inputs,
    rows: Rows,
    batch_size: int,
    *,
    outputs: list[str],
    of: str,
    precision: str = "float32",
    compiled: bool = False,
) -> Iterator[tuple[Rows, Tensor, dict[str, Tensor]]]:
    """Pass `rows` through the network in eval mode, batch by batch.

    Yields the batch's rows, what the module at path `of` (the classifier) reads (B, D), and the
    outputs of the modules at the paths `outputs`, all as float32. compiled: by torch.compile.

    Raises
    ------
    NoRoomError
        A batch does not fit into the memory.
    """
    model.eval()
    device = next(model.parameters()).device
    with tap(model, outputs=outputs, inputs=[of]) as caught:
        forward = compile_network(model, device) if compiled else model  # with the hooks of tap
        for part in batches(rows, batch_size):
            with fixed_batch(len(part), device):
                x = inputs(part)
                with autocast(precision, device):
                    forward(x)
                activations = {path: caught[path].float() for path in (of, *outputs)}
            yield part, activations.pop(of), activations


def fit(
    model: nn.Module,
    head: nn.Linear,
    training_mode: Callable[[], object],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    resume: ResumeFile,
    title: str,
    phase: str = "train",
    after: int = 0,
    watch: Watch = ignore,
) -> tuple[History, int]:
    """Train for `recipe.epochs` epochs, or until patience ends; continue from a resume file.

    `after` counts the epochs of an earlier phase, after which these are numbered; `watch` gets the
    row of each.

    Returns one row per epoch, and the index of the row whose weights the model has in the end. A
    row holds: epoch (from 1), phase, learning_rate, train_loss, train_slice_accuracy (of the
    batches during training), val_loss, val_slice_accuracy, seconds.

    Raises
    ------
    RunError
        The loss is no longer a finite number.
    """
    optimizer = make_optimizer(model, head, recipe)
    data = data.weighted(recipe, head.out_features)
    device = data.labels.device
    progress = resume.load(model, optimizer, device)
    forward = compile_network(model, device) if recipe.compile else model
    steps = len(batches(data.train_rows, recipe.batch_size))

    def work() -> Iterator[None]:
        for epoch in range(len(progress.history), recipe.epochs):
            if progress.stopped(recipe):
                return
            # 1. the epoch's own rate, order and random numbers
            start = time.perf_counter() - progress.seconds
            rate = recipe.learning_rate_of(epoch)
            set_learning_rate(optimizer, rate)
            order = data.order(recipe, seed, after + epoch)
            seeds = step_seeds(steps, seed, after + epoch)
            # 2. train, from the step to which an interrupted epoch has come
            training_mode()
            for step in train_epoch(forward, data, order, optimizer, recipe, seeds, progress):
                progress.seconds = time.perf_counter() - start
                if step < steps and resume.due(within_epoch=True):
                    resume.save(model, optimizer, progress)
                yield
            # 3. evaluate the validation slices
            trained = tuple((progress.sums / len(order)).tolist())
            seen = evaluate(forward, data, data.val_rows, recipe)
            row = {"epoch": after + epoch + 1, "phase": phase, "learning_rate": rate}
            row |= _finite(trained, seen, after + epoch, rate)
            progress.end_epoch(row | {"seconds": time.perf_counter() - start})
            watch(progress.history[-1])
            # 4. store what a later start needs
            if recipe.select == "best" and progress.best_epoch() == epoch:
                progress.best = {n: t.detach().clone() for n, t in model.state_dict().items()}
            ended = epoch + 1 == recipe.epochs or progress.stopped(recipe)
            if ended or resume.due(within_epoch=False):
                resume.save(model, optimizer, progress)

    total, done = recipe.epochs * steps, len(progress.history) * steps + progress.step
    with torch.random.fork_rng([device] if device.type == "cuda" else []), steady_memory(device):
        for _ in track(work(), title, total=total, done=done):
            pass
    if progress.best is None:
        return progress.history, len(progress.history) - 1
    load_state(model, progress.best)
    return progress.history, progress.best_epoch()


def _finite(trained: Scores, seen: Scores, epoch: int, rate: float) -> dict[str, float]:
    """Return the scores of an epoch by their names in the history, if they are finite."""
    if not np.isfinite([trained[0], seen[0]]).all():
        raise RunError(
            f"The loss is no longer finite in epoch {epoch + 1}; a learning rate below {rate:g} "
            f"may help."
        )
    return {
        "train_loss": trained[0],
        "train_slice_accuracy": trained[1],
        "val_loss": seen[0],
        "val_slice_accuracy": seen[1],
    }
