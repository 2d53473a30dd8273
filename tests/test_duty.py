"""What the first screen and the verdict must say, and never may, of experiments that mislead."""

import html
import re
from types import SimpleNamespace

import numpy as np
import pytest

from headscope.analysis.leakage.split_gap import leak_gap
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.settings import setting_results
from headscope.files import write_json, write_table
from headscope.metrics import logit_columns, run_scores, softmax
from headscope.record import read_experiment
from headscope.reporting.answer import answer
from headscope.reporting.cautions import shared_heads
from headscope.reporting.verdict import verdict
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

SMALL = {"width": 8, "epochs": 1, "subjects": 36, "slices_each": 4}


def rewrite(run, *, label=None, logits=None, **columns):
    """Write a run's record again with other labels (N,), logits (N, K) or columns."""
    rows, names = run.predictions.assign(**columns), np.array(run.class_names)
    if label is not None:
        rows["label"] = names[label]
    if logits is not None:
        for k, column in enumerate(logit_columns(names)):
            rows[column] = logits[:, k]
            rows[f"probability_{names[k]}"] = softmax(logits)[:, k]
        rows["predicted"] = names[logits.argmax(axis=1)]
    with np.load(run.path / "features.npz") as stored:
        arrays = dict(stored)
    arrays["label"] = np.searchsorted(names, rows["label"], sorter=names.argsort())
    arrays["label"] = names.argsort()[arrays["label"]]
    arrays["logits"] = rows[logit_columns(names)].to_numpy(np.float32)
    arrays["subset"] = rows["subset"].to_numpy(str)
    arrays["subject_id"] = rows["subject_id"].to_numpy(str)
    np.savez(run.path / "features.npz", **arrays)
    write_table(run.path / "predictions.tsv", rows)
    scores = run_scores(rows, [str(name) for name in names])
    write_json(run.path / "metrics.json", run.metrics | scores)
    return reseal(run.path)


def labels_of(run):
    return run.features["label"]


def constant(run, k=0):
    """Let a run predict class k for all."""
    logits = np.tile(
        np.where(np.arange(len(run.class_names)) == k, 3.0, -3.0), (len(labels_of(run)), 1)
    )
    return rewrite(run, logits=logits)


def one_class(folder):
    constant(write_synthetic_run(folder, **SMALL))


def constants_by_both_splits(folder):
    for split in ("subject", "slice"):
        constant(write_synthetic_run(folder, split=split, **SMALL))


def a_constant_beside_a_gap(folder):
    """By subject a constant, by slice perfect: their difference is no gap."""
    constant(write_synthetic_run(folder, **SMALL))
    run = write_synthetic_run(folder, split="slice", **SMALL)
    rewrite(run, logits=np.eye(2)[labels_of(run)] * 4.0)


def below_the_larger_class(folder):
    """Three of four test subjects are NC; subjects rank well, but the threshold calls most AD."""
    run = write_synthetic_run(folder, **(SMALL | {"subjects": 96}))
    subject = np.arange(len(labels_of(run))) // SMALL["slices_each"]
    label = np.where(subject % 4 == 3, 1, 0)
    margin = 2.0 * label + np.random.default_rng(0).normal(0, 0.7, len(label)) + 0.4
    rewrite(run, label=label, logits=np.stack([0 * margin, margin], axis=1))


def noise(folder):
    for regime in ("frozen", "finetune"):
        run = write_synthetic_run(folder, regime=regime, same_split=True, **SMALL)
        rewrite(run, logits=np.random.default_rng(1).normal(size=(len(labels_of(run)), 2)))


def perfect(folder, **settings):
    run = write_synthetic_run(folder, **(SMALL | settings))
    rewrite(run, logits=np.eye(len(run.class_names))[labels_of(run)] * 4.0)


def three_classes(folder):
    perfect(folder, class_names=("NC", "MCI", "AD"))


def fourteen_classes(folder):
    perfect(folder, subjects=112, class_names=tuple("ABCDEFGHIJKLMN"))


def without_ids(folder):
    rewrite(write_synthetic_run(folder, split="slice", **SMALL), subject_id="unknown")


def folds_and_seeds(folder):
    for seed in (0, 1):
        for fold in (0, 1, 2):
            write_synthetic_run(folder, seed=seed, fold=(fold, 3), signal=6.0, **SMALL)


