"""What the page is made of: text, tables, folds and boxes, in chapters; figures are `plots`."""

from base64 import b64encode
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from string import ascii_lowercase
from typing import ClassVar, Final, Literal

from markupsafe import Markup, escape

from headscope.reporting.numbers import bounded, say
from headscope.reporting.plots import Dots, FigureBlock, LinePlot, Matrix, Multiples, Sentence
from headscope.tables import Cell, Table
from headscope.text import MISSING, show

ABOVE: Final = Cell("")  # continues the cell above


class Text:
    """Sentences: one per paragraph, or per item of the style notes, list, steps, quote or
    copied (under a button that copies them)."""

    kind: Final = "text"

    def __init__(self, *sentences: Sentence, style: str = "") -> None:
        """Take the sentences; text is escaped, HTML is not."""
        self.sentences, self.style = sentences, style


@dataclass(frozen=True)
class HeadCell:
    """A cell of a table's head, and how many columns and rows it spans."""

    title: str
    unit: str = ""
    columns: int = 1
    rows: int = 1
    left: bool = False


@dataclass(frozen=True)
class BodyCell:
    """A cell of a table's body as HTML, the rows it spans, and its classes in page.css."""

    html: Markup
    rows: int
    style: str


@dataclass(frozen=True)
class TableBlock:
    """A table, with its title as caption; without titles of columns it lists facts.

    Attributes
    ----------
    key
        Tables of one key share a number.
    table
        Title, columns, rows and notes.
    over
        For each column the title that it shares with its neighbours, or ''.
    tinted
        Rows on a tinted ground.
    headings
        Headings across all columns, by the row that they precede.
    """

    key: str
    table: Table
    over: Sequence[str] = ()
    tinted: Collection[int] = ()
    headings: Mapping[int, str] = field(default_factory=dict)
    kind: ClassVar[str] = "table"

    @property
    def facts(self) -> bool:
        """Whether it lists facts: names and values."""
        return not any(column.name for column in self.table.columns)

    @property
    def head(self) -> list[list[HeadCell]]:
        """The one or two rows of its head."""
        over = self.over or [""] * len(self.table.columns)
        first: list[HeadCell] = []
        second: list[HeadCell] = []
        columns = zip(over, self.table.columns, self._left, strict=True)
        for title, group in groupby(columns, key=itemgetter(0)):
            rows = 2 if any(over) and not title else 1
            cells = [HeadCell(column.name, column.unit, 1, rows, left) for _, column, left in group]
            (second if title else first).extend(cells)
            if title:
                first.append(HeadCell(title, columns=len(cells)))
        return [first, second] if second else [first]

    @property
    def body(self) -> list[list[BodyCell]]:
        """Its rows of cells, without those that continue the cell above."""
        rows, left = self.table.rows, self._left
        body = []
        for n, row in enumerate(rows):
            cells = []
            for k, (cell, column) in enumerate(zip(row, self.table.columns, strict=True)):
                if cell is ABOVE:
                    continue
                end = n + 1
                while end < len(rows) and rows[end][k] is ABOVE:
                    end += 1
                html = set_cell(cell, column.format)
                places = {"left": left[k], "first": k == 0, "last": end == len(rows)}
                style = " ".join(name for name, holds in places.items() if holds)
                cells.append(BodyCell(html, end - n, style))
            body.append(cells)
        return body

    @property
    def _left(self) -> list[bool]:
        """Which columns hold words, and are set flush left."""
        return [any(map(_holds_words, cells)) for cells in zip(*self.table.rows, strict=True)] or [
            True
        ] * len(self.table.columns)


def facts_table(facts: Mapping[str, str]) -> TableBlock:
    """Return a table that lists names and values."""
    return TableBlock("", Table("", ("", ""), [*facts.items()]))


@dataclass(frozen=True)
class Fold:
    """Blocks that open on demand, and what to click on."""

    summary: str
    blocks: "Sequence[Block]"
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Box:
    """Blocks that are set together, by the rule of that name in page.css, under a heading."""

    style: Literal["", "run", "beside", "curves"]
    blocks: "Sequence[Block]"
    heading: str = ""
    below: str = ""
    kind: ClassVar[str] = "box"


