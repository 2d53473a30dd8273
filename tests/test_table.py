"""The table of results, its Markdown, the cohort's counts and the logits of Fig. 2."""

import numpy as np
import pandas as pd
import pytest

from headscope.analysis import (
    cohort_table,
    logit_scatter,
    markdown_table,
    results_table,
    setting_results,
    settings_table,
    shared_subjects,
)
from headscope.errors import InputError
from headscope.record import read_experiment
from headscope.text import FORMATS, fraction, minutes, percent
from tests.support.synthetic import write_experiment, write_synthetic_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return read_experiment(write_experiment(tmp_path_factory.mktemp("experiment"), width=24))


def test_rows_stand_in_order_with_the_honest_split_first(runs):
    table = results_table(runs)
    assert list(zip(table["regime"], table["split"], strict=True)) == [
        ("frozen", "subject"),
        ("finetune", "subject"),
        ("scratch", "subject"),
        ("frozen", "slice"),
    ]


def test_fractions_are_those_of_the_metrics(runs):
    table = results_table(runs).set_index("run")
    for run in runs:
        row, test = table.loc[run.name], run.metrics["test"]
        assert row["test_slice_accuracy"] == test["slice_accuracy"]["value"]
        low = test["subject_auc"]["low"]
        assert (
            np.isnan(row["test_subject_auc_low"])
            if low is None
            else (row["test_subject_auc_low"] == low)
        )
        assert row["test_subjects"] == test["subjects"]
        assert row["test_subject_accuracy_wilson_low"] == test["subject_accuracy"]["wilson_low"]
        assert row["train_seconds"] == run.metrics["train_seconds"]
        shown = run.predictions.query("subset == 'test'")
        assert row["test_slice_accuracy"] == pytest.approx(
            (shown["label"] == shown["predicted"]).mean()
        )


def test_rows_with_subjects_on_both_sides_are_marked(runs):
    table = results_table(runs)
    for row in table.itertuples():
        assert bool(row.marker) == (row.split == "slice") == bool(row.shared_subjects)
    mixed = next(run for run in runs if run.settings["split"] == "slice")
    by_subset = mixed.predictions.groupby("subset")["subject_id"].unique()
    assert shared_subjects(mixed) == len(set(by_subset["train"]) & set(by_subset["test"]))


def test_markdown_prints_table_2(runs):
    table = settings_table(setting_results(runs))
    lines = markdown_table(table).splitlines()
    assert "Training time (min:sec)" in lines[0]
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[2].startswith("| tf_efficientnet_lite0 | frozen | subject | 0 |  | 8 | ")
    assert "| 1:00 |" in lines[2]
    assert "slices of one subject on both sides" in lines[5]


def test_undefined_figures_are_a_dash(tmp_path):
    run = write_synthetic_run(tmp_path, width=8)
    run.metrics["test"]["subject_auc"] = {"value": None, "low": None, "high": None}
    table = results_table([run])
    assert np.isnan(table.loc[0, "test_subject_auc"])
    assert "| – |" in markdown_table(settings_table(setting_results([run])))


def test_a_row_of_its_own_name_shows_it(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, regime="scratch", name="scratch-50", epochs=2)
    assert run.setting.variant == "scratch-50"
    assert run.setting.title == "scratch-50, subject split"
    assert "| scratch-50 (scratch) |" in markdown_table(settings_table(setting_results([run])))


def test_a_record_from_before_the_new_figures_is_still_read(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, epochs=1)
    test = run.metrics["test"]
    kept = ("slices", "subjects", "slice_accuracy", "subject_accuracy", "slice_auc", "subject_auc")
    run.metrics["test"] = {name: test[name] for name in kept}
    (row,) = results_table([run]).to_dict("records")
    assert row["test_subject_accuracy"] == test["subject_accuracy"]["value"]
    assert np.isnan(row["test_subject_sensitivity"]) and row["positive_class"] == ""


def test_cohort_counts_subjects_sessions_and_slices(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, subjects=20, slices_each=5, epochs=1)
    table = cohort_table(run)
    assert list(table.columns) == ["subset", "label", "subjects", "sessions", "slices"]
    assert len(table) == 6
    assert table["subjects"].sum() == 20
    assert table["slices"].sum() == 100
    assert pd.Series(table["subjects"] * 5).equals(table["slices"])


def test_logits_are_those_of_the_test_slices(runs):
    panel, stored = logit_scatter(runs[0]), runs[0].features
    inside = stored["subset"] == "test"
    np.testing.assert_array_equal(panel.logits, stored["logits"][inside])
    right = stored["logits"][inside].argmax(axis=1) == stored["label"][inside]
    assert panel.slice_accuracy == right.mean()
    assert panel.slice_accuracy == runs[0].metrics["test"]["slice_accuracy"]["value"]


def test_logits_of_two_among_three_classes(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, class_names=("NC", "MCI", "AD"))
    panel, stored = logit_scatter(run, (0, 2)), run.features
    inside = (stored["subset"] == "test") & (stored["label"] != 1)
    assert (panel.class_names, panel.class_count) == (("NC", "AD"), 3)
    np.testing.assert_array_equal(panel.logits, stored["logits"][inside][:, [0, 2]])
    np.testing.assert_array_equal(panel.label, stored["label"][inside] // 2)
    with pytest.raises(InputError, match="names no two of 3 classes"):
        logit_scatter(run, (0, 3))


def test_logits_of_an_empty_subset_are_none(tmp_path):
    panel = logit_scatter(write_synthetic_run(tmp_path, width=8), subset="nowhere")
    assert panel.logits.shape == (0, 2)
    assert np.isnan(panel.slice_accuracy)


def test_no_runs_make_no_table():
    with pytest.raises(InputError, match="at least one run"):
        results_table([])


@pytest.mark.parametrize(
    ("seconds", "text"), [(244, "4:04"), (59.6, "1:00"), (0, "0:00"), (4325, "72:05"), (None, "–")]
)
def test_times_read_as_in_table_2(seconds, text):
    assert minutes(seconds) == text


def test_fractions_read_as_printed():
    assert percent(0.9321) == "93.2"
    assert fraction(0.98765) == "0.988"
    shown = [FORMATS["threshold"](value) for value in (0.0, 3e-9, 0.0123, 0.99999, 1.0)]
    assert shown == ["0.000", "< 0.001", "0.012", "> 0.999", "1.000"]
    assert fraction(float("inf")) == "∞"  # as a log-loss where a true class has probability 0
    assert percent(float("nan")) == "–"
