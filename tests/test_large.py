"""What must not grow with the square of the slices or subjects, against the plain way."""

import numpy as np
import pytest

from headscope.analysis.explanations.adjusted import adjusted_auc
from headscope.analysis.leakage.dose_response import _halves
from headscope.analysis.permute import ROUNDS, donation, label_type, no_leak, permute_labels
from headscope.analysis.results import pooled
from headscope.metrics import MOST_DRAWN, resample, slice_units
from headscope.reporting import scatters


def sessions_of(subjects=9, seed=0):
    """Slices of subjects with one to three sessions, some of which change label on the way."""
    rng = np.random.default_rng(seed)
    visits = rng.integers(1, 4, subjects)
    owner = np.repeat(np.arange(subjects), visits)
    label = (owner % 2 + (rng.random(len(owner)) < 0.2)) % 2
    counts = rng.integers(1, 5, len(owner))
    return (np.repeat(part, counts) for part in (label, owner, np.arange(len(owner))))


def test_arrangements_counted_by_parts_are_those_counted_slice_by_slice():
    label, owner, session = sessions_of()
    labels = permute_labels(label, owner, session, 12, 3)
    calls = np.random.default_rng(1).integers(0, 2, (12, len(label)))
    rng, order = np.random.default_rng(0xA44A), np.tile(np.arange(owner.max() + 1), (ROUNDS, 1))
    means = []
    for r in range(12):
        arranged = donation(labels[:, r].astype(int), owner, session)(rng.permuted(order, axis=1))
        recalls = [
            [(calls[r][row == k] == k).mean() for row in arranged if {*row} == {0, 1}]
            for k in (0, 1)
        ]
        means.append(np.mean(recalls))
    assert no_leak(calls, labels, owner, session).mean == pytest.approx(np.mean(means), rel=1e-12)


@pytest.mark.parametrize(("classes", "name"), [(2, "int8"), (128, "int8"), (129, "int16")])
def test_labels_take_as_few_bytes_as_hold_them(classes, name):
    assert label_type(np.arange(classes)) == name


def test_permuted_labels_are_those_of_each_slice_by_itself():
    label, owner, session = sessions_of(seed=2)
    rng = np.random.default_rng((5, 0x9E37))
    plain = [donation(label, owner, session)(rng.permutation(owner.max() + 1)) for _ in range(6)]
    assert np.array_equal(permute_labels(label, owner, session, 6, 5), np.stack(plain, axis=1))


class Some:
    """The test slices of a run, of subjects in no order."""

    subject = np.random.default_rng(0).integers(0, 30, 400)

    def rows(self, subset):
        return np.arange(0, 400, 2)


def test_halves_of_subjects_are_those_drawn_subject_by_subject():
    leak, judged, order = _halves(Some(), np.random.default_rng(7))
    rng, rows = np.random.default_rng(7), Some().rows("test")
    expected = rng.permutation(np.unique(Some.subject[rows]))
    halves = [rng.permutation(rows[Some.subject[rows] == subject]) for subject in expected]
    assert np.array_equal(order, expected)
    assert np.array_equal(leak, np.concatenate([half[: len(half) // 2] for half in halves]))
    assert np.array_equal(judged, np.setdiff1d(rows, leak))


def pool_of(subjects, seed=1):
    """One slice of each subject, told right by half a spread."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, subjects)
    logits = rng.normal(0, 1, (subjects, 2)) + 0.7 * np.eye(2)[label]
    units = slice_units(label, logits, np.arange(subjects))
    return pooled.Pool(((pooled.Test(units, units),),), np.arange(subjects).astype(str), label, 1.0)


def test_up_to_a_thousand_subjects_are_drawn_one_by_one():
    pool = pool_of(MOST_DRAWN)
    assert pool.grouped is pool
    assert np.array_equal(pool.dealt, np.arange(MOST_DRAWN))


def test_more_subjects_are_drawn_in_groups_that_spread_as_they_do():
    pool = pool_of(2 * MOST_DRAWN)
    correct, label = pool.tests[0].subjects.correct, pool.labels
    assert pool.resampled.left_out.shape == (500, 500)
    drawn = pool.draw("subject_accuracy")
    assert drawn.mean == pytest.approx(correct.mean())
    by_class = [correct[label == k].std() * (label == k).sum() ** 0.5 for k in (0, 1)]
    expected = np.hypot(*by_class) / len(label)  # of subjects drawn one by one, within class
    assert drawn.drawn.std() == pytest.approx(expected, rel=0.15)
    alone = resample(label, np.arange(len(label)), len(label)).drawn
    area = pool.score("subject_auc", alone[:400]).std()
    assert pool.draw("subject_auc").drawn.std() == pytest.approx(area, rel=0.15)
    age = np.random.default_rng(2).normal(60, 9, len(label))
    adjusted, plain = adjusted_auc(pool, age, 1), pool.draw("subject_auc", 1)
    assert adjusted.value == pytest.approx(plain.mean, abs=0.02)
    assert adjusted.high - adjusted.low == pytest.approx(4 * plain.drawn.std(), rel=0.25)


def test_thumbnails_that_have_no_room_leave_the_misclassified(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 64, 64), dtype=np.uint8)
    rows, wrong = np.arange(60), np.arange(60) % 4 == 0
    shown = scatters._shown(rows, wrong, pixels, "test")
    assert set(shown[:15]) == set(np.flatnonzero(wrong))
    sprite, placed = scatters._sprite(pixels, rows, shown)
    assert np.array_equal(placed, rows)
    assert sprite["across"] == 60
    monkeypatch.setattr(scatters, "SPRITE_BYTES", len(sprite["source"]) * 3 // 4 // 4)
    sprite, placed = scatters._sprite(pixels, rows, shown)
    assert set(placed) <= set(np.flatnonzero(wrong))
    assert 10 <= len(placed) == sprite["across"]
    assert np.array_equal(placed, np.sort(placed))
