"""Against chance: one test over folds and seeds, beside scipy and brute force, and its words."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from headscope.analysis.results.chance import against_chance
from headscope.analysis.results.pooled import (
    Pool,
    Test,
    permutation_p,
    pooled_auc,
    shared_training,
)
from headscope.files import NO_ID
from headscope.metrics import slice_units, subject_level

Test.__test__ = False


def make_pool(tests, ids=None):
    """Pool tests (seed, labels (n,), scores (n,), owners (n,)): one slice per subject and test."""
    seeds = {}
    for seed, labels, scores, owner in tests:
        logits = np.stack([np.zeros(len(scores)), scores], axis=1)
        slices = slice_units(np.asarray(labels), logits, np.asarray(owner))
        seeds.setdefault(seed, []).append(Test(slices, subject_level(slices)))
    count = 1 + max(int(np.max(owner)) for *_, owner in tests)
    ids = np.arange(count).astype(str) if ids is None else ids
    classes = np.zeros(count, dtype=int)
    for _, labels, _, owner in tests[::-1]:
        classes[np.asarray(owner)[::-1]] = np.asarray(labels)[::-1]
    return Pool(tuple(map(tuple, seeds.values())), ids, classes, 0.5)


def drawn_pool(rng, folds, per_fold, auc, shifts=True):
    """Folds of one seed with a true AUC, each with a scale and shift of its own."""
    tests, distance = [], np.sqrt(2) * stats.norm.ppf(auc)
    for k in range(folds):
        labels = np.arange(per_fold) % 2
        scores = rng.normal(size=per_fold) + distance * labels
        if shifts:
            scores = scores * rng.uniform(0.5, 2) + 5 * rng.normal()
        tests.append((0, labels, scores, k * per_fold + np.arange(per_fold)))
    return make_pool(tests)


def test_one_test_is_wilcoxon_s():
    rng = np.random.default_rng(0)
    pool = drawn_pool(rng, 1, 24, 0.75)
    units = pool.tests[0].subjects
    scores = units.margin(1)
    for side, p in zip(("greater", "less"), permutation_p(pool), strict=True):
        expected = stats.mannwhitneyu(
            scores[units.labels == 1], scores[units.labels == 0], alternative=side, method="exact"
        ).pvalue
        assert p == pytest.approx(expected, abs=0.01)
    area = pool.score("subject_auc", np.ones((1, 24)))[0, 0]
    assert area == pytest.approx(
        stats.mannwhitneyu(scores[units.labels == 1], scores[units.labels == 0]).statistic / 144
    )


def test_folds_are_ranked_within_folds_by_brute_force():
    """Two folds of four and five subjects: all permutations within folds, counted one by one."""
    rng = np.random.default_rng(1)
    labels = [np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0, 1])]
    scores = [rng.normal(size=4), 9 + rng.normal(size=5)]
    pool = make_pool(
        [(0, labels[0], scores[0], np.arange(4)), (0, labels[1], scores[1], 4 + np.arange(5))]
    )

    def area(*assigned):
        ups = pairs = 0
        for own, values in zip(assigned, scores, strict=True):
            for a in values[np.array(own) == 1]:
                for b in values[np.array(own) == 0]:
                    ups, pairs = ups + (a > b), pairs + 1
        return ups / pairs

    observed = area(*labels)
    assert pooled_auc([t.subjects for t in pool.tests], np.ones((1, 9)))[0] == observed
    null = [area(one, two) for one in permutations(labels[0]) for two in permutations(labels[1])]
    above, below = permutation_p(pool)
    assert above == pytest.approx(np.mean(np.array(null) >= observed - 1e-12), abs=0.02)
    assert below == pytest.approx(np.mean(np.array(null) <= observed + 1e-12), abs=0.02)


def test_draws_of_pooled_folds_weigh_pairs_as_they_are_drawn():
    rng = np.random.default_rng(2)
    pool = drawn_pool(rng, 3, 8, 0.7)
    counts = rng.integers(0, 3, (6, 24)).astype(float)
    areas = pooled_auc([test.subjects for test in pool.tests], counts, 1)
    for draw, area in zip(counts, areas, strict=True):
        ups = pairs = 0.0
        for test in pool.tests:
            units, margin = test.subjects, test.subjects.margin(1)
            for i in np.flatnonzero(units.labels == 1):
                for j in np.flatnonzero(units.labels == 0):
                    weight = draw[units.owner[i]] * draw[units.owner[j]]
                    ups, pairs = ups + weight * (margin[i] > margin[j]), pairs + weight
        assert area == pytest.approx(ups / pairs, abs=2e-6)


@pytest.mark.parametrize("per_fold", [24, 8])
def test_claims_of_pooled_folds_hold_their_level_and_have_power(per_fold):
    """5 folds: at an AUC of 0.5 at most 5% claims, at 0.74 nearly all of 5 × 24 subjects."""
    rng = np.random.default_rng(per_fold)
    rounds = 120
    false = sum(against_chance(drawn_pool(rng, 5, per_fold, 0.5)).better for _ in range(rounds))
    assert false <= stats.binom.ppf(0.999, rounds, 0.025)
    if per_fold == 24:
        true = sum(against_chance(drawn_pool(rng, 5, 24, 0.74)).better for _ in range(40))
        assert true >= 38


def test_seeds_that_test_the_same_subjects_are_one_test():
    """Five copies of one test are worth no more than one."""
    rng = np.random.default_rng(3)
    labels, scores = np.arange(20) % 2, rng.normal(size=20) + 0.7 * (np.arange(20) % 2)
    once = permutation_p(make_pool([(0, labels, scores, np.arange(20))]))
    five = permutation_p(make_pool([(s, labels, scores, np.arange(20)) for s in range(5)]))
    assert five == pytest.approx(once, abs=0.01)


def test_labels_at_random_are_no_better_and_the_wrong_way_is_below():
    rng = np.random.default_rng(4)
    noise = against_chance(drawn_pool(rng, 1, 30, 0.5))
    assert noise.standing == "no better" and not noise.better and noise.p > 0.05
    strong = against_chance(drawn_pool(rng, 1, 30, 0.9))
    assert strong.better and strong.p < 0.01
    wrong = against_chance(drawn_pool(rng, 1, 30, 0.1))
    assert wrong.standing == "below" and not wrong.better


def test_one_class_for_all_with_equal_scores_is_no_better():
    labels = np.array([0] * 12 + [1] * 8)
    found = against_chance(make_pool([(0, labels, np.full(20, -3.0), np.arange(20))]))
    assert (found.standing, found.value, found.p) == ("no better", 0.5, 1.0)


@pytest.mark.parametrize(("per_class", "standing"), [(2, "unknown"), (3, "unknown"), (5, "above")])
def test_all_right_is_above_chance_only_with_enough_subjects(per_class, standing):
    """Two and two can be labelled in six ways, three and three in twenty: that proves nothing."""
    labels = np.repeat([0, 1], per_class)
    pool = make_pool([(0, labels, labels.astype(float), np.arange(2 * per_class))])
    assert against_chance(pool).standing == standing


def test_three_classes_are_tested_too():
    rng = np.random.default_rng(5)
    labels = np.arange(30) % 3
    for signal, standing in ((0.0, "no better"), (3.0, "above")):
        logits = rng.normal(size=(30, 3)) + signal * np.eye(3)[labels]
        slices = slice_units(labels, logits, np.arange(30))
        pool = Pool(
            ((Test(slices, subject_level(slices)),),), np.arange(30).astype(str), labels, 0.5
        )
        assert against_chance(pool).standing == standing


def test_labels_that_change_are_judged_by_the_interval():
    """Subject 0 is in both classes: labels cannot be permuted among subjects."""
    pool = make_pool([(0, [0, 1, 0, 1], [0.0, 1.0, 0.2, 2.0], [0, 0, 1, 2])])
    assert np.isnan(permutation_p(pool)).all()
    assert against_chance(pool, 0.6, 0.9).standing == "above"
    assert against_chance(pool, 0.4, 0.9).standing == "no better"
    assert against_chance(pool).standing == "unknown"


def test_one_class_or_nobody_known_says_so():
    alone = make_pool([(0, [0, 0], [1.0, 2.0], [0, 1])])
    nameless = make_pool([(0, [0, 1], [1.0, 2.0], [0, 0])], ids=np.array([NO_ID]))
    for pool in (alone, nameless):
        assert against_chance(pool).standing == "unknown"


def test_areas_of_networks_that_share_training_spread_as_heads_linear_in_labels_do():
    """The variance of Σ y_i score_i over labels against that of fixed scores, by brute force."""
    rng = np.random.default_rng(4)
    place = np.arange(40) % 4
    runs = []
    for fold in range(4):
        others = np.flatnonzero(place != fold)
        trains = rng.choice(others, 21, replace=False)
        runs.append((np.flatnonzero(place == fold).astype(str), trains.astype(str)))
    runs.append((np.arange(5, 12).astype(str), np.arange(20, 40).astype(str)))  # another seed
    trained = np.zeros((40, 40))  # networks that column trains and row is tested by
    for tested, trains in runs:
        trained[np.ix_(tested.astype(int), trains.astype(int))] += 1
    kernel = np.ones((40, 40)) * trained
    labels = rng.choice([-1.0, 1.0], (40_000, 40))
    sums = np.einsum("bi,ij,bj->b", labels, kernel, labels)
    fixed = ((labels @ kernel.T) ** 2).sum(axis=1).mean()
    assert shared_training(runs) == pytest.approx(np.sqrt(sums.var() / fixed), rel=0.02)


def test_no_subject_that_is_tested_trains_and_all_others_do():
    one = [(np.array(["a", "b"]), np.array(["c", "d"]))]
    assert shared_training(one) == 1 and shared_training([(np.array(["a"]), np.array([]))]) == 1
    ids = np.arange(60).astype(str)
    folds = [(ids[k::5], np.delete(ids, np.s_[k::5])) for k in range(5)]
    assert shared_training(folds) == pytest.approx(np.sqrt(2))


def test_a_stretched_null_is_less_easily_left():
    rng = np.random.default_rng(5)
    pool = drawn_pool(rng, 5, 12, 0.7)
    plain, wide = permutation_p(pool), permutation_p(replace(pool, stretch=np.sqrt(2)))
    assert plain[0] < wide[0] < 0.5 and plain[1] > wide[1] > 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_wilson_of_subjects_tested_once_is_that_of_statsmodels(classes):
    rng = np.random.default_rng(classes)
    labels, owner = np.arange(24) % classes, np.arange(24)
    slices = slice_units(
        labels, rng.normal(size=(24, classes)) + 2 * np.eye(classes)[labels], owner
    )
    test = Test(slices, subject_level(slices))
    pool = Pool(((test,),), owner.astype(str), labels, 0.5)
    correct = test.subjects.correct
    expected = proportion_confint(correct.sum(), 24, method="wilson")
    assert pool.wilson("subject_accuracy", 1) == pytest.approx(expected, abs=1e-12)
    positive = correct[test.subjects.labels == 1]
    expected = proportion_confint(positive.sum(), len(positive), method="wilson")
    if classes > 2:  # of several classes it is a mean over them, and no share
        expected = np.nan, np.nan
    shown = pool.wilson("subject_sensitivity", 1)
    assert shown == pytest.approx(expected, abs=1e-12, nan_ok=True)
    twice = Pool(((test,), (test,)), owner.astype(str), labels, 0.5)
    assert np.isnan(twice.wilson("subject_accuracy", 1)).all()
    assert np.isnan(pool.wilson("slice_accuracy", 1)).all()
