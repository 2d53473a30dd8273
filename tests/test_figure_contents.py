"""What stands in each figure is what its arrays hold, and what holds nothing says so."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from headscope import figures
from headscope.analysis import head_analysis
from headscope.analysis.representation.features import Ellipse, feature_analysis
from headscope.analysis.representation.stages import StageTransfer, TransferAnalysis
from headscope.analysis.results.table import LogitScatter
from headscope.errors import InputError
from headscope.figures.logits import CROWD, _gather
from headscope.figures.style import COLOURS
from tests.support.baselines import (
    NAMES,
    ball,
    blobs,
    collapsed,
    flattened,
    heads,
    scatter,
    stages,
)


def texts(figure):
    figure.draw_without_rendering()
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def marks_of(ax, k, hollow):
    """Return the places (m, 2) of the marks of a class, of slices misclassified or not."""
    colour = mpl.colors.to_rgb(COLOURS[k])
    parts = []
    for part in ax.collections:
        face, edge = part.get_facecolor(), part.get_edgecolor()
        if (hollow and not face.size and tuple(edge[0][:3]) == colour) or (
            not hollow and face.size and tuple(face[0][:3]) == colour
        ):
            parts.append(part.get_offsets().data)
    return np.concatenate(parts) if parts else np.zeros((0, 2))


def nothing_in(figure):
    return "nothing to show" in texts(figure).replace("\n", " ")


def test_flattening_shows_slice_contributions_and_strongest_channels():
    maps, contribution = np.maximum(blobs((40, 7, 5), 1), 0), blobs((2, 7, 5), 2)
    figure = figures.plot_flattening(ball(), maps, contribution, NAMES, 1)
    first, second, third = figure.axes[:3]
    np.testing.assert_array_equal(first.images[0].get_array(), ball())
    np.testing.assert_array_equal(second.images[0].get_array(), ball())
    np.testing.assert_array_equal(second.images[1].get_array(), contribution[1])
    low, high = second.images[1].get_clim()
    assert low == -high == -np.abs(contribution[1]).max()
    hatched = second.collections[0]
    assert len(hatched.get_paths()) == (contribution[1] < 0).sum() and hatched.get_hatch()
    strongest = sorted(range(40), key=lambda c: -maps[c].mean())[:12]
    assert [text.get_text() for text in third.texts[:12]] == [str(c) for c in strongest]
    for image, channel in zip(third.images, strongest, strict=True):
        np.testing.assert_array_equal(image.get_array(), maps[channel])
    shown = texts(figure)
    assert "logit of AD, predicted" in shown and "Contribution (logit)" in shown
    assert "of 40 with 5 × 7 positions" in shown


def test_flattening_takes_one_map_and_chosen_channels():
    maps = blobs((6, 3, 3), 1)
    figure = figures.plot_flattening(ball(), maps, maps[0], NAMES, 0, channels=[4, 2])
    np.testing.assert_array_equal(figure.axes[1].images[1].get_array(), maps[0])
    both = figures.plot_flattening(ball(), maps, maps[:2], NAMES, 0, against=1)
    np.testing.assert_array_equal(both.axes[1].images[1].get_array(), maps[0] - maps[1])
    assert "logit of NC less AD's" in texts(both)
    assert [text.get_text() for text in figure.axes[2].texts[:2]] == ["4", "2"]


@pytest.mark.parametrize(
    ("plane", "sides"), [("axial", "LR"), ("coronal", "LR"), ("sagittal", "PA"), (None, "")]
)
def test_flattening_marks_the_sides_of_a_slice_of_a_scan(plane, sides):
    maps = blobs((6, 3, 3), 1)
    figure = figures.plot_flattening(ball(), maps, maps[0], NAMES, 0, plane=plane)
    for ax in figure.axes[:2]:
        marks = [text for text in ax.texts if text.get_text() in ("L", "R", "P", "A")]
        assert "".join(text.get_text() for text in marks) == sides
        places = [text.get_position()[0] for text in marks]
        assert places == sorted(places)


def test_numbers_of_a_confusion_matrix_stand_out_from_every_shade():
    shares = [[100 - n, n] for n in range(0, 101, 5)]
    for first, second in zip(shares, shares[::-1], strict=True):
        ax = figures.plot_confusion([first, second], None, NAMES).axes[0]
        image = ax.images[0]
        shades = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3)
        for text, shade in zip(ax.texts, shades, strict=False):
            light, dark = sorted((luminance(text.get_color()), luminance(shade)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour):
    """Return the relative luminance of the web's accessibility guidelines (WCAG 2.2)."""
    parts = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize(
    ("picture", "maps", "contribution"),
    [
        (ball(), np.zeros((3, 4, 4)), None),
        (ball(), np.zeros((0, 4, 4)), np.ones((4, 4))),
        (np.zeros((0, 0), np.uint8), np.zeros((3, 4, 4)), np.zeros((4, 4))),
        (ball(), np.zeros((3, 4, 4)), np.full((4, 4), np.nan)),
    ],
    ids=["no contributions", "no channels", "no slice", "not finite"],
)
def test_flattening_says_what_it_cannot_show(picture, maps, contribution):
    assert nothing_in(figures.plot_flattening(picture, maps, contribution, NAMES, 0))


