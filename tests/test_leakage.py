"""Leak gap, identity, dose and all of it: against scikit-learn and brute force."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

from headscope.analysis import probes as probes_module
from headscope.analysis.leakage import dose_response as dose_module
from headscope.analysis.leakage import reidentification as identity_module
from headscope.analysis.leakage import stored as leakage_file
from headscope.analysis.leakage.analysis import analyse_leakage
from headscope.analysis.leakage.dose_response import SHARES, dose_response
from headscope.analysis.leakage.permutation import (
    permutation_test,
)
from headscope.analysis.leakage.reidentification import reidentify
from headscope.analysis.leakage.split_gap import leak_gap, nearest_neighbours
from headscope.analysis.leakage.stored import read_leakage, runs_key, stored_leakage
from headscope.analysis.probes import nearest, ridge_classes, standardise
from headscope.analysis.retrain import train_heads
from headscope.analysis.units import read_samples
from headscope.cli.app import app
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import Run, read_experiment
from tests.support.leakage_runs import (
    cohort_table,
    features_of,
    make_run,
    split_of,
)


def test_the_gap_is_the_difference_and_its_interval_that_of_a_plain_bootstrap(both):
    runs = {(r.settings["split"], r.settings["seed"]): r for r in read_experiment(both)}
    pairs = [(runs["subject", s], runs["slice", s]) for s in (0, 1)]
    gap = leak_gap(pairs)
    for name in ("slice_accuracy", "subject_auc"):
        values = [[r.metrics["test"][name]["value"] for r in pair] for pair in pairs]
        figure = gap.scores[name]
        np.testing.assert_allclose(np.column_stack([figure.by_subject, figure.by_slice]), values)
        assert figure.gap == pytest.approx(np.mean([b - a for a, b in values]))
        assert figure.low < figure.gap < figure.high
    draws = brute_gap(pairs, np.random.default_rng(0))
    figure = gap.scores["slice_accuracy"]
    # the stored interval is expanded for few subjects, so it is wider than plain percentiles
    width = np.ptp(np.quantile(draws, [0.025, 0.975]))
    assert width < figure.high - figure.low < 1.25 * width


def brute_gap(pairs, rng, draws=1000):
    """Draw all subjects within class and take each test's slice accuracy, slice by slice."""
    tables = [[run.predictions.query("subset == 'test'") for run in pair] for pair in pairs]
    everyone = pd.concat([table for pair in tables for table in pair])
    classes = everyone.groupby("subject_id")["label"].first()
    facts = [
        [(t["subject_id"].tolist(), (t["label"] == t["predicted"]).to_numpy()) for t in pair]
        for pair in tables
    ]
    found = []
    for _ in range(draws):
        weight = dict.fromkeys(classes.index, 0)
        for name in classes.unique():
            own = classes.index[classes == name]
            for person in rng.choice(own, len(own)):
                weight[person] += 1
        gaps = []
        for pair in facts:
            values = []
            for subjects, right in pair:
                counts = np.array([weight[subject] for subject in subjects])
                values.append((counts * right).sum() / counts.sum() if counts.any() else np.nan)
            gaps.append(values[1] - values[0])
        found.append(np.mean(gaps))
    return np.array(found)[np.isfinite(found)]


def test_the_same_run_twice_has_no_gap(both):
    run = read_experiment(both)[0]
    figure = leak_gap([(run, run)]).scores["slice_accuracy"]
    assert figure.gap == 0
    assert np.isnan(figure.low)
    assert np.isnan(figure.high)


def test_nearest_neighbours_agree_with_scikit_learn(both):
    for run in read_experiment(both):
        slices = read_samples(run)
        train, test = slices.rows("train"), slices.rows("test")
        features = slices.features.astype(float)
        scaled = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
        found = NearestNeighbors(n_neighbors=1).fit(scaled[train]).kneighbors(scaled[test])[1][:, 0]
        same = slices.subject[train[found]] == slices.subject[test]
        right = (run.predictions["label"] == run.predictions["predicted"]).to_numpy()[test]
        result = nearest_neighbours(run)
        assert result.share == same.mean()
        if run.settings["split"] == "subject":
            assert result.share == 0
            assert np.isnan(result.same_accuracy)
            assert result.other_accuracy == right.mean()
        else:
            assert result.share > 0.85
            assert result.same_accuracy == right[same].mean()


