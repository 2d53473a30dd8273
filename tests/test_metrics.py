"""Figures against scikit-learn, intervals against what they must do, odd cohorts answered."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle
from sklearn.exceptions import UndefinedMetricWarning
from statsmodels.stats.proportion import proportion_confint

from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.metrics import (
    SCORES,
    bootstrap_interval,
    class_scores,
    draw_subjects,
    positive_class,
    run_scores,
    scores,
    slice_units,
    softmax,
    subject_level,
    subset_scores,
    wilson,
)
from tests.support.synthetic import logs

NOTHING = {"value": None, "low": None, "high": None}


def cohort(seed: int, subjects: int, slices: int, classes: int, ties: bool, present=None):
    """Draw labels by subject (of the first `present` classes alone), and noisy probabilities."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), slices)
    labels = (np.arange(subjects) % (present or classes))[owner]
    scores = rng.normal(size=(len(owner), classes)) + np.eye(classes)[labels]
    if ties:
        scores = np.round(scores)
    return labels, softmax(scores), np.char.add("sub-", owner.astype(str))


def by_scikit_learn(labels, probabilities, positive, weight=None):
    """Every figure but the calibration error, by scikit-learn; None where it is undefined."""
    classes, called = probabilities.shape[1], probabilities.argmax(axis=1)
    present = np.unique(labels if weight is None else labels[weight > 0])
    several, shared = len(present) > 1, {"sample_weight": weight}
    one_hot = np.eye(classes)[labels]
    found = dict.fromkeys(SCORES)
    found["accuracy"] = oracle.accuracy_score(labels, called, **shared)
    found["mcc"] = oracle.matthews_corrcoef(labels, called, **shared) if several else None
    recalls = oracle.recall_score(
        labels, called, labels=present, average=None, zero_division=0, **shared
    )
    found["balanced_accuracy"] = recalls.mean()
    spoken = [positive] if classes == 2 else list(present)
    spoken = [k for k in spoken if k in present]
    rest = [k for k in ([positive] if classes == 2 else present) if set(present) - {k}]

    def mean(each, over):
        return np.mean([each(k) for k in over]) if over else None

    found["sensitivity"] = mean(
        lambda k: oracle.recall_score(labels == k, called == k, zero_division=0, **shared), spoken
    )
    found["specificity"] = mean(
        lambda k: oracle.recall_score(labels != k, called != k, zero_division=0, **shared), rest
    )
    found["f1"] = mean(
        lambda k: oracle.f1_score(labels == k, called == k, zero_division=0, **shared), spoken
    )
    ranked = np.round(probabilities, 12)  # what differs by rounding is a tie
    found["average_precision"] = mean(
        lambda k: oracle.average_precision_score(labels == k, ranked[:, k], **shared), spoken
    )
    if several:
        found["auc"] = mean(
            lambda k: oracle.roc_auc_score(labels == k, ranked[:, k], **shared), rest
        )
    squares = (probabilities - one_hot) ** 2
    squares = squares[:, positive] if classes == 2 else squares.sum(axis=1)
    found["brier"] = np.average(squares, weights=weight)
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(2, 5),
    st.integers(1, 5),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_figures_equal_scikit_learn(seed, subjects, slices, classes, present, ties):
    labels, probabilities, _ = cohort(
        seed, subjects, slices, classes, ties, min(present, classes, subjects)
    )
    units = slice_units(labels, logs(probabilities), np.arange(len(labels)))
    found = scores(units, np.ones((1, len(labels))), positive=seed % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = by_scikit_learn(labels, probabilities, seed % 2)
    for name in set(SCORES) - {"ece"}:
        if expected[name] is None:
            assert np.isnan(found[name][0]), name
        else:
            assert found[name][0] == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("classes", [2, 3, 14])
def test_draws_equal_scikit_learn_on_the_drawn_slices(classes):
    """The sums by subject, and scikit-learn with each slice as often as its subject was drawn."""
    people = max(9, 2 * classes)
    labels, probabilities, ids = cohort(2, people, 4, classes, ties=True)
    _, owner = np.unique(ids, return_inverse=True)
    counts = draw_subjects(labels, owner, people, draws=25, seed=3)
    stratum = np.zeros(people, dtype=int)
    stratum[owner] = labels
    for k in range(classes):
        assert (counts[:, stratum == k].sum(axis=1) == (stratum == k).sum()).all()
    fast = scores(slice_units(labels, logs(probabilities), owner), counts, positive=1)
    for draw in range(25):
        slow = by_scikit_learn(labels, probabilities, 1, counts[draw, owner])
        for name in set(SCORES) - {"ece"}:
            assert fast[name][draw] == pytest.approx(slow[name], abs=2e-6), name


@pytest.mark.parametrize("ties", [False, True])
def test_rankings_longer_than_a_block_equal_scikit_learn(ties):
    """More scores of a class than are ranked at once, and a subject of both classes."""
    labels, probabilities, _ = cohort(4, 20, 70, 2, ties=False)
    if ties:
        probabilities = np.round(probabilities, 3)
    owner = np.repeat(np.arange(20), 70)
    labels[:30] = 1 - labels[:30]
    counts = draw_subjects(labels, owner, 20, draws=5)
    found = scores(
        slice_units(labels, logs(probabilities), owner), counts, 1, ("auc", "average_precision")
    )
    for draw in range(5):
        drawn = labels, probabilities[:, 1]
        weight = {"sample_weight": counts[draw, owner]}
        area = oracle.roc_auc_score(*drawn, **weight)
        assert found["auc"][draw] == pytest.approx(area, abs=2e-6)
        precision = oracle.average_precision_score(*drawn, **weight)
        assert found["average_precision"][draw] == pytest.approx(precision, abs=2e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_scikit_learn_by_their_own_names(classes):
    """Macro averages and the multi-class Brier score are those that scikit-learn calls so."""
    labels, probabilities, _ = cohort(5, 12, 3, classes, ties=False)
    called = probabilities.argmax(axis=1)
    found = scores(
        slice_units(labels, logs(probabilities), np.arange(len(labels))),
        np.ones((1, len(labels))),
        1,
    )
    asked = probabilities[:, 1] if classes == 2 else probabilities
    average = {"average": "binary" if classes == 2 else "macro"}
    multi = {} if classes == 2 else {"multi_class": "ovr"}
    expected = {
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, called),
        "f1": oracle.f1_score(labels, called, **average),
        "auc": oracle.roc_auc_score(labels, asked, **multi),
        "average_precision": oracle.average_precision_score(labels, asked),
        "brier": oracle.brier_score_loss(labels, asked),
    }
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-12), name


