"""Features read block by block, and the samples that analyses of many slices are made on."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

import headscope.analysis.blocks as blocks_module
import headscope.analysis.leakage.analysis as leakage_module
import headscope.analysis.leakage.split_gap as gap_module
import headscope.analysis.representation.features as features_module
import headscope.analysis.representation.separation as separation_module
from headscope.analysis.blocks import row_blocks, sample_slices, sample_subjects, take_rows
from headscope.analysis.leakage.analysis import analyse_leakage
from headscope.analysis.probes import nearest_standardised, ridge_classes, ridge_rows
from headscope.analysis.representation.collapse import collapse_analysis
from headscope.analysis.representation.features import analyse_features, feature_analysis
from headscope.analysis.representation.separation import silhouette
from headscope.record import Run
from tests.support.leakage_runs import cohort_table, features_of, make_run


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks_module, "BLOCK_ROWS", 7)


def made(count=60, width=5, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    features = rng.normal(2, 1, (count, width)) + label[:, None]
    return features.astype(np.float32), label, np.repeat(np.arange(count // 4), 4)


def test_blocks_of_a_map_hold_every_row_once(tmp_path, small_blocks):
    features = made()[0]
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    rows = np.random.default_rng(1).permutation(len(features))[:23]
    for values in (mapped, mapped.view(np.ndarray), features):
        assert np.array_equal(take_rows(values, rows), features[rows])
        parts = [block for _, block in row_blocks(values)]
        assert np.array_equal(np.concatenate(parts), features.astype(np.float64))
        assert max(map(len, parts)) == 7


def test_samples_are_the_same_each_time_and_keep_subjects_whole():
    subject = made()[2]
    assert np.array_equal(sample_slices(9, 9), np.arange(9))
    assert np.array_equal(sample_slices(90, 9), sample_slices(90, 9))
    assert len(np.unique(sample_slices(90, 9))) == 9
    some = sample_subjects(subject, 21)
    assert len(some) == 20
    assert set(np.bincount(subject[some])) == {0, 4}


def test_the_nearest_are_those_of_scikit_learn(small_blocks):
    features = made(80, 6)[0]
    features[:, 3] = 1.5  # does not vary
    queries, candidates = np.arange(30), np.arange(30, 80)
    scaler = StandardScaler().fit(features[candidates])
    oracle = NearestNeighbors(n_neighbors=1).fit(scaler.transform(features[candidates]))
    place = oracle.kneighbors(scaler.transform(features[queries]))[1][:, 0]
    assert np.array_equal(nearest_standardised(features, queries, candidates), candidates[place])


def test_the_silhouette_is_that_of_scikit_learn(monkeypatch):
    features, label, _ = made(90, 4)
    label = np.where(np.arange(90) < 3, 2, label)
    label[0] = 3  # alone in its class
    X = features.astype(np.float64)
    monkeypatch.setattr(separation_module, "BLOCK", 13)
    assert silhouette(X, label) == pytest.approx(silhouette_score(X, label), abs=1e-12)
    monkeypatch.setattr(separation_module, "MOST_SILHOUETTE", 40)
    assert silhouette(X, label % 2) == pytest.approx(silhouette_score(X, label % 2), abs=0.1)


def test_a_ridge_by_inner_products_is_that_by_features():
    features, _, subject = made(40, 30)
    x = features.astype(np.float64)
    train = subject % 2 == 0
    by_features = ridge_classes(x[train], subject[train], x, 0.3)
    assert np.array_equal(ridge_rows(x, x @ x.T, subject, train, 0.3), by_features)


def test_collapse_does_not_depend_on_the_blocks(monkeypatch):
    features, label, _ = made()
    weight = np.random.default_rng(2).normal(size=(2, 5))
    whole = collapse_analysis(features, label, weight)
    monkeypatch.setattr(blocks_module, "BLOCK_ROWS", 7)
    parts = collapse_analysis(features, label, weight)
    for name in ("nc1", "nc3", "nc4"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


def test_the_sample_of_features_is_said_and_logits_are_of_all(monkeypatch, tmp_path):
    features, label, subject = made(80)
    logits = features[:, :2]
    whole = feature_analysis(features, logits, label, subject)
    monkeypatch.setattr(features_module, "MOST_FEATURES", 40)
    part = feature_analysis(features, logits, label, subject)
    some = sample_subjects(subject.astype(str), 40)
    alone = feature_analysis(features[some], logits[some], label[some], subject[some])
    assert repr(part.features) == repr(alone.features)
    assert repr(part.logits) == repr(whole.logits)
    assert part.slices == 80
    assert "on 40 of 80 slices, those of 10 subjects" in part.notes[-1]
    table = cohort_table(subjects=36, count=4)
    run = make_run(tmp_path, table, features_of(table))
    assert "Features are measured on 40 of 48 slices" in analyse_features(run).notes[-1]


def test_the_sample_of_neighbours_is_said(monkeypatch, tmp_path):
    table = cohort_table(subjects=36, count=4)
    run = make_run(tmp_path, table, features_of(table), regime="finetune")
    assert not any("nearest neighbours" in note for note in analyse_leakage([run]).notes)
    for module in (gap_module, leakage_module):
        monkeypatch.setattr(module, "MOST_QUERIES", 20)
    leakage = analyse_leakage([Run(run.path)])
    assert leakage.neighbours[0].slices == 20
    assert any("sought for 20" in note for note in leakage.notes)
