"""Verdicts in words, in cases where they must say that nothing was shown."""

import numpy as np
import pytest
from scipy import stats

from headscope.analysis.words import against_chance, majority_p
from headscope.files import NO_ID
from headscope.metrics import subset_figures


def test_figures(separation, subjects=30, slices=10, seed=0):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), slices)
    label = owner % 2
    score = 1 / (1 + np.exp(-(rng.normal(size=subjects)[owner] + separation * (2 * label - 1))))
    logits = np.log(np.stack([1 - score, score], axis=1))
    return subset_figures(label, logits, owner.astype(str), class_names=["NC", "AD"])


test_figures.__test__ = False


def test_labels_at_random_are_no_better_than_chance():
    found = against_chance(test_figures(0.0))
    assert found.standing == "no better" and not found.better
    assert "includes 0.5: no better than chance." in found.text
    assert found.low < 0.5 < found.high and found.figure == "auc"


def test_what_separates_subjects_is_above_chance():
    found = against_chance(test_figures(0.9))
    assert found.better and found.low > 0.5
    assert found.text.endswith("lies above the 0.5 of chance.")
    assert f"{found.value:.3f}" in found.text and "30 subjects" in found.text


def test_what_separates_them_the_wrong_way_is_below():
    found = against_chance(test_figures(-1.5))
    assert found.standing == "below" and not found.better
    assert "second look" in found.text


def test_one_class_called_for_all_is_no_better_than_chance():
    labels = np.array([0] * 12 + [1] * 8)
    same = np.tile(np.log([0.7, 0.3]), (20, 1))
    found = against_chance(subset_figures(labels, same, np.arange(20).astype(str)))
    assert (found.standing, found.figure) == ("no better", "accuracy")
    assert found.text.startswith("12 of 20 subjects are called rightly, where always naming the")
    assert "gets 12: no better than chance" in found.text
    assert found.chance == pytest.approx(0.6)


@pytest.mark.parametrize(("each", "standing"), [(2, "no better"), (3, "above"), (10, "above")])
def test_all_right_is_above_chance_only_with_enough_subjects(each, standing):
    labels = np.repeat([0, 1], each)
    found = against_chance(subset_figures(labels, 9 * np.eye(2)[labels], np.arange(2 * each)))
    assert found.standing == standing
    assert found.p == pytest.approx(0.5 ** (2 * each))
    assert found.low < 1 and found.high == 1


def test_the_majority_is_tested_exactly():
    tail = stats.binom.sf(13, 20, 0.6)  # 14 or more of 20
    assert majority_p(14, 20, 12) == pytest.approx(tail)


def test_one_class_or_nobody_known_says_so():
    alone = subset_figures(np.zeros(4, int), np.full((4, 2), 0.5), np.arange(4))
    nameless = subset_figures(np.arange(4) % 2, np.full((4, 2), 0.5), np.full(4, NO_ID))
    for figures in (alone, nameless, {}):
        found = against_chance(figures)
        assert found.standing == "unknown" and not found.better
        assert "Too little is known" in found.text
