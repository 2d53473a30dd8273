"""One table for a result: in a terminal, a notebook, a page, and as TSV, Markdown and LaTeX."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from html import escape
from io import StringIO
from math import isnan
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

from headscope.text import MISSING, escape_formula, interval, printable, show

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

WIDTH = 100
SCALARS = (str, int, float, type(None))


@dataclass(frozen=True)
class Column:
    """A column: its name, the unit of its numbers and the format that shows them.

    `format` is a name of `headscope.text.FORMATS`: plain, significant, percent, points, fraction,
    count, time, probability and others. With `interval` the heading announces intervals.
    """

    name: str
    unit: str = ""
    format: str = "plain"
    interval: bool = False

    @property
    def heading(self) -> str:
        """Name and unit, as 'Training time (min:sec)'."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.name}{unit}{' [95% interval]' if self.interval else ''}"


@dataclass(frozen=True)
class Cell:
    """A value of a table, whole, with what a reader may ask about it.

    Attributes
    ----------
    value
        Text, or the full number; the format of the column (or `format`, where a cell has its own)
        rounds it when it is shown.
    low, high
        The ends of its 95% interval, in the unit of the value; None or NaN without one.
    detail
        Text in small print after the value: the network under the name of a run.
    run, quantity, pair
        Where the number comes from: the page writes them beside the full value.
    """

    value: object
    low: float | None = None
    high: float | None = None
    format: str = ""
    detail: str = ""
    run: str = ""
    quantity: str = ""
    pair: tuple[int, int] | None = None

    @property
    def bounded(self) -> bool:
        """Whether it has an interval."""
        return not any(end is None or isnan(end) for end in (self.low, self.high))

    def text(self, form: str = "plain") -> str:
        """Return the value, its interval and its detail as text."""
        form = self.format or form
        text = printable(show(self.value, form))
        if self.bounded:
            text += f" [{interval(show(self.low, form), show(self.high, form))}]"
        return f"{text} {printable(self.detail)}" if self.detail else text


class Table:
    """A result as a table, which renders to every form in which headscope shows one.

    At a prompt it prints itself, in a notebook it is HTML, rich prints it in a terminal;
    `to_tsv` and `to_frame` hold full values, `to_markdown` and `to_latex` those shown.

    Parameters
    ----------
    title
        What the table shows.
    columns
        `Column`s; a text stands for a column of that name, without unit, in the plain format.
    rows
        One sequence of cells per row; a bare value stands for a `Cell` of it.
    notes
        Sentences under the table.

    Raises
    ------
    ValueError
        A row has another number of cells than there are columns.

    Examples
    --------
    >>> accuracy = Column("Accuracy", "%", "percent", interval=True)
    >>> print(Table("Test", ["Run", accuracy], [["frozen", Cell(0.9, 0.8, 0.95)]]).to_markdown())
    | Run | Accuracy (%) [95% interval] |
    | --- | --: |
    | frozen | 90.0 [80.0–95.0] |
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[Column | str],
        rows: Sequence[Sequence[object]],
        notes: Sequence[str] = (),
    ) -> None:
        """Make columns and cells of the shorthands."""
        self.title = title
        self.columns = tuple(Column(c) if isinstance(c, str) else c for c in columns)
        self.rows = tuple(
            tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows
        )
        self.notes = tuple(notes)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{title!r}: {len(row)} cells for {len(self.columns)} columns.")

    @classmethod
    def from_frame(cls, title: str, frame: "pd.DataFrame", notes: Sequence[str] = ()) -> "Table":
        """Return a data frame as a table, its columns in the plain format."""
        return cls(
            title, [str(name) for name in frame.columns], frame.to_numpy(object).tolist(), notes
        )

    @property
    def headings(self) -> list[str]:
        """The columns as they are headed."""
        return [column.heading for column in self.columns]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone; they are set flush right."""
        return [
            bool(self.rows) and all(_is_number(row[k].value) for row in self.rows)
            for k in range(len(self.columns))
        ]

    def texts(self) -> list[list[str]]:
        """Return the cells as text, row by row."""
        forms = [column.format for column in self.columns]
        return [
            [cell.text(form) for cell, form in zip(row, forms, strict=True)] for row in self.rows
        ]

    def to_frame(self) -> "pd.DataFrame":
        """Return the full values; columns with intervals have two more, ending in low and high."""
        import pandas as pd

        frame = {}
        for k, name in enumerate(self.headings):
            cells = [row[k] for row in self.rows]
            frame[name] = [cell.value for cell in cells]
            if any(cell.bounded for cell in cells):
                for end in ("low", "high"):
                    frame[f"{name} {end}"] = [getattr(cell, end) for cell in cells]
        return pd.DataFrame(frame)

    def to_tsv(self) -> str:
        """Return the full values as TSV; missing ones read n/a."""
        frame = self.to_frame().rename(columns=escape_formula).map(escape_formula)
        return frame.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")

    def to_markdown(self) -> str:
        """Return the table as Markdown, with its notes and without its title."""
        align = ["--:" if numeric else "---" for numeric in self.numeric]
        lines = [_markdown_line(cells) for cells in (self.headings, align, *self.texts())]
        return "\n\n".join(["\n".join(lines), *self.notes])

    def to_latex(self) -> str:
        """Return the table in LaTeX, for the package booktabs."""
        align = "".join("r" if numeric else "l" for numeric in self.numeric)
        head, *rows = (
            " & ".join(map(escape_latex, row)) + r" \\" for row in (self.headings, *self.texts())
        )
        return "\n".join(
            [
                rf"\begin{{table}}\caption{{{escape_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{align}}}",
                *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
                *(r"\end{tabular}", *map(escape_latex, self.notes), r"\end{table}"),
            ]
        )

    def to_html(self) -> str:
        """Return the table as a notebook shows it."""
        styles = ["right" if numeric else "left" for numeric in self.numeric]

        def line(tag: str, texts: Sequence[str]) -> str:
            cells = (
                f'<{tag} style="text-align:{style}">{escape(text)}</{tag}>'
                for style, text in zip(styles, texts, strict=True)
            )
            return f"<tr>{''.join(cells)}</tr>"

        caption = f'<caption style="text-align:left"><b>{escape(self.title)}</b></caption>'
        rows = "".join(line("td", row) for row in self.texts())
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        head = line("th", self.headings)
        return f"<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>{notes}"

    def __rich__(self) -> "Group":
        """Return the table as rich prints it."""
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD)
        for name, numeric in zip(self.headings, self.numeric, strict=True):
            table.add_column(Text(printable(name)), justify="right" if numeric else "left")
        for row in self.texts():
            table.add_row(*map(Text, row))
        title = [Text(printable(self.title), "bold")] if self.title else []
        return Group(*title, table, *map(Text, map(printable, self.notes)))

    def __repr__(self) -> str:
        """Return the table as plain text."""
        return _printed(self)

    def _repr_html_(self) -> str:
        return self.to_html()


