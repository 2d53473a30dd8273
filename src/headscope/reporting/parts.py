"""What a chapter of the page is made of: tables and figures, one template for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.pictures import Picture

Cell = Markup | str


@dataclass(frozen=True)
class Grid:
    """A table: rows of cells under columns (title, unit); the first `left` columns hold words."""

    caption: Markup
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]
    left: int = 1
    kind: str = "grid"


@dataclass(frozen=True)
class Plate:
    """A figure with its caption, half as wide as the page or `wide`."""

    picture: Picture
    caption: Markup
    wide: bool = False
    kind: str = "plate"


@dataclass(frozen=True)
class Words:
    """Paragraphs, or a list of sentences."""

    sentences: Sequence[Cell]
    listed: bool = False
    kind: str = "words"


@dataclass(frozen=True)
class Folded:
    """Parts that open on demand, and what to click on."""

    summary: str
    parts: Sequence[Grid | Plate | Words]
    kind: str = "folded"


Part = Grid | Plate | Words | Folded


@dataclass(frozen=True)
class Chapter:
    """A section of the page: key, title, and its parts in their order."""

    key: str
    title: str
    parts: Sequence[Part]


def bounded(
    value: float | None,
    low: float | None,
    high: float | None,
    run: str,
    quantity: str,
    show: str,
) -> Markup:
    """Return a number with its interval under it, if it has one."""
    found = number(value, run, quantity, show)
    if any(end is None or end != end for end in (low, high)):
        return found
    between = "–" if low >= 0 else " to "  # type: ignore[operator]
    return Markup("{} <small>{}{}{}</small>").format(
        found,
        number(low, run, f"{quantity}_low", show),
        between,
        number(high, run, f"{quantity}_high", show),
    )


def attributes(
    result: Any, names: Iterable[tuple[str, str]], run: str, prefix: str
) -> list[Markup]:
    """Return cells of a result's attributes, (name, how to show it) each."""
    return [number(getattr(result, name), run, f"{prefix}.{name}", show) for name, show in names]


def first_of(runs: Sequence[Run]) -> list[Run]:
    """Keep the runs of the first seed and fold, which stand for the others in figures."""
    keys = [(run.settings["seed"], run.settings.get("fold") or 0) for run in runs]
    return [run for run, key in zip(runs, keys, strict=True) if key == min(keys)]


def by_network(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Gather the first seed's runs by architecture."""
    groups: dict[str, list[Run]] = {}
    for run in first_of(runs):
        groups.setdefault(str(run.settings["architecture"]), []).append(run)
    return list(groups.items())


def stem(figures: Path, name: str, network: str) -> Path:
    """Return where a figure of a network is saved."""
    return figures / f"{name}-{network.replace('/', '-')}"


def named(run: Run) -> Markup:
    """Say which run it is: regime and split, below them network and seed."""
    return Markup("{} <small>{}, seed {}</small>").format(
        run.setting.title, run.settings["architecture"], run.settings["seed"]
    )


def twin(run: Run, runs: Sequence[Run], regime: str = "frozen") -> Run | None:
    """Return the run of that regime with the same network, split, seed and fold, if any."""
    keys = ("architecture", "split", "seed", "fold")
    same = [
        other
        for other in runs
        if other.settings["regime"] == regime
        and all(other.settings.get(key) == run.settings.get(key) for key in keys)
    ]
    return same[0] if same else None
