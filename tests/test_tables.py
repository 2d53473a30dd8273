"""Results as a reader meets them: at a prompt, in a coloured terminal, in a notebook."""

from dataclasses import dataclass
from html.parser import HTMLParser
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from headscope.tables import Cell, Column, Shown, Table
from headscope.text import FORMATS, show


@dataclass(frozen=True, eq=False, repr=False)
class Result(Shown):
    name: str
    value: float
    weight: np.ndarray
    notes: tuple[str, ...] = ("Nothing [red]to[/red] say.",)


@dataclass(frozen=True, eq=False, repr=False)
class Chosen(Shown):
    value: float

    def tables(self):
        return [
            Table("first <one>", ("class", "r"), [("A&D", -0.5), ("[bold]", self.value)]),
            Table("second", ("n",), [(1234,)]),
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
        (1.5e-7, "1.500 × 10⁻⁷"),
        (-12345, "−12,345"),
        (np.int64(7), "7"),
        (np.float32(0.5), "0.5000"),
        (True, "yes"),
        ("fc", "fc"),
    ],
)
def test_cells_read_well(value, text):
    assert show(value) == text


def test_a_prompt_shows_the_plain_values_and_no_arrays():
    shown = repr(Result("one", 0.25, np.zeros(5000)))
    assert "0.2500" in shown and "one" in shown and "Nothing [red]to[/red] say." in shown
    assert "weight" not in shown and "\x1b" not in shown
    assert str(Result("one", 0.25, np.zeros(5000))) == shown


def test_in_a_notebook_the_plain_text_is_returned_and_not_shown(monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # it would display the text
    shown = []
    monkeypatch.setattr("rich.jupyter.display", lambda *parts: shown.append(parts))
    table = Table("Runs", ["name"], [["first"]])
    assert "first" in repr(table) and not shown


def test_a_terminal_shows_every_table():
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


ACCURACY = Table(
    "Accuracy & time",
    ["Run|s", Column("Accuracy", "%", "percent", interval=True), Column("Time", "min:sec", "time")],
    [
        ["frozen", Cell(0.91234567, 0.8, 0.95), 244],
        [Cell("scratch", detail="lite0"), Cell(float("nan"), float("nan"), None), None],
    ],
    ["Intervals resample subjects."],
)


def test_cells_hold_the_full_value_and_show_a_rounded_one():
    assert ACCURACY.rows[0][1].value == 0.91234567
    assert ACCURACY.texts() == [["frozen", "91.2 [80.0–95.0]", "4:04"], ["scratch lite0", "–", "–"]]
    assert ACCURACY.numeric == [False, True, True]


def test_markdown_escapes_and_states_notes():
    assert ACCURACY.to_markdown().splitlines() == [
        "| Run\\|s | Accuracy (%) [95% interval] | Time (min:sec) |",
        "| --- | --: | --: |",
        "| frozen | 91.2 [80.0–95.0] | 4:04 |",
        "| scratch lite0 | – | – |",
        "",
        "Intervals resample subjects.",
    ]


def test_tsv_has_full_values_and_ends_of_intervals():
    head, first, second = (line.split("\t") for line in ACCURACY.to_tsv().splitlines())
    accuracy = "Accuracy (%) [95% interval]"
    assert head == ["Run|s", accuracy, f"{accuracy} low", f"{accuracy} high", "Time (min:sec)"]
    assert first == ["frozen", "0.91234567", "0.8", "0.95", "244.0"]
    assert second == ["scratch", "n/a", "n/a", "n/a", "n/a"]


def test_latex_escapes_what_it_must():
    text = ACCURACY.to_latex()
    assert r"\caption{Accuracy \& time}" in text and r"\begin{tabular}{lrr}" in text
    assert r"frozen & 91.2 [80.0--95.0] & 4:04 \\" in text
    small = Table("p_1", ["x"], [[-1.5e-7], [float("inf")]]).to_latex()
    assert r"$-$1.500 $\times 10^{-7}$" in small and r"$\infty$" in small and r"p\_1" in small


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="'T': 1 cells for 2 columns"):
        Table("T", ["a", "b"], [[1]])


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_zero_and_what_is_undefined(form):
    assert show(0.0, form) and show(float("nan"), form) in {"undefined", "–", "p = undefined"}
    assert show("text", form) == "text"
