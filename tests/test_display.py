"""Results as a reader meets them: at a prompt, in a coloured terminal, in a notebook."""

from dataclasses import dataclass
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from headscope.analysis.display import Sheet, Shown, cell


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown):
    name: str
    value: float
    weight: np.ndarray
    notes: tuple[str, ...] = ("Nothing [red]to[/red] say.",)


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(Shown):
    value: float

    def sheets(self):
        return [
            Sheet("first <one>", ("class", "r"), [("A&D", -0.5), ("[bold]", self.value)]),
            Sheet("second", ("n",), [(1234,)]),
        ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "undefined"),
        (None, "undefined"),
        (float("-inf"), "−∞"),
        (0.0, "0"),
        (-0.98765432, "−0.9877"),
        (-12345.6, "−12,346"),
        (1.0, "1.000"),
        (1234.0, "1,234"),
        (1.5e-7, "1.500e−07"),
        (-12345, "−12,345"),
        (np.int64(7), "7"),
        (np.float32(0.5), "0.5000"),
        (True, "yes"),
        ("fc", "fc"),
    ],
)
def test_cells_read_well(value, text):
    assert cell(value) == text


def test_a_prompt_shows_the_plain_values_and_no_arrays():
    shown = repr(Result("one", 0.25, np.zeros(5000)))
    assert "0.2500" in shown and "one" in shown and "Nothing [red]to[/red] say." in shown
    assert "weight" not in shown and "\x1b" not in shown
    assert str(Result("one", 0.25, np.zeros(5000))) == shown


def test_a_terminal_shows_every_sheet():
    console = Console(width=80, record=True, file=StringIO())
    console.print(Chosen(0.5))
    shown = console.export_text()
    assert all(text in shown for text in ("first <one>", "A&D", "[bold]", "−0.5000", "1,234"))


def test_a_notebook_gets_text_and_no_tags_of_its_own():
    class Cells(HTMLParser):
        texts, tags = [], set()

        def handle_starttag(self, tag, attrs):
            self.tags.add(tag)

        def handle_data(self, data):
            self.texts += [data] if data.strip() else []

    page = Cells()
    page.feed(Chosen(float("nan"))._repr_html_())
    assert page.tags == {"table", "caption", "b", "thead", "tbody", "tr", "th", "td"}
    assert page.texts == ["first <one>", "class", "r", "A&D", "−0.5000", "[bold]", "undefined",
                          "second", "n", "1,234"]  # fmt: skip
