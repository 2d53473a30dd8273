"""The page's SVGs draw the same as matplotlib's, in fewer characters, and stand as data URIs."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from headscope.figures.style import apply_style
from headscope.reporting.pictures import data_uri, save_figure, slim
from tests.support.baselines import FIGURES

LINK = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(scope="module", params=["before-after", "flattening-7"])
def svg(request, tmp_path_factory):
    stem = tmp_path_factory.mktemp("svg") / request.param
    return save_figure(FIGURES[request.param](), stem).read_text(encoding="utf-8")


def drawn(svg):
    """What is drawn, in its order: element, what of it decides, and its numbers."""
    found = []
    for each in ElementTree.fromstring(svg).iter():
        name = each.tag.rpartition("}")[2]
        if name in ("path", "use", "image"):
            numbers = re.findall(r"-?\d+(?:\.\d+)?", each.get("d", ""))
            found.append((name, [float(number) for number in numbers], each.get(LINK, "")))
    return found


def test_a_slim_svg_draws_the_same(svg):
    before, after = drawn(svg), drawn(slim(svg))
    names = {}
    assert len(after) == len(before)
    for (kind, points, link), (kind_after, points_after, link_after) in zip(
        before, after, strict=True
    ):
        assert kind_after == kind
        assert points_after == pytest.approx(points, abs=0.00501)
        if link.startswith("data:"):
            assert link_after == link
        else:
            assert names.setdefault(link, link_after) == link_after
    assert len(set(names.values())) == len(names)
    assert len(slim(svg)) < 0.8 * len(svg)


def test_every_name_that_is_used_is_there_once(svg):
    text = slim(svg)
    names = re.findall(r' id="([^"]*)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) == set(names)


def test_glyphs_stay_where_they_were():
    text = '<use xlink:href="#a" transform="translate(61.083984 0)"/><path id="a" d="M 1 2 \nz\n"/>'
    assert slim(text) == '<use xlink:href="#n0" x="61.08"/><path id="n0" d="M1 2z"/>'
    scaled = '<g transform="translate(1.00049 -0.001) scale(0.015625)"/>'
    assert slim(scaled) == '<g transform="translate(1 0) scale(0.015625)"/>'


def test_a_data_uri_gives_the_svg_back_from_an_attribute():
    svg = "<svg a=\"50% of #1 &amp; 'x'\" b='http://'/>"
    seen = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: seen.append(dict(attributes)["src"])
    parser.feed(f'<img src="{data_uri(svg)}">')
    assert "://" not in seen[0]
    assert unquote(seen[0].partition(",")[2]) == svg.replace('"', "'")


def test_panels_are_placed_once_as_matplotlib_places_them(tmp_path):
    """The picture is that of a plain `savefig`, to the last byte."""
    make = FIGURES["weights"]
    apply_style(make().savefig)(tmp_path / "plain.png", dpi=200, metadata={"Software": None})
    figure = make()
    engine, dpi = figure.get_layout_engine(), figure.get_dpi()
    save_figure(figure, tmp_path / "ours")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
    assert (figure.get_layout_engine(), figure.get_dpi()) == (engine, dpi)
