"""Permuted labels where a class has few subjects: no test goes without it, no alarm is false."""

import numpy as np
import pytest

from headscope.analysis.leakage.analysis import analyse_leakage
from headscope.analysis.leakage.findings import (
    ALARM,
    centre,
    observed_finding,
    permuted_finding,
    setting_p,
)
from headscope.analysis.leakage.permutation import (
    PermutationTest,
    PermutedScore,
    permutation_test,
    permute_labels,
)
from headscope.analysis.permute import ROUNDS, donation, no_leak
from headscope.errors import InputError
from tests.support.leakage_runs import cohort_table, features_of, make_run


def rare_cohort(rare=3, rest=60, count=2):
    """A cohort with few subjects of class 0, and a split by subject that has one in its test."""
    table = cohort_table(subjects=rare + rest, count=count)
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    table["label"] = (owner >= rare).astype(int)
    marks = np.array(["train", "val", "test"])
    place = np.where(owner < rare, owner % 3, np.array([0, 0, 0, 1, 2, 2])[owner % 6])
    return table, marks[place], owner


def test_each_permutation_leaves_every_class_in_training_and_in_test():
    table, subset, owner = rare_cohort()
    label = table["label"].to_numpy()
    labels = permute_labels(label, owner, owner, 300, 0, subset)
    first = np.unique(owner, return_index=True)[1]
    for column in labels.T:
        assert (column == column[first][owner]).all()
        assert np.array_equal(np.sort(column[first]), np.sort(label[first]))
        for name in ("train", "test"):
            assert set(column[subset == name]) == {0, 1}
    # those that need no second try are what they were without a split
    plain = permute_labels(label, owner, owner, 300, 0)
    valid = [
        all(len(set(column[subset == name])) == 2 for name in ("train", "test"))
        for column in plain.T
    ]
    assert 0.3 < np.mean(valid) < 0.9
    assert np.array_equal(labels[:, valid], plain[:, valid])
    # and the number of permutations asked for changes none of them
    assert np.array_equal(permute_labels(label, owner, owner, 40, 0, subset), labels[:, :40])


def test_permutations_that_count_come_alike_often():
    """Six subjects, two of class 0; three train, three test: each must hold both classes."""
    owner, label = np.arange(6), np.array([0, 1, 1, 0, 1, 1])
    subset = np.array(["train"] * 3 + ["test"] * 3)
    labels = permute_labels(label, owner, owner, 9000, 1, subset)
    seen, counts = np.unique(labels.T, axis=0, return_counts=True)
    assert len(seen) == 9  # one of three in training, one of three in test
    assert abs(counts - 1000).max() < 150


def test_where_no_permutation_leaves_every_class_it_is_said(tmp_path):
    classes = 14  # two subjects of each, one in training and one in test
    table = cohort_table(subjects=2 * classes, count=2)
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    table["label"] = owner % classes
    subset = np.where(owner < classes, "train", "test")
    with pytest.raises(InputError, match="None of 1,000 permutations"):
        permute_labels(table["label"].to_numpy(), owner, owner, 1, 0, subset)


def test_few_subjects_of_a_class_raise_no_alarm(tmp_path):
    """A test without the class once counted as perfect: 60% on average here, serious, exit 3."""
    table, subset, _ = rare_cohort()
    run = make_run(tmp_path, table, features_of(table, identity=1.0), subset=subset)
    result = analyse_leakage([run], permutations=200)
    (test,) = result.permuted
    assert test.scores["slice_balanced_accuracy"].mean == pytest.approx(0.5, abs=0.03)
    (finding,) = [f for f in result.findings if f.check == "Permuted labels"]
    assert finding.level == "fine", finding.text
    assert not result.serious


def test_trainings_whose_test_lacks_a_class_are_left_out(tmp_path):
    table, subset, owner = rare_cohort(count=1)
    run = make_run(tmp_path, table, features_of(table), subset=subset, regime="finetune")
    columns = [np.where(np.isin(owner, rare), 0, 1) for rare in ([0, 1, 4], [0, 1, 3])]
    likes = []
    for number, column in enumerate(columns, 1):
        likes.append(
            make_run(tmp_path, table.assign(label=column), features_of(table), subset=subset,
                     regime="finetune", suffix=f"-permuted{number}", permutation=number)
        )  # fmt: skip
    holds = [set(column[subset == "test"]) == {0, 1} for column in columns]
    assert holds == [True, False]
    assert permutation_test(run, permuted=likes).draws == 1


def exact_cumulants(calls, label):
    """Enumerate which of S subjects, a slice each, are the first class: mean, variance, third."""
    from itertools import combinations

    size, rare = len(calls), int((label == 0).sum())
    values = []
    for chosen in combinations(range(size), rare):
        truth = np.ones(size, dtype=int)
        truth[list(chosen)] = 0
        recalls = [(calls[truth == k] == k).mean() for k in (0, 1)]
        values.append(np.mean(recalls))
    values = np.array(values)
    return values.mean(), values.var(), ((values - values.mean()) ** 3).mean()