@dataclass(frozen=True)
class Download:
    """A file that the page holds: its name and text."""

    name: str
    text: str

    @property
    def address(self) -> str:
        """The file as a data URI."""
        return "data:text/plain;base64," + b64encode(self.text.encode()).decode()


@dataclass(frozen=True)
class Downloads:
    """Files by what they hold, and a line on what else there is."""

    rows: Sequence[tuple[str, Sequence[Download]]]
    below: str
    kind: ClassVar[str] = "downloads"


Block = (
    Text | TableBlock | FigureBlock | Multiples | Matrix | Dots | LinePlot | Downloads | Fold | Box
)


@dataclass(frozen=True)
class Chapter:
    """A section of the page: key, title, and its blocks in their order.

    One with a `result` is evidence: it is folded, and its summary says that result. `short` is
    its name in the bar at the top.
    """

    key: str
    title: str
    blocks: Sequence[Block]
    result: Sentence = ""
    short: str = ""


@dataclass(frozen=True)
class Label:
    """The number of a figure or table, as 'Figure 3b', and its id, as 'figure-weights-2'."""

    text: str
    id: str


def refer(name: str) -> Markup:
    """Return a link to a figure or table by its id, as 'figure-weights', for a sentence.

    `render_page` gives the link its number as text, which only the whole page knows.
    """
    return Markup('<a href="#{}"></a>').format(name)


def label_blocks(chapters: Iterable[Chapter]) -> tuple[dict[int, Label], dict[str, str]]:
    """Number figures and tables in the order in which they stand on the page.

    Returns the labels by `id()` of the block, and what a reference to a key says: 'Figure 3' by
    'figure-weights'.
    """
    groups: dict[tuple[str, str], list[Block]] = {}
    for chapter in chapters:
        for block in _walk(chapter.blocks):
            if isinstance(block, TableBlock | FigureBlock | Multiples | Dots) and block.key:
                counted = "table" if isinstance(block, TableBlock) else "figure"
                groups.setdefault((counted, block.key), []).append(block)
    labels, references, counts = {}, {}, Counter[str]()
    for (kind, key), blocks in groups.items():
        counts[kind] += 1
        text, name = f"{kind.capitalize()} {counts[kind]}", f"{kind}-{key}"
        references[name] = text
        for place, block in enumerate(blocks):
            letter = letter_of(place) if len(blocks) > 1 else ""
            labels[id(block)] = Label(text + letter, f"{name}-{place + 1}" if place else name)
    return labels, references


def letter_of(place: int) -> str:
    """Return a, b, … z, aa, ab, … of a place in a series."""
    before, last = divmod(place, len(ascii_lowercase))
    return (letter_of(before - 1) if before else "") + ascii_lowercase[last]


def cells_of(result: object, names: Iterable[str], run: str, prefix: str) -> list[Cell]:
    """Return a cell for each named value of a result, with its interval where it has one.

    `result` is a mapping or has attributes; an interval has the name of the value with _low and
    _high. Names may be the keys of columns.
    """
    cells = []
    for name in names:
        value = result[name] if isinstance(result, Mapping) else getattr(result, name)
        low, high = (getattr(result, f"{name}_{end}", None) for end in ("low", "high"))
        cells.append(Cell(value, low, high, run=run, quantity=f"{prefix}.{name}"))
    return cells


def set_cell(cell: Cell, form: str) -> Markup:
    """Return a cell as HTML; a number that names its run carries its full value."""
    if not isinstance(cell.value, str) and cell.run:
        ends, form = (cell.low, cell.high), cell.format or form
        html = bounded(cell.value, ends, cell.run, cell.quantity, form, pair=cell.pair)  # type: ignore[arg-type]
    else:
        html = escape(show(cell.value, cell.format or form))
    return say("{} <small>{}</small>", html, cell.detail) if cell.detail else html


def _holds_words(cell: Cell) -> bool:
    """Whether a cell is text; numbers that are set already are none."""
    numeric = (Markup('<span class="num"'), MISSING)
    return isinstance(cell.value, str) and cell is not ABOVE and not cell.value.startswith(numeric)


def _walk(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Fold | Box):
            yield from _walk(block.blocks)
