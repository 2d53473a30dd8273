"""What many pictures share makes no duplicate, and what is a duplicate is no second subject."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from headscope.auditing.audit import audit
from headscope.auditing.crossings import join_duplicates
from headscope.auditing.detail import find_common
from headscope.auditing.duplicates import Match, Matches, find_matches
from headscope.auditing.shortcuts import find_shortcuts
from headscope.files import read_table, write_table
from tests.conftest import quick_search
from tests.support import cohorts
from tests.support.cohorts import SIDE, draw_head, vary


def draw_strip(pixels):
    pixels[:, :3] = 160


def draw_frame(pixels):
    pixels[2:5] = pixels[-5:-2] = 255
    pixels[:, 2:5] = pixels[:, -5:-2] = 255


def draw_crosshair(pixels):
    pixels[47:49] = 255
    pixels[:, 47:49] = 255


def draw_logo(pixels):
    tiles = np.random.default_rng(3).integers(0, 2, (11, 11)) * 255
    pixels[70:92, 70:92] = np.kron(tiles, np.ones((2, 2)))


def draw_ruler(pixels):
    pixels[60:94, 88] = pixels[60:94:4, 82:88] = 255


def draw_padding(pixels):
    pixels[:, :14] = pixels[:, -14:] = 255


def draw_text(pixels):
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).text((4, 4), "ST. MARY 1.5T\nT1 AX", fill=255)
    pixels[:] = np.asarray(picture)


MARKS = [
    draw_strip,
    draw_frame,
    draw_crosshair,
    draw_logo,
    draw_ruler,
    draw_padding,
    draw_text,
]


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.__name__)
def test_what_pictures_share_makes_no_duplicate_and_hides_none(mark, share):
    """Of 40 heads the first three are there a second time, with the same mark and other noise."""
    rng = np.random.default_rng(2)
    heads = [draw_head(rng) for _ in range(40)]
    pixels = np.stack([vary(rng, head) for head in heads + heads[:3]])
    for number in range(len(pixels)):
        if number % 40 < share * 40:
            mark(pixels[number])
    matches = find_matches(pixels, np.arange(43), np.arange(43))
    assert {(match.first, match.second) for match in matches.pairs} == {(0, 40), (1, 41), (2, 42)}


def test_pixels_that_many_subjects_have_extreme_are_common():
    rng = np.random.default_rng(0)
    fine = rng.normal(0, 0.5, (30, SIDE, SIDE))
    fine[:3, 20, 20] = 5.0  # a tenth, far out
    fine[:3, 40, 40] = 3.0  # a tenth, less far out
    fine[:10, 60, 60] = -3.0  # a third
    fine[:5, 80, 80], fine[5:10, 80, 80] = 3.0, -3.0  # not of one sign
    cross = np.zeros((SIDE, SIDE), dtype=bool)
    for k in (20, 60):
        cross[k - 1 : k + 2, k] = cross[k, k - 1 : k + 2] = True  # with the neighbours
    assert (find_common(list(fine)) == cross).all()


def write_audited(make, folder):
    """Write a cohort, slice it, split its subjects; return the audit of slices and split."""
    with quick_search():  # of this audit the slices alone are wanted
        audit(make(folder / "data"), out=folder / "slices", workers=1)
    table = read_table(folder / "slices" / "slices.tsv")
    subjects = table["subject_id"].unique()
    subset = ["train", "train", "test"] * len(subjects)
    split = pd.DataFrame({"subject_id": subjects, "subset": subset[: len(subjects)]})
    write_table(folder / "splits" / "subject-seed0.tsv", split)
    return audit(folder)


@pytest.mark.slow
def test_a_strip_at_the_edge_is_a_shortcut_and_no_duplicate(tmp_path):
    result = write_audited(cohorts.border_tells, tmp_path)
    (check,) = result.splits
    assert (check.tested, check.duplicated, sum(check.crossing.values())) == (13, 0, 0)
    assert result.pairs == []
    border = next(s for s in result.shortcuts if s.family == "border")
    assert border.serious and border.auc == 1.0


@pytest.mark.slow
def test_brightness_tells_no_label_where_every_head_has_two_ids(tmp_path):
    result = write_audited(cohorts.duplicated_subjects, tmp_path)
    (check,) = result.splits
    subset = (["train", "train", "test"] * 40)[:40]
    number = [int(s[4:]) for s in read_table(tmp_path / "splits" / f"{check.name}.tsv").subject_id]
    of_subject = dict(zip(number, subset, strict=True))
    leaked = sum(
        of_subject[n] == "test" and of_subject[(n + 20) % 40] == "train" for n in range(40)
    )
    assert check.duplicated == leaked > 0
    assert {s.family: s.raised for s in result.shortcuts if s.raised} == {}
    tried = [s.family for s in result.shortcuts if s.outcome == "tried"]
    assert "brightness" in tried


def test_equal_pictures_have_nothing_to_tell(tmp_path):
    result = write_audited(cohorts.constant_pictures, tmp_path)
    outcomes = {s.family: s.outcome for s in result.shortcuts}
    for family in ("border", "background", "brightness"):
        assert outcomes[family] == "constant"
    assert not any(s.raised or s.auc is not None for s in result.shortcuts)


def test_a_fact_that_names_the_head_tells_no_label_if_duplicates_are_joined():
    rng = np.random.default_rng(4)
    head = np.repeat(np.arange(30), 3)  # each under three ids
    label = rng.permutation(np.array(["AD", "NC"] * 15))[head]
    facts = pd.DataFrame({"spacing: x": rng.normal(size=30)[head]})
    apart, joined = (
        next(s for s in find_shortcuts(facts, label, person) if s.family == "spacing")
        for person in (np.arange(90), head)
    )
    assert apart.raised and not joined.raised


@given(
    st.lists(st.integers(0, 5), min_size=8, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=2),
    st.lists(st.integers(0, 7), max_size=4, unique=True),
)
def test_joined_scans_are_the_connected_components(person, alike, shared, group):
    pairs = [Match(a, b, "alike", 1.0, 1.0, 1.0) for a, b in alike]
    groups = [tuple(group)] if len(group) > 1 else []
    matches = Matches(pairs, [], shared, False, groups, np.arange(8), compared=True)
    linked = np.equal.outer(person, person)
    for a, b in [*alike, *shared, *pairwise(group)]:
        linked[a, b] = linked[b, a] = True
    for _ in range(8):  # of whom one reaches the other, through ever more others
        linked = linked @ linked
    head = join_duplicates(matches, np.array(person))
    assert (np.equal.outer(head, head) == linked).all()
