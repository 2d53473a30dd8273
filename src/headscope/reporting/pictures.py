"""Figures as files (PNG and SVG), and as the page embeds them: slim, as a data URI."""

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from markupsafe import Markup
from matplotlib.figure import Figure

from headscope.figures.style import apply_style
from headscope.files import atomic_path

DECIMALS: Final = 2  # of points: a seventieth of a pixel in the page, and sharp ten times enlarged
# What a viewer does not need: prologue, comments, who drew it.
NEEDLESS: Final = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", re.S
)
COORDINATES: Final = re.compile(r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*|(?<=translate\()[^)]*')
LONG: Final = re.compile(rf"-?\d+\.\d{{{DECIMALS + 1},}}")
LETTER: Final = re.compile(r"\s*([A-Za-z])\s*")
MOVED: Final = re.compile(r'(<use [^>]*)transform="translate\((\S+) (\S+)\)"')
ESCAPES: Final = str.maketrans(
    {"%": "%25", "#": "%23", "&": "%26", ">": "%3E", "'": "%27", '"': "'"}
)


def slim(svg: str) -> str:
    """Return an SVG of matplotlib's without what no viewer needs; coordinates to 0.01 points."""
    svg = NEEDLESS.sub("", svg)
    svg = COORDINATES.sub(lambda match: _shorten(match[0]), svg)
    svg = re.sub(r'(?<= style=")[^"]*', lambda match: re.sub(r"([:;,]) ", r"\1", match[0]), svg)
    svg = MOVED.sub(r'\1x="\2" y="\3"', svg).replace(' y="0"/>', "/>")
    return re.sub(r">\s+<", "><", _shorten_names(svg)).strip()


def data_uri(svg: str) -> Markup:
    """Return an SVG as a data URI, a quarter shorter than in base64, ready for an attribute."""
    # Escaped: what would end an attribute or a tag, or begin an entity or a fragment; and "://",
    # since names of XML dialects look like addresses to whoever searches the page for them.
    text = svg.translate(ESCAPES).replace("://", "%3A//")
    return Markup("data:image/svg+xml," + text)  # noqa: S704


def _shorten(coordinates: str) -> str:
    """Round numbers, and drop the blanks around a path's letters."""
    rounded = LONG.sub(lambda match: _round(match[0]), coordinates)
    return LETTER.sub(r"\1", rounded) if rounded[:1] == "M" else rounded


def _round(number: str) -> str:
    text = f"{float(number):.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _shorten_names(svg: str) -> str:
    """Number the names that something refers to, and drop the others."""
    used = dict.fromkeys(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    short = {name: f"n{k}" for k, name in enumerate(used)}
    svg = re.sub(r' id="([^"]*)"', lambda match: _shorten_id(short, match[1]), svg)
    return re.sub(r'((?:href="|url\()#)([^")]+)', lambda match: match[1] + short[match[2]], svg)


def _shorten_id(short: dict[str, str], name: str) -> str:
    return f' id="{short[name]}"' if name in short else ""


DPI = 200


@dataclass(frozen=True)
class Picture:
    """A figure in the page: data URI, text in its place, and size in pixels."""

    source: str
    alt: str
    width: int
    height: int


@apply_style
def save_figure(figure: Figure, stem: Path) -> Path:
    """Write `stem`.png (200 dpi) and `stem`.svg; return the latter. Equal figures, equal bytes."""
    # Panels are placed once: matplotlib would place them, by a drawing of all, for each format.
    engine, dpi = figure.get_layout_engine(), figure.get_dpi()
    if engine is not None:
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine(None)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        with atomic_path(stem.with_name(stem.name + suffix)) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=metadata)
    figure.set_dpi(dpi)
    figure.set_layout_engine(engine)
    return stem.with_name(f"{stem.name}.svg")


@apply_style
def render_svg(figure: Figure) -> str:
    """Return a figure as SVG; equal figures, equal text."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def draw(figure: Figure, alt: str) -> Picture:
    """Draw a figure as the page embeds it."""
    # A picture by itself, not inline: the names inside two SVGs would clash in one page.
    source = data_uri(slim(render_svg(figure)))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(source, alt, width, height)
