"""The leak gap: what it is given for, what its interval speaks of, and what is no gap at all."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from headscope.analysis.leakage.analysis import analyse_leakage
from headscope.analysis.leakage.findings import gap_finding
from headscope.analysis.leakage.split_gap import SCORES, GapScore, clearest_gap, leak_gap
from headscope.analysis.leakage.stored import read_leakage, stored_leakage
from headscope.figures.leakage import plot_gap
from headscope.record import Run, read_experiment
from tests.support.leakage_results import gap as made_gap
from tests.support.leakage_runs import cohort_table, features_of, make_run


def pairs_of(folder):
    runs = {(r.settings["split"], r.settings["seed"]): r for r in read_experiment(folder)}
    seeds = sorted({seed for _, seed in runs})
    return [(runs["subject", seed], runs["slice", seed]) for seed in seeds]


def test_gaps_of_balanced_accuracy_and_area_are_those_of_the_record(both):
    pairs = pairs_of(both)
    gap = leak_gap(pairs)
    assert set(gap.scores) == set(SCORES)
    for name in SCORES:
        values = [[run.metrics["test"][name]["value"] for run in pair] for pair in pairs]
        figure = gap.scores[name]
        np.testing.assert_allclose(np.column_stack([figure.by_subject, figure.by_slice]), values)
        np.testing.assert_allclose(figure.gaps, np.diff(values)[:, 0])
    assert gap.constant == ((False, False), (False, False))
    assert gap.measurable
    assert not gap.one_seed


def sparse_runs(folder, alone):
    """Runs under both splits; with `alone`, the split by subject tests one subject of class 0."""
    table = cohort_table(subjects=24)
    features = features_of(table)
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    subset = np.array(["train", "val", "test"])[np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2])][
        owner % 12
    ]
    if alone:  # subjects 8, 10, 20 and 22 are of class 0
        subset[np.isin(owner, [10, 20, 22])] = "train"
    return make_run(folder, table, features, subset=subset), make_run(
        folder, table, features, kind="slice"
    )


@pytest.mark.parametrize("alone", [True, False])
def test_one_test_subject_of_a_class_gives_no_interval(alone, tmp_path):
    """Of both tests together the class has many subjects, which hid that one has but one."""
    gap = leak_gap([sparse_runs(tmp_path, alone)])
    for figure in gap.scores.values():
        assert np.isfinite(figure.gap)
        assert np.isnan(figure.low) == np.isnan(figure.high) == alone
    text = gap_finding(gap).text
    assert ("(95%" in text) != alone


def test_the_interval_of_one_seed_speaks_of_these_networks_and_of_several_of_all(both):
    pairs = pairs_of(both)
    one, two = leak_gap(pairs[:1]), leak_gap(pairs)
    assert one.one_seed
    assert not two.one_seed
    assert ", of these networks)" in gap_finding(one).text
    assert ", over 2 seeds)" in gap_finding(two).text


def with_logits(run, logits):
    """Return the run with other logits on record, as `leak_gap` reads them."""
    other = Run(run.path)
    other.__dict__["logits"] = np.asarray(logits, dtype=np.float32)
    return other


def test_what_differs_between_seeds_widens_the_interval(both):
    """Three networks on one test: one calls each subject rightly, two call half of them so."""
    by_subject, by_slice = pairs_of(both)[0]
    stored = by_subject.features
    truth = np.eye(2)[stored["label"]] * 4 - 2
    owner = np.unique(stored["subject_id"], return_inverse=True)[1]
    half = np.where((owner % 4 < 2)[:, None], truth, -truth)
    pairs = []
    for seed, logits in enumerate((truth, half, half)):
        pair = with_logits(by_subject, logits), with_logits(by_slice, by_slice.logits)
        for run in pair:
            run.__dict__["settings"] = run.settings | {"seed": seed}
        pairs.append(pair)
    alike = leak_gap([(run, other) for run, other in (pairs[1], pairs[2])])
    apart = leak_gap(pairs)
    widths = [g.scores["slice_accuracy"].high - g.scores["slice_accuracy"].low
              for g in (alike, apart)]  # fmt: skip
    assert alike.scores["slice_accuracy"].gaps[0] == alike.scores["slice_accuracy"].gaps[1]
    assert widths[1] > 1.5 * widths[0]


def test_the_folds_of_a_seed_are_one_test(tmp_path):
    table = cohort_table(subjects=24)
    features = features_of(table, identity=0.3) / 8  # logits without ties
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    pairs, tested = [], []
    for fold in (0, 1):
        subset = np.where(owner // 2 % 2 == fold, "test", "train")
        subset[(subset == "train") & (owner % 12 < 2)] = "val"
        pair = []
        for kind in ("subject", "slice"):
            marks = subset if kind == "subject" else None
            run = make_run(tmp_path / str(fold), table, features, kind=kind, fold=fold,
                           subset=marks, suffix=f"-{fold}")  # fmt: skip
            pair.append(run)
        stored = pair[0].features
        rows = stored["subset"] == "test"
        tested.append((stored["label"][rows], stored["logits"][rows]))
        pairs.append(tuple(pair))
    gap = leak_gap(pairs)
    labels, logits = (np.concatenate(parts) for parts in zip(*tested, strict=True))
    calls = logits.argmax(axis=1)
    by_subject = {name: figure.by_subject for name, figure in gap.scores.items()}
    assert gap.seeds == (0,)
    assert by_subject["slice_accuracy"] == (pytest.approx((calls == labels).mean()),)
    assert by_subject["slice_balanced_accuracy"] == (
        pytest.approx(balanced_accuracy_score(labels, calls)),
    )
    areas = [roc_auc_score(label, part[:, 1] - part[:, 0]) for label, part in tested]
    assert by_subject["slice_auc"] == (pytest.approx(np.mean(areas)),)


def test_constants_have_no_gap(both):
    """The first seed's network by slice calls every slice class 1; the second seed is sound."""
    pairs = pairs_of(both)
    run = pairs[0][1]
    constant = with_logits(run, np.tile([-1.0, 1.0], (len(run.features["label"]), 1)))
    beside = leak_gap([(pairs[0][0], constant), pairs[1]])
    assert beside.constant == ((False, True), (False, False))
    assert beside.measurable
    assert (beside.seeds, beside.left_out) == ((1,), 1)
    assert beside.scores == leak_gap([pairs[1]]).scores
    assert "1 of 2 seeds left out: one class for all" in gap_finding(beside).text
    alone = leak_gap([(pairs[0][0], constant)])
    assert not alone.measurable
    assert alone.scores["slice_accuracy"].by_slice == (0.5,)
    assert all(np.isnan(figure.gap) for figure in alone.scores.values())
    finding = gap_finding(alone)
    assert finding.level == "not checked"
    assert "points" not in finding.text
    (axes,) = plot_gap([alone]).axes
    assert "one class for all: no gap" in [text.get_text() for text in axes.texts]


