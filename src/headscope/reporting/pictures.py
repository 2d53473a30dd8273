"""Figures as files (PNG and SVG), and as the page embeds them."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure

from headscope.figures.style import apply_style
from headscope.files import atomic_path
from headscope.reporting.svg import data_uri, slim

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
