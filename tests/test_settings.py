"""Settings over folds and seeds: pooled by hand, chosen by validation, beside the larger class."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from headscope.analysis import choose, markdown_table, setting_results, settings_table
from headscope.analysis.results.table import short_table
from headscope.record import Run, read_experiment
from tests.support.synthetic import write_synthetic_run


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Three folds of two seeds, one regime, 30 subjects."""
    folder = tmp_path_factory.mktemp("folds")
    return [
        write_synthetic_run(folder, width=32, fold=(k, 3), seed=seed, signal=3.0, epochs=2)
        for seed in (0, 1)
        for k in range(3)
    ]


def rows_of(runs):
    return [run.predictions[run.predictions["subset"] == "test"] for run in runs]


def test_folds_of_one_seed_are_one_test(folds):
    runs = folds[:3]
    (result,) = setting_results(runs)
    table = pd.concat(rows_of(runs))
    assert (result.subjects, result.folds, result.seeds) == (30, (0, 1, 2), (0,))
    correct = (table["label"] == table["predicted"]).to_numpy()
    assert result.scores["slice_accuracy"].value == pytest.approx(correct.mean())
    by_subject = table.groupby("subject_id")
    says_ad = by_subject["probability_AD"].mean() > 0.5
    right = says_ad == (by_subject["label"].first() == "AD")
    score = result.scores["subject_accuracy"]
    assert score.value == pytest.approx(right.mean())
    expected = proportion_confint(int(right.sum()), 30, method="wilson")
    assert (score.wilson_low, score.wilson_high) == pytest.approx(expected)
    ups = pairs = 0
    for test in rows_of(runs):
        people = test.groupby("subject_id").agg({"label": "first", "probability_AD": "mean"})
        truth = people["label"] == "AD"
        weight = truth.sum() * (~truth).sum()
        ups += weight * roc_auc_score(truth, people["probability_AD"])
        pairs += weight
    assert result.scores["subject_auc"].value == pytest.approx(ups / pairs)
    assert result.chance.value == pytest.approx(ups / pairs)
    assert result.scores["subject_auc"].low < ups / pairs < result.scores["subject_auc"].high


def test_seeds_are_averaged_over_pooled_folds_never_a_fold_over_seeds(folds):
    (result,) = setting_results(folds)
    alone = [setting_results(folds[k : k + 3])[0] for k in (0, 3)]
    for name in ("slice_accuracy", "subject_accuracy", "subject_auc"):
        values = [one.scores[name].value for one in alone]
        assert result.scores[name].value == pytest.approx(np.mean(values))
        assert result.scores[name].sd == pytest.approx(np.std(values, ddof=1))
    assert np.isnan(result.scores["subject_accuracy"].wilson_low)  # tested twice each
    table = settings_table([result])
    assert table[["seed", "folds", "runs", "test_subjects"]].to_numpy().tolist() == [
        ["0, 1", 3, 6, 30]
    ]
    assert "| frozen | subject | 0, 1 | 3 |" in markdown_table(table)
    assert short_table(table).to_frame()["Runs"].tolist() == [6]


def test_a_single_run_has_the_scores_of_its_record(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, epochs=1)
    (row,) = settings_table(setting_results([run])).to_dict("records")
    test = run.metrics["test"]
    assert row["run"] == run.name
    assert row["test_subject_auc"] == test["subject_auc"]["value"]
    assert row["test_slice_accuracy_low"] == test["slice_accuracy"]["low"]


def constant(run, subset, name="NC"):
    """Make a run predict one class for all slices of a subset, its ranking unchanged."""
    rows = run.predictions["subset"] == subset
    run.predictions.loc[rows, "predicted"] = name
    return run


def test_the_larger_class_and_one_class_networks_are_values(tmp_path):
    run = constant(write_synthetic_run(tmp_path, width=8, epochs=1), "test", "AD")
    (result,) = setting_results([run])
    (test,) = rows_of([run])
    shares = test["label"].value_counts(normalize=True)
    people = test.drop_duplicates("subject_id")["label"].value_counts(normalize=True)
    assert result.majority.slice_share == shares.max()
    assert result.majority.subject_share == people.max()
    assert result.constant == {run.name: "AD"}
    assert settings_table([result])["one_class_runs"].tolist() == [1]


def with_validation(run, auc, accuracy=0.5):
    for name, value in (("subject_auc", auc), ("slice_accuracy", accuracy)):
        run.metrics["val"][name] = {"value": value, "low": None, "high": None}
    return run


def test_validation_auc_chooses_and_never_a_network_of_one_class(tmp_path):
    """The highest slice accuracy belongs to a network that predicts one class; AUC decides."""
    constant_run, better, worse = (
        write_synthetic_run(tmp_path, width=8, epochs=1, regime=regime, same_split=True)
        for regime in ("frozen", "finetune", "scratch")
    )
    with_validation(constant(constant_run, "val"), 0.95, 0.9)
    with_validation(better, 0.7, 0.6)
    with_validation(worse, 0.6, 0.8)
    chosen, by = choose(setting_results([constant_run, better, worse]))
    assert (chosen.regime, by) == ("finetune", "validation AUC over subjects")
    constant(better, "val"), constant(worse, "val")
    assert choose(setting_results([constant_run, better, worse]))[0].regime == "frozen"
    better.metrics["val"]["subject_auc"]["value"] = None
    _, by = choose(setting_results([constant_run, better, worse]))
    assert by == "balanced validation accuracy over subjects"


def test_labels_that_change_are_counted_apart(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, epochs=1)
    rows = run.predictions.index[run.predictions["subset"] == "test"]
    first = run.predictions.loc[rows[0], "subject_id"]
    own = rows[(run.predictions.loc[rows, "subject_id"] == first).to_numpy()]
    other = {"NC": "AD", "AD": "NC"}[run.predictions.loc[own[0], "label"]]
    run.predictions.loc[own[: len(own) // 2], "label"] = other
    (result,) = setting_results([run])
    assert result.subject_labels == result.subjects + 1
    assert np.isnan(result.chance.p)


def test_runs_are_read_back(tmp_path):
    written = write_synthetic_run(tmp_path, width=8, epochs=1)
    (run,) = read_experiment(tmp_path)
    assert isinstance(run, Run) and run.logits.dtype == np.float32
    np.testing.assert_array_equal(run.logits, written.features["logits"].astype(np.float32))
