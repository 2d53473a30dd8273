"""Permuted labels: against torch, brute force and enumeration."""

from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.analysis import retrain as heads_module
from headscope.analysis.leakage import analysis as leakage_module
from headscope.analysis.leakage.analysis import analyse_leakage
from headscope.analysis.leakage.findings import (
    centre,
    observed_finding,
    permuted_finding,
    split_finding,
)
from headscope.analysis.leakage.permutation import (
    PermutationTest,
    PermutedScore,
    accuracies,
    permutation_test,
    permute_labels,
)
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.retrain import HeadRecipe, head_recipe, train_heads
from headscope.analysis.units import read_samples
from headscope.metrics import softmax
from headscope.record import Setting, read_experiment
from tests.support.leakage_runs import (
    cohort_table,
    features_of,
    make_run,
    split_of,
)


def test_one_head_on_true_labels_is_the_recorded_one(trained):
    for run in read_experiment(trained):
        slices = read_samples(run)
        weight, bias = train_heads(
            slices.features, slices.label[:, None], slices.rows("train"), head_recipe(run)
        )
        assert np.abs(run.head["weight"] - run.head["initial_weight"]).max() > 1e-3
        np.testing.assert_allclose(weight[0], run.head["weight"], atol=1e-4)
        np.testing.assert_allclose(bias[0], run.head["bias"], atol=1e-4)
        said = (slices.features @ weight[0].T + bias[0]).argmax(axis=1)
        assert (np.array(run.class_names)[said] == run.predictions["predicted"]).all()


def recipe_for(classes, width, **changes):
    rng = np.random.default_rng(5)
    start = rng.normal(0, 0.1, (classes, width)).astype(np.float32)
    known = HeadRecipe((0.1, 0.1, 0.05), 6, 0.9, 1e-3, 3, start, np.zeros(classes, np.float32))
    return replace(known, **changes)


