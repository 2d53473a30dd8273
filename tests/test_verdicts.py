"""The verdict of eight small cohorts, each sentence as the making of the cohort demands it."""

import html
import re
from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

from headscope.analysis.leakage.split_gap import leak_gap
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.settings import setting_results
from headscope.audit_record import read_audit
from headscope.experiment.run import run
from headscope.record import read_experiment
from headscope.reporting.answer import answer
from headscope.reporting.cautions import cautions
from headscope.reporting.verdict import verdict
from tests.conftest import quick_search
from tests.support import cohorts
from tests.support.experiments import settings

SEARCHED = ("random_labels", "border_tells")  # whose tests ask what tells the label


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Return, for the name of a cohort, its results and the sentences of its verdict."""

    @cache
    def judge(name):
        folder = tmp_path_factory.mktemp(name)
        data = getattr(cohorts, name)(folder / "data")
        options = {"size": cohorts.SIDE, "regimes": ["frozen"], "epochs": 40, "learning_rate": 0.5}
        with nullcontext() if name in SEARCHED else quick_search():
            experiment = run(settings(data, folder / "out", **options))
        runs, audit = read_experiment(experiment), read_audit(experiment)
        results = setting_results(runs)
        gap = leak_gap([[of_split(results, split).runs[0] for split in ("subject", "slice")]])
        said = [*verdict(results, compare_runs(runs), [gap]), *cautions(audit, runs)]
        return results, [html.unescape(re.sub(r"<[^>]*>", "", sentence)) for sentence in said]

    return judge


def of_split(results, split):
    (result,) = [result for result in results if result.split == split]
    return result


def test_random_labels(judged):
    results, said = judged("random_labels")
    result, text = of_split(results, "subject"), " ".join(said)
    assert said[0].startswith("On 12 subjects never seen in training")
    assert "predicting any one class for all gives 50.0% and 50.0%" in said[0]
    assert result.majority.subject_share == 0.5 and not result.chance.better
    assert "no better than chance (p = " in said[1]
    assert "share heads" not in text and "shortcut" not in text


def test_constant_pictures(judged):
    results, said = judged("constant_pictures")
    result, text = of_split(results, "subject"), " ".join(said)
    (only,) = result.constant.values()
    share = result.majority.subject_share if only == result.majority.class_name else None
    assert f"It predicts {only} for every test slice." in said[0]
    assert share is None or result.scores["subject_accuracy"].value == share
    assert "is 0.500" in said[1] and "no better than chance (p = 1.000" in said[1]
    assert "there is no gap to be measured" in said[2] and "points" not in said[2]
    assert "Another setting predicts one class" in said[3]
    assert f"{result.subjects} of the {result.subjects} test subjects have a duplicate" in text


def test_one_tested_subject_per_class(judged):
    _, said = judged("one_tested_subject_per_class")
    assert said[0].startswith("On 2 subjects never seen in training")
    assert "Wilson’s 95% interval" in said[0]
    assert "which so few subjects cannot tell from chance" in said[1]
    assert "95% interval" not in said[2]


def test_one_to_twenty(judged):
    results, said = judged("one_to_twenty")
    result = of_split(results, "subject")
    assert result.majority.class_name == "NC"
    assert result.majority.subject_share == pytest.approx(18 / 19)
    assert "predicting NC, the larger class, for all gives 94.7% and 94.7%" in said[0]
    assert "better than chance" not in said[1]
    assert "leakage gap of" not in said[2] and "(95% interval" not in said[2]


def test_duplicated_subjects(judged):
    """Which heads cross the split is counted by hand, from who stands where."""
    results, said = judged("duplicated_subjects")
    predictions = of_split(results, "subject").runs[0].predictions
    subset = predictions.drop_duplicates("subject_id").set_index("subject_id")["subset"]
    tested = [name for name in subset.index if subset[name] == "test"]
    twin = {name: f"sub-{(int(name[4:]) + 20) % 40:03d}" for name in tested}
    leaked = sum(subset[twin[name]] == "train" for name in tested)
    assert leaked
    have = "has" if leaked == 1 else "have"
    assert (
        f"{leaked} of the {len(tested)} test subjects {have} a duplicate in training under another "
        "id" in " ".join(said)
    )


def test_border_tells_the_class(judged):
    results, said = judged("border_tells")
    text = " ".join(said)
    assert of_split(results, "subject").scores["subject_accuracy"].value == 1.0
    assert "100.0% of subjects (Wilson’s 95% interval" in said[0]
    assert "better than chance (p = " in said[1]
    assert "A shortcut tells the label. Border alone" in text
    assert "so the accuracy need not be about anatomy" in text


def test_five_classes(judged):
    results, said = judged("five_classes")
    result = of_split(results, "subject")
    assert result.chance.better and result.chance.classes == 5
    assert "the mean of 5 classes each against the rest," in said[1]
    assert "better than chance (p < 0.001" in said[1]
    counts = np.bincount(result.runs[0].predictions.query("subset == 'test'")
                         .drop_duplicates("subject_id")["label"].astype(int))  # fmt: skip
    assert result.majority.subject_share == pytest.approx(counts.max() / counts.sum())


def test_labels_that_change(judged):
    results, said = judged("changing_labels")
    result = of_split(results, "subject")
    test = result.runs[0].predictions.query("subset == 'test'")
    labels = sum(cohorts.subjects_of(test).values())
    assert result.subjects == test["subject_id"].nunique() < labels == result.subject_labels
    assert f"count {labels} labels of {result.subjects} subjects" in said[0]
    assert "Wilson" not in said[0] and np.isnan(result.chance.p)
    headline = answer(results, [], None, {}).headline
    assert f"{labels} labels of {result.subjects} unseen subjects" in headline
