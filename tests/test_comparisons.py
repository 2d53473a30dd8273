"""Paired tests against statsmodels, published figures and brute force; settings in pairs."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from headscope.analysis.results.comparisons import compare_runs, comparison_sentence
from headscope.analysis.results.paired import bootstrap_p, delong, holm, mcnemar
from headscope.files import NO_ID, write_json, write_table
from headscope.record import Run

# Grade, and rank of a biomarker, of 41 people with a poor and 72 with a good outcome: the data set
# aSAH of the package pROC (Turck et al. 2010; Robin et al. 2011), whose tests print Z and p.
GRADES = "32455552521254425552525245441442255225555" + (
    "111151221221112121134141551124112212122111121211324214115422111312244111"
)
RANKS = """
81 63 103 78 130 144 140 26 123 50 26 128 126 139 144 118 144 144 144 26 144 120 0 50 116 144
118 144 38 118 81 63 74 116 144 88 144 121 144 144 130 81 88 63 10 134 111 63 63 10 38 10 50 74
26 111 26 74 81 111 10 103 88 125 50 142 134 103 26 129 134 74 38 50 38 10 81 63 88 96 10 10 50
10 50 38 103 50 38 123 74 119 26 63 121 26 10 117 127 63 96 38 88 63 26 10 111 96 134 111 96 142
139
"""


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_mcnemar_equals_statsmodels(pairs):
    first, second = np.array(pairs).T
    found = mcnemar(first, second)
    table = pd.crosstab(first, second).reindex(index=[False, True], columns=[False, True])
    expected = mcnemar_of_statsmodels(table.fillna(0).to_numpy(), exact=True)
    assert found.p == pytest.approx(min(1.0, expected.pvalue), abs=1e-12)
    assert found.only_first == (first & ~second).sum()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=10, deadline=None)
def test_holm_equals_statsmodels(p):
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holm_does_not_count_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])
    assert len(holm([])) == 0


def by_brute_force(label, first, second):
    """DeLong's z from the definition: every pair of subjects, then covariances of U-statistics."""
    ups, downs = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    kernel = np.zeros((2, len(ups), len(downs)))
    for (i, u), (j, d) in product(enumerate(ups), enumerate(downs)):
        for k, scores in enumerate((first, second)):
            kernel[k, i, j] = 1.0 if scores[u] > scores[d] else 0.5 * (scores[u] == scores[d])
    s10 = np.cov(kernel.mean(axis=2))
    s01 = np.cov(kernel.mean(axis=1))
    covariance = s10 / len(ups) + s01 / len(downs)
    contrast = np.array([1, -1])
    return kernel.mean(axis=(1, 2)), np.sqrt(contrast @ covariance @ contrast)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_delong_equals_brute_force(seed, ups, downs, ties):
    rng = np.random.default_rng(seed)
    label = np.repeat([1, 0], [ups, downs])
    scores = rng.normal(size=(2, len(label))) + label
    if ties:
        scores = np.round(scores)
    found = delong(label, *scores)
    areas, error = by_brute_force(label, *scores)
    assert (found.first, found.second) == pytest.approx(tuple(areas), abs=1e-12)
    assert found.first == pytest.approx(roc_auc_score(label, scores[0]), abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    if error > 1e-9:
        assert found.z == pytest.approx((areas[0] - areas[1]) / error, rel=1e-9)


def test_delong_of_published_data():
    """pROC's own test of wfns against s100b: Z = 2.20898359144091, p = 0.0271757822291882."""
    label = np.repeat([1, 0], [41, 72])
    found = delong(label, np.array(list(GRADES), dtype=int), np.array(RANKS.split(), dtype=int))
    assert found.first == pytest.approx(0.823678861788618, abs=1e-12)
    assert found.second == pytest.approx(0.731368563685637, abs=1e-12)
    assert found.z == pytest.approx(2.20898359144091, abs=1e-12)
    assert found.p == pytest.approx(0.0271757822291882, abs=1e-12)


def test_delong_agrees_with_a_permutation_test():
    """Swapping the two scores of random subjects leaves the law alone where areas are equal."""
    rng = np.random.default_rng(3)
    label = np.repeat([1, 0], 40)
    truth = rng.normal(size=80) + label
    first, second = truth + rng.normal(size=80), truth + 1.6 * rng.normal(size=80)
    found = delong(label, first, second)
    swap = rng.random((1500, 80)) < 0.5
    one, two = np.where(swap, second, first), np.where(swap, first, second)  # (1500, 80)
    areas = [(each[:, :40, None] > each[:, None, 40:]).mean(axis=(1, 2)) for each in (one, two)]
    gaps = areas[0] - areas[1]
    p = np.mean(np.abs(gaps) >= abs(found.difference) - 1e-12)
    assert found.p == pytest.approx(p, abs=0.06)


def test_delong_answers_where_it_cannot_test():
    label, scores = np.array([1, 0, 0]), np.array([0.9, 0.1, 0.5])
    assert np.isnan(delong(label, scores, scores).p)
    assert np.isnan(delong(np.zeros(3, int), scores, scores).first)
    label = np.repeat([1, 0], 5)
    same = delong(label, np.arange(10.0), np.arange(10.0))
    assert (same.z, same.p) == (0.0, 1.0)
    perfect = delong(label, label * 1.0, 1.0 - label)
    assert perfect.difference == 1 and np.isnan(perfect.p)


def test_bootstrap_p_is_never_zero():
    assert bootstrap_p(np.ones(1999)) == pytest.approx(0.001)
    assert bootstrap_p(np.array([-1.0, 1.0])) == 1.0
    assert np.isnan(bootstrap_p(np.empty(0)))


def write_run(folder, regime, right, *, seed=0, fold=None, split="subject", ids=None, slices=4):
    """Write what comparisons read of a run; right (S,) the share of a subject's slices right."""
    subjects = len(right)
    part = "" if fold is None else f"-fold{fold}of2"
    path = folder / "runs" / f"resnet101-{regime}{part}-{split}-seed{seed}"
    path.mkdir(parents=True)
    known = {"architecture": "resnet101", "regime": regime, "split": split, "seed": seed}
    folds = {} if fold is None else {"fold": fold, "folds": 2}
    (path / "run.toml").write_text(tomli_w.dumps(known | folds))
    owner = np.repeat(np.arange(subjects), slices)
    label = owner % 2
    hit = np.tile(np.arange(slices), subjects) < np.round(slices * np.asarray(right))[owner]
    noise = np.random.default_rng(len(regime)).random(len(owner)) * 0.2
    of_ad = np.where(hit == (label == 0), 0.7 + noise, 0.1 + noise)
    names = np.array(ids if ids is not None else [f"s{k:02d}" for k in range(subjects)])
    table = pd.DataFrame(
        {
            "subset": "test",
            "subject_id": names[owner],
            "session_id": "1",
            "plane": "axial",
            "slice_index": np.tile(np.arange(slices), subjects),
            "label": np.array(["AD", "NC"])[label],
            "predicted": np.where(of_ad > 0.5, "AD", "NC"),
            "probability_AD": of_ad,
            "probability_NC": 1 - of_ad,
            "logit_AD": np.log(of_ad),
            "logit_NC": np.log(1 - of_ad),
        }
    )
    write_table(path / "predictions.tsv", table)
    np.savez(path / "head.npz", class_names=np.array(["AD", "NC"]))
    write_json(path / "metrics.json", {})
    return Run(path)


def test_settings_far_apart_are_told_apart(tmp_path):
    runs = [
        write_run(tmp_path, "finetune", np.ones(30) * 0.9),
        write_run(tmp_path, "scratch", np.tile([0.9, 0.9, 0.1, 0.1, 0.1], 6)),
    ]
    (row,) = compare_runs(runs).rows
    found = row.subject_accuracy
    assert (row.first, row.second, row.subjects, row.slices) == ("finetune", "scratch", 30, 120)
    assert found.value == pytest.approx(0.6) and 0 < found.low < 0.6 < found.high
    assert (row.only_first, row.only_second) == (18, 0)
    assert found.p == pytest.approx(2 * 0.5**18)
    assert row.distinguishable
    assert comparison_sentence(row).startswith("finetune is better than scratch: +60.0 points, 95%")
    assert "30 subjects (p < 0.001, McNemar's exact test)." in comparison_sentence(row)
    assert row.subject_auc.test == "DeLong's test"


def test_settings_alike_are_not_distinguishable(tmp_path):
    first, second = np.full(20, 0.9), np.full(20, 0.9)
    first[[0, 3, 5, 9]], second[[1, 3, 4]] = 0.1, 0.1
    runs = [write_run(tmp_path, "finetune", first), write_run(tmp_path, "scratch", second)]
    compared = compare_runs(runs)
    (row,) = compared.rows
    assert not row.distinguishable and row.subject_accuracy.low < 0 < row.subject_accuracy.high
    assert row.subject_accuracy.value == pytest.approx(-0.05)
    (sentence,) = compared.sentences
    assert sentence.startswith("finetune is not distinguishable from scratch: −5.0 points, 95% −")
    assert sentence.endswith("20 subjects.")
    assert compared.table.loc[0, "subject_accuracy_p_holm"] == row.subject_accuracy.p_holm
    assert "−5.0" in repr(compared) and "1.000" in repr(compared)


def test_the_same_calls_are_equal_and_have_no_interval(tmp_path):
    runs = [write_run(tmp_path, name, np.full(8, 0.9)) for name in ("frozen", "finetune")]
    (row,) = compare_runs(runs).rows
    assert row.subject_accuracy.p == 1.0 and np.isnan(row.subject_accuracy.low)
    assert comparison_sentence(row) == (
        "frozen is not distinguishable from finetune: equal on all 8 subjects."
    )


def test_holm_runs_over_the_whole_table(tmp_path):
    shares = np.random.default_rng(0).random((3, 24))
    names = ("frozen", "finetune", "scratch")
    runs = [write_run(tmp_path, name, share) for name, share in zip(names, shares, strict=True)]
    compared = compare_runs(runs)
    assert len(compared.rows) == 3
    for name in ("subject_accuracy", "slice_accuracy", "subject_auc"):
        raw = [getattr(row, name).p for row in compared.rows]
        adjusted = [getattr(row, name).p_holm for row in compared.rows]
        np.testing.assert_allclose(adjusted, holm(raw))


def test_the_interval_is_that_of_drawing_subjects_for_both(tmp_path):
    """A plain loop over draws of subjects within class gives the same spread of differences."""
    rng = np.random.default_rng(1)
    first, second = rng.random(40), rng.random(40)
    runs = [write_run(tmp_path, "frozen", first), write_run(tmp_path, "finetune", second)]
    found = compare_runs(runs).rows[0].slice_accuracy
    gaps = (np.round(4 * first) - np.round(4 * second)) / 4
    assert found.value == pytest.approx(gaps.mean(), abs=1e-9)
    error = np.sqrt(sum(gaps[k::2].var(ddof=1) / 20 for k in range(2)) / 4)
    assert found.high - found.low == pytest.approx(2 * 2.02 * error, rel=0.12)


def test_seeds_are_pooled_by_subject(tmp_path):
    """The same subjects in three trainings are 16 people, not 48."""
    runs = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        runs += [
            write_run(tmp_path, "frozen", rng.random(16), seed=seed),
            write_run(tmp_path, "finetune", rng.random(16), seed=seed),
        ]
    (row,) = compare_runs(runs).rows
    assert (row.trainings, row.subjects, row.slices) == (3, 16, 64)
    assert row.only_first is None
    assert row.subject_accuracy.test == "bootstrap over subjects"
    assert row.subject_auc.test == "bootstrap over subjects"
    each = [compare_runs(runs[k : k + 2]).rows[0] for k in (0, 2, 4)]
    for name in ("subject_accuracy", "slice_accuracy", "subject_auc"):
        mean = np.mean([getattr(one, name).value for one in each])
        assert getattr(row, name).value == pytest.approx(mean)
    assert "16 subjects over 3 trainings of each" in comparison_sentence(row)


def test_folds_test_each_subject_once(tmp_path):
    runs = []
    for fold in range(2):
        ids = [f"f{fold}-{k}" for k in range(12)]
        rng = np.random.default_rng(fold)
        for regime in ("frozen", "finetune"):
            runs.append(write_run(tmp_path, regime, rng.random(12), fold=fold, ids=ids))
    (row,) = compare_runs(runs).rows
    assert (row.first, row.second) == ("frozen", "finetune")
    assert (row.trainings, row.subjects) == (2, 24)
    assert row.subject_accuracy.test == "McNemar's exact test"


def test_only_runs_tested_on_the_same_slices_are_compared(tmp_path):
    runs = [
        write_run(tmp_path, "frozen", np.full(8, 0.9)),
        write_run(tmp_path, "finetune", np.full(10, 0.9)),
        write_run(tmp_path, "frozen", np.full(8, 0.9), split="slice"),
        write_run(tmp_path, "scratch", np.full(8, 0.9), ids=[NO_ID] * 8),
    ]
    compared = compare_runs(runs)
    assert compared.rows == () and compared.sentences == () and compared.table.empty
    assert compared.notes == (
        "resnet101-scratch-subject-seed0 is left out: its test names no subjects.",
        "resnet101 frozen and resnet101 finetune, subject split, are not compared: they have no "
        "seed and fold in which both tested the same slices.",
    )
    (table,) = compared.tables()
    assert "no seed and fold" in str(table)


def test_why_nothing_is_compared_is_said(tmp_path):
    one = write_run(tmp_path, "frozen", np.full(8, 0.9))
    assert compare_runs([one]).notes == (
        "Nothing is compared: there is but one setting (resnet101 frozen, subject split).",
    )
    other = write_run(tmp_path, "finetune", np.full(8, 0.9), split="slice")
    (note,) = compare_runs([one, other]).notes
    assert "no two of the settings" in note and "resnet101 finetune, slice split" in note
