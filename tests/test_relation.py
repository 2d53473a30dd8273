"""Related class rows and the F of fits: size and power by simulation, p by brute force."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from headscope.analysis import analyse_head, head_analysis, learned_null, pair_analysis
from headscope.analysis.final_layer import relation as relation_module
from headscope.analysis.final_layer.fits import polynomial_fits
from headscope.analysis.final_layer.relation import (
    LearnedNull,
    head_count,
    learned_correlations,
    permuted_within_subsets,
    relation,
)
from headscope.analysis.final_layer.shuffles import (
    beside_shuffles,
    sequential_f,
    shuffle_count,
    shuffled_f,
)
from headscope.analysis.retrain import HeadRecipe, train_heads
from headscope.analysis.units import read_samples
from headscope.reporting import write_report
from headscope.supplement.head import head_facts, write_head
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

PLANTED = 0.2  # of a feature's spread
THREE = ("NC", "MCI", "AD")
SUBJECTS, SLICES, HEADS = 24, 4, 39


def cohort(rng, width):
    """Features (N, D) of which a few directions carry most, and the subject of each slice."""
    subject = np.repeat(np.arange(SUBJECTS), SLICES)
    spread = 1.0 / np.arange(1, 17)
    scores = rng.normal(size=(SUBJECTS, 16))[subject] + rng.normal(size=(len(subject), 16))
    mixture = rng.normal(size=(16, width)) / np.sqrt(2 * (spread**2).sum())
    return np.maximum((scores * spread) @ mixture, 0).astype(np.float32), subject


def trained(rng, classes, width, planted=0.0):
    """Return heads (1 + HEADS, K, D) trained on random labels by subject, one set of features."""
    features, subject = cohort(rng, width)
    dealt = np.arange(SUBJECTS) % classes
    labels = np.stack([rng.permutation(dealt)[subject] for _ in range(1 + HEADS)], axis=1)
    shared = np.abs(rng.normal(size=width)).astype(np.float32)
    features = features + planted * shared * (labels[:, :1] < 2)  # classes 0 and 1 alike
    bound = np.sqrt(6 / (width + classes))
    start = rng.uniform(-bound, bound, (classes, width)).astype(np.float32)
    bias = np.zeros(classes, np.float32)
    recipe = HeadRecipe((0.03,) * 10, 32, 0.9, 1e-4, int(rng.integers(2**31)), start, bias)
    return train_heads(features, labels, np.arange(len(features)), recipe)[0]


def share_related(classes, heads, width, planted=0.0):
    """Return the share of heads of which pairs are called related, by retraining and Fisher's z.

    Of planted heads the pair (0, 1) counts, else any.
    """
    rng = np.random.default_rng((7, classes))
    pairs, related, by_fisher = list(combinations(range(classes), 2)), 0, 0
    limit = stats.norm.isf(0.025 / len(pairs)) / np.sqrt(width - 3)
    for _ in range(heads):
        null = LearnedNull(learned_correlations(trained(rng, classes, width, planted)))
        asked = pairs[:1] if planted else pairs
        related += any(relation(null, pair, pairs).p <= 0.05 for pair in asked)
        z = [np.arctanh(null.correlations[0][pair]) + np.arctanh(1 / (classes - 1))
             for pair in asked]  # fmt: skip
        by_fisher += np.abs(z).max() > limit
    return related / heads, by_fisher / heads


@pytest.mark.parametrize("classes", [3, 5])
def test_random_labels_are_called_related_in_one_head_of_twenty(classes):
    # of 60 heads, 1 to 8 with probability 0.95 at 5%; independent features flag far more
    related, by_fisher = share_related(classes, 60, 1024)
    assert 1 / 60 <= related <= 8 / 60
    assert by_fisher > 0.2


@pytest.mark.parametrize("classes", [3, 5])
def test_classes_that_share_a_direction_are_called_related(classes):
    assert share_related(classes, 12, 256, planted=PLANTED)[0] >= 5 / 12  # by chance 1 in 5,000


def test_learned_correlations_equal_numpy():
    heads = np.random.default_rng(0).normal(size=(4, 3, 50))
    for r, W in zip(learned_correlations(heads), heads, strict=True):
        np.testing.assert_allclose(r, np.corrcoef(W - W.mean(axis=0)), rtol=1e-12)
    assert np.isnan(learned_correlations(np.ones((1, 3, 5)))).all()


def test_p_over_all_pairs_equals_the_definition():
    rng = np.random.default_rng(1)
    r = learned_correlations(rng.normal(size=(20, 4, 30)))
    pairs = list(combinations(range(4), 2))
    table = np.array([[matrix[pair] for pair in pairs] for matrix in r])
    distance = np.abs(table - table.mean(axis=0)) / table.std(axis=0)
    for k, pair in enumerate(pairs):
        standing = relation(LearnedNull(r), pair, pairs)
        assert standing.p == sum(max(row) >= distance[0, k] for row in distance) / 20
        assert standing.expected == pytest.approx(table[1:, k].mean())
        assert (standing.low, standing.high) == tuple(np.quantile(table[1:, k], [0.025, 0.975]))


def test_a_run_is_held_against_its_own_recipe_on_permuted_labels(tmp_path):
    run = write_synthetic_run(tmp_path, width=60, class_names=THREE, epochs=4)
    null, slices = learned_null(run), read_samples(run)
    assert (null.heads, null.reason) == (99, "")
    recorded = learned_correlations(run.head["weight"][None])[0]
    np.testing.assert_allclose(null.correlations[0], recorded, atol=0.02)
    labels = permuted_within_subsets(slices, 50, 0)
    assert len(np.unique(labels, axis=1).T) > 45
    for name in ("train", "val", "test"):
        rows = slices.rows(name)
        first = np.unique(slices.subject[rows], return_index=True)[1]
        expected = np.bincount(slices.label[rows][first], minlength=3)
        for drawn in labels[rows].T:
            assert (np.bincount(drawn[first], minlength=3) == expected).all()
            assert (
                drawn == drawn[first][np.searchsorted(first, np.arange(len(rows)), "right") - 1]
            ).all()
    head = analyse_head(run)
    assert [pair.retrained_heads for pair in head.pairs] == [99] * 3
    assert "99 heads retrained on labels permuted by subject" in head.meaning


def altered(run, drop=(), **head):
    stored = {name: values for name, values in run.head.items() if name not in drop} | head
    np.savez(run.path / "head.npz", **stored)
    return reseal(run.path)


def test_no_relation_is_claimed_where_no_reference_can_be_had(tmp_path, monkeypatch):
    def written(name, **settings):
        return write_synthetic_run(tmp_path / name, width=24, class_names=THREE, **settings)

    frozen = written("a")
    weight = frozen.head["weight"]
    turned = altered(frozen, weight=weight[:, ::-1] * [[1.0], [-2.0], [1.0]])
    cases = {
        "features were trained on the true": learned_null(written("b", regime="finetune")),
        "head before training is not recorded": learned_null(written("c", record_initial=False)),
        "does not give this head": learned_null(turned),
        "opposite whatever was learned": learned_null(write_synthetic_run(tmp_path / "d", width=8)),
    }
    slow = written("e")
    monkeypatch.setattr(relation_module, "WORK", 1e5)
    cases["would take too long"] = learned_null(slow)
    for words, null in cases.items():
        assert words in null.reason and null.heads == 0
        result = pair_analysis(weight, learned=null)
        assert not result.related and result.withheld == null.reason and np.isnan(result.related_p)
    bare = head_analysis(weight, class_names=THREE)
    assert not any(pair.related for pair in bare.pairs)
    assert "not judged from weights alone" in bare.meaning


def test_the_number_of_retrained_heads_is_bounded():
    def recipe(width, epochs):
        return HeadRecipe((0.1,) * epochs, 32, 0.9, 0.0, 0, np.zeros((5, width)), np.zeros(5))

    assert head_count(500, recipe(512, 20)) == 99
    assert 39 < head_count(3000, recipe(2048, 30)) < 99
    assert head_count(10**6, recipe(4096, 60)) < 39


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
def test_f_of_shuffles_equals_refitting_one_by_one(classes, known):
    rng = np.random.default_rng(classes)
    initial = rng.uniform(-1, 1, (classes, 40))
    W = 0.5 * initial + rng.normal(size=(classes, 40)) ** 3
    kept = 0.5 * initial[:2] if known else np.tile(W.mean(axis=0), (2, 1))
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(40), (999, 1)), axis=1)
    scores = []
    for order in orders:
        x, y = kept[:, order] + W[:2] - kept
        scores.append([fit.f for fit in polynomial_fits(x, y)])
    start = {"initial": initial, "shrinkage": 0.5} if known else {}
    scores = np.array(scores)
    np.testing.assert_allclose(shuffled_f(kept, W[:2] - kept, 4, 999), scores, rtol=1e-6, atol=1e-9)
    for k, fit in enumerate(pair_analysis(W, **start).fits):
        assert fit.shuffles == 999
        assert fit.shuffled_p == (1 + (scores[:, k] >= fit.f * (1 - 1e-9)).sum()) / 1000
        assert fit.shuffled_f_median == pytest.approx(np.median(scores[:, k]))
        assert fit.shuffled_f_high == pytest.approx(np.quantile(scores[:, k], 0.95), rel=0.05)


def test_bent_nulls_make_cubic_terms_significant_but_not_by_shuffles():
    rng = np.random.default_rng(5)
    by_f, by_shuffles, from_start = [], [], []
    for _ in range(40):
        initial, d = rng.uniform(-1, 1, (2, 512)), rng.laplace(size=512)
        s = initial.sum(axis=0)
        W, half = np.stack([s + d, s - d]) / 2, np.stack([s, s]) / 2
        cubic = beside_shuffles(polynomial_fits(*W), half, W - half, 199)[2]
        by_f.append(cubic.p < 0.05)
        by_shuffles.append(cubic.shuffled_p <= 0.05)
        W = initial + np.stack([d, -d]) / 2  # barely trained: d and s are not independent
        cubic = beside_shuffles(polynomial_fits(*W), initial, W - initial, 199)[2]
        from_start.append(cubic.shuffled_p <= 0.05)
    assert np.mean(by_f) > 0.8, "s and d are unrelated"
    assert np.mean(by_shuffles) <= 0.15 and np.mean(from_start) <= 0.15
    W[0] += 0.1 * W[1] ** 3
    assert pair_analysis(W[::-1]).fits[2].shuffled_p < 0.01


def test_shuffles_are_bounded_and_exact_lines_count_as_equal():
    assert shuffle_count(2048, 1) == shuffle_count(4096, 10) == 999
    assert shuffle_count(4096, 45) == 271 and shuffle_count(10**6, 45) == 199
    d = np.random.default_rng(0).normal(size=64)
    line = pair_analysis(np.stack([d, -d])).fits[0]
    assert (line.f, line.shuffled_p, line.shuffled_f_median) == (np.inf, 1.0, np.inf)
    assert np.isnan(sequential_f(np.ones((1, 9)), np.ones((1, 9)), 2)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_shrinkage_of_a_foreign_head_is_estimated(classes):
    rng = np.random.default_rng(classes)
    initial = rng.uniform(-0.05, 0.05, (classes, 800))
    learned = rng.normal(0, 0.1, (classes, 800))
    weight = 0.37 * initial + learned - learned.mean(axis=0)
    for stored in (weight, weight.astype(np.float16)):
        head = head_analysis(stored, initial=initial.astype(np.float16))
        for pair in head.pairs:
            assert pair.shrinkage == pytest.approx(0.37, abs=2e-3) and pair.shrinkage_estimated
            assert not pair.drifted and not pair.departs
            assert "0.37" in pair.notes[0] and "was estimated by regressing" in pair.notes[0]
        assert "worth a look" not in head.meaning
    moved = head_analysis(weight + rng.normal(0, 0.05, 800), initial=initial)
    assert moved.pairs[0].drifted and "row sum moved" in moved.meaning
    recorded = pair_analysis(weight, initial=initial, shrinkage=0.37)
    assert not recorded.shrinkage_estimated and recorded.notes == ()


def test_adam_with_decay_in_the_gradient_moves_the_sum_of_three_rows():
    torch.manual_seed(0)
    features, label = torch.randn(96, 200), torch.randint(3, (96,))
    layer = torch.nn.Linear(200, 3)
    initial = layer.weight.detach().numpy().copy()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(features), label).backward()
        optimizer.step()
    assert pair_analysis(layer.weight.detach().numpy(), initial=initial).drifted


def test_of_two_classes_nothing_departs_while_the_sum_is_conserved():
    rng = np.random.default_rng(2)
    initial = rng.normal(0, 0.05, (2, 512))
    s = initial.sum(axis=0)
    for share in (0.1, 0.8):  # d follows s, as it could by chance at few features
        d = share * s + rng.normal(0, 0.1, 512)
        head = head_analysis(initial + np.stack([d, -d]), initial=initial, shrinkage=1.0)
        pair = head.pairs[0]
        assert not pair.departs and not pair.related
        rho = np.corrcoef(s, head.weight[0] - head.weight[1])[0, 1]
        assert abs(pair.residual) <= 0.1925 * rho**2 * (1 + 3 * rho**2)
        assert "Of two classes nothing can depart" in head.meaning
        assert "nothing of what it learned" in head.meaning


def zero_start(classes, seed=0):
    """A head that torch trained from zero by SGD: float32 leaves a trace of a row sum."""
    torch.manual_seed(seed)
    features, label = torch.randn(64, 48), torch.randint(classes, (64,))
    layer = torch.nn.Linear(48, classes)
    torch.nn.init.zeros_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(features), label).backward()
        optimizer.step()
    return layer.weight.detach().numpy()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("initial", [True, False])
def test_a_head_from_zero_is_infinitely_displaced_everywhere(classes, initial, tmp_path):
    weight = zero_start(classes)
    start = np.zeros_like(weight) if initial else None
    head = head_analysis(weight, initial=start, class_names=THREE[:classes])
    assert head.displacement_ratio == np.inf and not any(pair.departs for pair in head.pairs)
    assert "∞" in repr(head) and "nan" not in repr(head).lower()
    if classes == 2:
        assert "displacement ratio ∞: nothing is conserved" in head.meaning
    facts = json.loads(json.dumps(head_facts(head), allow_nan=False))
    assert facts["displacement_ratio"] == facts["pairs"][0]["displacement_ratio"] == "Infinity"
    assert float(facts["displacement_ratio"]) == head.displacement_ratio
    assert facts["pairs"][0]["related"] is False
    assert all(path.is_file() for path in write_head(head, facts, tmp_path, "zero"))


@pytest.mark.parametrize("names", [("NC", "AD"), THREE])
def test_a_report_shows_a_head_from_zero(tmp_path, names, undrawn):
    run = write_synthetic_run(tmp_path, width=24, class_names=names)
    learned = run.head["weight"] - run.head["weight"].mean(axis=0)
    altered(run, weight=learned, initial_weight=0 * learned)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "nothing is conserved, as of a head that started at zero" in page
    assert 'data-quantity="displacement_ratio" data-value="inf"' in page
    assert "departs from the one" not in page
    if len(names) == 2:
        assert "Of two classes nothing can depart from it" in page
    else:
        assert "No relation is claimed" in page and "does not give this head" in page