def no_test_subjects_of_a_class(folder):
    run = write_synthetic_run(folder, class_names=("NC", "MCI", "AD"), **SMALL)
    rows = run.predictions
    moved = rows["subset"].where((rows["label"] != "AD") | (rows["subset"] != "test"), "train")
    rewrite(run, subset=moved, logits=np.eye(3)[labels_of(run)] * 4.0)


def only_one_class_in_the_test(folder):
    run = write_synthetic_run(folder, **SMALL)
    rows = run.predictions
    rewrite(
        run,
        subset=rows["subset"].where((rows["label"] != "AD") | (rows["subset"] != "test"), "train"),
    )


def shared(runs):
    """An audit that found a third of the tested subjects in training, under other ids."""
    check = SimpleNamespace(
        name="subject-seed0", duplicated=4, tested=12, equal_slices=0, test_slices=48
    )
    return SimpleNamespace(split=lambda sha: check, telling=list, unit="subjects")


BETTER = "correctly, better than chance"
CASES = {
    "one class": (one_class, ["predicts one class for all 10 unseen subjects: its 50.0% is that "
        "class’s share and no skill", "1 of 1 runs predicts one class for every test slice",
        "It predicts NC for every test slice."], [BETTER, "points"]),
    "a gap between constants": (constants_by_both_splits, ["there is no gap to be measured",
        "2 of 2 runs predict one class"], [BETTER, "points", "Leakage:", "would have claimed"]),
    "a gap beside a constant": (a_constant_beside_a_gap, ["there is no gap to be measured"],
        [BETTER, "points", "Leakage:", "would have claimed"]),
    "below the larger class": (below_the_larger_class, ["but its 35.7% is below the 71.4%",
        "predicting NC, the larger class, for all gives 71.4%",
        "Its accuracy is below that of the larger class."],
        [BETTER]),
    "noise": (noise, ["No network is shown to beat chance on 10 unseen subjects", "no better than"],
        [BETTER]),
    "duplicates across subsets": (perfect, ["Training and test share heads.", "4 of the 12 test "
        "subjects have a duplicate in training under another id", "of 10 tested subjects"],
        ["unseen", "subjects never seen"]),
    "unknown ids": (without_ids, ["No accuracy here is that of unseen subjects: the pictures name "
        "no subject", "No subject ids:", "The pictures name no subjects"], [BETTER, "% of"]),
    "folds and seeds": (folds_and_seeds, ["36 unseen subjects", "Pooled over the tests of 3 "
        "folds and averaged over 2 seeds (36 subjects never seen in training)"], ["chosen by"]),
    "three classes": (three_classes,
        ["the mean of 3 classes each against the rest, is 1.000", BETTER], ["too few"]),
    "fourteen classes": (fourteen_classes,
        ["the mean of 14 classes each against the rest, is 1.000", BETTER], ["too few"]),
    "failed runs": (perfect, ["1 of 2 runs failed and are not in these figures", BETTER], []),
    "one run only": (perfect, ["predicts 100.0% of 10 unseen subjects correctly, better than "
        "chance", "was not measured"], ["chosen by", "settings", "cannot be told apart"]),
    "no test subjects of a class": (no_test_subjects_of_a_class, ["No test subject of AD: no score "
        "here speaks of that class", "the mean of 2 of 3 classes each against the rest"], []),
    "one class in the test": (only_one_class_in_the_test, ["No test subject of AD:",
        "Too little is known of these subjects"], [BETTER, "no better"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_does_its_duty(case, tmp_path):
    make, must, never = CASES[case]
    make(tmp_path)
    runs = read_experiment(tmp_path)
    results = setting_results(runs)
    audit = shared(runs) if case == "duplicates across subsets" else None
    failures = {"vgg19-frozen-subject-seed0": "Out of memory."} if case == "failed runs" else {}
    by = {
        split: [run for run in runs if run.setting.split == split] for split in ("subject", "slice")
    }
    gaps = [leak_gap(list(zip(*by.values(), strict=True)))] if all(by.values()) else []
    first = answer(results, gaps, audit, failures)
    crossed = shared_heads(audit, runs)
    said = [first.headline, first.below, *first.flags]
    said += verdict(results, compare_runs(runs), gaps, crossed)
    text = html.unescape(re.sub(r"<[^>]*>", "", " ".join(map(str, said))))
    text = text.replace("The cohort is simulated", "")
    for words in must:
        assert words in text, text
    for words in [*never, "nan", "None", "undefined", "–%"]:
        assert words not in text, text