def test_nearest_in_blocks_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    features, allowed = rng.normal(0, 1, (30, 4)), rng.random((10, 20)) < 0.5
    queries, candidates = np.arange(10), np.arange(10, 30)
    whole = nearest(features, queries, candidates, allowed)[:, 0]
    monkeypatch.setattr(probes_module, "BLOCK", 3)
    assert np.array_equal(nearest(features, queries, candidates, allowed)[:, 0], whole)
    distance = ((features[queries, None] - features[candidates]) ** 2).sum(axis=2)
    distance[~allowed] = np.inf
    assert np.array_equal(whole, candidates[distance.argmin(axis=1)])


def test_features_that_do_not_vary_are_left_out():
    features = np.array([[1.0, 2, 5], [1, 4, 5], [1, 6, 9]], dtype=np.float32)
    found = standardise(features, np.array([0, 1]))
    np.testing.assert_allclose(found, [[-1], [1], [3]])
    none = nearest(found, np.array([0]), np.array([1, 2]), np.zeros((1, 2), dtype=bool))
    assert none.tolist() == [[-1]]


@pytest.mark.parametrize(("classes", "width"), [(2, 50), (4, 50), (4, 7), (1, 7)])
def test_ridge_classes_are_those_of_ridge_regression_on_one_column_per_class(classes, width):
    rng = np.random.default_rng(0)
    x, q = rng.normal(0, 2, (40, width)), rng.normal(0, 2, (60, width))
    labels = np.arange(40) % classes + 3
    y = (labels[:, None] == np.unique(labels)).astype(float)
    scale = ((x - x.mean(axis=0)) ** 2).sum() / 40
    scores = Ridge(alpha=0.01 * scale).fit(x, y).predict(q).reshape(60, -1)
    expected = np.unique(labels)[scores.argmax(axis=1)]
    assert np.array_equal(ridge_classes(x, labels, q, 0.01 * scale), expected)


def test_features_of_heads_tell_subjects_apart_and_not_classes(tmp_path):
    table = cohort_table(subjects=36, sessions=2, count=4)
    run = make_run(tmp_path, table, features_of(table, identity=3))
    found = reidentify(run)
    assert found.over == "sessions"
    assert (found.subjects, found.slices) == (12, 96)
    assert found.nearest_subject.accuracy == 1
    assert found.nearest_subject.chance == pytest.approx(4 / (96 - 4))  # its other session's 4
    assert found.linear_subject.accuracy > 0.95
    assert found.linear_subject.chance == 1 / 12
    assert found.nearest_class.accuracy < 0.8 > found.linear_class.accuracy
    assert found.linear_class.chance == 0.5


def test_features_of_classes_tell_classes_and_not_subjects(tmp_path):
    table = cohort_table(subjects=36, count=4)
    run = make_run(tmp_path, table, features_of(table, identity=0, effect=4))
    found = reidentify(run)
    assert found.over == "slices"
    assert found.nearest_subject.accuracy < 0.4
    assert found.linear_subject.accuracy < 0.4
    assert found.linear_class.accuracy == 1
    assert found.nearest_subject.chance == pytest.approx(3 / 47)


@pytest.mark.parametrize(("rare", "accuracy"), [(2, 1.0), (1, np.nan)])
def test_the_linear_probe_of_classes_never_trains_without_a_class(rare, accuracy):
    people = np.repeat(np.arange(8 + rare), 4)
    label = (people >= 8).astype(int)
    features = label[:, None] + np.random.default_rng(0).normal(0, 0.1, (len(people), 1))
    found = identity_module._linear_class(features, people, label)
    assert found.accuracy == pytest.approx(accuracy, nan_ok=True)


def test_large_tests_are_probed_by_some_of_their_subjects(tmp_path, monkeypatch):
    table = cohort_table(subjects=36, count=4)
    run = make_run(tmp_path, table, features_of(table))
    monkeypatch.setattr(identity_module, "MOST", 20)
    found = reidentify(run)
    assert (found.subjects, found.slices) == (5, 20)
    assert reidentify(run) == found


def test_the_nearest_neighbour_of_a_visit_is_sought_in_other_visits(tmp_path):
    # each session's slices are alike and far from the person's other session
    table = cohort_table(subjects=12, sessions=2, count=2)
    run = make_run(tmp_path, table, features_of(table, identity=0))
    slices = read_samples(run)
    rows = slices.rows("test")
    rng = np.random.default_rng(1)
    features = rng.normal(0, 1, (slices.session.max() + 1, 24))[slices.session]
    run.__dict__["features"] = run.features | {"features": features.astype(np.float32)}
    scaled = features[rows] - features[rows].mean(axis=0)
    scaled /= scaled.std(axis=0)
    right = []
    for i in range(len(rows)):
        distance = ((scaled - scaled[i]) ** 2).sum(axis=1)
        distance[slices.session[rows] == slices.session[rows[i]]] = np.inf
        right.append(slices.subject[rows[distance.argmin()]] == slices.subject[rows[i]])
    assert reidentify(run).nearest_subject.accuracy == pytest.approx(np.mean(right))


