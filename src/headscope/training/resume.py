"""The resume file, from which an interrupted training continues: written whole, read as data."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headscope.errors import InputError
from headscope.files import atomic_path
from headscope.manifest import reason_of
from headscope.models.state import load_state
from headscope.models.tensors import DAMAGE
from headscope.schedule import has_stopped
from headscope.training.recipe import Recipe

EVERY_S = 300.0  # within an epoch
SHARE = 0.05  # of the time at most goes into writing

History = list[dict[str, Any]]


@dataclass
class Progress:
    """How far a training has come.

    history: one row for each finished epoch. sums (loss, correct predictions), step and seconds
    belong to the current epoch. best: the state after the epoch of the lowest validation loss,
    where the recipe selects it.
    """

    sums: Tensor
    history: History = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    best: dict[str, Tensor] | None = None

    @classmethod
    def start(cls, device: torch.device) -> "Progress":
        """Return the state of a training that has not begun."""
        return cls(torch.zeros(2, dtype=torch.float64, device=device))

    def best_epoch(self) -> int:
        """Return the index of the row with the lowest validation loss, the first of equals."""
        losses = [row["val_loss"] for row in self.history]
        return losses.index(min(losses))

    def stopped(self, recipe: Recipe) -> bool:
        """Whether the patience of a recipe has ended."""
        return has_stopped([row["val_loss"] for row in self.history], recipe.patience)

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Add the row of the epoch that has ended, and reset what belongs to an epoch."""
        self.history.append(row)
        self.step, self.seconds = 0, 0.0
        self.sums = torch.zeros_like(self.sums)


class ResumeFile:
    """One file, written after an epoch and every `every_s` seconds within one.

    Where writing takes long beside an epoch, it is not written after every epoch, so that it takes
    at most a twentieth of the time; after the last epoch it is always written.
    """

    def __init__(self, path: Path, every_s: float = EVERY_S) -> None:
        """Name the file and the seconds between writes within an epoch."""
        self.path, self.every_s = path, every_s
        self._written_at, self._cost = time.perf_counter(), 0.0

    def due(self, *, within_epoch: bool) -> bool:
        """Whether it is time to write."""
        wait = self.every_s if within_epoch else 0.0
        return time.perf_counter() - self._written_at >= max(wait, self._cost / SHARE)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Write model, optimiser and progress, whole or not at all."""
        start = time.perf_counter()
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": dict(vars(progress)),
        }
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)  # to a name torch itself writes, and hides why it could not
        self._written_at = time.perf_counter()
        self._cost = self._written_at - start

    def load(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
    ) -> Progress:
        """Load model and optimiser, return the progress; InputError where it is another run's."""
        if not self.path.is_file():
            return Progress.start(device)
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            load_state(model, state["model"])
            optimizer.load_state_dict(optimizer.state_dict() | state["optimizer"])
            progress = Progress(**state["progress"])
        except DAMAGE as error:
            raise InputError(
                f"{self.path} is no resume file of this run ({reason_of(error)}); delete it to "
                "train again from the start."
            ) from None
        progress.sums = progress.sums.to(device)
        return progress


def last_state(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a resume file by names like model.weight, optimizer.0.exp_avg, best."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    parts = {"model": state["model"], "best": state["progress"]["best"] or {}}
    parts |= {f"optimizer.{k}": part for k, part in state["optimizer"]["state"].items()}
    return {
        f"{part}.{name}": tensor.contiguous().numpy()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }


def restart(path: Path, state: Mapping[str, NDArray[Any]], history: History) -> None:
    """Write a resume file from what `last_state` returned, and the rows of the epochs so far."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
    optimizer: dict[int, dict[str, Tensor]] = {}
    for full, array in state.items():
        part, _, name = full.partition(".")
        if part == "optimizer":
            number, _, name = name.partition(".")
            optimizer.setdefault(int(number), {})[name] = torch.from_numpy(array)
        else:
            parts[part][name] = torch.from_numpy(array)
    progress = Progress.start(torch.device("cpu"))
    progress.history, progress.best = history, parts["best"] or None
    whole = {
        "model": parts["model"],
        "optimizer": {"state": optimizer},
        "progress": dict(vars(progress)),
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(whole, file)
