"""Predictions of any origin: against scikit-learn, our own scores, and what programs write."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

import headscope as hs
from headscope.analysis.results.paired import delong, mcnemar
from headscope.metrics import deal_subjects, run_scores, scores, slice_units
from tests.support.commands import headscope_here

NAMES = np.array(["NC", "AD"])


def predictions(subjects=24, rows=5, seed=0, shift=0.6):
    """Rows of subjects whose probabilities lean to the truth, under usual names."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), rows)
    label = owner % 2
    lean = np.repeat(rng.normal(size=subjects), rows) + rng.normal(size=len(owner))
    p = 1 / (1 + np.exp(-(lean + shift * (2 * label - 1))))
    return pd.DataFrame(
        {
            "subject_id": [f"s{k:03d}" for k in owner],
            "y_true": NAMES[label],
            "y_pred": NAMES[(p > 0.5).astype(int)],
            "prob_AD": p,
        }
    )


def value(scoring, name):
    return scoring.metrics[name]["value"]


def test_scores_are_those_of_scikit_learn():
    table = predictions()
    scoring = hs.score(table)
    truth, p = table["y_true"] == "AD", table["prob_AD"]
    guess = table["y_pred"] == "AD"
    assert value(scoring, "slice_accuracy") == pytest.approx(sk.accuracy_score(truth, guess))
    assert value(scoring, "slice_auc") == pytest.approx(sk.roc_auc_score(truth, p))
    assert value(scoring, "slice_f1") == pytest.approx(sk.f1_score(truth, guess))
    assert value(scoring, "slice_mcc") == pytest.approx(sk.matthews_corrcoef(truth, guess))
    assert value(scoring, "slice_brier") == pytest.approx(sk.brier_score_loss(truth, p))
    precision = sk.average_precision_score(truth, p)
    assert value(scoring, "slice_average_precision") == pytest.approx(precision)
    assert scoring.files[0].reliability.nll == pytest.approx(sk.log_loss(truth, p))
    means = table.assign(truth=truth).groupby("subject_id")[["truth", "prob_AD"]].mean()
    area = sk.roc_auc_score(means["truth"], means["prob_AD"])
    assert value(scoring, "subject_auc") == pytest.approx(area)
    right = (means["prob_AD"] > 0.5) == means["truth"]
    assert value(scoring, "subject_accuracy") == pytest.approx(right.mean())
    assert scoring.files[0].positive_class == "AD"
    assert scoring.metrics["slice_accuracy"]["low"] < value(scoring, "slice_accuracy")


@pytest.mark.parametrize("classes", [("NC", "AD"), ("b", "a", "c")])
def test_our_own_predictions_give_their_own_metrics(tmp_path, classes):
    rng = np.random.default_rng(1)
    owner, k = np.repeat(np.arange(18), 3), len(classes)
    logits = rng.normal(size=(len(owner), k)).astype(np.float32)
    names = np.array(classes)
    table = pd.DataFrame({"subset": np.where(owner < 12, "test", "train"), "scan": "x"})
    table["subject_id"], table["plane"] = [f"s{o}" for o in owner], "axial"
    table["slice_index"] = np.arange(len(owner)) % 3
    table["label"], table["predicted"] = names[owner % k], names[logits.argmax(axis=1)]
    for name, column in zip(classes, logits.T, strict=True):
        table[f"logit_{name}"] = column
    table.to_csv(tmp_path / "predictions.tsv", sep="\t", index=False)
    scoring = hs.score(tmp_path / "predictions.tsv")
    assert scoring.metrics == run_scores(table, classes)["test"]
    assert scoring.files[0].tested == "test"
    (overlap,) = scoring.files[0].overlaps
    assert (overlap.first, overlap.second, overlap.shared, overlap.subjects) == (
        *("test", "train"),
        *(0, 12),
    )


