"""The loop in four functions: train_epoch, evaluate, extract, fit.

An epoch's order and its random numbers depend on (seed, epoch) alone, so a run that resumes from
the last finished epoch needs no replay and ends bit-identical on a CPU.
"""

import pickle
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headscope.console import track
from headscope.errors import InputError, RunError
from headscope.files import atomic_path
from headscope.models.head import tap
from headscope.training.loader import Inputs, batches, epoch_order
from headscope.training.optim import Recipe, set_learning_rate, sgd

Rows = NDArray[np.int64]
History = list[dict[str, Any]]
Scores = tuple[float, float]


def train_epoch(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    order: Rows,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
) -> Generator[None, None, Scores]:
    """Train on the rows of `order`; yield after every step; return mean loss and accuracy."""
    loss_sum = torch.zeros((), device=labels.device)
    right = torch.zeros((), device=labels.device)
    for rows in batches(order, batch_size):
        x = inputs(rows)  # (B, ...)
        y = labels[torch.from_numpy(rows).to(labels.device)]  # (B,)
        logits = model(x)  # (B, K)
        loss = cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.detach() * len(rows)
        right += (logits.detach().argmax(dim=1) == y).sum()
        yield
    return float(loss_sum) / len(order), float(right) / len(order)


@torch.inference_mode()
def evaluate(
    model: nn.Module, inputs: Inputs, labels: Tensor, rows: Rows, batch_size: int
) -> Scores:
    """Return mean loss and accuracy over `rows`, in eval mode."""
    model.eval()
    loss, right = 0.0, 0
    for part in batches(rows, batch_size):
        y = labels[torch.from_numpy(part).to(labels.device)]
        logits = model(inputs(part))
        loss += float(cross_entropy(logits, y, reduction="sum"))
        right += int((logits.argmax(dim=1) == y).sum())
    return loss / len(rows), right / len(rows)


@torch.inference_mode()
def extract(
    model: nn.Module, inputs: Inputs, rows: Rows, batch_size: int, *, outputs: list[str], of: str
) -> Iterator[tuple[Rows, Tensor, dict[str, Tensor]]]:
    """Pass `rows` through the network in eval mode, a batch at a time.

    Yields the batch's rows, what the module at path `of` (the classifier) reads (B, D), and the
    outputs of the modules at the paths `outputs`.
    """
    model.eval()
    with tap(model, outputs=outputs, inputs=[of]) as caught:
        for part in batches(rows, batch_size):
            model(inputs(part))
            yield part, caught[of], {path: caught[path] for path in outputs}


def fit(
    model: nn.Module,
    head: nn.Module,
    training_mode: Callable[[], object],
    inputs: Inputs,
    labels: Tensor,
    train_rows: Rows,
    val_rows: Rows,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path,
    title: str,
) -> History:
    """Train for `recipe.epochs` epochs, going on from `checkpoint` where it stands.

    Returns one row an epoch: epoch (from 1), learning_rate, train_loss, train_slice_accuracy
    (of the batches as they came), val_loss, val_slice_accuracy, seconds.

    Raises
    ------
    RunError
        The loss is no longer a finite number.
    """
    optimizer = sgd(model, head, recipe)
    history = _resume(checkpoint, model, optimizer)
    steps = len(batches(train_rows, recipe.batch_size))

    def work() -> Iterator[None]:
        for epoch in range(len(history), recipe.epochs):
            # 1. the epoch's own rate, order and random numbers
            start = time.perf_counter()
            set_learning_rate(optimizer, recipe.learning_rate_of(epoch))
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
            order = epoch_order(train_rows, seed, epoch)
            # 2. train, then look at the validation slices
            training_mode()
            trained = yield from train_epoch(
                model, inputs, labels, order, optimizer, recipe.batch_size
            )
            seen = evaluate(model, inputs, labels, val_rows, recipe.batch_size)
            if not np.isfinite([trained[0], seen[0]]).all():
                raise RunError(
                    f"The loss is no longer finite in epoch {epoch + 1}; a learning rate below "
                    f"{recipe.learning_rate:g} may help."
                )
            # 3. keep what a later start needs
            seconds = time.perf_counter() - start
            history.append(_history_row(epoch, recipe, trained, seen, seconds))
            _save(checkpoint, model, optimizer, history)

    with torch.random.fork_rng():
        total, done = recipe.epochs * steps, len(history) * steps
        for _ in track(work(), title, total=total, done=done):
            pass
    return history


def _history_row(
    epoch: int, recipe: Recipe, trained: Scores, seen: Scores, seconds: float
) -> dict[str, Any]:
    return {
        "epoch": epoch + 1,
        "learning_rate": recipe.learning_rate_of(epoch),
        "train_loss": trained[0],
        "train_slice_accuracy": trained[1],
        "val_loss": seen[0],
        "val_slice_accuracy": seen[1],
        "seconds": seconds,
    }


def _save(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: History
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    with atomic_path(checkpoint) as temporary:
        torch.save(state, temporary)


def _resume(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    """Load a checkpoint of our own making; a pickle that would run code is refused."""
    if not checkpoint.is_file():
        return []
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{checkpoint} is no checkpoint of this run ({reason}); delete it to train anew."
        ) from None
    return state["history"]
