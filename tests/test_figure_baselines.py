"""Every figure looks as in its baseline (`python -m tests.support.baselines` renews them)."""

import io

import matplotlib as mpl
import numpy as np
import pytest

from headscope.figures.style import COLUMN, PAGE, apply_style
from tests.support.baselines import FIGURES, FOLDER, TILE, difference, pixels, save, tolerance


@apply_style
def vector_of(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did_are_legible_light_and_the_same_each_time(name, tmp_path):
    figure = FIGURES[name]()
    vector = vector_of(figure)  # first: what was drawn before leaves its mark in the file
    assert figure.get_size_inches()[0] in (pytest.approx(COLUMN), pytest.approx(PAGE))
    sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
    assert min(sizes) >= 7
    assert not [
        text for text in figure.findobj(mpl.text.Text) if "$" in text.get_text().replace(r"\$", "")
    ]
    assert vector == vector_of(FIGURES[name]())
    assert len(vector) < 1_500_000
    drawn, kept = save(FIGURES[name](), tmp_path / f"{name}.png"), FOLDER / f"{name}.png"
    page = pixels(drawn)
    edges = (page[0], page[-1], page[:, 0], page[:, -1])
    assert all((edge == 255).all() for edge in edges), "something is cut off"
    aside, most = tolerance(kept)
    gap = difference(page, pixels(kept), aside)
    assert gap <= most, (
        f"{name} changed by {gap:.0f}: compare {drawn} with {kept}; "
        f"if it is meant, run python -m tests.support.baselines {name}"
    )


def test_each_picture_belongs_to_a_figure_and_all_are_small():
    known = {path.stem: path.stat().st_size for path in FOLDER.glob("*.png")}
    assert set(known) == set(FIGURES)
    assert sum(known.values()) < 500_000


@pytest.mark.parametrize(
    "change",
    [
        lambda figure: figure.axes[0].set_xlabel(""),
        lambda figure: figure.axes[0].lines[0].set_visible(False),
        lambda figure: figure.axes[0].collections[0].set_color("#009E73"),
        lambda figure: figure.axes[0].set_title(""),
        lambda figure: figure.set_size_inches(3, 3),
    ],
    ids=["a label", "a line", "a colour", "a title", "its size"],
)
def test_a_figure_that_loses_something_is_caught(change, tmp_path):
    kept = FOLDER / "before-after.png"
    aside, most = tolerance(kept)
    if aside > 1:
        pytest.skip("the picture is another matplotlib's: small changes cannot be told")
    figure = FIGURES["before-after"]()
    change(figure)
    drawn = pixels(save(figure, tmp_path / "changed.png"))
    assert difference(drawn, pixels(kept), aside) > most


def test_the_measure_forgives_a_step_aside_and_no_more():
    page = np.full((120, 120, 3), 255.0)
    page[48:60, 48:60] = 0
    assert difference(page, np.roll(page, (2, -3), axis=(0, 1)), aside=3) == 0
    assert difference(page, np.roll(page, (2, -3), axis=(0, 1)), aside=2) > 20
    assert difference(page, np.roll(page, 9, axis=0), aside=3) > 100


def test_the_measure_sees_a_small_spot_on_a_large_page():
    page = np.full((300, 300, 3), 255.0)
    spot = page.copy()
    spot[TILE : 2 * TILE, TILE : 2 * TILE] = 0
    assert difference(page, spot) == 255
    assert difference(page, page[:-1]) == 255
    assert difference(page, page) == 0