def test_cumulants_without_a_leak_are_those_of_all_arrangements():
    rng = np.random.default_rng(0)
    label, subject = np.array([0] * 2 + [1] * 8), np.arange(10)
    calls = (rng.random((400, 10)) < 0.2).astype(int)
    labels = np.repeat(label[:, None], 400, axis=1)
    result = no_leak(calls, labels, subject, subject)
    expected = np.array([exact_cumulants(row, label) for row in calls])
    assert ROUNDS * 400 >= 10_000
    assert result.mean == pytest.approx(expected[:, 0].mean(), abs=0.005)
    assert expected[:, 0] == pytest.approx(np.full(400, 0.5))  # exchangeable subjects: chance
    assert result.variance == pytest.approx(expected[:, 1].sum() / 400**2, rel=0.05)
    assert result.third == pytest.approx(expected[:, 2].sum() / 400**3, rel=0.2)


def test_donated_labels_are_those_of_the_donor():
    subject = np.array([0, 0, 1, 1, 1, 1, 2])
    session = np.array([0, 1, 2, 3, 4, 5, 6])
    label = np.array([0, 1, 1, 1, 1, 1, 2])
    donate = donation(label, subject, session)
    assert donate(np.array([0, 1, 2])).tolist() == label.tolist()
    assert donate(np.array([[1, 0, 2], [2, 2, 0]])).tolist() == [
        [1, 1, 0, 0, 1, 1, 2],
        [2, 2, 2, 2, 2, 2, 0],
    ]


def clean_test(rng, rare=3, rest=60, draws=100, lean=0.95):
    """A test subset without a leak: each permutation's calls know nothing of its labels.

    lean is the share of subjects that are called the rare class, a slice each.
    """
    size = (rare + rest) // 3
    label = (np.arange(size) >= 1).astype(int)
    calls = (rng.random((draws, size)) > lean).astype(int)
    labels = np.stack([rng.permutation(label) for _ in range(draws)], axis=1)
    subject = np.arange(size)
    true = [k == labels.T for k in (0, 1)]
    recalls = [((calls == k) & true[k]).sum(axis=1) / true[k].sum(axis=1) for k in (0, 1)]
    figures = np.mean(recalls, axis=0)
    return PermutationTest(
        "r", "net", "frozen", "subject", 0, 2, draws, "",
        {"slice_balanced_accuracy": PermutedScore(0.5, tuple(figures))},
        no_leak=no_leak(calls, labels, subject, subject),
    )  # fmt: skip


@pytest.mark.parametrize("lean", [0.02, 0.5, 0.98])
def test_alarms_are_as_rare_as_promised_however_skewed_the_figures_are(lean):
    """At a lean of 0.98 the figures' own scatter with a normal tail raises 8 alarms in 100."""
    rng = np.random.default_rng(1)
    tests = [clean_test(rng, lean=lean) for _ in range(100)]
    assert sum(permuted_finding([test], 1).level == "serious" for test in tests) <= 1
    # the tail at 5% can be checked by as few
    pooled = [centre([test]) for test in tests]
    assert np.mean([found.mean > found.limit(0.05) + 1e-9 for found in pooled]) <= 0.12
    assert pooled[0].limit(ALARM) > pooled[0].limit(0.05)


def made_test(observed, permuted, labels, seed=0):
    null = PermutedScore(observed, tuple(permuted))
    return PermutationTest(
        "r", "net", "frozen", "subject", seed, 2, len(permuted), "",
        {"subject_balanced_accuracy": null}, tuple(labels),
    )  # fmt: skip


def test_the_p_of_a_setting_is_that_of_its_mean():
    rng = np.random.default_rng(2)
    keys = [f"k{n}" for n in range(40)]
    first, second = rng.random(40), rng.random(40)
    tests = [made_test(0.95, first, keys), made_test(0.7, second[::-1], keys[::-1])]
    reached = np.sum((first + second) / 2 >= (0.95 + 0.7) / 2)
    assert setting_p(tests) == pytest.approx((reached + 1) / 41)
    assert setting_p(tests[:1]) == tests[0].scores["subject_balanced_accuracy"].p
    apart = [tests[0], made_test(0.7, second, [f"x{n}" for n in range(40)])]
    p = [test.scores["subject_balanced_accuracy"].p for test in apart]
    assert setting_p(apart) == pytest.approx(min(1, 2 * np.mean(p)))


def setting(rng, seeds, effect=0.0):
    """Runs of a cohort that share 99 permutations: a part of each figure is the cohort's."""
    keys = [f"k{n}" for n in range(99)]
    common = rng.normal(size=100)
    return [
        made_test(values[0] + effect, values[1:], keys, seed)
        for seed in range(seeds)
        for values in [common * 0.5 + rng.normal(size=100)]
    ]


def test_more_seeds_neither_tighten_nor_loosen_the_rule():
    rng = np.random.default_rng(3)
    for seeds in (1, 10):
        levels = [observed_finding(setting(rng, seeds)).level for _ in range(400)]
        assert 0.02 <= np.mean([level == "fine" for level in levels]) <= 0.085
    # 'each run beats permuted labels at 5%' would let an effect pass in 1 of 50 settings
    levels = [observed_finding(setting(rng, 10, effect=2.0)).level for _ in range(100)]
    assert np.mean([level == "fine" for level in levels]) > 0.85
