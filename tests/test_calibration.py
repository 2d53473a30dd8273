"""Calibration: a temperature that is known, bins by hand, thresholds by brute force."""

from dataclasses import astuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_curve

from headscope.analysis.results.calibration import (
    analyse_calibration,
    fit_temperature,
    operating_points,
    reliability,
)
from headscope.figures.reliability import plot_reliability
from headscope.metrics import slice_units, softmax
from headscope.reporting.chapters.calibration import _sure
from headscope.reporting.chapters.results import _further_scores
from tests.support.synthetic import write_synthetic_run


def drawn_logits(n, classes, seed=0):
    """Logits, and labels drawn from their softmax: a temperature of 1 is right."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    label = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return logits, label


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("factor", [0.3, 1.0, 5.0])
def test_the_temperature_undoes_a_factor(classes, factor):
    logits, label = drawn_logits(20_000, classes)
    assert fit_temperature(factor * logits, label) == pytest.approx(factor, rel=0.05)


def test_the_temperature_is_that_of_a_logistic_regression_on_the_logit():
    logits, label = drawn_logits(500, 2)
    margin = (logits[:, 1] - logits[:, 0])[:, None]
    slope = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12).fit(margin, label)
    assert fit_temperature(logits, label) == pytest.approx(1 / slope.coef_[0, 0], rel=1e-4)


@pytest.mark.parametrize("factor", [1e-6, 15_456.0, 1e9])
def test_the_temperature_has_no_bounds(factor):
    logits, label = drawn_logits(500, 2)
    expected = factor * fit_temperature(logits, label)
    assert fit_temperature(factor * logits, label) == pytest.approx(expected, rel=1e-6)


def test_thresholds_tell_apart_what_probabilities_round_to_one():
    """All log-odds lie above 37, where a probability is 1.0; the best cut is known."""
    margin = np.array([50.0, 60.0, 70.0, 80.0])
    val = slice_units(np.array([0, 0, 1, 1]), np.stack([0 * margin, margin], axis=1), np.arange(4))
    youden, _ = operating_points(val, val, 1)
    assert youden.margin == 65.0 and youden.threshold == 1.0
    assert (youden.sensitivity, youden.specificity) == (1.0, 1.0)


def test_no_temperature_where_the_likelihood_has_no_maximum():
    label = np.array([0, 1, 0])
    assert np.isnan(fit_temperature(np.eye(2)[label], label))
    assert np.isnan(fit_temperature(np.eye(2)[1 - label], label))
    assert np.isnan(fit_temperature(np.empty((0, 2)), np.empty(0, int)))


def test_bins_and_likelihood_by_hand():
    logits, label = drawn_logits(300, 3)
    probabilities = softmax(logits)
    found = reliability(logits, label)
    assert found.nll == pytest.approx(log_loss(label, probabilities), abs=1e-12)
    assert sum(found.count) == 300
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    inside = (confidence > 10 / 15) & (confidence <= 11 / 15)
    assert found.count[10] == inside.sum()
    assert found.confidence[10] == pytest.approx(confidence[inside].mean())
    assert found.accuracy[10] == pytest.approx(right[inside].mean())
    gaps = [n * abs(a - c) for n, a, c in zip(found.count, found.accuracy, found.confidence,
                                              strict=True) if n]  # fmt: skip
    assert found.ece == pytest.approx(sum(gaps) / 300)


def test_certainty_that_is_wrong_has_a_finite_likelihood():
    logits = np.array([[3280.0, 0.0], [0.0, 3280.0]])
    assert reliability(logits, np.array([1, 0])).nll == pytest.approx(3280)  # 745 or less by clips
    assert np.isnan(reliability(np.empty((0, 2)), np.empty(0, int)).ece)


def subjects(seed, n, positive=1):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    score = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * (2 * (labels == positive) - 1))))
    probabilities = np.stack([score, score], axis=1)
    probabilities[:, 1 - positive] = 1 - score
    return slice_units(labels, np.log(probabilities), np.arange(n))


@pytest.mark.parametrize("positive", [0, 1])
def test_thresholds_are_the_best_of_validation(positive):
    val, test = subjects(0, 41, positive), subjects(1, 30, positive)
    youden, fixed = operating_points(val, test, positive, sensitivity=0.8)
    fpr, tpr, _ = roc_curve(val.labels == positive, val.probabilities[:, positive])
    best = (tpr - fpr).max()
    assert youden.val_sensitivity + youden.val_specificity - 1 == pytest.approx(best)
    assert fixed.val_sensitivity >= 0.8
    assert fixed.val_specificity == pytest.approx(1 - fpr[tpr >= 0.8].min())
    called = test.probabilities[:, positive] >= youden.threshold - 1e-12
    assert youden.sensitivity == pytest.approx(called[test.labels == positive].mean())
    assert youden.specificity == pytest.approx(1 - called[test.labels != positive].mean())
    assert youden.sensitivity_low < youden.sensitivity < youden.sensitivity_high


def test_thresholds_of_one_score_or_class():
    val = slice_units(np.array([0, 1]), np.zeros((2, 2)), np.arange(2))
    youden, _ = operating_points(val, val, 1)
    assert youden.val_sensitivity + youden.val_specificity == 1
    alone = slice_units(np.zeros(2, int), np.zeros((2, 2)), np.arange(2))
    assert operating_points(alone, val, 1) == ()
    _, fixed = operating_points(val, alone, 1)
    assert np.isnan(fixed.sensitivity) and np.isnan(fixed.sensitivity_low)


def test_a_run_is_calibrated_on_validation_and_told_on_test(tmp_path):
    run = write_synthetic_run(tmp_path, width=24, subjects=40, epochs=12)
    found = analyse_calibration(run)
    stored = run.features
    val, test = (stored["subset"] == name for name in ("val", "test"))
    logits = stored["logits"].astype(float)
    expected = fit_temperature(logits[val], stored["label"][val])
    assert found.temperature == pytest.approx(expected, rel=1e-5)
    after = reliability(logits[test] / found.temperature, stored["label"][test])
    assert found.after.count == after.count
    assert (found.after.nll, found.after.ece) == pytest.approx((after.nll, after.ece), rel=1e-5)
    assert found.before.ece == pytest.approx(run.metrics["test"]["slice_ece"]["value"], abs=1e-6)
    assert found.positive_class == "AD"
    assert len(found.points) == 2 and found.notes == ()
    assert "as trained" in repr(found) and f"{found.points[0].sensitivity:.3f} [" in repr(found)
    figure = plot_reliability(found)
    assert isinstance(figure, Figure)
    lines, points, *_ = figure.axes[0].collections
    shown = [n for n, count in enumerate(found.before.count) if count >= 10]
    assert 0 < len(shown) <= sum(count > 0 for count in found.before.count)
    confidence = np.array(found.before.confidence)[shown]
    np.testing.assert_allclose(points.get_offsets()[:, 0], confidence)
    ends = [[found.before.low[n], found.before.high[n]] for n in shown]
    np.testing.assert_allclose([part[:, 1] for part in lines.get_segments()], ends)


def test_three_classes_have_no_operating_point(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, class_names=("NC", "MCI", "AD"), epochs=1)
    found = analyse_calibration(run)
    assert found.points == () and found.positive_class is None


def test_a_run_without_validation_says_so(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, epochs=1)
    run.predictions["subset"] = run.predictions["subset"].replace("val", "train")
    found = analyse_calibration(run)
    assert np.isnan(found.temperature) and found.after is None and len(found.notes) == 2
    assert "fixes no temperature" in str(
        [text.get_text() for text in plot_reliability(found).axes[0].texts]
    )
    assert astuple(found.before)


def test_intervals_of_bins_are_those_of_the_bootstrap_over_subjects():
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(20), 12)
    label = owner % 2
    logits = rng.normal(0, 1.2, (240, 2)) + np.eye(2)[label]
    found = reliability(logits, label, owner=owner)
    k = int(np.argmax(found.count))
    confidence = softmax(logits).max(axis=1)
    inside = (confidence * len(found.count)).astype(int) == k
    correct = logits.argmax(axis=1) == label
    drawn = []
    for _ in range(4000):
        subjects = np.concatenate([rng.choice(np.arange(c, 20, 2), 10) for c in (0, 1)])
        rows = np.concatenate([np.flatnonzero(inside & (owner == s)) for s in subjects])
        drawn.append(correct[rows].mean())
    np.testing.assert_allclose(
        [found.low[k], found.high[k]], np.quantile(drawn, [0.025, 0.975]), atol=0.02
    )
    assert reliability(logits, label).low == ()
    lone = reliability(logits[:12], label[:12], owner=owner[:12])
    assert np.isnan(lone.low).all()


@pytest.mark.parametrize(
    ("temperatures", "words"),
    [
        ([2.0, 3.0], "too sure: T = 2.00 to 3.00"),
        ([2.0, np.nan, 3.0], "too sure: T = 2.00 to 3.00, of 2 of 3 runs"),
        ([0.5, 2.0], "not all too sure: T = 0.500 to 2.00"),
        ([0.5, np.nan], "too unsure: T = 0.500, of 1 of 2 runs"),
        ([np.nan], "no temperature could be fitted"),
    ],
)
def test_a_network_without_a_temperature_does_not_count_as_unsure(temperatures, words):
    assert _sure(temperatures) == words


@pytest.mark.parametrize("names", [("NC", "AD"), ("NC", "MCI", "AD")])
def test_the_brier_score_of_several_classes_is_said_to_reach_2(names, tmp_path):
    run = write_synthetic_run(tmp_path, class_names=names, width=8, slices_each=2, epochs=1)
    (table,) = _further_scores([run]).blocks
    assert ("Brier score: to 2" in table.table.title) == (len(names) > 2)
    rows = run.predictions[run.predictions["subset"] == "test"]
    wrong = rows[[f"probability_{name}" for name in names]].to_numpy() - np.stack(
        [rows["label"] == name for name in names], axis=1
    )
    terms = wrong**2 if len(names) > 2 else wrong[:, :1] ** 2
    value = run.metrics["test"]["slice_brier"]["value"]
    assert value == pytest.approx(terms.sum(axis=1).mean(), abs=1e-6)
