"""A page is set from the one template beside this file; what it shows is escaped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2

from headscope.reporting.answer import Answer
from headscope.reporting.blocks import Chapter, Sentence, label_blocks

HERE: Final = Path(__file__).parent
REFERENCE: Final = re.compile(r'(<a href="#((?:figure|table)-[\w-]+)">)(?=</a>)')


@dataclass(frozen=True)
class Page:
    """A page: what stands above its chapters, the chapters, and its last line.

    A report has an `answer` in place of title, lede and verdict.
    """

    name: str
    kicker: str
    title: str
    lede: Sentence
    verdict: Sequence[Sentence]
    chapters: Sequence[Chapter]
    footer: str
    banner: Sentence = ""
    answer: Answer | None = None


def render_page(page: Page) -> str:
    """Return the HTML of a page, its figures and tables numbered as they stand.

    Raises
    ------
    KeyError
        A sentence refers to a figure or table that is not on the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    labels, references = label_blocks(page.chapters)
    template = environment.get_template("page.html.j2")
    html = template.render(page=page, label=lambda block: labels.get(id(block)))
    return REFERENCE.sub(lambda match: match[1] + references[match[2]], html)
