"""The head analysis against scipy, numpy, torch's own SGD and the paper's printed numbers."""

from math import log, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS

from headscope.analysis import (
    PolynomialFit,
    analyse_pair,
    class_pairs,
    correlation_from_moments,
    pair_analysis,
    sum_shrinkage,
)
from headscope.errors import InputError
from tests.support.synthetic import write_synthetic_run


@pytest.fixture
def head():
    rng = np.random.default_rng(3)
    x = rng.normal(0.001, 0.113, 300)
    return np.stack([x, -0.9 * x + 0.3 * x**2 + rng.normal(0, 0.03, 300)])  # (2, D)


def test_correlation_equals_scipy_and_the_identity(head):
    result = pair_analysis(head)
    assert result.r == pytest.approx(stats.pearsonr(*head).statistic, abs=1e-12)
    assert result.r_identity == pytest.approx(result.r, abs=1e-12)
    s, d = head[0] + head[1], head[0] - head[1]
    assert result.sum_variance == pytest.approx(np.var(s, ddof=1), rel=1e-12)
    assert result.difference_variance == pytest.approx(np.var(d, ddof=1), rel=1e-12)
    assert result.sum_difference_covariance == pytest.approx(np.cov(s, d)[0, 1], rel=1e-9)
    assert result.displacement_ratio == pytest.approx(np.std(d) / np.std(s), rel=1e-12)


