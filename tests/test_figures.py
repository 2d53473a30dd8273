"""Figures show what their results hold, in the house style, and leave the world as it was."""

import inspect
import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from headscope import figures
from headscope.analysis import analyse_pair, logit_scatter, pair_analysis
from headscope.figures import plot_history, plot_logits, plot_weights
from headscope.figures.style import MM, PAGE
from tests.support.synthetic import write_synthetic_run
from tests.test_figure_contents import marks_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_synthetic_run(tmp_path_factory.mktemp("experiment"), width=64)


def texts(figure):
    figure.draw_without_rendering()
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def points(ax):
    return [collection.get_offsets().data for collection in ax.collections]


@pytest.mark.parametrize("name", [name for name in figures.__all__ if name.startswith("plot_")])
def test_each_parameter_of_a_public_figure_is_described(name):
    plot = getattr(figures, name)
    described = inspect.getdoc(plot).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    heads = [line for line in described.splitlines() if not line.startswith(" ")]
    assert sorted(", ".join(heads).split(", ")) == sorted(inspect.signature(plot).parameters)


def test_logits_show_each_slice_by_class_and_errors_hollow(run):
    panel = logit_scatter(run)
    figure = plot_logits(panel)
    (ax,) = figure.axes
    for k in range(2):
        for hollow in (False, True):
            drawn = marks_of(ax, k, hollow)
            expected = panel.logits[(panel.label == k) & (panel.correct != hollow)]
            np.testing.assert_array_equal(sorted(drawn.tolist()), sorted(expected.tolist()))
    assert ax.get_xlim() == ax.get_ylim()
    shown = texts(figure)
    assert "Logit of NC" in shown and "Logit of AD" in shown
    assert f"{100 * panel.slice_accuracy:.1f}% of {len(panel.logits)} slices correct" in shown
    assert "frozen, subject split" in shown
    assert figure.get_size_inches()[0] == pytest.approx(85 * MM)


def test_classes_differ_by_marker_and_colour(run):
    parts = plot_logits(logit_scatter(run)).axes[0].collections
    filled = [
        part for part in sorted(parts, key=lambda part: part.zorder) if part.get_facecolor().size
    ]
    classes = [
        (len(part.get_paths()[0]), tuple(part.get_facecolor()[0].tolist())) for part in filled
    ]
    assert len(set(classes)) == 2
    assert len({size for size, _ in set(classes)}) == 2
    # neither class covers the other: they are drawn in turn
    assert classes.index(classes[-1]) < 4 and len(classes) > 8


def test_panels_share_their_axes(run):
    panels = [logit_scatter(run), logit_scatter(run, subset="train"), logit_scatter(run)]
    figure = plot_logits(panels)
    assert {ax.get_xlim() for ax in figure.axes[:3]} == {figure.axes[0].get_ylim()}
    assert [ax.get_title(loc="left")[:3] for ax in figure.axes[:3]] == ["(a)", "(b)", "(c)"]
    assert not figure.axes[3].axison
    assert figure.get_size_inches()[0] == pytest.approx(PAGE)


def test_logits_of_no_slices_still_draw(run):
    assert "no nowhere slices" in texts(plot_logits(logit_scatter(run, subset="nowhere")))


def test_weights_show_every_feature_equation_and_null(run):
    result = analyse_pair(run)
    figure = plot_weights(result, title="a run")
    (ax,) = figure.axes
    np.testing.assert_array_equal(points(ax)[0], np.stack([result.x, result.y], axis=1))
    shown = texts(figure)
    assert f"r = {result.r:.4f}".replace("-", "−") in shown
    assert f"null prediction {result.r_null:.4f}".replace("-", "−") in shown
    assert "D = 64" in shown
    for name in ("Linear", "Quadratic", "Cubic", "4th degree", "where z = (x"):
        assert name in shown
    curves = {line.get_label().partition(":")[0]: line for line in ax.lines}
    for fit, name in zip(result.fits, ("Linear", "Quadratic"), strict=False):
        x, y = curves[name].get_data()
        np.testing.assert_allclose(y, fit(x), rtol=1e-12)


def test_weights_without_fits_say_undefined():
    result = pair_analysis([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    assert "r = undefined" in texts(plot_weights(result))


def test_history_shows_both_subsets(run):
    figure = plot_history(run.history, title="a run", network="net, seed 0")
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), run.history["train_loss"])
    shown = 100 * run.history["val_slice_accuracy"]
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), shown)
    assert accuracy.get_ylabel() == "Slice accuracy (%)"
    assert accuracy.get_ylim()[0] < shown.min()


@pytest.mark.parametrize(
    "plot",
    [
        lambda run, ax: plot_logits(logit_scatter(run), ax=ax[0]),
        lambda run, ax: plot_weights(analyse_pair(run), ax=ax[0]),
        lambda run, ax: plot_history(run.history, ax=ax),
    ],
)
def test_given_axes_are_drawn_on(run, plot):
    figure = Figure()
    assert plot(run, figure.subplots(2)) is figure


@pytest.mark.parametrize(
    "draw",
    [
        lambda run: plot_logits(logit_scatter(run)),
        lambda run: plot_logits([logit_scatter(run)] * 3),
        lambda run: plot_weights(analyse_pair(run), title="a title", network="resnet101"),
        lambda run: plot_history(run.history, title="a title", network="resnet101, seed 0"),
    ],
)
def test_nothing_is_cut_off_at_the_edge(run, draw):
    buffer = io.BytesIO()
    draw(run).savefig(buffer, dpi=200, format="raw")
    figure = draw(run)
    width, height = (int(200 * inches) for inches in figure.get_size_inches())
    pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]
    inner = pixels[2:-2, 2:-2]
    assert (inner < 128).any()
    edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
    assert all((edge == 255).all() for edge in edges)


def test_names_with_dollars_and_backslashes_are_no_mathematics(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, class_names=(r"$\frac$", "a$b"))
    figures = (plot_logits(logit_scatter(run)), plot_weights(analyse_pair(run)))
    for figure in figures:
        figure.draw_without_rendering()


def test_nothing_global_is_touched(run):
    before = dict(mpl.rcParams)
    plot_weights(analyse_pair(run))
    assert dict(mpl.rcParams) == before


def test_the_callers_own_style_does_not_leak_in(run):
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        figure = plot_history(run.history)
    assert figure.axes[0].get_facecolor() == (1, 1, 1, 1)
    assert figure.axes[0].xaxis.label.get_fontsize() < 10
