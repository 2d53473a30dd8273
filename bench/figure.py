"""A figure of a benchmark as a value beside its target: what `short` of a benchmark returns."""

from dataclasses import dataclass
from pathlib import Path


class MissingError(Exception):
    """Something that a benchmark needs is not on this machine."""


@dataclass(frozen=True)
class Figure:
    """A value with its unit; the target is a range, open where a bound is None."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The range in words, empty without a target."""
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def met(self) -> bool | None:
        """Whether the value is in its range; None without a target."""
        if not self.target:
            return None
        low = self.at_least is None or self.value >= self.at_least
        return bool(low and (self.at_most is None or self.value <= self.at_most))


@dataclass(frozen=True)
class Place:
    """Where a benchmark works: a scratch folder, real scans and weights where there are any."""

    folder: Path
    data: Path
    weights: Path

    def scans(self, name: str) -> Path:
        """Return a folder of real scans."""
        return self._there(self.data / name)

    def checkpoint(self, name: str) -> Path:
        """Return a file of ImageNet weights."""
        return self._there(self.weights / name)

    def _there(self, path: Path) -> Path:
        if not path.exists():
            raise MissingError(f"needs {path.name}")
        return path