def test_linear_fit_equals_linregress(head):
    fit, line = pair_analysis(head).fits[0], stats.linregress(*head)
    assert fit.coefficients[0] / fit.sigma == pytest.approx(line.slope, rel=1e-12)
    assert fit([0.0])[0] == pytest.approx(line.intercept, rel=1e-9)
    assert fit.r2 == pytest.approx(line.rvalue**2, rel=1e-12)
    assert fit.f == pytest.approx((line.slope / line.stderr) ** 2, rel=1e-9)
    assert fit.p == pytest.approx(line.pvalue, rel=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_fits_equal_numpy_and_the_f_test_by_hand(head, degree):
    x, y = head
    n = len(x)
    z = (x - x.mean()) / x.std(ddof=1)
    fit = pair_analysis(head).fits[degree - 1]
    assert (fit.degree, fit.mu) == (degree, pytest.approx(x.mean(), rel=1e-12))
    assert fit.sigma == pytest.approx(x.std(ddof=1), rel=1e-12)
    np.testing.assert_allclose(fit.coefficients, np.polyfit(z, y, degree), rtol=1e-8, atol=1e-12)

    def rss(k):
        return np.sum((y - np.polyval(np.polyfit(z, y, k), z)) ** 2)

    free = n - degree - 1
    f = (rss(degree - 1) - rss(degree)) / (rss(degree) / free)
    tss = np.sum((y - y.mean()) ** 2)
    assert fit.residual_norm == pytest.approx(np.sqrt(rss(degree)), rel=1e-10)
    assert fit.r2 == pytest.approx(1 - rss(degree) / tss, rel=1e-10)
    assert fit.adjusted_r2 == pytest.approx(1 - rss(degree) / free / (tss / (n - 1)), rel=1e-10)
    assert fit.f == pytest.approx(f, rel=1e-7)
    assert fit.p == pytest.approx(1 - stats.f.cdf(f, 1, free), abs=1e-9)
    sigma2 = rss(degree) / n
    likelihood = stats.norm.logpdf(
        y, np.polyval(np.polyfit(z, y, degree), z), np.sqrt(sigma2)
    ).sum()
    assert fit.bic == pytest.approx((degree + 1) * log(n) - 2 * likelihood, rel=1e-10)
    assert fit.bic == pytest.approx(n * (log(2 * pi * sigma2) + 1) + (degree + 1) * log(n))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_fits_equal_statsmodels_to_ten_digits(head, degree):
    x, y = head
    z = (x - x.mean()) / x.std(ddof=1)
    fit = pair_analysis(head).fits[degree - 1]
    whole, below = (OLS(y, np.vander(z, k + 1)).fit() for k in (degree, degree - 1))
    f, p, _ = whole.compare_f_test(below)
    np.testing.assert_allclose(fit.coefficients, whole.params, rtol=0, atol=1e-10)
    assert (fit.r2, fit.adjusted_r2) == pytest.approx(
        (whole.rsquared, whole.rsquared_adj), abs=1e-10
    )
    assert fit.bic == pytest.approx(whole.bic, rel=1e-10)
    assert fit.f == pytest.approx(f, rel=1e-8)
    assert fit.p == pytest.approx(p, abs=1e-10)


def test_equation_reads_as_the_paper_prints_it():
    fit = PolynomialFit(
        degree=4,
        mu=0.000927,
        sigma=0.113,
        coefficients=(-0.000125, 0.000412, 0.000671, -0.107, -3.51e-05),
        **dict.fromkeys(("residual_norm", "r2", "adjusted_r2", "bic", "f", "p"), 0.0),
    )
    assert fit.equation == (
        "y = −0.000125*z^4 + 0.000412*z^3 + 0.000671*z^2 − 0.107*z − 3.51e-05, "
        "where z = (x − 0.000927)/0.113"
    )


def test_the_papers_slope_follows_from_spread_and_initialisation_alone():
    # Glorot-uniform 2048 → 2: sd sqrt(2 / 2050) = 0.0312 a row; var W[0] = 0.113² as printed.
    sum_variance = 2 * 0.0312**2
    difference_variance = 4 * 0.113**2 - sum_variance
    r = correlation_from_moments(sum_variance, difference_variance, 0.0)
    assert r == pytest.approx(-0.924, abs=5e-4)


def test_null_prediction_takes_the_sum_from_the_initial_head():
    rng = np.random.default_rng(0)
    initial = rng.uniform(-0.02, 0.02, (2, 2048))
    learned = rng.normal(0, 0.1, 2048)
    weight = 0.9 * initial + np.stack([learned, -learned])
    shrinkage = sum_shrinkage([0.1], 1.0)  # one step that shrinks the sum to 0.9 of itself
    result = pair_analysis(weight, initial=initial, shrinkage=shrinkage)
    s, d = 0.9 * initial.sum(axis=0), weight[0] - weight[1]
    vs, vd = np.var(s), np.var(d)
    assert result.shrinkage == pytest.approx(0.9)
    assert result.row_sum_drift < 1e-15
    assert result.r_null == pytest.approx((vs - vd) / (vs + vd), rel=1e-12)
    assert result.null_slope == pytest.approx(result.r_null, rel=1e-12)
    assert result.r_conserved == pytest.approx(result.r, abs=1e-12)
    assert result.residual == pytest.approx(result.r - result.r_null, abs=1e-15)
    assert result.null_source == "initial head"
    assert result.notes == ()


def residuals_one_by_one(weight, mean_row, pair):
    """Yield r, the null with the observed sum, and r_null of each draw of features."""
    D = weight.shape[1]
    for drawn in np.random.default_rng(0).integers(0, D, (1000, D)):
        W = weight[:, drawn]
        kept = np.var(mean_row[drawn])
        a, b = (W - weight.mean(axis=0)[drawn])[list(pair)]
        null = (kept + np.cov(a, b, ddof=0)[0, 1]) / np.sqrt(
            (kept + np.var(a)) * (kept + np.var(b))
        )
        x, y = W[list(pair)]
        vs, vd = np.var(x + y), np.var(x - y)
        sign = np.sign(np.var(x) - np.var(y))
        yield np.corrcoef(x, y)[0, 1], (vs - vd) / (vs + vd), null, sign


def widened(values, D):
    tail = stats.norm.sf(np.sqrt(D / (D - 1)) * stats.t.ppf(0.975, D - 1))
    return np.quantile(values, [tail, 1 - tail])


def test_interval_of_many_classes_equals_drawing_the_features_one_by_one():
    rng = np.random.default_rng(8)
    initial = rng.normal(0, 0.1, (4, 60))
    weight = initial + rng.normal(0, 0.2, (4, 60))
    result = pair_analysis(weight, initial=initial, shrinkage=1.0, pair=(1, 0))
    drawn = np.array(list(residuals_one_by_one(weight, initial.mean(axis=0), (1, 0))))
    expected = widened(drawn[:, 0] - drawn[:, 2], 60)
    np.testing.assert_allclose((result.residual_low, result.residual_high), expected, atol=1e-12)
    assert result.residual_low < result.residual < result.residual_high


@pytest.mark.parametrize("drift", [0.0, 0.1])
def test_interval_of_two_classes_equals_drawing_the_features_one_by_one(drift):
    rng = np.random.default_rng(9)
    initial = rng.normal(0, 0.1, (2, 60))
    learned = 0.9 * initial.sum(axis=0) + rng.normal(0, 0.1, 60)
    weight = initial + np.stack([learned, -learned]) + drift * rng.normal(0, 0.5, 60)
    result = pair_analysis(weight, initial=initial, shrinkage=1.0)
    drawn = np.array(list(residuals_one_by_one(weight, initial.mean(axis=0), (0, 1))))
    root = widened(drawn[:, 3] * np.sqrt(np.abs(drawn[:, 0] - drawn[:, 1])), 60)
    assert root[0] * root[1] > 0, "a residual that is told from 0"
    vs, vd = np.var(weight.sum(axis=0)), np.var(weight[0] - weight[1])
    at = (vs - vd) / (vs + vd)
    bend, moved = result.r - at, at - result.r_null
    near, far = np.sort(np.sign(bend) * root**2)
    low, high = widened(drawn[:, 1] - drawn[:, 2], 60)
    assert result.residual - result.residual_low == pytest.approx(
        np.hypot(bend - near, moved - low)
    )
    assert result.residual_high - result.residual == pytest.approx(
        np.hypot(far - bend, high - moved)
    )


def trained_by_sgd(seed, width):
    """Return the initial and the trained weight of a head on random features, and its rates."""
    torch.manual_seed(seed)
    features, label = torch.randn(64, width), torch.randint(2, (64,))
    layer = torch.nn.Linear(width, 2)
    initial = layer.weight.detach().numpy().copy()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(features), label).backward()
        optimizer.step()
    shrinkage = sum_shrinkage([0.05] * 40, 1e-3, 0.9)
    return layer.weight.detach().numpy(), {"initial": initial, "shrinkage": shrinkage}


