"""Sentences whose numbers are known by where they are recorded, as text, Markdown and LaTeX.

Sentences are ordinary strings. A citation stands in them as [@key]; every number and name that
comes from the record goes through `Facts`, which lists it with file and key.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from headscope.tables import escape_latex
from headscope.text import show

CITATION = re.compile(r" ?\[@([\w@;, ]+)\]")
ENTRY = re.compile(r"^@\w+\{(\w+),.*?^\}$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fact:
    """What a sentence shows of the record: the text, the full value, and the file and key."""

    text: str
    value: object
    file: str
    key: str


@dataclass
class Facts:
    """The facts that sentences show, in the order in which they were asked for."""

    shown: list[Fact] = field(default_factory=list)

    def __call__(self, value: object, file: str, key: str, form: str = "count") -> str:
        """Return a value as text, in a format of `headscope.text` or "g", and list it."""
        text = f"{value:g}" if form == "g" else show(value, form)
        self.shown.append(Fact(text, value, file, key))
        return text

    def listed(
        self, values: Iterable[object], file: str, key: str, form: str = "count", last: str = "and"
    ) -> str:
        """Return several values of one key as a list in a sentence."""
        return listed([self(value, file, key, form) for value in values], last)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per fact."""
        rows = [(fact.text, str(fact.value), fact.file, fact.key) for fact in self.shown]
        return pd.DataFrame(rows, columns=["text", "value", "file", "key"])


@dataclass(frozen=True)
class Prose:
    """Titled paragraphs."""

    paragraphs: Sequence[tuple[str, str]]

    @property
    def cited(self) -> list[str]:
        """The keys of what is cited, once each, in order."""
        text = " ".join(paragraph for _, paragraph in self.paragraphs)
        return list(dict.fromkeys(key for match in CITATION.findall(text) for key in _keys(match)))

    def to_text(self) -> str:
        """Return plain text, citations as (Author year)."""
        return "\n\n".join(f"{title}. {_cite(text)}" for title, text in self.paragraphs) + "\n"

    def to_markdown(self) -> str:
        """Return Markdown, citations as pandoc reads them."""
        lines = [f"**{title}.** {escape_markdown(text)}" for title, text in self.paragraphs]
        return "\n\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """Return LaTeX for natbib or biblatex, one paragraph each."""
        lines = []
        for title, text in self.paragraphs:
            parts = CITATION.split(text)
            cites = [rf"~\cite{{{','.join(_keys(keys))}}}" for keys in parts[1::2]]
            plain = map(escape_latex, parts[::2])
            mixed = [piece for pair in zip(plain, [*cites, ""], strict=True) for piece in pair]
            lines.append(rf"\paragraph{{{escape_latex(title)}.}} {''.join(mixed)}")
        return "\n\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is; citations stay citations."""
    parts = re.split(r"(\[@[\w@;, ]+\])", text)
    return "".join(
        part if part.startswith("[@") else re.sub(r"([\\`*_<>#|\[\]])", r"\\\1", part)
        for part in parts
    )


def references(keys: Sequence[str]) -> str:
    """Return the BibTeX entries of what is cited.

    Raises
    ------
    KeyError
        There is no entry of a key.
    """
    return "\n\n".join(_entries()[key] for key in sorted(keys)) + "\n"


@cache
def _entries() -> dict[str, str]:
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    return {match[1]: match[0] for match in ENTRY.finditer(text)}


def _keys(match: str) -> list[str]:
    return [key.strip().removeprefix("@") for key in match.replace(";", ",").split(",")]


def _cite(text: str) -> str:
    return CITATION.sub(lambda match: f" ({'; '.join(map(_author, _keys(match[1])))})", text)


def _author(key: str) -> str:
    """Return who wrote an entry, and when: 'He et al. 2016'."""
    entry = _entries()[key]
    names = re.search(r"author = \{(.*)\},$", entry, re.MULTILINE)
    year = re.search(r"year = \{(\d+)\}", entry)
    surnames = [name.partition(",")[0] for name in names[1].split(" and ")] if names else [key]
    who = " and ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
    return f"{who} {year[1]}" if year else who


def listed(words: Sequence[str], last: str = "and") -> str:
    """Return words as a list in a sentence: 'a, b and c'."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
