"""Results that read as tables: in a terminal, through rich, and as HTML in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from io import StringIO
from math import isinf, isnan
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

WIDTH = 100
SCALARS = (str, int, float, type(None))


@dataclass(frozen=True)
class Sheet:
    """A small table: its title, the names of its columns, its rows and what stands under it.

    Cells are text or numbers; numbers are set by `cell`, to `digits` digits, flush right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str] = ()
    digits: int = 4


class Shown:
    """What makes a result readable: declare it `@dataclass(frozen=True, eq=False, repr=False)`.

    A result says in `sheets` what it shows; by default that is each of its plain values.
    """

    def sheets(self) -> Sequence[Sheet]:
        """Return the tables that stand for this result."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        rows = [(name, value) for name, value in known.items() if isinstance(value, SCALARS)]
        return [Sheet(type(self).__name__, ("", "value"), rows, known.get("notes", ()))]

    def __repr__(self) -> str:
        """The tables as plain text, so that a prompt shows them too."""
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=WIDTH, highlight=False, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())

    def __rich__(self) -> "Group":
        """The tables as rich prints them."""
        from rich.console import Group

        return Group(*(to_rich(sheet) for sheet in self.sheets()))

    def _repr_html_(self) -> str:
        """The tables as a notebook shows them."""
        return "\n".join(_html(sheet) for sheet in self.sheets())


def cell(value: object, digits: int = 4) -> str:
    """Return a number to `digits` significant digits or whole; NaN or None is 'undefined'."""
    if value is None or (isinstance(value, Real) and isnan(value)):
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}".replace("-", "−")
    if not isinstance(value, Real):
        return str(value)
    number = float(value)
    if isinf(number):
        return "∞" if number > 0 else "−∞"
    whole = 10 ** (digits - 1) <= abs(number) < 1e9
    text = f"{number:,.0f}" if whole or not number else f"{number:#.{digits}g}"
    return text.replace("-", "−")


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, Real)


def _numeric(sheet: Sheet) -> list[bool]:
    return [
        bool(sheet.rows) and all(_is_number(row[k]) for row in sheet.rows)
        for k in range(len(sheet.columns))
    ]


def to_rich(sheet: Sheet) -> "Group":
    """Return a sheet as rich prints it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name, numeric in zip(sheet.columns, _numeric(sheet), strict=True):
        table.add_column(Text(name), justify="right" if numeric else "left")
    for row in sheet.rows:
        table.add_row(*(Text(cell(value, sheet.digits)) for value in row))
    notes = [Text(note) for note in sheet.notes]
    return Group(Text(sheet.title, "bold"), table, *notes)


def _html(sheet: Sheet) -> str:
    styles = ["right" if numeric else "left" for numeric in _numeric(sheet)]

    def line(tag: str, texts: Sequence[object]) -> str:
        cells = (
            f'<{tag} style="text-align:{style}">{escape(cell(text, sheet.digits))}</{tag}>'
            for style, text in zip(styles, texts, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    caption = f'<caption style="text-align:left"><b>{escape(sheet.title)}</b></caption>'
    rows = "".join(line("td", row) for row in sheet.rows)
    notes = "".join(f"<p>{escape(note)}</p>" for note in sheet.notes)
    head = line("th", sheet.columns)
    return f"<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>{notes}"