@pytest.mark.parametrize("width", [16, 96, 1280])
@pytest.mark.parametrize("seed", range(4))
def test_a_head_trained_by_sgd_does_not_depart(seed, width):
    weight, training = trained_by_sgd(seed, width)
    result = pair_analysis(weight, **training)
    assert not result.drifted and not result.departs


def test_a_head_with_a_shrunken_row_sum_departs():
    weight, training = trained_by_sgd(0, 512)
    shrunken = weight - 0.8 * weight.mean(axis=0)  # the sum is a fifth of what it was
    result = pair_analysis(shrunken, **training)
    assert result.drifted and result.departs
    assert not pair_analysis(shrunken).drifted, "without its training nobody can tell"
    foreign = pair_analysis(shrunken, initial=training["initial"])
    assert foreign.shrinkage == pytest.approx(0.2 * training["shrinkage"], abs=1e-4)
    assert not foreign.drifted, "a strong weight decay would have done the same"


def test_a_material_residual_of_three_classes_departs_without_any_drift():
    rng = np.random.default_rng(2)
    initial = rng.normal(0, 0.05, (3, 512))
    learned = 0.8 * initial.sum(axis=0)  # d follows s: the moments of each alone cannot tell
    weight = initial + np.stack([learned, -0.5 * learned, -0.5 * learned])
    result = pair_analysis(weight, initial=initial, shrinkage=1.0)
    assert not result.drifted
    assert result.residual_high < 0 or result.residual_low > 0
    assert result.departs


def test_untrained_head_has_no_correlation_and_a_displacement_of_one():
    initial = np.random.default_rng(1).normal(0, 0.03, (5, 20_000))
    result = pair_analysis(initial, initial=initial, pair=(1, 3))
    assert result.r == pytest.approx(0, abs=0.02)
    assert result.displacement_ratio == pytest.approx(1, abs=0.02)
    assert result.row_sum_drift == 0


def test_without_an_initial_head_the_null_says_so(head):
    result = pair_analysis(head)
    vs, vd = (np.var(head[0] + sign * head[1]) for sign in (1, -1))
    assert result.r_null == pytest.approx((vs - vd) / (vs + vd), rel=1e-12)
    assert result.null_source == "observed row sum"
    assert np.isnan(result.row_sum_drift) and np.isnan(result.r_conserved)
    assert any("No initial head" in note for note in result.notes)


@settings(max_examples=25, deadline=None)
@given(
    rates=st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=60),
    decay=st.floats(0, 0.1),
    momentum=st.floats(0, 0.95),
)
def test_sum_shrinkage_is_what_torch_does_to_an_idle_parameter(rates, decay, momentum):
    idle = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.SGD([idle], lr=1.0, momentum=momentum, weight_decay=decay)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        idle.grad = torch.zeros_like(idle)
        optimizer.step()
    assert sum_shrinkage(rates, decay, momentum) == pytest.approx(idle[0].item(), rel=1e-12)