def test_flattening_of_a_network_that_sees_nothing_draws():
    figure = figures.plot_flattening(
        np.zeros((9, 9), np.uint8), np.zeros((2, 1, 1)), np.zeros((1, 1)), NAMES, 0
    )
    assert not nothing_in(figure)


@pytest.mark.parametrize(
    ("shape", "contribution", "predicted"),
    [((4, 4), (4, 4), 0), ((3, 4, 4), (2, 5, 5), 0), ((3, 4, 4), (2, 4, 4), 2)],
)
def test_flattening_refuses_shapes_that_do_not_agree(shape, contribution, predicted):
    with pytest.raises(InputError, match="shape"):
        figures.plot_flattening(
            ball(), np.zeros(shape), np.zeros(contribution), ("A", "B", "C"), predicted
        )


def test_ellipses_hold_95_per_cent_of_a_normal_distribution():
    panel = scatter(200, 1.0, "frozen", 0)
    ids = np.arange(200) // 10
    found = feature_analysis(
        panel.logits, panel.logits, panel.label, ids.astype(str), class_names=NAMES
    )
    ax = figures.plot_logits(panel, [found.ellipses]).axes[0]
    outlines = [line for line in ax.lines if len(line.get_xdata()) > 50]
    assert len(outlines) == 2
    for k, line in enumerate(outlines):
        mine = panel.logits[panel.label == k]
        away = line.get_xydata() - mine.mean(axis=0)  # (points, 2)
        distance = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(mine.T)), away)
        np.testing.assert_allclose(distance, stats.chi2.ppf(0.95, 2), rtol=1e-9)
    assert outlines[0].get_linestyle() != outlines[1].get_linestyle()


def test_ellipses_that_are_not_known_are_left_out():
    panel = scatter(40, 1.0, "frozen", 0)
    nan = float("nan")
    lone = Ellipse("NC", 1, (1.0, 2.0), nan, nan, nan)
    absent = Ellipse("AD", 0, (nan, nan), nan, nan, nan)
    figure = figures.plot_logits([panel, panel], [[lone, absent], None])
    assert np.isfinite(figure.axes[0].get_xlim()).all()
    means = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert [line.get_xydata().tolist() for line in means] == [[[1.0, 2.0]]]
    with pytest.raises(InputError, match="1 sets of ellipses were given for 2 panels"):
        figures.plot_logits([panel, panel], [None])


def test_no_runs_and_no_slices_still_draw():
    assert nothing_in(figures.plot_logits([]))
    none = LogitScatter("t", "n", NAMES, (0, 1), 2, "test", np.zeros((0, 2)),
                        np.zeros(0, int), np.zeros(0, bool))  # fmt: skip
    assert "no test slices" in texts(figures.plot_logits(none))


