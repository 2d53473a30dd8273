"""Alignment of layers against the definitions written out, neighbours against scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.neighbors import KNeighborsClassifier

from headscope.analysis.representation.stages import (
    analyse_transfer,
    knn_accuracy,
    linear_cka,
    same_subject,
)
from headscope.errors import InputError
from headscope.files import NO_ID
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run


@pytest.mark.parametrize(("n", "C", "D"), [(12, 3, 5), (8, 30, 4), (20, 40, 50)])
def test_cka_equals_its_definition(n, C, D):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(n, C)) + 3, rng.normal(size=(n, D))
    Y[:, 0] += X[:, 0]
    A, B = X - X.mean(axis=0), Y - Y.mean(axis=0)
    expected = np.linalg.norm(B.T @ A) ** 2 / np.linalg.norm(A.T @ A) / np.linalg.norm(B.T @ B)
    assert linear_cka(X, Y) == pytest.approx(expected, rel=1e-10)


def test_debiased_cka_is_the_statistic_over_all_quadruples():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(7, 4)), rng.normal(size=(7, 9))
    Y[:, :4] += X
    K, L = X @ X.T, Y @ Y.T

    def hsic(K, L):
        return np.mean(
            [
                K[i, j] * (L[i, j] + L[k, m] - 2 * L[i, k])
                for i, j, k, m in permutations(range(7), 4)
            ]
        )

    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert linear_cka(X, Y, debiased=True) == pytest.approx(expected, rel=1e-9)


def test_unrelated_wide_layers_look_alike_only_before_debiasing():
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(60, 1000)), rng.normal(size=(60, 1000))
    assert linear_cka(X, Y) > 0.8
    assert linear_cka(X, Y, debiased=True) == pytest.approx(0, abs=0.05)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(0.01, 100), debiased=st.booleans())
def test_cka_does_not_see_rotation_scale_or_place(seed, scale, debiased):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(10, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(X, scale * X @ turn + 7, debiased=debiased) == pytest.approx(1, rel=1e-8)
    Y = rng.normal(size=(10, 4))
    assert linear_cka(X, Y) == pytest.approx(linear_cka(Y, X), rel=1e-9)
    assert 0 <= linear_cka(X, Y) <= 1


def test_cka_that_is_undefined():
    X = np.random.default_rng(0).normal(size=(3, 4))
    assert np.isnan(linear_cka(X, np.full((3, 2), 0.1)))
    assert np.isnan(linear_cka(X, X, debiased=True))
    with pytest.raises(InputError, match="x has 3 slices and y 2"):
        linear_cka(X, X[:2])


def people_and_points(seed=0):
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(20), 4)
    y = owner % 2
    X = rng.normal(size=(20, 6))[owner] + 0.5 * rng.normal(size=(80, 6)) + y[:, None]
    return X, y, np.array([f"s{i:02d}" for i in owner])


def test_neighbours_are_scikit_learns_without_the_own_subject():
    X, y, people = people_and_points()
    known = np.arange(80) % 4 < 2  # a split by slice: every subject on both sides
    right = []
    for row in np.flatnonzero(~known):
        others = known & (people != people[row])
        model = KNeighborsClassifier(5).fit(X[others], y[others])
        right.append(model.predict(X[[row]])[0] == y[row])
    assert knn_accuracy(X, y, people, known, ~known) == pytest.approx(np.mean(right))


def test_the_nearest_decides_equal_votes():
    X = np.array([[0.0], [1], [2], [3], [4]])
    y, people = np.array([1, 0, 1, 0, 1]), np.array(list("abcde"))
    known = np.array([False, True, True, True, True])
    assert knn_accuracy(X, y, people, known, ~known, neighbours=4) == 0
    assert knn_accuracy(X, np.array([1, 1, 0, 1, 0]), people, known, ~known, neighbours=4) == 1


def test_the_nearest_slice_may_be_of_the_same_subject():
    X, _, people = people_and_points()
    distance = np.linalg.norm(X[:, None] - X[None], axis=2) + 1e9 * np.eye(80)
    expected = (people[distance.argmin(axis=1)] == people).mean()
    assert same_subject(X, people) == pytest.approx(expected)
    alone = people.copy()
    alone[0] = "nobody else"
    assert same_subject(X, alone) == pytest.approx(
        (alone[distance.argmin(axis=1)] == alone)[1:].mean()
    )
    assert np.isnan(same_subject(X, np.arange(80).astype(str)))


def test_without_ids_or_slices_neighbours_are_undefined():
    X, y, people = people_and_points()
    known = np.arange(80) < 40
    assert np.isnan(knn_accuracy(X, y, np.full(80, NO_ID), known, ~known))
    assert np.isnan(knn_accuracy(X, y, people, known, np.zeros(80, bool)))
    assert np.isnan(knn_accuracy(X, y, np.full(80, "one"), known, ~known))
    assert np.isnan(same_subject(X, np.full(80, NO_ID)))


def staged(folder, *, regime, moved, seed=0):
    """A record with two stages: the first as it started, the second moved."""
    run = write_synthetic_run(folder, regime=regime, subjects=20, slices_each=4, width=8, epochs=1)
    rng = np.random.default_rng(5)
    rows = np.arange(80)
    first, second = rng.normal(size=(80, 6)), rng.normal(size=(80, 10))
    noise = np.random.default_rng(6).normal(size=(80, 10))
    np.savez(run.path / "layers.npz", stem=first, block=second + moved * noise, slice=rows)
    weight = {"stem.0.weight": np.ones((3, 3), np.float32),
              "block.weight": np.full((2, 2), 1.0 + moved, np.float32),
              "block.running_mean": np.full(2, 100 * moved, np.float32)}  # fmt: skip
    save_file(weight, run.path / "model.safetensors")
    return reseal(run.path)


def test_nothing_is_drawn_from_a_network_that_has_changed(tmp_path):
    frozen = staged(tmp_path, regime="frozen", moved=0.0)
    tuned = staged(tmp_path, regime="finetune", moved=0.5)
    path = frozen.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x42")  # another number in a sound file
    with pytest.raises(InputError, match=r"frozen.*model.safetensors has changed since"):
        analyse_transfer(tuned, frozen)
    assert analyse_transfer(tuned).stages  # which needs no weights


def test_stages_are_compared_with_the_frozen_run(tmp_path):
    frozen, tuned = (
        staged(tmp_path, regime=regime, moved=moved)
        for regime, moved in (("frozen", 0.0), ("finetune", 0.5))
    )
    found = analyse_transfer(tuned, frozen)
    stem, block = found.stages
    assert (stem.stage, stem.width, block.width) == ("stem", 6, 10)
    assert (stem.cka, stem.cka_debiased, stem.weight_change) == pytest.approx((1, 1, 0))
    assert block.cka == linear_cka(tuned.layers["block"], frozen.layers["block"]) < 0.95
    assert block.weight_change == pytest.approx(0.5)
    subset, rows = tuned.features["subset"], np.arange(80)
    assert block.knn_accuracy == knn_accuracy(
        tuned.layers["block"], tuned.features["label"][rows], tuned.features["subject_id"][rows],
        subset == "train", subset == "test",
    )  # fmt: skip
    assert found.majority == pytest.approx(0.5, abs=0.2)
    assert "weights moved" in repr(found)
    assert found.notes == ()
    bright = np.random.default_rng(0).normal(size=(80, 1))
    tuned.layers["stem"] = bright @ np.ones((1, 6)) + 0.01 * tuned.layers["stem"]
    assert "stem: the means over positions vary" in analyse_transfer(tuned).notes[0]
    alone = analyse_transfer(tuned)
    assert np.isnan(alone.stages[0].cka) and alone.reference == ""


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    frozen = staged(tmp_path, regime="frozen", moved=0.0)
    other = write_synthetic_run(
        tmp_path, architecture="resnet18", subjects=20, slices_each=4, width=8, epochs=1
    )
    with pytest.raises(InputError, match="tf_efficientnet_lite0 is not resnet18"):
        analyse_transfer(other, frozen)
    fewer = write_synthetic_run(
        tmp_path, regime="scratch", subjects=20, slices_each=4, width=8, epochs=1
    )
    with pytest.raises(InputError, match="activations of different slices"):
        analyse_transfer(fewer, frozen)