def test_calibration_error_by_hand():
    rng = np.random.default_rng(0)
    labels, probabilities, _ = cohort(1, 40, 5, 3, ties=False)
    probabilities[:10] = np.eye(3)[rng.integers(0, 3, 10)]  # confidence 1, in the last bin
    probabilities[10:20] = [0.4, 0.3, 0.3]  # 0.4 = 6/15, an edge, of the bin below it
    units = slice_units(labels, logs(probabilities), np.arange(len(labels)))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15 + 1e-12) & (confidence <= (b + 1) / 15 + 1e-12)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert scores(units, np.ones((1, len(labels))))["ece"][0] == pytest.approx(expected, abs=1e-12)


def test_two_classes_share_one_auc_and_trade_sensitivity_for_specificity():
    labels, probabilities, _ = cohort(7, 15, 3, 2, ties=True)
    units, ones = (
        slice_units(labels, logs(probabilities), np.arange(len(labels))),
        np.ones((1, len(labels))),
    )
    first, second = scores(units, ones, positive=0), scores(units, ones, positive=1)
    assert first["auc"] == pytest.approx(second["auc"], abs=1e-12)
    assert first["sensitivity"] == pytest.approx(second["specificity"], abs=1e-12)
    assert first["brier"] == pytest.approx(second["brier"], abs=1e-12)


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (["AD", "NC"], "AD"),
        (["NC", "AD"], "AD"),
        (["CN", "pMCI"], "pMCI"),
        (["Demented", "Nondemented"], "Demented"),
        (["control", "dementia"], "dementia"),
        (["F", "M"], "F"),
        (["healthy", "normal"], "healthy"),
        (["NC", "MCI", "AD"], "NC"),
    ],
)
def test_the_positive_class_is_not_the_control(names, positive):
    assert names[positive_class(names)] == positive


def test_subject_probability_is_the_mean_over_its_slices():
    labels, probabilities, ids = cohort(1, 6, 5, 2, ties=False)
    _, owner = np.unique(ids, return_inverse=True)
    people = subject_level(slice_units(labels, logs(probabilities), owner))
    by_hand = np.stack([probabilities[owner == s].mean(axis=0) for s in range(6)])
    np.testing.assert_allclose(people.probabilities, by_hand, rtol=0, atol=1e-15)


