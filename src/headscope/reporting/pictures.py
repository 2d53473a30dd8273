"""The page's figures: drawn from the record, saved as PNG and SVG, embedded in the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from headscope.analysis import LogitScatter, PairAnalysis
from headscope.analysis.representation.features import Ellipse
from headscope.figures import plot_history, plot_logits, plot_weights
from headscope.figures.style import apply_style
from headscope.files import atomic_path
from headscope.record import Run
from headscope.reporting.svg import data_uri, slim
from headscope.text import percent

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


def logits_picture(
    panels: Sequence[LogitScatter],
    stem: Path,
    ellipses: Sequence[Sequence[Ellipse] | None] | None = None,
) -> Picture:
    """Draw Fig. 2 of one network: one panel per run."""
    first, second = panels[0].class_names
    accuracies = "; ".join(
        f"{panel.title}, {percent(panel.slice_accuracy)}% of {len(panel.logits)} slices correct"
        for panel in panels
    )
    alt = (
        f"Scatter plots of the logits of {first} and {second}, one dot per test slice: "
        f"{accuracies}."
    )
    return draw(plot_logits(panels, ellipses), stem, alt)


def weights_picture(analysis: PairAnalysis, run: Run, stem: Path) -> Picture:
    """Draw Fig. 3 of one run and pair of classes."""
    first, second = analysis.class_names
    alt = (
        f"{run.setting.title}: weights to {first} against weights to {second}, one dot for each of "
        f"{analysis.feature_count} features; r {analysis.r:.4f}, null {analysis.r_null:.4f}."
    )
    initial = run.head.get("initial_weight")
    rows = None if initial is None else initial[list(analysis.pair)]
    figure = plot_weights(
        analysis, title=run.setting.title, network=run.setting.network, initial=rows
    )
    return draw(figure, stem, alt)


def history_picture(run: Run, stem: Path) -> Picture:
    """Draw the training curves of one run."""
    last = run.history.iloc[-1]
    alt = (
        f"{run.setting.title}: loss and slice accuracy over {len(run.history)} epochs, ending at "
        f"{percent(last['train_slice_accuracy'])}% in training and "
        f"{percent(last['val_slice_accuracy'])}% in validation."
    )
    figure = plot_history(run.history, title=run.setting.title, network=run.setting.network)
    return draw(figure, stem, alt)


def draw(figure: Figure, stem: Path, alt: str) -> Picture:
    """Save a figure and return it as the page embeds it."""
    svg = save_figure(figure, stem)
    # A picture by itself, not inline: the names inside two SVGs would clash in one page.
    source = data_uri(slim(svg.read_text(encoding="utf-8")))
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return Picture(source, alt, width, height)


def pair_suffix(pair: tuple[int, int], class_count: int) -> str:
    """Return what tells the pairs of classes apart in file names, where there are several."""
    return "" if class_count == 2 else f"-{pair[0]}-{pair[1]}"
