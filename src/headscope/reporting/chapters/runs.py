"""Which runs a figure or a row is of, and how they are named."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan, nan
from operator import attrgetter
from typing import Any, TypeVar

from headscope.analysis.results.table import Score
from headscope.errors import InputError
from headscope.record import Run
from headscope.reporting.blocks import Text
from headscope.reporting.plots import Mark
from headscope.tables import Cell
from headscope.text import FORMATS, MISSING

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


def mark(values: Iterable[float], kind: int, scale: float = 100.0, hollow: bool = False) -> Mark:
    """Return the mean of some values as a mark, its bar from the least to the largest."""
    numbers = [scale * value for value in values if not isnan(value)]
    mean = sum(numbers) / len(numbers) if numbers else nan
    return Mark(mean, min(numbers, default=nan), max(numbers, default=nan), kind, hollow)


def bar(score: Score, kind: int = 0, hollow: bool = False) -> Mark:
    """Return a score, in per cent, as a mark whose bar is its interval."""
    low, high = score.interval or (score.value, score.value)
    return Mark(100 * score.value, 100 * low, 100 * high, kind, hollow)


def spread(values: Iterable[float], form: str) -> str:
    """Return the least and the largest of some values, as 'T = 1.2 to 4.4', for a summary."""
    numbers = [value for value in values if not isnan(value)]
    if not numbers:
        return MISSING
    ends = dict.fromkeys(FORMATS[form](value) for value in (min(numbers), max(numbers)))
    return " to ".join(ends)


def analyse_each(runs: Sequence[Run], analyse: Callable[[Run], T]) -> tuple[dict[str, T], Text]:
    """Return results by the names of their runs, and why some runs have none."""
    results, notes = {}, []
    for run in runs:
        try:
            results[run.name] = analyse(run)
        except InputError as error:
            notes.append(str(error))
    return results, Text(*dict.fromkeys(notes), style="list")


def named(run: Run) -> Cell:
    """Return the cell that names a run: regime and split, below them network and seed."""
    return Cell(run.setting.title, detail=run.setting.network)


def scan_notes(runs: Sequence[Run]) -> list[str]:
    """Say that what is measured of some heads is measured over scans; nothing of none."""
    names = dict.fromkeys(run.setting.variant for run in runs if run.setting.unit == "scan")
    text = "Of {} all is over scans, on the means of which the head trained."
    return [text.format(", ".join(names))] if names else []


def score_cell(
    score: Mapping[str, float | None] | None, run: Run, quantity: str, way: str = ""
) -> Cell:
    """Return a score of `metrics.json` with its interval, by the bootstrap or another way."""
    value, low, high = ((score or {}).get(part) for part in ("value", f"{way}low", f"{way}high"))
    return Cell(value, low, high, run=run.name, quantity=quantity)


def twin(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the frozen run with the same network, split, seed, fold and unit, if any."""
    place = attrgetter("architecture", "split", "seed", "fold", "unit")
    same = (other for other in runs if other.setting.regime == "frozen")
    return next((other for other in same if place(other.setting) == place(run.setting)), None)