def test_subject_probability_of_logits_and_votes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 3))
    owner, labels = np.repeat(np.arange(3), 4), np.repeat([2, 0, 1], 4)
    probabilities, slices = softmax(logits), slice_units(labels, logits, owner)
    people = subject_level(slices, "logits")
    by_hand = softmax(logits.reshape(3, 4, 3).mean(axis=1))
    np.testing.assert_allclose(people.probabilities, by_hand, rtol=0, atol=1e-14)
    votes = subject_level(slices, "vote").probabilities
    calls = probabilities.argmax(axis=1).reshape(3, 4)
    shares = np.stack([(calls == k).mean(axis=1) for k in range(3)], axis=1)
    np.testing.assert_allclose(votes, shares, atol=2e-9)
    np.testing.assert_allclose(votes.sum(axis=1), 1, atol=1e-12)
    with pytest.raises(InputError, match="'median': choose one of mean, logits, vote"):
        subject_level(slices, "median")


def test_a_tied_vote_goes_to_the_surer_class():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9]])
    slices = slice_units(np.ones(2, int), logs(probabilities), np.zeros(2, int))
    people = subject_level(slices, "vote")
    assert people.probabilities.argmax() == 1


def test_certain_slices_have_logits_too():
    slices = slice_units(np.zeros(2, int), 1000 * np.eye(2), np.zeros(2, int))
    people = subject_level(slices, "logits")
    np.testing.assert_allclose(people.probabilities, [[0.5, 0.5]])


@given(st.integers(0, 400), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_statsmodels(right, count):
    right = min(right, count)
    expected = proportion_confint(right, count, method="wilson")
    assert wilson(right, count) == pytest.approx(expected, abs=1e-12)


def test_interval_of_a_mean_is_that_of_scipy_with_student_s_reach():
    """BCa of the mean by scipy, at the tails that Student's t and n − 1 over n ask for."""
    rng = np.random.default_rng(0)
    values = rng.gamma(2.0, size=15)
    drawn = values[rng.integers(0, 15, (20_000, 15))].mean(axis=1)
    left_out = (values.sum() - values) / 14
    reach = np.sqrt(15 / 14) * stats.t.ppf(0.975, 14)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=2 * stats.norm.cdf(reach) - 1,
        bootstrap_result=None,
        n_resamples=20_000,
        rng=rng,
    ).confidence_interval
    found = bootstrap_interval(values.mean(), drawn, left_out, np.zeros(15, int))
    assert found == pytest.approx(tuple(expected), rel=0.02)
    symmetric = np.linspace(-1, 1, 10_001)
    low, high = bootstrap_interval(0.0, symmetric, np.array([-1.0, 0, 1]), np.zeros(3, int))
    assert high == pytest.approx(-low)


def test_interval_does_not_narrow_with_copies_of_slices():
    """Thirty copies of each subject's slice add slices, not information."""
    labels, probabilities, ids = cohort(4, 20, 1, 2, ties=False)
    one = subset_scores(labels, logs(probabilities), ids)
    many = subset_scores(
        np.repeat(labels, 30), logs(np.repeat(probabilities, 30, axis=0)), np.repeat(ids, 30)
    )
    for name in SCORES:
        assert many[f"slice_{name}"] == pytest.approx(one[f"slice_{name}"], abs=1e-6)
        assert many[f"subject_{name}"] == pytest.approx(one[f"subject_{name}"], abs=1e-6)


def test_confusion_is_that_of_scikit_learn():
    labels, probabilities, ids = cohort(3, 9, 4, 3, ties=False)
    found = subset_scores(labels, logs(probabilities), ids, draws=20)
    called = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(
        found["slice_confusion"], oracle.confusion_matrix(labels, called, labels=[0, 1, 2])
    )
    assert np.sum(found["subject_confusion"]) == 9
    for k in range(3):
        each = found["slice_per_class"][str(k)]
        assert each["sensitivity"]["value"] == pytest.approx((called == k)[labels == k].mean())
        assert each["auc"]["low"] <= each["auc"]["value"] <= each["auc"]["high"]


def test_one_class_only_leaves_what_compares_classes_undefined():
    found = subset_scores(np.zeros(4, int), np.zeros((4, 2)), np.array(list("aabb")))
    for name in ("auc", "specificity", "mcc"):
        assert found[f"slice_{name}"] == NOTHING, name
    assert found["slice_accuracy"]["value"] == 1.0
    assert found["slice_sensitivity"]["value"] == 1.0
    assert found["subject_specificity"]["wilson_low"] is None