def test_crowds_are_gather_whole_and_their_errors_stay_visible():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (500, 2))
    limits = (float(points.min()) - 1, float(points.max()) + 1)
    centres, count = _gather(points, limits)
    assert count.sum() == 500
    half = (limits[1] - limits[0]) / 44 / 2
    for centre, held in zip(centres, count, strict=True):
        assert (np.abs(points - centre).max(axis=1) <= half).sum() == held

    panel = scatter(CROWD + 2, 2.0, "frozen", 7)
    (ax,) = figures.plot_logits(panel).axes
    for k in range(2):
        correct, wrong = marks_of(ax, k, hollow=False), marks_of(ax, k, hollow=True)
        assert 10 < len(correct) < 1000 and len(wrong) > 0
        assert len(np.unique(correct, axis=0)) == len(correct)


def test_rows_stand_on_their_sides_before_and_after_training():
    head = heads()["frozen"]
    result = head.pairs[0]
    ax = figures.plot_weights(result, initial=head.initial_weight).axes[0]
    edge = ax.get_xlim()[1]
    bins = np.linspace(-edge, edge, 49)
    above, beside = ax.child_axes
    for axes, axis, row, before in (
        (above, 1, result.x, head.initial_weight[0]),
        (beside, 0, result.y, head.initial_weight[1]),
    ):
        for patch, values in zip(axes.patches, (row, before), strict=True):
            assert patch.get_xy()[:, axis].max() == np.histogram(values, bins)[0].max()
    with pytest.raises(InputError, match=r"\(2, 300\) is needed"):
        figures.plot_weights(result, initial=np.zeros((2, 5)))


def test_one_panel_a_network():
    known = heads()
    figure = figures.plot_weight_panels(known)
    panels = [ax for ax in figure.axes if ax.collections]
    assert len(panels) == len(known) == 3
    for ax, head, letter in zip(panels, known.values(), "abc", strict=True):
        np.testing.assert_array_equal(ax.collections[0].get_offsets(), head.weight.T)
        assert f"({letter}) " in ax.child_axes[0].get_title(loc="left")
    shown = texts(figure)
    assert shown.count("4th degree") == 3
    for head in known.values():
        assert f"r = {head.pairs[0].r:.4f}".replace("-", "−") in shown


def test_panels_without_initial_heads_without_networks_or_of_unknown_pairs():
    head = head_analysis(heads()["frozen"].weight)
    assert "before training" not in texts(figures.plot_weight_panels({"vgg19": head}))
    assert nothing_in(figures.plot_weight_panels({}))
    with pytest.raises(
        InputError, match=r"The head of vgg19 holds no analysis of the pair \(0, 2\)"
    ):
        figures.plot_weight_panels({"vgg19": head}, (0, 2))


def test_row_distributions_are_those_of_the_weights():
    known = heads()
    (ax,) = figures.plot_row_distributions(known).axes
    edge = ax.get_xlim()[1]
    bins = np.linspace(-edge, edge, 61)
    rows = [
        values
        for head in known.values()
        for k in range(2)
        for values in (head.weight[k], head.initial_weight[k])
    ]
    assert len(ax.patches) == len(rows) == 12
    for patch, values in zip(ax.patches, rows, strict=True):
        heights = patch.get_data()[0]
        drawn = heights - heights.min()
        counts = np.histogram(values, bins)[0]
        np.testing.assert_allclose(drawn / drawn.max(), counts / counts.max(), atol=1e-12)


def test_row_distributions_of_many_classes_of_foreign_heads_and_of_none():
    wide = head_analysis(np.random.default_rng(0).normal(size=(1000, 12)))
    (ax,) = figures.plot_row_distributions({"imagenet": wide}).axes
    assert len(ax.patches) == 10
    assert "before training" not in texts(ax.figure)
    assert "the first 10 of 1,000 classes" in texts(ax.figure)
    assert nothing_in(figures.plot_row_distributions({}))
    zero = head_analysis(np.zeros((2, 5)))
    assert not nothing_in(figures.plot_row_distributions({"zero": zero}))


