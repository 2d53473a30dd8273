"""Figures are written as files that matplotlib would write, in less time."""

from headscope.figures.style import apply_style
from headscope.supplement.export import save_figure
from tests.support.baselines import FIGURES


def test_panels_are_placed_once_as_matplotlib_places_them(tmp_path):
    """The picture is that of a plain `savefig`, to the last byte."""
    make = FIGURES["weights"]
    apply_style(make().savefig)(tmp_path / "plain.png", dpi=200, metadata={"Software": None})
    figure = make()
    engine, dpi = figure.get_layout_engine(), figure.get_dpi()
    save_figure(figure, tmp_path / "ours")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    assert (figure.get_layout_engine(), figure.get_dpi()) == (engine, dpi)
