"""A page is set from the one template beside this file; what it shows is escaped."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from headscope.reporting.answer import Answer
from headscope.reporting.blocks import Chapter, label_blocks
from headscope.reporting.plots import Sentence
from headscope.text import printable

HERE: Final = Path(__file__).parent
TURNING: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u(202[89a-e]|206[6-9])")
REFERENCE: Final = re.compile(r'(<a href="#((?:figure|table)-[\w-]+)">)(?=</a>)')


@dataclass(frozen=True)
class Page:
    """A page: what stands above its chapters, the chapters, and its last line.

    A report has an `answer` in place of title and lede, and the `data` of its script.
    """

    name: str
    kicker: str
    title: str
    lede: Sentence
    verdict: Sequence[Sentence]
    chapters: Sequence[Chapter]
    footer: str
    answer: Answer | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def render_page(page: Page) -> str:
    """Return the HTML of a page, its figures and tables numbered as they stand.

    Raises
    ------
    KeyError
        A sentence refers to a figure or table that is not on the page.
    """
    labels, references = label_blocks(page.chapters)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    html = _template().render(
        page=page,
        label=lambda block: labels.get(id(block)),
        # neither names nor code end the element that they stand in
        data=Markup(_as_json(page.data)),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=Markup("'sha256-{}'").format(digest),
    )
    # no name turns the direction of what is written after it
    return printable(REFERENCE.sub(lambda match: match[1] + references[match[2]], html))


@cache
def _template() -> jinja2.Template:
    """Return the page's template, compiled once a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _as_json(data: Mapping[str, Any]) -> str:
    """Return JSON that ends no element, and whose names are written as the page writes them."""
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    return TURNING.sub(r"\1\\\\u\2", text)
