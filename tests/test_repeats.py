"""Intervals over repeated trainings: against plain formulas, and whether they hold the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from headscope.metrics import bootstrap_interval, repeated_interval, resample
from headscope.reporting.chapters.results import _seeds_disagree


def noisy_repeats(rng, subjects, repeats, noise, draws=300, seed=0):
    """All repeats test all subjects of one cohort; each training adds noise of its own.

    The figure is the mean of the subjects' values (variance 1, mean 0) plus the training's noise,
    so that the mean over repeats has variance 1/S + noise²/R about 0.
    """
    value = rng.normal(size=subjects)
    resampled = resample(np.arange(subjects) % 2, np.arange(subjects), subjects, draws, seed)
    effect = rng.normal(0, noise, (repeats, 1))
    parts = [
        effect + counts @ value / counts.sum(axis=1)
        for counts in (np.ones((1, subjects)), resampled.drawn, resampled.left_out)
    ]
    return parts[0][:, 0], parts[1], parts[2], resampled.stratum


def test_one_repeat_has_the_interval_of_its_own_network():
    once, drawn, left_out, stratum = noisy_repeats(np.random.default_rng(0), 20, 1, 3.0)
    expected = bootstrap_interval(once[0], drawn[0], left_out[0], stratum)
    assert repeated_interval(once, drawn, left_out, stratum) == pytest.approx(expected)


def test_copies_of_one_network_tell_no_more_than_one():
    once, drawn, left_out, stratum = noisy_repeats(np.random.default_rng(0), 20, 1, 3.0)
    alone = repeated_interval(once, drawn, left_out, stratum)
    copies = [np.repeat(part, 5, axis=0) for part in (once, drawn, left_out)]
    assert repeated_interval(*copies, stratum) == pytest.approx(alone)


def test_the_stretch_is_the_sum_of_variances_by_plain_loops():
    once, drawn, left_out, stratum = noisy_repeats(np.random.default_rng(1), 20, 4, 1.5)
    low, high = repeated_interval(once, drawn, left_out, stratum, ratio=0.6, shared=0.0)
    plain_low, plain_high = bootstrap_interval(
        once.mean(), drawn.mean(axis=0), left_out.mean(axis=0), stratum
    )
    sampling = np.mean([(d - drawn.mean()) ** 2 for d in drawn.mean(axis=0)]) * 20 / 18
    # each draw moves all repeats alike, so that sampling explains nothing of their differences
    excess = sum((g - once.mean()) ** 2 for g in once) / 3
    total = sampling + excess * (1 / 4 + 0.6)
    freedom = total**2 / (sampling**2 / 18 + (total - sampling) ** 2 / 3)
    stretch = np.sqrt(total / sampling) * stats.t.ppf(0.975, freedom) / stats.t.ppf(0.975, 18)
    assert high - once.mean() == pytest.approx(stretch * (plain_high - once.mean()), rel=1e-9)
    assert once.mean() - low == pytest.approx(stretch * (once.mean() - plain_low), rel=1e-9)


def test_degenerate_repeats_have_no_interval():
    once, drawn, left_out, stratum = noisy_repeats(np.random.default_rng(0), 20, 3, 1.0)
    assert repeated_interval(np.append(once[:2], np.nan), drawn, left_out, stratum) is None
    alike = np.repeat(once[:, None], drawn.shape[1], axis=1)
    assert repeated_interval(once, alike, left_out, stratum) is None
    lonely = np.append(np.zeros(19, dtype=int), 1)
    assert repeated_interval(once, drawn, left_out, lonely) is None


def test_draws_without_a_figure_are_left_out_and_bounds_hold():
    once, drawn, left_out, stratum = noisy_repeats(np.random.default_rng(0), 20, 3, 1.0)
    gappy = drawn.copy()
    gappy[1, :50] = np.nan
    expected = repeated_interval(once, drawn[:, 50:], left_out, stratum)
    assert repeated_interval(once, gappy, left_out, stratum) == pytest.approx(expected)
    low, high = repeated_interval(once, drawn, left_out, stratum, bounds=(-0.1, 0.1))
    assert low >= -0.1
    assert high <= 0.1


@pytest.mark.parametrize("repeats", [3, 5])
def test_the_variance_between_trainings_is_in_the_interval(repeats):
    """What a bootstrap over subjects alone holds in about six cases of ten."""
    rng, held, plain = np.random.default_rng(3), [], []
    for seed in range(300):
        parts = noisy_repeats(rng, 30, repeats, 0.4, seed=seed)
        low, high = repeated_interval(*parts, shared=0.0)
        held.append(low <= 0 <= high)
        low, high = bootstrap_interval(*(part.mean(axis=0) for part in parts[:3]), parts[3])
        plain.append(low <= 0 <= high)
    assert np.mean(plain) < 0.88
    assert np.mean(held) >= 0.915


@pytest.mark.parametrize(
    ("high", "between", "expected"),
    [(0.9, 0.1, True), (0.6, 0.1, False), (0.9, np.nan, False), (np.nan, 0.1, False)],
)
def test_a_page_says_why_an_interval_over_seeds_tells_nothing(high, between, expected):
    row = {"test_subject_accuracy_low": 0.5, "test_subject_accuracy_high": 0.6}
    row |= {"test_subject_auc_low": 0.2, "test_subject_auc_high": high}
    row |= {f"test_subject_{name}_seed_sd": between for name in ("accuracy", "auc")}
    assert _seeds_disagree(pd.DataFrame([row])) == expected