def test_sum_shrinkage_of_plain_sgd_is_the_product():
    rates = [0.1, 0.05, 0.2]
    assert sum_shrinkage(rates, 0.3) == pytest.approx(np.prod([1 - 0.3 * r for r in rates]))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    width=st.integers(5, 200),
    classes=st.integers(2, 4),
    rate=st.floats(1e-3, 0.1),
    decay=st.floats(0, 0.01),
    momentum=st.floats(0, 0.95),
    steps=st.integers(1, 60),
)
def test_sgd_conserves_the_row_sum_as_predicted(seed, width, classes, rate, decay, momentum, steps):
    torch.manual_seed(seed)
    features, label = torch.randn(64, width), torch.randint(classes, (64,))
    layer = torch.nn.Linear(width, classes)
    initial = layer.weight.detach().numpy().copy()
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    for step in range(steps):
        rows = torch.randperm(64)[:16]
        optimizer.param_groups[0]["lr"] = rate * 0.9 ** (step // 10)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(features[rows]), label[rows]).backward()
        optimizer.step()
    weight = layer.weight.detach().numpy()
    rates = [rate * 0.9 ** (step // 10) for step in range(steps)]
    result = pair_analysis(weight, initial=initial, shrinkage=sum_shrinkage(rates, decay, momentum))
    # In float32 what the sum may lose is relative to the weights that cancel in it.
    scale = np.abs(weight).sum(axis=0).max()
    assert result.row_sum_drift <= 1e-5 * scale
    assert result.r_identity == pytest.approx(result.r, abs=1e-9)
    assert result.r_conserved == pytest.approx(result.r, abs=1e-3)


def test_run_gives_the_null_its_own_rates(tmp_path):
    run = write_synthetic_run(tmp_path, weight_decay=0.01, head_learning_rate=3.0, epochs=14)
    result = analyse_pair(run)
    assert result.shrinkage < 0.96
    assert result.row_sum_drift < 1e-6
    assert result.residual == pytest.approx(0, abs=0.01)
    assert result.class_names == ("NC", "AD")
    assert result.notes == ()


def test_run_without_steps_estimates_its_decay(tmp_path):
    run = write_synthetic_run(tmp_path, weight_decay=0.01, epochs=14)
    recorded = analyse_pair(run).shrinkage
    del run.settings["steps_per_epoch"]
    result = analyse_pair(run)
    assert result.shrinkage_estimated and recorded < 0.99
    assert result.shrinkage == pytest.approx(recorded, abs=1e-6)
    assert any("weight decay is not known" in note for note in result.notes)


def test_pairs_of_many_classes_use_the_mean_row():
    rng = np.random.default_rng(5)
    weight = rng.normal(0, 0.1, (4, 500))
    result = pair_analysis(weight, pair=(2, 0), class_names=list("abcd"))
    assert result.class_names == ("c", "a")
    mean = weight.mean(axis=0)
    c, a = weight[2] - mean, weight[0] - mean
    kept = np.var(mean)
    expected = (kept + np.cov(c, a, ddof=0)[0, 1]) / np.sqrt(
        (kept + np.var(c)) * (kept + np.var(a))
    )
    assert result.r_null == pytest.approx(expected, rel=1e-9)
    assert len(class_pairs(4)) == 6
    assert class_pairs(11) == [(0, 1)]


def test_constant_row_has_no_correlation_and_says_so():
    weight = np.stack([np.full(50, 0.1), np.linspace(-1, 1, 50)])
    result = pair_analysis(weight, class_names=("NC", "AD"))
    assert np.isnan(result.r) and np.isnan(result.residual_low)
    assert result.fits == () and not result.departs
    assert any("to NC are all equal" in note for note in result.notes)


@pytest.mark.parametrize(("width", "degrees"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (9, 4)])
def test_too_few_features_for_a_degree_leave_it_out(width, degrees):
    weight = np.random.default_rng(width).normal(size=(2, width))
    result = pair_analysis(weight)
    assert [fit.degree for fit in result.fits] == list(range(1, degrees + 1))
    if 1 < width < 5:
        assert any("determine no fit above degree" in note for note in result.notes)


def test_exact_polynomial_leaves_nothing_to_test():
    x = np.linspace(-1, 1, 40)
    linear, quadratic, cubic, _ = pair_analysis(np.stack([x, 2 * x**2 - x])).fits
    assert linear.residual_norm > 0.1
    assert (quadratic.residual_norm, quadratic.f, quadratic.p) == (0, np.inf, 0)
    assert quadratic.bic == -np.inf
    assert np.isnan(cubic.f)


def test_a_head_that_started_at_zero_has_moved_infinitely_far():
    d = np.random.default_rng(0).normal(size=64)
    result = pair_analysis(np.stack([d, -d]), initial=np.zeros((2, 64)))
    assert result.displacement_ratio == np.inf
    assert result.r == result.r_null == pytest.approx(-1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": np.zeros(4)}, r"weight has shape \(4,\)"),
        ({"weight": np.zeros((1, 4))}, r"K of 2 or more"),
        ({"weight": np.full((2, 4), np.nan)}, "not finite"),
        ({"weight": np.eye(2), "bias": np.zeros(3)}, r"bias has shape \(3,\)"),
        ({"weight": np.eye(2), "initial": np.eye(3)}, "initial has shape"),
        ({"weight": np.eye(2), "class_names": ["a"]}, "1 class names were given for 2 rows"),
        ({"weight": np.eye(2), "pair": (0, 2)}, "names no two of 2 classes, 0 to 1"),
        ({"weight": np.eye(2), "pair": (1, 1)}, "names no two of 2 classes"),
    ],
)
def test_wrong_input_is_named(arguments, message):
    with pytest.raises(InputError, match=message):
        pair_analysis(**arguments)
