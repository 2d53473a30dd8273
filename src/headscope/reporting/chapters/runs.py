"""Which runs a figure or a row is of, and how they are named."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from headscope.record import Run
from headscope.tables import Cell

T = TypeVar("T")


def group_by(items: Iterable[T], key: Callable[[T], Any]) -> list[tuple[Any, list[T]]]:
    """Gather items of equal key, keys in the order of their first appearance."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def first_of(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the first seed and fold, which stand for the others in figures."""
    first = min((run.setting.seed, run.setting.fold or 0) for run in runs)
    return [run for run in runs if (run.setting.seed, run.setting.fold or 0) == first]


def by_network(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Gather the first seed's runs by architecture."""
    return group_by(first_of(runs), lambda run: run.setting.architecture)


def stem(figures: Path, name: str, network: str) -> Path:
    """Return where a figure of a network is saved."""
    return figures / f"{name}-{network.replace('/', '-')}"


def named(run: Run) -> Cell:
    """Return the cell that names a run: regime and split, below them network and seed."""
    return Cell(run.setting.title, detail=run.setting.network)


def twin(run: Run, runs: Sequence[Run], regime: str = "frozen") -> Run | None:
    """Return the run of that regime with the same network, split, seed and fold, if any."""

    def place(one: Run) -> tuple[Any, ...]:
        setting = one.setting
        return setting.architecture, setting.split, setting.seed, setting.fold

    same = (
        other for other in runs if other.setting.regime == regime and place(other) == place(run)
    )
    return next(same, None)
