"""Figures as files for print: PDF, SVG and PNG at the widths of a column and of a page."""

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from headscope.figures.style import COLUMN, PAGE, apply_style
from headscope.files import atomic_path

WIDTHS: Final = {"85mm": COLUMN, "174mm": PAGE}
# Text stays text: TrueType in PDF, which journals ask for, and letters instead of outlines in SVG.
FONTS: Final[Any] = {"pdf.fonttype": 42, "svg.fonttype": "none"}
METADATA: Final[dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
SCREEN_DPI: Final = 200
DPI: Final = 600  # of PNG, and of dense dots within PDF and SVG


def export(draw: Callable[[float], Figure], stem: Path) -> list[Path]:
    """Write `stem`-85mm and `stem`-174mm as PDF, SVG and PNG; the same figure, the same bytes.

    draw takes a width in inches. A figure of another width is brought to it, its letters unchanged.
    """
    paths = []
    for name, width in WIDTHS.items():
        paths += save(fit(draw(width), width), stem.with_name(f"{stem.name}-{name}"))
    return paths


def fit(figure: Figure, width: float) -> Figure:
    """Bring a figure to a width; it keeps its height and the size of its letters."""
    figure.set_size_inches(width, figure.get_figheight())
    return figure


@apply_style
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write one figure as PDF, SVG and PNG."""
    with mpl.rc_context(FONTS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a sign that the font lacks is drawn as a box
        return _save(figure, stem, METADATA, DPI)


def _save(figure: Figure, stem: Path, suffixes: Iterable[str], dpi: float) -> list[Path]:
    engine, paths = figure.get_layout_engine(), []
    if engine is not None:  # panels are placed once, not by a drawing of all for each format
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine(None)
    for suffix in suffixes:
        paths.append(stem.with_name(f"{stem.name}.{suffix}"))
        with atomic_path(paths[-1]) as temporary:
            figure.savefig(temporary, format=suffix, dpi=dpi, metadata=METADATA[suffix])
    return paths


@apply_style
def save_figure(figure: Figure, stem: Path) -> Path:
    """Write `stem`.png (200 dpi) and `stem`.svg; return the latter. Equal figures, equal bytes."""
    engine, dpi = figure.get_layout_engine(), figure.get_dpi()
    *_, path = _save(figure, stem, ("png", "svg"), SCREEN_DPI)
    figure.set_dpi(dpi)
    figure.set_layout_engine(engine)
    return path
