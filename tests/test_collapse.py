"""Neural collapse against a brute-force reading of Papyan, Han & Donoho, and at its limits."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.analysis.representation.collapse import (
    Collapse,
    analyse_collapse,
    collapse_analysis,
)
from headscope.errors import InputError
from tests.support.synthetic import write_synthetic_run


def drawn(N, D, K, seed=0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(K), rng.integers(0, K, N - K)])
    X = 2.0 * rng.normal(size=(K, D))[y] + rng.normal(size=(N, D)) + 5
    return X, y, rng.normal(size=(K, D)), rng.normal(size=K)


def simplex(K, D, scale=1.0, seed=0):
    """Return K vectors of D dimensions at equal lengths and angles, summing to zero."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, K)))[0].T  # (K, D)
    return scale * (np.eye(K) - 1 / K) @ basis


def by_brute_force(X, y, W, b):
    """Every definition as it is written, with D × D matrices and loops."""
    K, D = W.shape
    mu = [X[y == k].mean(axis=0) for k in range(K)]
    centre = sum(mu) / K
    within, between = np.zeros((D, D)), np.zeros((D, D))
    for x, k in zip(X, y, strict=True):
        within += np.outer(x - mu[k], x - mu[k]) / len(X)
    for m in mu:
        between += np.outer(m - centre, m - centre) / K
    M = np.stack([m - centre for m in mu], axis=1)  # (D, K)

    def cosines(rows):
        return np.array(
            [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in combinations(rows, 2)]
        )

    def equinorm(rows):
        norms = [np.linalg.norm(row) for row in rows]
        return np.std(norms) / np.mean(norms)

    nearest = [np.argmin([np.linalg.norm(x - m) for m in mu]) for x in X]
    C = W - W.mean(axis=0)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / K,
        "nc2_equinorm": equinorm(M.T),
        "nc2_equiangular": np.std(cosines(M.T)),
        "nc2_simplex": np.mean(np.abs(cosines(M.T) + 1 / (K - 1))),
        "weight_equinorm": equinorm(W),
        "weight_equiangular": np.std(cosines(W)),
        "weight_simplex": np.mean(np.abs(cosines(W) + 1 / (K - 1))),
        "nc3": np.linalg.norm(W.T / np.linalg.norm(W) - M / np.linalg.norm(M)),
        "nc3_centred": np.linalg.norm(C.T / np.linalg.norm(C) - M / np.linalg.norm(M)),
        "nc4": np.mean(nearest == (X @ W.T + b).argmax(axis=1)),
    }


TRIVIAL = ("nc2_equinorm", "nc2_equiangular", "nc2_simplex", "weight_equiangular", "weight_simplex")


@pytest.mark.parametrize(
    ("N", "D", "K"), [(50, 6, 3), (20, 60, 4), (40, 5, 2), (12, 40, 2), (30, 4, 8)]
)
def test_every_measure_equals_a_brute_force_reading(N, D, K):
    X, y, W, b = drawn(N, D, K)
    found, expected = collapse_analysis(X, y, W, b), by_brute_force(X, y, W, b)
    for name, value in expected.items():
        if K == 2 and name in TRIVIAL:
            assert np.isnan(getattr(found, name)), name
        else:
            assert getattr(found, name) == pytest.approx(value, rel=1e-8), name


@pytest.mark.parametrize("K", [2, 3, 10])
def test_a_collapsed_network_is_at_every_limit(K):
    M = simplex(K, 32, scale=3.0)
    y = np.repeat(np.arange(K), 7)
    found = collapse_analysis(M[y] + 4.0, y, 0.2 * M, -0.2 * M @ np.full(32, 4.0))
    assert found.nc1 == pytest.approx(0, abs=1e-20)
    assert found.weight_equinorm == pytest.approx(0, abs=1e-12)
    assert (found.nc3, found.nc3_centred) == pytest.approx((0, 0), abs=1e-12)
    assert found.nc4 == 1
    if K > 2:
        angles = [getattr(found, name) for name in TRIVIAL]
        assert angles == pytest.approx([0] * 5, abs=1e-12)
        assert found.notes == ()


def test_nc1_is_variance_within_over_that_between():
    K, D = 4, 64
    M = simplex(K, D)
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(K), 20_000 // K)
    found = collapse_analysis(M[y] + 0.1 * rng.normal(size=(20_000, D)), y, M)
    # Σ_B = (1/K) Σ m mᵀ is 1/K on its K − 1 directions, Σ_W is 0.01 everywhere.
    assert found.nc1 == pytest.approx(0.01 * K * (K - 1) / K, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 100), D=st.integers(4, 40))