@pytest.mark.parametrize("count", [2, 6, 7, 14])
def test_no_two_rows_of_a_head_look_alike_unless_each_has_its_name_beside_it(count):
    names = [*"abcdefghijklm", "a name that would take half of the column"][-count:]
    head = head_analysis(np.random.default_rng(0).normal(size=(count, 40)), class_names=names)
    (ax,) = figures.plot_row_distributions({"one": head}).axes
    beside = [text for text in ax.texts if text.xy[0] == 1]
    looks = {(patch.get_facecolor(), patch.get_hatch()) for patch in ax.patches}
    if count <= 6:
        assert len(looks) == count and not beside
        return
    shown = names[:10]
    assert len(looks) == 1
    assert [text.get_text()[:20] for text in beside] == [name[:20] for name in shown]
    for text, patch in zip(beside, ax.patches, strict=True):
        values, _, base = patch.get_data()
        assert base < text.xy[1] < values.max()


def test_each_features_way_is_drawn():
    head = heads()["finetune"]
    (ax,) = figures.plot_head_before_after(head).axes
    ways = np.array(ax.collections[0].get_segments())  # (D, 2, 2)
    np.testing.assert_array_equal(ways[:, 0], head.initial_weight.T)
    np.testing.assert_array_equal(ways[:, 1], head.weight.T)
    np.testing.assert_array_equal(ax.collections[1].get_offsets(), head.weight.T)
    np.testing.assert_array_equal(ax.collections[2].get_offsets(), head.initial_weight.T)


def test_a_head_of_unknown_origin_has_no_way():
    assert nothing_in(figures.plot_head_before_after(head_analysis([[1.0, 2.0], [3.0, 4.0]])))


def test_collapse_stands_at_its_values_logarithmic_over_decades():
    results = {
        "frozen": [collapsed("train", 100.0, 0.2), collapsed("test", 300.0, 0.25)],
        "scratch": [collapsed("train", 0.01, 0.0), collapsed("test", 2.0, float("nan"))],
    }
    panels = figures.plot_collapse(results).axes
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == ["NC1", "NC2, norms", "NC2, angles", "NC2, weights", "NC3", "NC4"]
    first, third, last = panels[0], panels[4], panels[5]
    assert first.get_xscale() == "log" and third.get_xscale() == "linear"
    assert [line.get_xydata().tolist() for line in first.lines[:2]] == [
        [[100.0, 0.0], [0.01, 1.0]],
        [[300.0, 0.0], [2.0, 1.0]],
    ]
    drawn = [line.get_xydata().tolist() for line in third.lines[:2]]
    assert drawn == [[[0.4, 0.0], [0.0, 1.0]], [[0.5, 0.0]]]
    assert third.get_xlim()[0] < 0 and last.get_xlim()[1] > 1
    assert last.lines[-1].get_xdata()[0] == 1
    assert first.lines[0].get_marker() != first.lines[1].get_marker()


def test_what_two_classes_cannot_tell_of_collapse_has_no_panel():
    figure = figures.plot_collapse({"frozen": [collapsed("train", 1.0, 0.1, classes=2)]})
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert titles == ["NC1", "NC2, weights", "NC3", "NC4"]


def test_a_subset_without_a_measure_leaves_the_panel_its_place(tmp_path):
    known = [
        collapsed("train", 1.0, 0.1, classes=2),
        collapsed("test", float("nan"), 0.1, classes=2),
    ]
    figure = figures.plot_collapse({"frozen": known})
    figure.savefig(tmp_path / "collapse.png")  # a layout that does not hold warns, which raises
    assert len(figure.axes[0].lines[0].get_xdata()) == 1


def test_no_collapse_is_nothing_to_show():
    assert nothing_in(figures.plot_collapse({}))
    assert nothing_in(figures.plot_collapse({"a": []}))
    assert nothing_in(figures.plot_collapse({"a": [collapsed("test", float("inf"), float("nan"))]}))


def test_transfer_draws_a_line_a_run_and_a_panel_a_quantity():
    results = {"frozen": stages(0.0), "scratch": stages(0.2)}
    cka, change, accuracy, subject = figures.plot_transfer(results).axes
    for k, known in enumerate(results.values()):
        for ax, name, scale in (
            (cka, "cka", 1),
            (change, "weight_change", 1),
            (accuracy, "knn_accuracy", 100),
            (subject, "same_subject", 100),
        ):
            expected = [scale * getattr(stage, name) for stage in known.stages]
            np.testing.assert_allclose(ax.lines[k].get_ydata(), expected)
    assert accuracy.lines[2].get_ydata()[0] == 50.0
    assert [tick.get_text() for tick in subject.get_xticklabels()] == [
        f"layer{k}" for k in range(5)
    ]