def test_gaps_sort_by_how_certain_they_are():
    assert GapScore((0.5,), (0.7,), 0.2, 0.1, 0.3).clearness == pytest.approx(2)
    assert GapScore((0.5,), (0.7,), 0.2, -0.2, 0.6).clearness == pytest.approx(0.5)
    assert GapScore((0.5,), (0.7,), 0.2, np.nan, np.nan).clearness == -np.inf
    wide, narrow = made_gap("wide", 0.01), made_gap("narrow", 0.2)
    constant = replace(made_gap("constant", 0.25), constant=((True, False), (True, False)))
    assert clearest_gap([wide, narrow, constant]) == narrow
    assert clearest_gap([constant]) is None
    assert clearest_gap([]) is None


def test_a_file_of_an_older_form_is_computed_again(both):
    first = stored_leakage(both, permutations=5)
    path = both / "leakage.json"
    stored = json.loads(path.read_text())
    assert read_leakage(stored).to_dict() == first.to_dict()
    for gap in stored["gaps"]:
        del gap["constant"]
    path.write_text(json.dumps(stored))
    assert stored_leakage(both, permutations=5).to_dict() == first.to_dict()


def test_each_figure_survives_the_file(both):
    result = analyse_leakage(read_experiment(both), permutations=20)
    again = read_leakage(json.loads(json.dumps(result.to_dict())))
    assert again.gaps == result.gaps
    assert again.permuted == result.permuted
