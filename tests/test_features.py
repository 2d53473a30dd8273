"""Features and logits against scikit-learn, scipy, a published example and brute force."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import f_classif
from sklearn.metrics import calinski_harabasz_score, silhouette_score

import headscope as hs
from headscope.analysis.representation.discriminant import (
    Discriminant,
    density_overlap,
    subject_folds,
)
from headscope.analysis.representation.features import (
    analyse_features,
    class_ellipses,
    feature_analysis,
)
from headscope.analysis.representation.intraclass import Intraclass, intraclass
from headscope.analysis.representation.separation import (
    compact,
    effective_rank,
    separation,
    silhouette,
)
from headscope.errors import InputError
from headscope.files import NO_ID
from tests.support.synthetic import write_synthetic_run

SHROUT_FLEISS = np.array(  # Psychological Bulletin 86 (1979), table 2: 6 targets, 4 judges
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)


def drawn(N=60, D=8, K=2, *, subjects=12, signal=1.5, subject_spread=0.5, seed=0):
    """Points, labels and subjects with class and subject effects; group sizes differ."""
    rng = np.random.default_rng(seed)
    person = np.concatenate([np.arange(subjects), rng.integers(0, subjects, N - subjects)])
    y = person % K
    X = signal * rng.normal(size=(K, D))[y] / np.sqrt(D) + rng.normal(size=(N, D))
    X += subject_spread * rng.normal(size=(subjects, D))[person]
    return X, y, np.array([f"s{p:02d}" for p in person])


@pytest.mark.parametrize(("N", "D", "K"), [(60, 8, 2), (60, 8, 4), (30, 200, 2), (40, 90, 3)])
def test_scatter_silhouette_and_ratios_equal_scikit_learn(N, D, K):
    X, y, people = drawn(N, D, K)
    found = separation(X, y, people)
    chi = calinski_harabasz_score(X, y)
    assert found.fisher_ratio == pytest.approx(chi * (K - 1) / (N - K), rel=1e-10)
    assert found.silhouette == pytest.approx(silhouette_score(X, y), abs=1e-10)
    assert found.within + found.between == pytest.approx(found.total, rel=1e-10)
    assert found.total == pytest.approx(np.trace(np.cov(X.T, ddof=0)), rel=1e-10)
    value = np.linalg.eigvalsh(np.cov(X.T))
    share = value[value > 1e-9] / value.sum()
    assert found.effective_rank == pytest.approx(np.exp(stats.entropy(share)), rel=1e-6)
    assert (found.width, found.notes) == (D, ())


@pytest.mark.parametrize(("N", "D"), [(80, 10), (30, 100)])
def test_the_discriminant_is_scikit_learns(N, D):
    X, y, _ = drawn(N, D)
    found = Discriminant.fit(X, y)
    rest = X - np.stack([X[y == k].mean(axis=0) for k in (0, 1)])[y]
    assert found.shrinkage == pytest.approx(
        ledoit_wolf_shrinkage(rest, assume_centered=True), rel=1e-9
    )
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=found.shrinkage).fit(X, y)
    direction = oracle.coef_[0] / np.linalg.norm(oracle.coef_[0])
    np.testing.assert_allclose(
        found.directions[0] / np.linalg.norm(found.directions[0]), direction, atol=1e-9
    )
    scores = found.scores(X)[:, 0]
    assert [scores[y == k].mean() for k in (0, 1)] == pytest.approx([-0.5, 0.5])
    f = f_classif(X @ direction[:, None], y)[0][0]
    assert f_classif(scores[:, None], y)[0][0] == pytest.approx(f, rel=1e-8)


def test_pairs_of_classes_share_one_covariance():
    X, y, _ = drawn(90, 12, 3)
    found = Discriminant.fit(X, y)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=found.shrinkage).fit(X, y)
    for row, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        expected = oracle.coef_[b] - oracle.coef_[a]
        cosine = expected @ found.directions[row] / np.linalg.norm(found.directions[row])
        assert cosine == pytest.approx(np.linalg.norm(expected), rel=1e-9)


@pytest.mark.parametrize("D", [6, 200])
def test_compact_coordinates_give_the_same_discriminant(D):
    X, y, _ = drawn(40, D)
    small = compact(X)
    assert small.shape == (40, min(40, D))
    np.testing.assert_allclose(small @ small.T, (X - X.mean(0)) @ (X - X.mean(0)).T, atol=1e-10)
    one, other = Discriminant.fit(X, y), Discriminant.fit(small, y, width=D)
    assert one.shrinkage == pytest.approx(other.shrinkage, rel=1e-9)
    np.testing.assert_allclose(one.scores(X), other.scores(small), atol=1e-9)


@pytest.mark.parametrize(("N", "D", "K"), [(70, 6, 2), (40, 120, 2), (60, 9, 3)])
def test_the_overlap_is_of_slices_that_the_direction_has_not_seen(N, D, K):
    X, y, people = drawn(N, D, K)
    fold = subject_folds(people, y, 5)
    scores = np.empty((N, K * (K - 1) // 2))
    for part in np.unique(fold):
        out = fold == part
        assert not set(people[out]) & set(people[~out])
        scores[out] = Discriminant.fit(X[~out], y[~out]).scores(X[out])
    areas = [
        shared_area(scores[y == a, column], scores[y == b, column])
        for column, (a, b) in enumerate((a, b) for a in range(K) for b in range(a + 1, K))
    ]
    assert separation(X, y, people).overlap == pytest.approx(np.mean(areas), abs=1e-4)


def shared_area(a, b):
    fa, fb = stats.gaussian_kde(a), stats.gaussian_kde(b)
    low, high = min(a.min(), b.min()) - 5, max(a.max(), b.max()) + 5
    grid = np.linspace(low, high, 40_001)
    return integrate.trapezoid(np.minimum(fa(grid), fb(grid)), grid)


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
def test_the_overlap_of_normals_is_the_closed_form(apart):
    quantiles = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    expected = 2 * stats.norm.cdf(-apart / 2)
    assert density_overlap(quantiles, quantiles + apart) == pytest.approx(expected, abs=0.02)


def test_the_overlap_of_a_narrow_and_a_broad_class_is_resolved():
    rng = np.random.default_rng(0)
    broad, narrow = rng.normal(0, 1000, 300), rng.normal(0, 0.01, 300)
    assert density_overlap(broad, narrow) < 0.01
    assert density_overlap(narrow, narrow + 0.001) > 0.9


def test_random_labels_look_apart_only_where_the_direction_was_fitted():
    X, _, people = drawn(100, 400, subjects=50, signal=0)
    y = np.random.default_rng(1).integers(0, 2, 50)[np.unique(people, return_inverse=True)[1]]
    found = separation(X, y, people)
    assert found.overlap_fitted < 0.2
    assert found.overlap > 0.7


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999), N=st.integers(24, 50), D=st.integers(2, 60), scale=st.floats(0.01, 50)
)
def test_what_a_rotation_and_a_scale_change(seed, N, D, scale):
    X, y, people = drawn(N, D, seed=seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]
    one, other = separation(X, y, people), separation(scale * X @ turn + 3, y, people)
    assert other.total == pytest.approx(scale**2 * one.total, rel=1e-6)
    for name in ("fisher_ratio", "silhouette", "effective_rank", "overlap", "shrinkage"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_effective_rank_of_equal_directions_is_their_number(rank):
    corners = np.concatenate([np.eye(rank, 9), -np.eye(rank, 9)])
    assert effective_rank(corners.T @ corners) == pytest.approx(rank, rel=1e-12)


def test_large_subsets_are_measured_in_parts():
    X, y, _ = drawn(2100, 3, 3)
    assert silhouette(X, y) == pytest.approx(silhouette_score(X, y), abs=1e-10)


def test_intraclass_correlation_of_shrout_and_fleiss():
    found = intraclass(SHROUT_FLEISS.ravel(), np.repeat(np.arange(6), 4))
    assert found.icc == pytest.approx(0.17, abs=0.005)
    # Their table 3: mean squares between and within targets.
    assert found.within_variance == pytest.approx(6.26, abs=0.005)
    assert found.between_variance == pytest.approx((11.24 - 6.26) / 4, abs=0.005)
    assert found.chance_share == pytest.approx(5 / 23)


def test_intraclass_correlation_of_unequal_groups_equals_an_analysis_of_variance():
    X, _, people = drawn(70, 1, subjects=9, seed=3)
    ids = np.unique(people)
    groups = [X[people == i, 0] for i in ids]
    sizes = np.array([len(g) for g in groups])
    assert len(set(sizes)) > 2
    f = stats.f_oneway(*groups).statistic
    size = (70 - (sizes**2).sum() / 70) / (len(ids) - 1)
    found = intraclass(X[:, 0], people)
    assert found.icc == pytest.approx((f - 1) / (f - 1 + size), rel=1e-10)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups)
    total = ((X - X.mean()) ** 2).sum()
    assert found.between_share == pytest.approx(1 - within / total, rel=1e-10)


def test_classes_add_nothing_to_the_intraclass_correlation():
    X, y, people = drawn(80, 5, subjects=16, seed=4)
    one = intraclass(X, people, y)
    other = intraclass(X + 100 * y[:, None], people, y)
    assert other.icc == pytest.approx(one.icc, rel=1e-6)
    columns = [intraclass(X[:, j], people, y) for j in range(5)]
    assert one.between_variance == pytest.approx(sum(c.between_variance for c in columns))
    assert one.within_variance == pytest.approx(sum(c.within_variance for c in columns))


def test_intraclass_correlation_finds_the_components_it_was_drawn_from():
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 12, 800)
    owner = np.repeat(np.arange(800), sizes)
    values = 2.0 * rng.normal(size=800)[owner] + rng.normal(size=len(owner)) + 7.0 * (owner % 2)
    found = intraclass(values, owner, owner % 2)
    assert found.icc == pytest.approx(0.8, abs=0.02)
    assert intraclass(rng.normal(size=len(owner)), owner, owner % 2).icc == pytest.approx(
        0, abs=0.03
    )


@pytest.mark.parametrize(("each", "spread"), [(6, 2.0), (6, 0.0), (1, 1.0)])
def test_classes_that_mean_nothing_lie_apart_by_chance_alone(each, spread):
    rng = np.random.default_rng(8)
    found, expected = [], []
    for _ in range(150):
        sizes = rng.integers(1, 2 * each, 24) if each > 1 else np.ones(24, int)
        owner = np.repeat(np.arange(24), sizes)
        X = spread * rng.normal(size=(24, 3))[owner] + rng.normal(size=(len(owner), 3))
        result = separation(X, (np.arange(24) % 3 > 0)[owner].astype(int), owner)
        found.append(result.between)
        expected.append(result.between_by_chance)
    assert np.mean(expected) == pytest.approx(np.mean(found), rel=0.15)


def analysed(**changes):
    X, y, people = drawn(60, 5, subject_spread=1.0)
    given = {"features": X, "logits": X[:, :2] - 0.3 * y[:, None], "labels": y, "subjects": people}
    return feature_analysis(**(given | changes)), given


def test_every_part_of_the_analysis_is_of_its_own_space():
    sessions = np.tile(["v1", "v2", "v3"], 20)
    found, given = analysed(sessions=sessions, class_names=("NC", "AD"))
    X, Z, y, people = (given[name] for name in ("features", "logits", "labels", "subjects"))
    assert found.features.within == separation(X, y, people).within
    assert found.logits.overlap == separation(Z, y, people).overlap
    assert [(i.by, i.of) for i in found.intraclass] == [
        (by, of) for by in ("subject", "session") for of in ("logit margin", "logits", "features")
    ]
    margin = np.where(y == 1, Z[:, 1] - Z[:, 0], Z[:, 0] - Z[:, 1])
    assert found.intraclass[0].icc == pytest.approx(intraclass(margin, people, y).icc)
    visits = np.array([f"{p}/{s}" for p, s in zip(people, sessions, strict=True)])
    assert found.intraclass[5].icc == pytest.approx(intraclass(X, visits, y).icc)
    assert found.slice_accuracy == pytest.approx((Z.argmax(axis=1) == y).mean())
    assert (found.slices, found.subjects, found.class_slices) == (60, 12, tuple(np.bincount(y)))


def test_slices_on_the_wrong_side_are_listed_by_subject():
    logits = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [1, 0]])
    labels, people = [0, 0, 1, 1, 1, 1, 0], ["b", "b", "a", "a", "a", "c", "d"]
    found = feature_analysis(
        np.arange(14).reshape(7, 2), logits, labels, people, class_names=("NC", "AD")
    )
    assert found.wrong.to_dict("list") == {
        "subject_id": ["c", "b", "a"],
        "label": ["AD", "NC", "AD"],
        "wrong": [1, 1, 1],
        "total": [1, 2, 3],
    }
    assert found.slice_accuracy == pytest.approx(4 / 7)


def test_ratios_refer_to_the_frozen_run():
    frozen, given = analysed(title="frozen")
    mean = np.stack([given["features"][given["labels"] == k].mean(axis=0) for k in (0, 1)])
    y = given["labels"]
    apart = 3 * mean[y] + 0.5 * (given["features"] - mean[y])
    found = feature_analysis(apart, given["logits"], y, given["subjects"], reference=frozen)
    assert found.features.separation_ratio == pytest.approx(3)
    assert found.features.dispersion_ratio == pytest.approx(0.5)
    assert found.logits.separation_ratio == pytest.approx(1)
    assert found.reference == "frozen"
    assert np.isnan(frozen.features.separation_ratio)


def test_ellipses_hold_what_the_normal_holds():
    rng = np.random.default_rng(6)
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    points = rng.multivariate_normal([3, -1], covariance, 20_000)
    (found,) = class_ellipses(points, np.zeros(20_000, dtype=int), ["NC"])
    angle = np.radians(found.angle_deg)
    turned = (points - found.mean) @ np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    inside = ((2 * turned / [found.width, found.height]) ** 2).sum(axis=1) <= 1
    assert inside.mean() == pytest.approx(0.95, abs=0.005)
    assert found.mean == pytest.approx((3, -1), abs=0.05)
    assert found.width > found.height


def test_run_is_read_from_its_record(tmp_path):
    frozen = write_synthetic_run(tmp_path, epochs=2, width=32)
    tuned = write_synthetic_run(tmp_path, epochs=2, width=32, regime="finetune", signal=8.0)
    found = analyse_features(tuned, "test", frozen)
    rows = tuned.features["subset"] == "test"
    assert found.slices == rows.sum()
    assert found.slice_accuracy == pytest.approx(tuned.metrics["test"]["slice_accuracy"]["value"])
    assert found.features.separation_ratio > 1
    assert (found.reference, found.title, found.subset) == (frozen.name, tuned.name, "test")
    assert len(found.intraclass) == 6
    assert analyse_features(frozen, "train", frozen).logits.dispersion_ratio == 1
    assert hs.analyse_features is analyse_features
    with pytest.raises(InputError, match="'dev' is none of train, val, test"):
        analyse_features(tuned, "dev")
    other = write_synthetic_run(tmp_path, epochs=2, width=32, seed=1)
    with pytest.raises(InputError, match=r"is no reference for .*: seed 1 instead of 0"):
        analyse_features(tuned, "test", other)


def test_the_analysis_reads_as_tables():
    frozen, _ = analysed(title="frozen", class_names=("NC", "AD"))
    text = repr(frozen)
    assert "frozen (60 slices of 12 subjects)" in text and "Fisher ratio" in text
    assert "dispersion" not in text
    found, _ = analysed(reference=frozen, subjects=np.arange(60))
    assert "in units of frozen" in repr(found) and "dispersion" in repr(found)
    assert len(found.wrong) > 10
    assert f"and {len(found.wrong) - 10} subjects more" in repr(found)
    assert "<table>" in found._repr_html_()
    assert "silhouette" in repr(found.features) and "ICC(1)" in text
    assert "logit margin" in repr(found.intraclass[0])


def numbers(result):
    return {f.name: getattr(result, f.name) for f in fields(result) if f.type == "float"}


def test_one_class_alone_has_nothing_to_lie_apart_from():
    found, _ = analysed(labels=np.zeros(60, dtype=int), class_names=("NC", "AD"))
    assert np.isnan(
        [found.features.between, found.features.overlap, found.features.silhouette]
    ).all()
    assert found.features.within == pytest.approx(found.features.total)
    assert "One class alone" in found.features.notes[0]
    assert found.notes == ("No slice here is of AD.",)
    assert [e.class_name for e in found.ellipses] == ["NC"]
    assert np.isfinite(found.intraclass[0].icc)


def test_constant_features_lie_on_one_point():
    found, _ = analysed(features=np.full((60, 7), 0.1), logits=np.full((60, 2), 0.3))
    zero = {"within", "between", "total", "between_by_chance"}
    for space in (found.features, found.logits):
        assert (space.within, space.between, space.total) == (0, 0, 0)
        known = numbers(space)
        assert all(np.isnan(known[name]) for name in known.keys() - zero)
        assert space.notes == ("All slices coincide.",)
    assert all(np.isnan(i.icc) and "nothing varies" in i.note for i in found.intraclass)
    assert [e.width for e in found.ellipses] == pytest.approx([0, 0], abs=1e-12)


def test_collapsed_classes_are_infinitely_apart():
    _, y, people = drawn(60)
    found = separation(np.array([[0.1, 0.7], [0.3, 0.2]])[y], y, people)
    assert (found.within, found.fisher_ratio, found.overlap) == (0, np.inf, 0)
    assert found.silhouette == pytest.approx(1)
    assert found.effective_rank == pytest.approx(1)
    assert found.notes == ("Within classes nothing varies.",)


@pytest.mark.parametrize("D", [6, 150])
@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-9])
def test_nearly_collapsed_classes_are_still_measured(D, spread):
    rng = np.random.default_rng(9)
    _, y, people = drawn(60)
    X = 5.0 * rng.normal(size=(2, D))[y] + spread * rng.normal(size=(60, D))
    found = separation(X, y, people)
    assert found.overlap < 1e-6 and found.overlap_fitted < 1e-6
    assert found.fisher_ratio > 0.1 / spread**2


def test_a_thousand_classes_are_measured_but_for_the_overlap():
    rng = np.random.default_rng(7)
    y = np.arange(1500) % 1000
    logits = rng.normal(size=(1500, 1000)) + 3 * np.eye(1000)[y]
    found = feature_analysis(rng.normal(size=(1500, 16)), logits, y, np.arange(1500) // 2)
    assert np.isnan(found.logits.overlap) and "at most 30 classes" in found.logits.notes[0]
    assert np.isfinite([found.logits.silhouette, found.features.effective_rank]).all()
    assert len(found.ellipses) == 1000 and np.isnan(found.ellipses[-1].width)


@pytest.mark.parametrize(
    ("people", "why"), [("one", "single subject"), (NO_ID, "Without subject ids")]
)
def test_without_other_subjects_no_direction_is_held_out(people, why):
    X, y, _ = drawn(40, 90)
    found = separation(X, y, np.full(40, people))
    assert np.isnan(found.overlap) and why in found.notes[0]
    assert 0 <= found.overlap_fitted < 0.1
    alone = intraclass(X, np.full(40, people), y)
    assert np.isnan(alone.icc) and alone.note


def test_subjects_with_two_labels_are_dealt_once():
    people = np.repeat(["a", "b", "c", "d", "e"], 4)
    y = np.array([0, 0, 1, 1] * 2 + [0] * 4 + [1] * 4 + [0] * 4)
    fold = subject_folds(people, y, 5)
    assert all(len(set(fold[people == i])) == 1 for i in people)
    assert np.isfinite(separation(np.random.default_rng(0).normal(size=(20, 3)), y, people).overlap)


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        (np.arange(8), "One slice per subject."),
        (np.zeros(8, int), "single subject"),
        (np.full(8, NO_ID), "Without subject ids"),
    ],
)
def test_intraclass_correlation_that_is_undefined_says_why(groups, why):
    found = intraclass(np.arange(8.0), groups)
    assert np.isnan(found.icc) and why in found.note


def test_no_slices_at_all():
    found = feature_analysis(np.empty((0, 4)), np.empty((0, 2)), np.empty(0, int), np.empty(0, str))
    assert (found.slices, found.subjects, len(found.wrong), found.ellipses) == (0, 0, 0, ())
    assert np.isnan(found.slice_accuracy) and np.isnan(found.features.total)
    assert all(isinstance(i, Intraclass) and np.isnan(i.icc) for i in found.intraclass)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros(60)}, r"features has shape \(60,\)"),
        ({"features": np.full((60, 2), np.inf)}, "features holds values that are not finite"),
        ({"logits": np.zeros((59, 2))}, "features has 60 rows and logits 59"),
        ({"labels": np.zeros(3, int)}, r"labels has shape \(3,\)"),
        ({"labels": np.full(60, 0.5)}, "whole numbers"),
        ({"labels": np.full(60, 2)}, "label 2 names none of 2 classes"),
        ({"subjects": ["a"]}, r"subjects has shape \(1,\)"),
        ({"sessions": ["a"]}, r"sessions has shape \(1,\)"),
        ({"class_names": ["a"]}, "1 class names were given for 2 logits"),
        ({"pair": (0, 0)}, "names no two of 2 classes"),
    ],
)
def test_wrong_input_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        analysed(**changes)