def test_three_subjects_a_class_have_intervals_that_say_little():
    labels, probabilities, ids = cohort(8, 6, 10, 2, ties=False)
    found = subset_scores(labels, logs(probabilities), ids)
    auc = found["slice_auc"]
    assert 0 <= auc["low"] < auc["value"] < auc["high"] <= 1
    assert found["subject_accuracy"]["wilson_high"] - found["subject_accuracy"]["wilson_low"] > 0.3


def test_one_subject_of_a_class_gives_no_interval():
    labels, probabilities = np.repeat([0, 1, 1, 1], 5), cohort(8, 4, 5, 2, ties=False)[1]
    found = subset_scores(labels, logs(probabilities), np.repeat(list("abcd"), 5))
    assert found["slice_auc"]["value"] is not None
    assert found["slice_auc"]["low"] is None
    assert found["slice_accuracy"]["low"] is None
    positives = found["slice_specificity"]  # that of class 1, which has three subjects
    assert positives["value"] is not None


def test_a_subject_with_two_labels_counts_once_for_each():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = subset_scores(labels, logs(probabilities), np.array(["a", "a", "a", "b"]), draws=50)
    assert found["subjects"] == 2
    assert found["subject_accuracy"]["value"] == 1.0
    assert np.sum(found["subject_confusion"]) == 3


@pytest.mark.parametrize("right", [True, False])
def test_draws_that_are_all_the_same_give_no_interval(right):
    """All right, or one class called for all: certainty that the bootstrap does not have."""
    labels = np.repeat([0, 1], 4)
    called = labels if right else np.zeros(8, int)
    found = subset_scores(labels, logs(np.eye(2)[called]), np.arange(8).astype(str), draws=200)
    share = 1.0 if right else 0.5
    accuracy = found["subject_accuracy"]
    assert (accuracy["value"], accuracy["low"], accuracy["high"]) == (share, None, None)
    low, _ = proportion_confint(8 * share, 8, 0.05, "wilson")
    assert accuracy["wilson_low"] == pytest.approx(low)
    assert found["subject_auc"]["low"] is None
    assert found["subject_mcc"]["value"] == (1.0 if right else 0.0)


def test_slices_of_nobody_known_have_figures_without_intervals_or_subjects():
    labels, probabilities, _ = cohort(1, 6, 5, 2, ties=False)
    found = subset_scores(labels, logs(probabilities), np.full(len(labels), NO_ID))
    assert found["subjects"] == 0
    assert "subject_confusion" not in found
    for name in SCORES:
        assert found[f"subject_{name}"] == NOTHING
        assert found[f"slice_{name}"]["value"] is not None
        assert found[f"slice_{name}"]["low"] is None


def test_thirty_classes_of_which_some_were_not_tested_have_all_figures_and_intervals():
    labels, probabilities, ids = cohort(0, 50, 3, 30, ties=False, present=25)
    found = subset_scores(labels, logs(probabilities), ids, draws=200)
    called = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(
        found["slice_confusion"], oracle.confusion_matrix(labels, called, labels=np.arange(30))
    )
    assert np.sum(found["subject_confusion"], axis=1).tolist() == [2] * 25 + [0] * 5
    for level in ("slice", "subject"):
        for name in ("auc", "average_precision", "accuracy"):
            each = found[f"{level}_{name}"]
            assert 0 <= each["low"] < each["value"] < each["high"] <= 1
        absent = found[f"{level}_per_class"]["29"]
        assert [absent[name] for name in ("sensitivity", "auc", "f1")] == [NOTHING] * 3
        assert absent["specificity"]["value"] is not None
    present = [found["slice_per_class"][str(k)]["auc"]["value"] for k in range(25)]
    assert found["slice_auc"]["value"] == pytest.approx(np.mean(present))


def test_one_subject_of_one_class_of_many_gives_no_interval():
    labels, probabilities, ids = cohort(0, 29, 3, 15, ties=False)
    found = subset_scores(labels, logs(probabilities), ids, draws=100)
    assert sorted(np.sum(found["subject_confusion"], axis=1)) == [1] + [2] * 14
    for name in ("auc", "accuracy"):
        each = found[f"subject_{name}"]
        assert each["value"] is not None and each["low"] is None
    assert found["subject_accuracy"]["wilson_low"] is not None


def test_broken_probabilities_give_no_figure_that_needs_them():
    labels, probabilities, ids = cohort(0, 6, 2, 2, ties=False)
    probabilities[3] = np.nan
    found = subset_scores(labels, logs(probabilities), ids, draws=20)
    for name in ("auc", "average_precision", "brier", "ece"):
        assert found[f"slice_{name}"] == NOTHING