def test_moving_turning_and_scaling_features_changes_nothing(seed, scale, D):
    X, y, W, b = drawn(30, D, 3, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]
    one = collapse_analysis(X, y, W, b)
    other = collapse_analysis(scale * X @ turn, y, W @ turn / scale, b)
    for name in ("nc1", "nc2_equinorm", "nc2_equiangular", "nc2_simplex", "nc3", "nc4"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-6)


def test_the_mean_row_of_weights_does_not_count_in_the_centred_duality():
    X, y, W, _ = drawn(40, 9, 3)
    moved = W + np.random.default_rng(1).normal(size=9)
    one, other = collapse_analysis(X, y, W), collapse_analysis(X, y, moved)
    assert other.nc3_centred == pytest.approx(one.nc3_centred)
    assert abs(other.nc3 - one.nc3) > 1e-3


def test_held_out_slices_are_compared_with_training_means(tmp_path):
    run = write_synthetic_run(tmp_path, width=40, epochs=3, class_names=("NC", "MCI", "AD"))
    stored, head = run.features, run.head
    train, test = (stored["subset"] == name for name in ("train", "test"))
    X, y = stored["features"].astype(float), stored["label"]
    mu = [X[train & (y == k)].mean(axis=0) for k in range(3)]
    nearest = np.array([np.argmin([np.linalg.norm(x - m) for m in mu]) for x in X[test]])
    found = analyse_collapse(run, "test")
    decided = stored["logits"][test].argmax(axis=1)
    assert found.nc4 == pytest.approx((nearest == decided).mean())
    expected = by_brute_force(X[test], y[test], head["weight"].astype(float), 0.0)
    assert found.nc1 == pytest.approx(expected["nc1"], rel=1e-6)
    assert (found.slices, found.means_of) == (test.sum(), "training slices")
    seen = analyse_collapse(run, "train")
    assert (seen.slices, seen.means_of) == (train.sum(), "these slices")
    with pytest.raises(InputError, match="'all' is none of train, val, test"):
        analyse_collapse(run, "all")


def test_two_classes_show_no_trivial_angle():
    X, y, W, _ = drawn(20, 5, 2)
    found = collapse_analysis(X, y, W, class_names=("NC", "AD"), subset="train")
    text = repr(found)
    assert "NC1" in text and "angles" not in text
    assert "are opposite each other" in text
    assert "angles" in repr(collapse_analysis(*drawn(20, 5, 3)[:3]))


def test_an_absent_class_leaves_the_others():
    X, y, W, b = drawn(30, 6, 4)
    kept = y != 2
    found = collapse_analysis(X[kept], y[kept], W, b, class_names=list("abcd"))
    rows = [0, 1, 3]
    expected = by_brute_force(X[kept], np.searchsorted(rows, y[kept]), W[rows], b[rows])
    assert found.nc1 == pytest.approx(expected["nc1"])
    assert np.isnan(found.nc3) and "No slice here is of c" in found.notes[0]
    assert 0 <= found.nc4 <= 1


@pytest.mark.parametrize(
    ("X", "y", "why"),
    [
        (np.full((6, 4), 0.1), [0, 1, 0, 1, 0, 1], "class means coincide"),
        (np.eye(6, 4), [0] * 6, "No slice here is of class 1"),
        (np.empty((0, 4)), np.empty(0, int), "There are no slices"),
    ],
)
def test_what_cannot_be_measured_says_so(X, y, why):
    found = collapse_analysis(X, y, np.eye(2, 4))
    assert np.isnan([found.nc1, found.nc2_equinorm, found.nc3, found.nc3_centred]).all()
    assert why in found.notes[0]
    assert any("One class alone" in note for note in found.notes) == (why.startswith("No slice"))


def test_a_thousand_classes_and_an_untrained_or_empty_head():
    X, y, W, _ = drawn(2500, 24, 1000)
    found = collapse_analysis(X, y, W)
    values = [found.nc1, found.nc2_equinorm, found.nc2_simplex, found.nc3, found.nc4]
    assert np.isfinite(values).all()
    empty = collapse_analysis(X[:5], [0, 1, 2, 0, 1], np.zeros((3, 24)))
    assert np.isnan([empty.weight_equinorm, empty.weight_simplex, empty.nc3]).all()
    assert isinstance(empty, Collapse) and np.isfinite(empty.nc1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((2, 3))}, "does not fit features"),
        ({"weight": np.zeros((1, 4))}, "does not fit features"),
        ({"bias": np.zeros(3)}, r"bias has shape \(3,\)"),
        ({"labels": [0, 1, 2, 0]}, "label 2 names none of 2 classes"),
        ({"train_means": np.zeros((3, 4))}, r"train_means has shape \(3, 4\)"),
        ({"class_names": ["a"]}, "1 class names"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"features": np.eye(4), "labels": [0, 1, 0, 1], "weight": np.eye(2, 4)} | changes
    with pytest.raises(InputError, match=message):
        collapse_analysis(**given)
