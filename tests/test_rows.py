"""The whole head: rows, angles, seeds and carriers against scipy and brute force."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from headscope.analysis import (
    analyse_head,
    head_analysis,
    logit_contributions,
    pair_analysis,
    run_shrinkage,
    seed_correlation,
    sum_shrinkage,
)
from headscope.analysis.final_layer.null import residual_interval
from headscope.analysis.final_layer.relation import LearnedNull, learned_correlations
from headscope.errors import InputError
from headscope.record import write_history
from headscope.supplement.head import head_facts, head_tables
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run


@pytest.fixture
def weight():
    return np.random.default_rng(4).gamma(2, 0.1, (3, 400)) - 0.15  # (K, D), skewed


def test_rank_correlation_and_slopes_equal_scipy(weight):
    weight[1] = np.round(weight[0] + 0.5 * weight[1], 1)  # with ties
    result = pair_analysis(weight, pair=(0, 1))
    x, y = weight[:2]
    assert result.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert result.slope == pytest.approx(stats.linregress(x, y).slope, rel=1e-12)
    x, y = x - x.mean(), y - y.mean()

    def distance(angle):
        return np.sum((np.cos(angle) * y - np.sin(angle) * x) ** 2)

    angle = optimize.minimize_scalar(distance, bounds=(0, np.pi / 2), options={"xatol": 1e-12}).x
    assert result.orthogonal_slope == pytest.approx(np.tan(angle), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "slope"),
    [
        ([-1, 1, 0, 0], [0, 0, -2, 2], np.inf),
        ([-2, 2, 0, 0], [0, 0, -1, 1], 0),
        ([-1, 1, 0, 0], [0, 0, -1, 1], np.nan),
        ([0, 1, 2, 5], [0, -3, -6, -15], -3),
    ],
)
def test_the_nearest_line_may_stand_upright_or_nowhere(x, y, slope):
    assert pair_analysis([x, y]).orthogonal_slope == pytest.approx(slope, nan_ok=True)


def test_rows_equal_scipy(weight):
    initial = np.random.default_rng(5).uniform(-0.1, 0.1, weight.shape)
    head = head_analysis(weight, initial=initial, class_names=list("abc"))
    for k, row in enumerate(head.rows):
        w = weight[k]
        known = stats.describe(w)
        assert (row.mean, row.sd**2) == pytest.approx((known.mean, known.variance), rel=1e-12)
        assert (row.minimum, row.maximum) == known.minmax
        assert (row.skewness, row.kurtosis) == pytest.approx((known.skewness, known.kurtosis))
        assert row.quantiles == pytest.approx(np.percentile(w, [1, 5, 25, 50, 75, 95, 99]))
        assert row.norm == pytest.approx(np.linalg.norm(w), rel=1e-12)
        assert row.participation == pytest.approx(1 / np.sum((w**2 / np.sum(w**2)) ** 2))
        near = [abs(each) <= 0.1 * np.sqrt(np.mean(w**2)) for each in w]
        assert row.near_zero == sum(near) / len(w)
        ks = stats.ks_2samp(w, initial[k], method="asymp")
        assert (row.ks, row.ks_p) == (ks.statistic, ks.pvalue)
        test = stats.levene(w, initial[k], center="median")
        assert (row.levene, row.levene_p) == (test.statistic, test.pvalue)
        assert row.variance_ratio == pytest.approx(np.var(w) / np.var(initial[k]))


def test_near_zero_and_carriers_of_known_laws():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(size=200_000), rng.uniform(-1, 1, 200_000)])
    normal, uniform = head_analysis(rows, pairs=[]).rows
    assert (normal.near_zero, uniform.near_zero) == pytest.approx((0.080, 0.058), abs=0.003)
    assert normal.participation / 200_000 == pytest.approx(1 / 3, rel=0.02)
    assert uniform.participation / 200_000 == pytest.approx(5 / 9, rel=0.02)


def test_rows_of_a_simplex_lie_on_it_and_random_ones_do_not(weight):
    K = 5
    frame = np.linalg.qr(np.random.default_rng(1).normal(size=(40, K)))[0].T  # (K, D)
    simplex = 3 * (np.eye(K) - 1 / K) @ frame + np.arange(40)  # a common row changes nothing
    geometry = head_analysis(simplex, pairs=[]).geometry
    assert geometry.simplex_distance == pytest.approx(0, abs=1e-7)
    assert geometry.norm_variation == pytest.approx(0, abs=1e-10)
    assert geometry.cosine_deviation == pytest.approx(0, abs=1e-10)
    geometry = head_analysis(weight).geometry
    cosine = weight[0] @ weight[2] / np.linalg.norm(weight[0]) / np.linalg.norm(weight[2])
    assert geometry.cosines[0, 2] == pytest.approx(cosine, rel=1e-12)
    centred = weight - weight.mean(axis=0)
    gram = centred @ centred.T
    ideal = np.full((3, 3), -1 / 3) + np.eye(3)
    expected = np.linalg.norm(gram / np.linalg.norm(gram) - ideal / np.linalg.norm(ideal))
    assert geometry.simplex_distance == pytest.approx(expected, rel=1e-12)


def test_two_classes_have_no_simplex_to_speak_of(weight):
    head = head_analysis(weight[:2])
    assert np.isnan(head.geometry.simplex_distance) and head.pairs[0].r_learned == -1


def test_a_head_carries_what_its_pairs_share(weight):
    initial = weight + 0.001
    head = head_analysis(weight, np.zeros(3), initial, shrinkage=0.5)
    assert [pair.pair for pair in head.pairs] == [(0, 1), (0, 2), (1, 2)]
    assert {pair.displacement_ratio for pair in head.pairs} == {head.displacement_ratio}
    expected = np.abs(weight.sum(axis=0) - 0.5 * initial.sum(axis=0)).max()
    assert head.row_sum_drift == expected
    assert {pair.row_sum_drift for pair in head.pairs} == {expected}
    assert head.pairs[0].r_learned == pytest.approx(
        np.corrcoef(weight - weight.mean(axis=0))[0, 1], rel=1e-12
    )


DEGENERATE = {
    "constant": np.full((2, 30), 0.5),
    "zeros": np.zeros((3, 30)),
    "one row constant": np.stack([np.full(30, 0.1), np.linspace(-1, 1, 30)]),
    "one feature": np.array([[1.0], [2.0], [4.0]]),
    "two features": np.array([[1.0, 2.0], [2.0, 1.0]]),
    "equal rows": np.tile(np.linspace(-1, 1, 30), (2, 1)),
    "opposite rows": np.linspace(-1, 1, 30) * np.array([[1.0], [-1.0]]),
    "a thousand": np.random.default_rng(0).normal(size=(1000, 20)),  # D < K
}


@pytest.mark.parametrize("start", ["none", "itself", "zeros"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_heads_answer_without_a_warning(name, start):
    weight = DEGENERATE[name]
    initial = {"none": None, "itself": weight, "zeros": np.zeros_like(weight)}[start]
    head = head_analysis(weight, initial=initial)
    assert len(head.pairs) == {2: 1, 3: 3, 1000: 1}[len(weight)]
    facts = head_facts(head)
    json.dumps(facts, allow_nan=False)
    assert facts["meaning"] and repr(head) and head._repr_html_()
    for pair in head.pairs:
        if np.isnan(pair.r):
            assert pair.notes and not pair.departs
    if name in ("constant", "zeros"):
        assert "undefined" in head.meaning and "undefined" in repr(head)


def test_an_untrained_head_says_that_it_stands_where_it_stood():
    initial = np.random.default_rng(3).uniform(-0.03, 0.03, (2, 2048))
    head = head_analysis(initial, initial=initial, shrinkage=1.0, class_names=("NC", "AD"))
    assert head.displacement_ratio == pytest.approx(1, abs=0.05)
    pair = head.pairs[0]
    assert not pair.departs and pair.residual_low <= 0 <= pair.residual_high
    assert all(row.ks == 0 and row.variance_ratio == 1 for row in head.rows)
    assert "nothing of what it learned" in head.meaning


def test_the_meaning_says_what_departs():
    rng = np.random.default_rng(2)
    initial = rng.normal(0, 0.05, (3, 512))
    learned = 0.8 * initial.sum(axis=0)
    weight = initial + np.stack([learned, -0.5 * learned, -0.5 * learned])
    assert "worth a look" in head_analysis(weight, initial=initial, shrinkage=1.0).meaning
    for K in (2, 3):
        moved = head_analysis(0.5 * weight[:K], initial=initial[:K], shrinkage=1.0)
        assert "row sum moved" in moved.meaning


def moved_weights(seed, along=0.0, K=5, D=400):
    """A head of K classes that SGD might have trained: rows 0 and 1 alike in part, by `along`.

    Returns the initial and the trained weight, (K, D) each.
    """
    rng = np.random.default_rng(seed)
    initial = rng.uniform(-0.05, 0.05, (K, D))
    learned = rng.normal(0, 0.1, (K, D))
    learned[:2] += along * rng.normal(0, 0.1, D)
    return initial, initial + learned - learned.mean(axis=0)


def test_many_pairs_of_unrelated_classes_do_not_depart():
    heads = [
        head_analysis(weight, initial=initial, shrinkage=1.0)
        for initial, weight in map(moved_weights, range(15))
    ]
    assert sum(any(pair.departs for pair in head.pairs) for head in heads) <= 3


def test_classes_that_are_related_are_said_to_be():
    unrelated = [moved_weights(seed)[1] for seed in range(1000, 1099)]
    for along, words in ((0.7, "that difference is what was learned"), (0, "chance gives as much")):
        initial, weight = moved_weights(0, along)
        null = LearnedNull(learned_correlations(np.stack([weight, *unrelated])))
        head = head_analysis(weight, initial=initial, shrinkage=1.0, learned=null)
        assert head.pairs[0].related == (along > 0) and not head.pairs[0].departs
        assert ("class 0 and to class 1" in head.meaning) or not along
        assert words in head.meaning and "99 heads retrained" in head.meaning


def test_a_head_prints_its_rows_pairs_and_meaning(weight):
    shown = repr(head_analysis(weight, class_names=("NC", "MCI", "AD")))
    for text in ("3 classes × 400 features", "NC · MCI", "displacement ratio", "learned r"):
        assert text in shown
    many = repr(head_analysis(DEGENERATE["a thousand"]))
    assert "… and 990 more rows." in many
    pair = repr(pair_analysis(weight))
    assert "r, null prediction" in pair and "*z^4" in pair


def test_seeds_are_correlated_row_by_row():
    rng = np.random.default_rng(6)
    shared = rng.normal(size=(3, 500))
    heads = [shared + rng.normal(0, 0.5, (3, 500)) for _ in range(4)]
    found = seed_correlation(heads, class_names=list("abc"))
    expected = [np.corrcoef(heads[0][k], heads[2][k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(found.rows[:, 0, 2], expected, rtol=1e-12)
    centred = [head - head.mean(axis=0) for head in heads]
    assert found.learned[1, 3, 0] == pytest.approx(np.corrcoef(centred[3][1], centred[0][1])[0, 1])
    pairs = [found.rows[0, i, j] for i in range(4) for j in range(i)]
    assert found.mean_rows[0] == pytest.approx(np.mean(pairs), rel=1e-12)
    assert "between 4 seeds" in repr(found)
    with pytest.raises(InputError, match="of one shape"):
        seed_correlation([heads[0], heads[1][:2]])


def test_contributions_sum_to_the_mean_logit():
    rng = np.random.default_rng(7)
    W, b, f = rng.normal(size=(3, 20)), rng.normal(size=3), rng.exponential(size=(50, 20))
    label = rng.integers(0, 2, 50)  # the third class has no slices
    found = logit_contributions(W, f, label, class_names=list("abc"), most=20)
    assert {each.class_name for each in found} == {"a", "b"}
    for k, name in enumerate("ab"):
        own = [each for each in found if each.class_name == name]
        logit = (f[label == k] @ W.T + b)[:, k].mean()
        assert sum(each.contribution for each in own) + b[k] == pytest.approx(logit, rel=1e-12)
        size = [abs(each.contribution) for each in own]
        assert size == sorted(size, reverse=True)
        assert own[0].contribution == pytest.approx(own[0].weight * own[0].mean_feature)
    assert len(logit_contributions(W, f, most=2)) == 6
    for arguments in ((W, f[:, :3]), (W, f, label[:4])):
        with pytest.raises(InputError, match="have shape"):
            logit_contributions(*arguments)


@pytest.mark.parametrize(("select", "probe"), [("final", 2), ("best", 1)])
def test_a_run_counts_the_epochs_and_phases_whose_weights_it_kept(tmp_path, select, probe):
    run = write_synthetic_run(tmp_path, weight_decay=0.02, head_learning_rate=2.0, epochs=6)
    rates = [0.3, 0.2, 0.1, 0.3, 0.1, 0.05]
    columns = {"learning_rate": rates, "phase": ["probe"] * 2 + ["train"] * 4,
               "val_loss": [0.5, 0.6, 0.1, 0.2, 0.05, 0.3]}  # fmt: skip
    write_history(run.path, run.history.assign(**columns).to_dict("records"))
    metrics = json.loads((run.path / "metrics.json").read_text())
    (run.path / "metrics.json").write_text(json.dumps(metrics | {"selected_epoch": 5}))
    fresh = reseal(run.path)
    fresh.settings["select"] = select
    steps, expected = run.settings["steps_per_epoch"], 1.0
    for phase in (rates[:probe], rates[2:5]):
        expected *= sum_shrinkage(np.repeat(2 * np.array(phase), steps), 0.02, 0.9)
    assert run_shrinkage(fresh) == pytest.approx(expected, rel=1e-12)
    assert analyse_head(fresh).pairs[0].shrinkage == run_shrinkage(fresh)


def test_tables_hold_every_row_pair_and_fit(weight):
    head = head_analysis(weight, class_names=list("abc"))
    tables = head_tables(head)
    assert tables["rows"]["quantile_50"].tolist() == [row.quantiles[3] for row in head.rows]
    assert tables["pairs"]["r"].tolist() == [pair.r for pair in head.pairs]
    assert (tables["fits"]["class_y"] == "c").sum() == 8
    assert not any(table.map(lambda cell: isinstance(cell, list)).to_numpy().any()
                   for table in tables.values())  # fmt: skip
    assert isinstance(tables["rows"], pd.DataFrame)


@pytest.mark.parametrize(
    ("rho", "ratio", "classes"), [(0.0, 3.0, 2), (0.3, 3.0, 2), (0.6, 2.0, 2), (0.3, 3.0, 3)]
)
def test_the_interval_holds_the_truth_in_95_of_100_heads(rho, ratio, classes):
    # the truth is the residual of the law that features are drawn from; bench/interval.py at length
    rng, D, heads = np.random.default_rng(11), 96, 300
    along = np.array([1.0, -1.0] if classes == 2 else [1.0, -0.6, -0.4])
    u, v = along[:2]
    learned, both = ratio**2, rho * ratio
    moments = 1 + u * v * learned, 1 + u * u * learned, 1 + v * v * learned
    r = (moments[0] + (u + v) * both) / np.sqrt(
        (moments[1] + 2 * u * both) * (moments[2] + 2 * v * both)
    )
    truth = r - moments[0] / np.sqrt(moments[1] * moments[2])
    hits = 0
    for _ in range(heads):
        s, rest = rng.normal(size=(2, D))
        d = ratio * (rho * s + np.sqrt(1 - rho**2) * rest)
        low, high = residual_interval(np.outer(np.ones(classes), s) + np.outer(along, d), s, (0, 1))
        hits += low - 1e-12 <= truth <= high + 1e-12
    # 4 standard errors about 95%: the plain percentiles hold a truth of 0 never
    assert hits / heads == pytest.approx(0.95, abs=0.05)