class Shown:
    """A result that shows itself; declare it `@dataclass(frozen=True, eq=False, repr=False)`.

    `tables` says what it shows; by default its plain values and notes, one value per row.
    At a prompt it is `WIDE` letters wide.
    """

    WIDE: ClassVar[int] = WIDTH

    def tables(self) -> Sequence[Table]:
        """Return the tables that show this result."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        rows = [(name, value) for name, value in values.items() if isinstance(value, SCALARS)]
        return [Table(type(self).__name__, ("", "value"), rows, values.get("notes", ()))]

    def __repr__(self) -> str:
        """Return the tables as plain text, as a prompt shows them."""
        return _printed(self, self.WIDE)

    def __rich_console__(self, *_: object) -> Iterator[Table]:
        """Yield the tables, as rich prints them."""
        yield from self.tables()

    def _repr_html_(self) -> str:
        return "\n".join(table.to_html() for table in self.tables())


def _printed(renderable: object, width: int = WIDTH) -> str:
    from rich.console import Console

    text = StringIO()
    console = Console(
        file=text,
        width=width,
        highlight=False,
        color_system=None,
        force_jupyter=False,  # else a notebook shows it at once, and again by _repr_html_
    )
    console.print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


def _is_number(value: object) -> bool:
    return value is None or value == MISSING or isinstance(value, Real)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def escape_latex(text: str) -> str:
    """Return a text that LaTeX prints as it is."""
    signs: dict[str, str | int | None] = {sign: f"\\{sign}" for sign in "&%$#_{}"}
    signs |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    text = text.translate({ord(sign): command for sign, command in signs.items()})
    powers = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = re.sub(r"× 10([⁻⁰-⁹¹²³]+)", lambda m: rf"$\times 10^{{{m[1].translate(powers)}}}$", text)
    for sign, command in (("−", "$-$"), ("×", r"$\times$"), ("∞", r"$\infty$"), ("²", "$^2$")):
        text = text.replace(sign, command)
    return text.replace("<", "$<$").replace(">", "$>$").replace("–", "--")