def test_transfer_leaves_out_what_is_not_known():
    nan = float("nan")
    lone = TransferAnalysis(
        "", "", 9, 0, nan, (StageTransfer("a", 1, nan, nan, nan, nan, 0.5),), ()
    )
    (ax,) = figures.plot_transfer({"scratch": lone}).axes
    assert ax.get_ylabel().startswith("Nearest slice")
    assert nothing_in(figures.plot_transfer({}))
    apart = {"by subject": stages(0.1, 0.5), "by slice": stages(0.1, 0.6)}
    assert len(figures.plot_transfer(apart).axes[2].lines) == 2


def test_shuffle_spans_its_repeats():
    ax, beside = figures.plot_shuffle({"frozen": flattened(0.9, 0.1)}, chance=0.5).axes
    spans = [np.atleast_1d(line.get_xdata()) for line in ax.lines]
    np.testing.assert_allclose(
        np.concatenate(spans), [90, 90, 90, 76, 84, 80, 66, 74, 70, 76, 84, 80, 50, 50]
    )
    changes = [line.get_xdata()[0] for line in beside.lines]
    np.testing.assert_allclose(changes, [0.3, 0.6, np.sqrt(2)])
    assert nothing_in(figures.plot_shuffle({}))


def test_confusion_counts_and_shares():
    by_slice, by_subject = figures.plot_confusion([[3, 1], [0, 0]], None, NAMES).axes
    cells = [text.get_text() for text in by_slice.texts[:4]]
    assert cells == ["3\n75%", "1\n25%", "0\nnone", "0\nnone"]
    assert nothing_in(by_subject.figure)
    many = figures.plot_confusion(np.eye(30), np.zeros((30, 30)), [str(k) for k in range(30)])
    np.testing.assert_array_equal(many.axes[0].images[0].get_array(), np.eye(30))
    assert nothing_in(many)
    square = np.diag([12] * 14)
    numbered = figures.plot_confusion(square, square, [str(k) for k in range(14)]).axes[0]
    assert [text.get_text() for text in numbered.texts if text.get_text().isdigit()] == ["12"] * 14
    crowd = figures.plot_confusion(np.eye(90), None, [str(k) for k in range(90)]).axes[0]
    assert [text.get_text() for text in crowd.get_xticklabels()][:3] == ["0", "4", "8"]
    with pytest.raises(InputError, match=r"by subject have shape \(3, 3\)"):
        figures.plot_confusion([[1, 0], [0, 1]], np.eye(3), NAMES)


def test_a_run_without_epochs_has_no_curves():
    columns = ["epoch", "train_loss", "val_loss", "train_slice_accuracy", "val_slice_accuracy"]
    assert nothing_in(figures.plot_history(pd.DataFrame({name: [] for name in columns})))


def test_given_axes_are_drawn_on():
    figure = Figure()
    axes = figure.subplots(3, 4).ravel()
    known = heads()
    square = np.eye(2)
    drawn = [
        figures.plot_flattening(ball(), blobs((3, 2, 2), 0), None, NAMES, 0, ax=axes[:3]),
        figures.plot_weight_panels({"a": known["frozen"]}, ax=axes[3:4]),
        figures.plot_row_distributions(known, ax=axes[4]),
        figures.plot_head_before_after(known["frozen"], ax=axes[5]),
        figures.plot_collapse({"a": [collapsed("train", 1.0, float("nan"))]}, ax=axes[6:7]),
        figures.plot_transfer({"a": stages(0.1)}, ax=axes[7:8]),
        figures.plot_shuffle({"a": flattened(1.0, 0.0)}, ax=[axes[8], axes[11]]),
        figures.plot_confusion(square, square, NAMES, ax=axes[9:11]),
    ]
    assert all(each is figure for each in drawn)
    figure.draw_without_rendering()