def test_leakage_grows_from_the_honest_accuracy_to_the_papers(both):
    runs = read_experiment(both)
    by_subject = [run for run in runs if run.settings["split"] == "subject"]
    by_slice = [run for run in runs if run.settings["split"] == "slice"]
    found = dose_response(by_subject, by_slice)
    assert found.shares == SHARES
    assert np.array(found.accuracies).shape == (11, 10)
    assert found.means[-1] > 0.9 > 0.75 > found.means[0]
    assert found.paper == pytest.approx(
        np.mean([run.metrics["test"]["slice_accuracy"]["value"] for run in by_slice])
    )
    assert found == dose_response(by_subject, by_slice)


def test_leaked_slices_take_the_place_of_others_and_are_never_judged(both, monkeypatch):
    run = read_experiment(both)[-1]
    assert run.settings["split"] == "subject"
    seen = []

    def watched(features, labels, rows, *rest):
        seen.extend(rows)
        return train_heads(features, labels, rows, *rest)

    monkeypatch.setattr(dose_module, "train_heads", watched)
    monkeypatch.setattr(dose_module, "DRAWS", 1)
    found = dose_response([run])
    slices = read_samples(run)
    train, test = slices.rows("train"), slices.rows("test")
    assert np.array_equal(seen[0], train)
    assert all(len(np.unique(rows)) == len(train) for rows in seen)
    balance = np.bincount(slices.label[train])
    assert all(np.array_equal(np.bincount(slices.label[rows]), balance) for rows in seen)
    leaked = [np.intersect1d(rows, test) for rows in seen]
    people = [len(np.unique(slices.subject[rows])) for rows in leaked]
    assert people == [round(share * 8) for share in SHARES]
    assert len(leaked[-1]) == len(test) // 2 == len(test) - found.slices
    assert np.isnan(found.paper)


def test_the_result_survives_its_file_and_is_made_once(both, monkeypatch):
    first = stored_leakage(both, permutations=20)
    stored = json.loads((both / "leakage.json").read_text())
    assert read_leakage(stored).to_dict() == first.to_dict()
    monkeypatch.setattr(leakage_file, "analyse_leakage", lambda *_, **__: pytest.fail("again"))
    again = stored_leakage(both, permutations=20)
    assert again.to_dict() == first.to_dict()
    assert again.gaps[0] == first.gaps[0]
    with pytest.raises(pytest.fail.Exception, match="again"):
        stored_leakage(both, permutations=21)
    runs = read_experiment(both)
    key = runs_key(runs, 20)
    assert key != runs_key(runs[:3], 20)
    metrics = runs[0].path / "metrics.json"
    kept = metrics.read_bytes()
    metrics.write_bytes(kept + b" ")
    assert runs_key(runs, 20) != key
    metrics.write_bytes(kept)


def test_a_damaged_file_is_made_anew(both):
    first = stored_leakage(both, permutations=5)
    (both / "leakage.json").write_text('{"key": 3')
    assert stored_leakage(both, permutations=5).to_dict() == first.to_dict()


def test_the_analysis_is_one_of_python_too(both):
    runs = read_experiment(both)
    found = analyse_leakage(runs, permutations=20)
    assert [finding.check for finding in found.findings] == [
        "Split",
        "Split",
        "Leak gap",
        *["Nearest neighbour"] * 2,
        *["Permuted labels"] * 2,
        "Against permuted labels",
        "Re-identification",
    ]
    assert "Leak gap" in repr(found)
    assert not found.serious
    with pytest.raises(InputError, match="at least 1"):
        analyse_leakage(runs, permutations=0)
    with pytest.raises(InputError, match="at least one run"):
        analyse_leakage([])