def test_heads_trained_at_once_are_those_trained_alone_by_torch():
    rng = np.random.default_rng(0)
    features, rows = rng.normal(0, 1, (40, 7)).astype(np.float32), np.arange(0, 40, 2)
    labels = rng.integers(0, 3, (40, 5))
    recipe = recipe_for(3, 7)
    weight, bias = train_heads(features, labels, rows, recipe)
    for r in range(5):
        head = torch.nn.Linear(7, 3)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(recipe.weight))
            head.bias.zero_()
        descent = torch.optim.SGD(head.parameters(), lr=1, momentum=0.9, weight_decay=1e-3)
        for epoch, rate in enumerate(recipe.learning_rates):
            descent.param_groups[0]["lr"] = rate
            order = np.random.default_rng((3, epoch)).permutation(rows)
            for part in np.array_split(order, 4):
                truth = torch.from_numpy(labels[part, r])
                loss = torch.nn.functional.cross_entropy(head(torch.tensor(features[part])), truth)
                descent.zero_grad()
                loss.backward()
                descent.step()
        np.testing.assert_allclose(weight[r], head.weight.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(bias[r], head.bias.detach().numpy(), atol=1e-5)


def test_training_in_chunks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(0, 1, (30, 5)).astype(np.float32), rng.integers(0, 2, (30, 7))
    whole = train_heads(features, labels, np.arange(20), recipe_for(2, 5))
    monkeypatch.setattr(heads_module, "CHUNK_BYTES", 4 * 2 * 6 * 3)  # three heads a chunk
    parts = train_heads(features, labels, np.arange(20), recipe_for(2, 5))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_best_epoch_is_that_of_the_lowest_validation_loss():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(0, 1, (60, 30)).astype(np.float32), rng.integers(0, 2, (60, 4))
    train, val, rates = np.arange(30), np.arange(30, 60), (0.3,) * 6
    ends = [
        train_heads(features, labels, train, recipe_for(2, 30, learning_rates=rates[:n]))
        for n in range(1, 7)
    ]
    best = train_heads(
        features, labels, train, recipe_for(2, 30, learning_rates=rates, best=True), val
    )
    chosen = []
    for r in range(4):
        losses = []
        for weight, bias in ends:
            said = softmax(features[val] @ weight[r].T + bias[r])
            losses.append(-np.log(said[np.arange(30), labels[val, r]]).mean())
        chosen.append(int(np.argmin(losses)))
        np.testing.assert_allclose(best[0][r], ends[chosen[-1]][0][r], atol=1e-6)
    assert min(chosen) < 5  # so that keeping the last would have been found out


@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_permuted_labels_go_by_subject_and_keep_the_classes(subjects, sessions, count, seed):
    table = cohort_table(subjects, sessions, count)
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    visit = owner * sessions + np.unique(table["session_id"], return_inverse=True)[1]
    label = table["label"].to_numpy()
    found = permute_labels(label, owner, visit, 5, seed)
    assert found.shape == (len(table), 5)
    first = np.unique(owner, return_index=True)[1]
    for column in found.T:
        assert (column == column[first][owner]).all()
        assert np.array_equal(np.sort(column[first]), np.sort(label[first]))
    assert np.array_equal(found, permute_labels(label, owner, visit, 5, seed))


def test_every_permutation_of_few_subjects_comes_alike_often():
    owner = np.repeat(np.arange(3), 2)
    found = permute_labels(owner.copy(), owner, owner, 6000, 1)[::2]  # (3, R): labels are names
    counts = dict.fromkeys(permutations(range(3)), 0)
    for column in found.T:
        counts[tuple(column.tolist())] += 1
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_a_subject_whose_label_changes_gives_its_sequence():
    # A: 0 then 1 over two sessions; B: always 1, four sessions of one slice
    owner = np.array([0, 0, 1, 1, 1, 1])
    visit = np.array([0, 1, 2, 3, 4, 5])
    label = np.array([0, 1, 1, 1, 1, 1])
    seen = {tuple(column) for column in permute_labels(label, owner, visit, 40, 0).T.tolist()}
    assert seen == {(0, 1, 1, 1, 1, 1), (1, 1, 0, 0, 1, 1)}


def test_p_counts_the_permutations_that_reach_what_was_observed():
    null = PermutedScore(0.7, (0.5, 0.6, 0.7, 0.8))
    assert null.p == 3 / 5
    assert PermutedScore(0.9, (0.5,) * 199).p == 1 / 200
    assert null.mean == pytest.approx(0.65)
    assert (null.low, null.high) == tuple(np.quantile([0.5, 0.6, 0.7, 0.8], [0.025, 0.975]))


def test_accuracies_are_those_of_the_record(both):
    for run in read_experiment(both):
        slices = read_samples(run)
        rows = slices.rows("test")
        found = accuracies(slices.logits[rows], slices.label[rows], slices.subject[rows])
        for name, value in found.items():
            assert value == pytest.approx(run.metrics["test"][name]["value"], abs=1e-12)


def test_with_permuted_labels_only_a_split_by_slice_stays_above_chance(both):
    runs = read_experiment(both)
    for kind, above in (("subject", False), ("slice", True)):
        tests = [
            permutation_test(run, permutations=100) for run in runs if run.settings["split"] == kind
        ]
        found = centre(tests)
        assert found.draws == 200
        assert (found.low > 0.8) if above else (found.low <= 0.5 <= found.high)
        finding = permuted_finding(tests, 1)
        assert finding.level == ("notice" if above else "fine"), finding.text


def test_a_true_difference_of_classes_beats_permuted_labels(tmp_path):
    table = cohort_table(subjects=24)
    run = make_run(tmp_path, table, features_of(table, identity=0.5, effect=4.0))
    test = permutation_test(run, permutations=99)
    assert test.scores["slice_accuracy"].p == 0.01
    assert test.scores["slice_accuracy"].observed > 0.95


def test_permuted_labels_above_chance_under_a_split_by_subject_are_serious(tmp_path):
    table = cohort_table(subjects=24)
    leaking = split_of(table, "slice")  # a split that is none by subject, whatever its name
    run = make_run(tmp_path, table, features_of(table), subset=leaking)
    found = analyse_leakage([run], permutations=40)
    levels = {(finding.check, finding.level) for finding in found.findings}
    assert {("Split", "serious"), ("Permuted labels", "serious")} <= levels
    assert found.serious


def test_few_permutations_are_not_judged():
    null = PermutedScore(0.6, (0.9, 0.9, 0.8))
    test = PermutationTest(
        "r", "net", "finetune", "subject", 0, 2, 3, "", {"slice_balanced_accuracy": null}
    )
    assert permuted_finding([test], 1).level == "not checked"
    assert split_finding("net", "slice", 3, 5).level == "notice"
    assert split_finding("net", "site", 3, 5).text.endswith("although the split is by site")


def test_a_split_by_site_is_checked_as_one_by_subject(monkeypatch):
    monkeypatch.setattr(leakage_module, "shared_subjects", lambda run: 0)
    metrics = {"test": {"subjects": 9}}
    runs = [
        SimpleNamespace(setting=Setting("net", "frozen", "frozen", split, 0), metrics=metrics)
        for split in ("site", "subject", "given")
    ]
    parts = leakage_module._by_split(runs)
    assert [part[0].setting.split for part in parts] == ["subject", "given", "site"]
    # the false alarms are shared by all that would be called serious, and each is held against
    # its permuted labels
    null = PermutedScore(0.6, tuple(np.linspace(0.4, 0.6, 40)))
    scores = dict.fromkeys(("slice_balanced_accuracy", "subject_balanced_accuracy"), null)
    tests = [
        PermutationTest("r", "net", "frozen", split, 0, 2, 40, "", scores)
        for split in ("site", "subject", "slice")
    ]
    groups = []
    permuted = leakage_module.permuted_finding
    monkeypatch.setattr(
        leakage_module, "permuted_finding", lambda one, n: groups.append(n) or permuted(one, n)
    )
    findings = leakage_module._permuted_findings([[test] for test in tests])
    assert groups == [2, 2, 2]
    against = [finding.text for finding in findings if finding.kind == "observed"]
    assert ["site split" in text for text in against] == [True, False]


def test_both_counts_of_shared_subjects_are_of_one_test(monkeypatch):
    shared = {"a": 38, "b": 32}
    monkeypatch.setattr(leakage_module, "shared_subjects", lambda run: shared[run.name])
    setting = Setting("net", "frozen", "frozen", "slice", 0)
    runs = [
        SimpleNamespace(name=name, setting=setting, metrics={"test": {"subjects": tested}})
        for name, tested in (("a", 39), ("b", 45))
    ]
    text = leakage_module._split_finding(runs, None).text
    assert "slices of 38 of 39 test subjects are in training (of 2 tests" in text
    assert "38 of 39 test subjects are in training, as" in (
        leakage_module._split_finding(runs[:1], None).text
    )


@pytest.mark.parametrize(("draws", "level"), [(18, "not checked"), (19, "fine"), (200, "fine")])
def test_permutations_too_few_for_any_p_of_5_per_cent_are_not_judged(draws, level):
    null = PermutedScore(0.9, (0.5,) * draws)
    test = PermutationTest(
        "r", "net", "finetune", "subject", 0, 2, draws, "", {"subject_balanced_accuracy": null}
    )
    assert observed_finding([test]).level == level


def test_what_permuted_labels_reach_too_is_said_to_beat_nothing():
    null = PermutedScore(0.5, (0.5,) * 30)
    test = PermutationTest(
        "r", "net", "frozen", "subject", 0, 2, 30, "", {"subject_balanced_accuracy": null}
    )
    for tests, words in (([test], "it does not beat"), ([test, test], "together do not beat")):
        assert words in observed_finding(tests).text


def test_trained_runs_are_tested_by_their_likes_on_permuted_labels(tmp_path):
    table = cohort_table()
    features = features_of(table)
    run = make_run(tmp_path, table, features, regime="finetune")
    likes = []
    for n in (1, 2, 3):
        owner = np.unique(table["subject_id"], return_inverse=True)[1]
        label = permute_labels(table["label"].to_numpy(), owner, owner, 1, n)[:, 0]
        subset = np.asarray(run.features["subset"])
        permuted = table.assign(label=label)
        likes.append(
            make_run(
                tmp_path,
                permuted,
                features,
                regime="finetune",
                subset=subset,
                suffix=f"-permuted{n}",
                permutation=n,
            )
        )
    (test,) = analyse_leakage([run, *likes]).permuted
    assert test.draws == 3
    assert test.run == run.name
    expected = [like.metrics["test"]["slice_accuracy"]["value"] for like in likes]
    assert test.scores["slice_accuracy"].permuted == pytest.approx(expected)
    assert stored_leakage(tmp_path).permuted == (test,)  # which finds the likes in the folder
    assert analyse_leakage([run]).permuted == ()
    assert "finetune" in analyse_leakage([run]).notes[0]