FORMATS = {
    "comma": {},
    "tab": {"sep": "\t"},
    "excel": {"sep": ";", "decimal": ",", "encoding": "utf-8-sig"},
    "utf16": {"sep": "\t", "decimal": ",", "encoding": "utf-16"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_is_read_as_programs_write_it(tmp_path, name):
    table = predictions()
    table.to_csv(tmp_path / "p.csv", index=False, **FORMATS[name])
    read, taken = hs.score(tmp_path / "p.csv"), hs.score(table)
    assert value(read, "slice_brier") == pytest.approx(value(taken, "slice_brier"), abs=1e-12)
    assert read.metrics["subject_auc"] == taken.metrics["subject_auc"]


def test_numbers_names_and_columns_of_any_kind_mean_the_same():
    table = predictions()
    expected = hs.score(table).metrics
    numbers = table.assign(y_true=(table["y_true"] == "AD").astype(float))
    numbers["y_pred"] = (table["y_pred"] == "AD").astype(int)
    lone = numbers.rename(columns={"prob_AD": "y_score"})
    both = lone.drop(columns="y_score").assign(prob_0=1 - table["prob_AD"], prob_1=table["prob_AD"])
    bare = table.drop(columns="prob_AD").assign(NC=1 - table["prob_AD"], AD=table["prob_AD"])
    mixed = table.assign(y_pred=numbers["y_pred"], prob_NC=1 - table["prob_AD"])
    mixed = mixed[["subject_id", "y_true", "y_pred", "prob_NC", "prob_AD"]]
    named = table.rename(columns={"prob_AD": "x", "y_true": "t", "subject_id": "who"})
    for other, options in (
        *((lone, {}), (both, {}), (bare, {}), (mixed, {})),
        (named, {"probability": "x", "label": "t", "subject": "who"}),
        (named, {"probability": "AD=x", "label": "t", "subject": "who"}),
    ):
        scored = hs.score(other, **options).metrics
        for name in ("slice_auc", "subject_accuracy", "slice_sensitivity", "subject_brier"):
            assert scored[name]["value"] == pytest.approx(expected[name]["value"]), name


def test_predicted_classes_alone_have_no_areas():
    table = predictions().drop(columns="prob_AD")
    scoring = hs.score(table)
    assert value(scoring, "slice_auc") is None and scoring.files[0].chance is None
    votes = table.assign(hit=table["y_pred"] == "AD").groupby("subject_id")["hit"].mean() > 0.5
    truth = table.groupby("subject_id")["y_true"].first() == "AD"
    assert value(scoring, "subject_accuracy") == (votes == truth).mean()
    assert "Without probabilities" in " ".join(scoring.files[0].notes)


def test_another_threshold_changes_shares_and_no_area():
    table = predictions()
    moved = table.assign(y_pred=NAMES[(table["prob_AD"] > 0.3).astype(int)])
    one, two = hs.score(table), hs.score(moved)
    assert value(one, "slice_auc") == value(two, "slice_auc")
    expected = sk.recall_score(moved["y_true"], moved["y_pred"], pos_label="AD")
    assert value(two, "slice_sensitivity") == pytest.approx(expected)
    assert "rows the predicted class is not" in " ".join(two.files[0].notes)


def test_rows_without_subjects_have_scores_and_no_interval():
    scoring = hs.score(predictions().drop(columns="subject_id"))
    assert value(scoring, "slice_accuracy") is not None
    assert scoring.metrics["slice_accuracy"]["low"] is None
    assert value(scoring, "subject_accuracy") is None
    assert "No column names the subject" in " ".join(scoring.files[0].notes)


def test_what_is_assumed_is_said():
    table = predictions()
    table.loc[:1, "y_true"] = np.nan
    notes = " ".join(hs.score(table.assign(fold=np.arange(len(table)) % 3)).files[0].notes)
    assert "2 rows without a label are left out" in notes
    assert "names no test (2, 0, 1): all rows are scored" in notes
    odd = predictions().assign(prob_NC=0.5)
    assert "do not sum to 1" in " ".join(hs.score(odd).files[0].notes)
    beyond = predictions().rename(columns={"prob_AD": "score"})
    beyond["score"] = 5 * beyond["score"] - 2.5
    scoring = hs.score(beyond)
    assert value(scoring, "slice_brier") is None and scoring.files[0].reliability is None
    assert value(scoring, "slice_auc") == value(hs.score(predictions()), "slice_auc")


def test_ids_stay_as_they_are_written_and_likenesses_are_said(tmp_path):
    table = "patient_id,label,p_AD\n007,AD,0.9\n7,NC,0.2\n008,NC,0.1\n008,NC,0.1\n"
    (tmp_path / "p.csv").write_text(table)
    scoring = hs.score(tmp_path / "p.csv", probability="AD=p_AD")
    assert scoring.metrics["subjects"] == 3
    text = " ".join(repr(scoring).split())
    assert "2 subjects differ in upper and lower case or leading zeros alone" in text
    assert "the first 007 and 7" in text
    assert "1 row is equal to an earlier row in every column: each counts as a slice." in text


def test_probabilities_of_0_and_1_rank_and_tie():
    table = pd.DataFrame({"subject": list("abcdef"), "label": [1, 1, 1, 0, 0, 0]})
    table["prob"] = [1.0, 1.0, 0.4, 1.0, 0.0, 0.0]
    area = sk.roc_auc_score(table["label"], table["prob"])
    scored = hs.score(table).metrics
    assert scored["subject_auc"]["value"] == scored["slice_auc"]["value"] == pytest.approx(area)


def test_shared_subjects_are_counted():
    table = predictions().assign(split=["train", "test", "test", "val", "train"] * 24)
    first = hs.score(table).files[0]
    assert (first.tested, first.metrics["slices"]) == ("test", 48)
    assert first.overlaps[0].shared == 24
    assert "24 of 24 subjects of test are in train too" in " ".join(first.sentences)


WRONG = {
    "no column of true labels": lambda t: t.drop(columns="y_true"),
    "no column of predictions": lambda t: t.drop(columns=["y_pred", "prob_AD"]),
    "holds no finite number in 1 row, the first row 5": lambda t: t.assign(
        prob_AD=t["prob_AD"].where(t.index != 3)
    ),
    "is empty in 2 rows": lambda t: t.assign(subject_id=t["subject_id"].where(t.index > 1)),
    "holds 7 in row 2": lambda t: t.assign(prob_AD=7.0, prob_NC=0.1),
    "holds 90 in row 2": lambda t: t.assign(prob_AD=90.0),
    "names the column 'prob_AD' twice": lambda t: pd.concat([t, t[["prob_AD"]]], axis=1),
    "names no test": lambda t: t.assign(split="train"),
    "no name in common": lambda t: t.assign(y_pred="X"),
    "has one class": lambda t: t.assign(y_true="AD", y_pred="AD").drop(columns="prob_AD"),
    "different values, as a measurement": lambda t: t.assign(y_true=np.arange(len(t)) / 7),
    "of which class does the column 'prob' speak, F or M": lambda t: t.assign(
        y_true=np.where(t["y_true"] == "AD", "M", "F"), prob=0.5
    ).drop(columns=["y_pred", "prob_AD"]),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_scored_has_its_sentence(sentence):
    with pytest.raises(hs.InputError, match=sentence):
        hs.score(WRONG[sentence](predictions()))


def test_two_tables_are_compared_subject_by_subject():
    first, second = predictions(), predictions(seed=0, shift=1.5).iloc[::-1]
    result = hs.score(first, second).comparison
    (row,) = result.rows
    assert "split" not in repr(result) and "subject split" not in result.sentences[0]
    sides = []
    for table in (first, second):
        means = table.groupby("subject_id").agg({"prob_AD": "mean", "y_true": "first"})
        sides.append((means["prob_AD"].to_numpy(), (means["y_true"] == "AD").to_numpy()))
    (p, truth), (q, _) = sides
    assert row.subject_accuracy.p == mcnemar((p > 0.5) == truth, (q > 0.5) == truth).p
    area = delong(truth.astype(int), np.log(p / (1 - p)), np.log(q / (1 - q)))
    assert row.subject_auc.p == pytest.approx(area.p)
    assert row.subject_auc.value == pytest.approx(area.difference)
    fewer = hs.score(first, second[second["subject_id"] != "s003"]).comparison
    assert fewer.rows[0].subjects == 23 and "1 subjects of The table" in fewer.notes[0]
    swapped = second.assign(y_true=np.where(second["y_true"] == "AD", "NC", "AD"))
    with pytest.raises(hs.InputError, match="24 of 24 subjects have other labels"):
        hs.score(first, swapped)
    with pytest.raises(hs.InputError, match="names no subjects, by which"):
        hs.score(first, second.drop(columns="subject_id"))


def test_many_subjects_are_drawn_in_groups_that_spread_as_they_do():
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    hits = rng.random(4000) < 0.7
    group, groups = deal_subjects(labels, np.arange(4000), 4000)
    assert groups == 500 and all(len(set(labels[group == g])) == 1 for g in range(0, 500, 50))
    table = pd.DataFrame({"subject": np.arange(4000), "label": labels})
    table["predicted"] = np.where(hits, labels, 1 - labels)
    score = hs.score(table).metrics["subject_accuracy"]
    reach = 1.96 * np.sqrt(0.7 * 0.3 / 4000)
    assert score["high"] - score["low"] == pytest.approx(2 * reach, rel=0.12)
    few, count = deal_subjects(labels[:10], np.arange(10), 10)
    assert count == 10 and few.tolist() == [*range(10)]


def test_draws_of_very_many_margins_are_those_of_all():
    """Of 40,000 rows the draws take neighbouring margins for equals; the areas hardly move."""
    rng = np.random.default_rng(0)
    labels, owner = np.arange(40_000) % 2, np.arange(40_000) // 2_000
    margin = rng.normal(size=40_000) + labels
    units = slice_units(labels, np.column_stack([0 * margin, margin]), owner)
    counts = rng.integers(0, 3, size=(3, 20)).astype(float)
    drawn = scores(units, counts, 1, ("auc", "average_precision"))
    for b, weight in enumerate(counts):
        args = labels, margin
        weights = weight[owner]
        area = sk.roc_auc_score(*args, sample_weight=weights)
        precision = sk.average_precision_score(*args, sample_weight=weights)
        assert drawn["auc"][b] == pytest.approx(area, abs=5e-5)
        assert drawn["average_precision"][b] == pytest.approx(precision, abs=1e-3)
    assert stats.norm.cdf(1 / np.sqrt(2)) == pytest.approx(drawn["auc"][0], abs=0.01)


def test_the_command_prints_tables_json_and_sentences(tmp_path, monkeypatch, capsys):
    predictions().to_csv(tmp_path / "a.csv", index=False)
    predictions(seed=1).to_csv(tmp_path / "b.csv", index=False)
    paths = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")
    done = headscope_here(monkeypatch, capsys, "score", *paths)
    assert done.returncode == 0 and "by subject" in done.stdout
    assert "not distinguishable" in done.stdout or "is worse" in done.stdout
    done = headscope_here(monkeypatch, capsys, "score", *paths, "--json")
    values = json.loads(done.stdout)
    assert values["files"][0]["metrics"]["subjects"] == 24
    assert values["comparison"]["subjects"] == 24
    done = headscope_here(monkeypatch, capsys, "score", str(tmp_path / "none.csv"))
    assert done.returncode == 2 and done.stderr.endswith("does not exist, or is no file.\n")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 and more")
    done = headscope_here(monkeypatch, capsys, "score", str(tmp_path / "a.xlsx"))
    assert done.returncode == 2 and "save it as CSV" in done.stderr


def test_subjects_of_several_labels_are_scored_and_said():
    """All of them are drawn as of their first class: the share of the other has no interval."""
    table = pd.DataFrame({"subject": [f"s{n // 2}" for n in range(40)], "label": ["AD", "NC"] * 20})
    scoring = hs.score(table.assign(prob_AD=np.linspace(0.1, 0.9, 40)))
    assert scoring.metrics["subjects"] == 20 and scoring.metrics["subject_labels"] == 40
    shares = [scoring.metrics[f"slice_{name}"] for name in ("sensitivity", "specificity")]
    assert shares[0]["low"] is not None and shares[1]["low"] is None
    assert any("20 subjects have 40, and each label counts" in n for n in scoring.files[0].notes)


def test_probabilities_that_do_not_fit_the_labels_are_named():
    table = pd.DataFrame({"label": ["AD", "NC", "ad"], "prob_AD": [0.5, 0.2, 0.3]})
    with pytest.raises(hs.InputError, match=r"probabilities, prob_AD, do not fit .* AD, NC, ad"):
        hs.score(table)
