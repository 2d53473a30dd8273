"""A figure's SVG as the page embeds it: the same drawing in far fewer characters."""

import re
from typing import Final

from markupsafe import Markup

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
