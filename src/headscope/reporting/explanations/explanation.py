"""What one other explanation of an accuracy adds to a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from headscope.reporting.blocks import Chapter
from headscope.reporting.plots import Sentence


@dataclass(frozen=True, eq=False)
class Explanation:
    """The words and the chapter of one explanation; what it has nothing to say to is empty.

    headline follows the page's first sentence, below the line under it; flags are what to know
    before believing it, sentences parts of the verdict, notes for the terminal.
    """

    headline: Sentence = ""
    below: Sequence[Sentence] = ()
    flags: Sequence[Sentence] = ()
    sentences: Sequence[Sentence] = ()
    chapter: Chapter | None = None
    notes: Sequence[str] = ()
