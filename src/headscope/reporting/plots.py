"""What is drawn on the page, as data: pictures, dots by row, curves, scatters, a matrix."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, nan
from typing import ClassVar

from markupsafe import Markup

Sentence = Markup | str


@dataclass(frozen=True)
class Picture:
    """A picture in the page: data URI, text in its place, and size in pixels."""

    source: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class FigureBlock:
    """Pictures beside each other with their caption; figures of one `key` share a number."""

    key: str
    pictures: Sequence[Picture]
    caption: Sentence
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Mark:
    """A mark in a row of dots, with the ends of its bar, of one of the `kinds`."""

    value: float
    low: float
    high: float
    kind: int = 0
    hollow: bool = False


@dataclass(frozen=True)
class DotRow:
    """A row of dots: what it is of, its marks, a value to compare with, and numbers in words."""

    name: str
    below: str
    marks: Sequence[Mark]
    reference: float = nan
    words: Sentence = ""


@dataclass(frozen=True)
class Dots:
    """Values of many settings or runs, row by row on one axis from `start` to `end`.

    kinds says what the marks stand for, each by its form and colour; log draws a logarithmic axis.
    Rows beyond the first `most` are folded. Figures of one `key` share a number.
    """

    rows: Sequence[DotRow]
    caption: Sentence
    start: float = 0.0
    end: float = 100.0
    unit: str = "%"
    kinds: Sequence[str] = ()
    log: bool = False
    key: str = ""
    most: int = 10
    kind: ClassVar[str] = "dots"

    @property
    def parts(self) -> list[Sequence[DotRow]]:
        """The rows in sight, and the folded ones."""
        return [self.rows[: self.most], self.rows[self.most :]]

    @property
    def height(self) -> int:
        """The height of a row in pixels."""
        return 6 + 8 * max(2, *(len(row.marks) for row in self.rows))

    @property
    def ticks(self) -> list[float]:
        """Where the axis is labelled: round values, seven steps at most."""
        if self.log:
            return [10.0**n for n in range(ceil(log10(self.start)), floor(log10(self.end)) + 1)]
        span = self.end - self.start
        size = 10.0 ** floor(log10(span / 7))
        step = next(size * n for n in (1, 2, 5, 10) if span / (size * n) <= 7)
        return [step * n for n in range(ceil(self.start / step), floor(self.end / step) + 1)]

    def place(self, value: float) -> str:
        """Return where a value stands on the axis, as a share of its width."""
        value, start, end = map(log10 if self.log else float, (value, self.start, self.end))
        return f"{100 * (value - start) / (end - start):.2f}%"


@dataclass(frozen=True)
class Panel:
    """A panel of a run: heading, line below it, a still picture as data URI, text in its place."""

    run: str
    heading: str
    below: Markup
    still: str
    alt: str


@dataclass(frozen=True)
class Multiples:
    """Panels by network, all of one kind ('logits' or 'weights'), as one numbered figure."""

    key: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    caption: str
    kind: ClassVar[str] = "multiples"


@dataclass(frozen=True)
class MatrixCell:
    """A subject under a run: the share of its test slices that are predicted wrongly."""

    subject: str
    column: int
    share: float
    words: str


@dataclass(frozen=True)
class Matrix:
    """Subjects in columns, hardest first, runs in rows."""

    subjects: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[MatrixCell]]]
    kind: ClassVar[str] = "matrix"

    @property
    def names(self) -> str:
        """The subjects as JSON, for the script."""
        return json.dumps(list(self.subjects))


@dataclass(frozen=True)
class Line:
    """A named curve: x, y and the ends of its band, between 0 and 1."""

    name: str
    points: Sequence[tuple[float, float, float, float]]

    @property
    def path(self) -> str:
        """The curve as points of an SVG of 100 × 100."""
        return _trace([(x, y) for x, y, _, _ in self.points])

    @property
    def band(self) -> str:
        """Its band as points of an SVG; empty without one."""
        ends = [(x, low, high) for x, _, low, high in self.points if low == low]
        back = [(x, low) for x, low, _ in reversed(ends)]
        return _trace([(x, high) for x, _, high in ends] + back)


def _trace(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{100 * x:.1f},{100 - 100 * y:.1f}" for x, y in points)


@dataclass(frozen=True)
class LinePlot:
    """Curves between 0 and 1 on either axis, beside the line of chance if there is one.

    x_ends and y_end are what the ends of the axes stand for, where that is not 0 and 100%; names
    stand at even distances along x in place of numbers.
    """

    title: str
    across: str
    up: str
    lines: Sequence[Line]
    chance: tuple[tuple[float, float], tuple[float, float]] | None = None
    x_ends: tuple[float, float] = (0.0, 100.0)
    y_end: float = 100.0
    names: Sequence[str] = ()
    below: str = ""
    kind: ClassVar[str] = "lines"

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Where x is labelled, between 0 and 100, and how."""
        if self.names:
            steps = max(len(self.names) - 1, 1)
            return [(100 * k / steps, name) for k, name in enumerate(self.names)]
        start, end = self.x_ends
        return [(n, f"{start + n * (end - start) / 100:.3g}") for n in range(0, 101, 20)]
