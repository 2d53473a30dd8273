"""Figures of the leakage analysis: what is drawn, where, and that nothing is cut off."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from headscope.analysis.leakage.dose_response import SHARES
from headscope.figures.leakage import plot_dose, plot_gap, plot_identity, plot_permutations
from headscope.figures.style import COLUMN
from tests.support.leakage_results import NAN, dose, gap, identity, permutation_tests

ALL = {
    "permutations": lambda: plot_permutations(permutation_tests(), "Permuted labels"),
    "permutations by subject alone": lambda: plot_permutations(permutation_tests()[:2], "One"),
    "dose": lambda: plot_dose(dose(), "Dose"),
    "dose without the paper's split": lambda: plot_dose(dose(NAN), "Dose"),
    "gap": lambda: plot_gap([gap(), gap("finetune", NAN)], "Leak gap"),
    "identity": lambda: plot_identity([identity(), identity(seed=1), identity("scratch")], "Who"),
}


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_cut_off_at_the_width_of_a_column(name):
    figure = ALL[name]()
    assert figure.get_size_inches()[0] == COLUMN
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
    assert box.x0 >= -1
    assert box.y0 >= -1
    assert box.x1 <= width + 1
    assert box.y1 <= height + 1


def test_bars_hold_all_permutations_and_triangles_what_was_observed():
    (axes,) = plot_permutations(permutation_tests()).axes
    heights = np.array([bar.get_height() for bar in axes.patches])
    assert heights[heights > 0].sum() == pytest.approx(100)
    assert heights[heights < 0].sum() == pytest.approx(-100)
    marks = [part for part in axes.collections if isinstance(part, PathCollection)]
    places = np.concatenate([part.get_offsets()[:, 0] for part in marks])
    np.testing.assert_allclose(np.sort(places), [60, 60, 90, 90])


def test_the_curve_is_the_mean_of_the_draws():
    (axes,) = plot_dose(dose()).axes
    curve, paper = axes.lines
    np.testing.assert_allclose(curve.get_xdata(), 100 * np.array(SHARES))
    np.testing.assert_allclose(curve.get_ydata(), 61 + 3 * np.arange(11))
    assert set(paper.get_ydata()) == {90}


def test_the_gap_is_written_with_its_interval_where_it_has_one():
    (axes,) = plot_gap([gap(), gap("finetune", NAN)]).axes
    notes = [text.get_text() for text in axes.texts]
    assert "slices +27.5 (+10.0 to +40.0)" in notes
    assert "slices +27.5" in notes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["frozen", "finetune"]


def test_identity_shows_the_mean_over_the_runs_of_each_regime():
    (axes,) = plot_identity([identity(known=0.8), identity(seed=1, known=1.0)]).axes
    points = [part.get_offsets() for part in axes.collections]
    assert any(len(part) == 1 and part[0][0] == pytest.approx(90) for part in points)