def test_the_audit_of_an_experiment_prints_and_writes_it(trained):
    called = CliRunner().invoke(app, ["audit", str(trained), "--permutations", "25", "--json"])
    facts = json.loads(called.stdout)
    assert called.exit_code == (3 if facts["serious"] or facts["leakage"]["serious"] else 0)
    assert facts["leakage"]["permutations"] == 25
    assert len(facts["leakage"]["permuted"]) == 2
    assert (trained / "leakage.json").is_file()
    shown = CliRunner().invoke(app, ["audit", str(trained), "--permutations", "25"]).stdout
    assert "Leak gap" in shown
    assert "Permuted labels" in shown


def test_folds_are_pairs_of_one_gap(tmp_path):
    table = cohort_table(subjects=12)
    features = features_of(table)
    runs = []
    for kind in ("subject", "slice"):
        for fold in (0, 1):
            run = make_run(tmp_path / str(fold), table, features, kind=kind, fold=fold)
            name = f"net-frozen-fold{fold}of2-{kind}-seed0"
            runs.append(Run(run.path.rename(tmp_path / name)))
    found = analyse_leakage(runs, permutations=5)
    assert [(gap.variant, gap.seeds) for gap in found.gaps] == [("frozen", (0,))]
    assert found.gaps[0].one_seed
    assert len(found.permuted) == 4
    assert {test.variant for test in found.permuted} == {"frozen"}


def odd(name):
    """Return table, subsets and logits of a cohort that leaves figures undefined."""
    table = cohort_table(subjects=12, count=1 if name == "one slice a subject" else 4)
    subset = split_of(table, "subject")
    logits = None
    if name == "three subjects a class":
        table = cohort_table(subjects=6, count=4)
        subset = np.array(["train", "val", "test"])[np.repeat([0, 0, 1, 1, 2, 2], 4)]
    if name == "a class absent from test":
        subset[(subset == "test") & (table["label"] == 1)] = "train"
    if name == "all predictions equal":
        logits = np.zeros((len(table), 2), dtype=np.float32)
    return table, subset, logits


@pytest.mark.parametrize(
    "name",
    [
        "three subjects a class",
        "a class absent from test",
        "one slice a subject",
        "all predictions equal",
    ],
)
def test_odd_cohorts_get_a_stated_answer(name, tmp_path):
    table, subset, logits = odd(name)
    features = features_of(table)
    runs = [make_run(tmp_path, table, features, subset=subset, logits=logits)]
    runs.append(make_run(tmp_path, table, features, kind="slice", logits=logits))
    found = analyse_leakage(runs, permutations=25)
    (gap,) = found.gaps
    assert read_leakage(found.to_dict()).to_dict() == found.to_dict()
    assert len(found.permuted) == (1 if name == "a class absent from test" else 2)
    if name == "a class absent from test":
        assert "lacks a class, so it has no balanced accuracy" in found.notes[0]
        assert np.isnan(gap.scores["slice_auc"].gap)
        assert np.isnan(found.reidentification[0].linear_class.accuracy)
        text = next(each.text for each in found.findings if each.check == "Re-identification")
        assert "the class in undefined" in text
    assert not any("nan" in each.text for each in found.findings)
    if name == "one slice a subject":
        assert found.reidentification == ()
        assert found.dose_responses == ()
    if name == "all predictions equal":
        balanced = found.permuted[0].scores["slice_balanced_accuracy"]
        assert balanced.observed == 0.5
        assert not gap.measurable
        assert np.isnan(gap.scores["slice_auc"].gap)
        text = next(each.text for each in found.findings if each.check == "Leak gap")
        assert "no gap, as a network of each pair predicts one class" in text


def test_slices_without_ids_are_named_and_left_out(tmp_path):
    table = cohort_table()
    nameless = table.assign(subject_id=NO_ID, slice_index=np.arange(len(table)))
    run = make_run(tmp_path, nameless, features_of(table), kind="slice")
    found = analyse_leakage([run], permutations=5)
    assert found.findings == ()
    assert "no subject ids" in found.notes[0]
    assert permutation_test(run) is None
    assert nearest_neighbours(run) is None
    assert reidentify(run) is None


def test_three_classes(tmp_path):
    table = cohort_table(subjects=18, count=4)
    table["label"] = np.unique(table["subject_id"], return_inverse=True)[1] % 3
    runs = [make_run(tmp_path, table, features_of(table), kind=k) for k in ("subject", "slice")]
    found = analyse_leakage(runs, permutations=60)
    by_subject, by_slice = found.permuted
    assert by_subject.classes == 3
    assert by_subject.scores["slice_balanced_accuracy"].mean == pytest.approx(1 / 3, abs=0.08)
    assert by_slice.scores["slice_balanced_accuracy"].mean > 0.7