def test_run_figures_reads_classes_by_name():
    table = pd.DataFrame(
        {
            "subset": ["test"] * 4,
            "subject_id": list("abcd"),
            "label": ["NC", "AD", "NC", "AD"],
            "logit_AD": np.log([0.1, 0.9, 0.6, 0.8]),
            "logit_NC": np.log([0.9, 0.1, 0.4, 0.2]),
        }
    )
    found = run_scores(table, ["NC", "AD"])["test"]
    assert found["slice_accuracy"]["value"] == 0.75
    assert found["positive_class"] == "AD"
    assert found["subject_sensitivity"]["value"] == 1.0
    assert found["subject_specificity"]["value"] == 0.5


def test_per_class_figures_are_one_against_the_rest():
    labels, probabilities, _ = cohort(6, 10, 2, 3, ties=False)
    units, ones = slice_units(labels, logs(probabilities), np.arange(20)), np.ones((1, 20))
    each = class_scores(units, ones)
    for k in range(3):
        said = 1 * (probabilities.argmax(axis=1) == k)
        alone = scores(slice_units(1 * (labels == k), np.eye(2)[said], np.arange(20)), ones, 1)
        for name in ("sensitivity", "specificity", "f1"):
            assert each[name][0, k] == pytest.approx(alone[name][0], abs=1e-12)


def test_ranks_are_those_of_exact_logits_however_large_they_are():
    """Of margins up to ±200 probabilities are 0 or 1 and tie; logits rank both classes alike."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    margin = 60 * rng.normal(size=60) + 25 * (2 * labels - 1)
    logits = np.stack([np.zeros(60), margin], axis=1).astype(np.float32)
    exact = logits[:, 1].astype(float) - logits[:, 0]
    ids = np.arange(60).astype(str)
    for names in (["NC", "AD"], ["AD", "NC"]):
        scores = subset_scores(labels, logits, ids, class_names=names, draws=20)
        area = oracle.roc_auc_score(labels, exact)
        assert scores["slice_auc"]["value"] == pytest.approx(area, abs=1e-12)
        assert scores["subject_auc"]["value"] == pytest.approx(area, abs=1e-12)
    rounded = oracle.roc_auc_score(labels, softmax(logits)[:, 1])
    assert abs(rounded - area) > 0.005  # what probabilities rank


@pytest.mark.parametrize("aggregate", ["mean", "logits", "vote"])
def test_subject_margins_equal_those_of_many_digits(aggregate):
    """Subjects' log-odds by arithmetic of 200 digits, with margins of up to a few hundred."""
    import mpmath as mp

    rng = np.random.default_rng(1)
    logits = (100 * rng.normal(size=(12, 2))).astype(np.float32)
    owner = np.repeat(np.arange(3), 4)
    found = subject_level(slice_units(np.zeros(12, int), logits, owner), aggregate).margin(1)
    with mp.workdps(200):
        odds = [mp.exp(mp.mpf(float(b)) - mp.mpf(float(a))) for a, b in logits]
        p = [o / (1 + o) for o in odds]
        for s in range(3):
            own = [k for k in range(12) if owner[k] == s]
            if aggregate == "logits":
                expected = mp.fsum(mp.log(odds[k]) for k in own) / 4
            else:
                up = mp.fsum(p[k] for k in own) / 4
                if aggregate == "vote":
                    votes = mp.fsum(p[k] > 0.5 for k in own) / 4
                    tie = mp.mpf("1e-9")
                    down = (1 - votes + tie * (1 - up)) / (1 + tie)
                    up = (votes + tie * up) / (1 + tie)
                    expected = mp.log(up / down)
                else:
                    expected = mp.log(up) - mp.log(mp.fsum(1 - p[k] for k in own) / 4)
            assert found[s] == pytest.approx(float(expected), rel=1e-9)


def test_subjects_whose_label_changes_are_one_subject_without_wilson():
    """45 subjects, five of whom convert: 45 subjects, 50 rows that are not independent."""
    rng = np.random.default_rng(0)
    owner = np.concatenate([np.arange(45), np.arange(5)])
    labels = np.concatenate([np.arange(45) % 2, 1 - np.arange(5) % 2])
    scores = subset_scores(labels, rng.normal(size=(50, 2)), owner.astype(str), draws=200)
    assert (scores["subjects"], scores["subject_labels"]) == (45, 50)
    assert "wilson_low" not in scores["subject_accuracy"]
    assert scores["subject_accuracy"]["low"] is not None
