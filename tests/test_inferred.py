"""Subjects inferred from pixels: groups, runs by them, tables corrected by hand, given subsets."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from scipy.cluster.hierarchy import DisjointSet

from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.results.settings import choose_apart, setting_results
from headscope.analysis.results.table import markdown_table, short_table
from headscope.audit_record import SAME_HEAD, read_audit
from headscope.auditing.audit import audit
from headscope.auditing.inferring import THRESHOLDS, calibrate, infer_subjects, note_inferred
from headscope.auditing.linking import Links, group_scans
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.experiment.ablate import ablate
from headscope.experiment.run import run
from headscope.files import read_table
from headscope.record import Run, read_experiment
from headscope.reporting.answer import answer
from headscope.reporting.explanations.inferred import explain_by_inference, inferred_flags
from headscope.reporting.verdict import verdict
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices
from headscope.slicing.write import write_slices
from headscope.splits.files import subsets_by_path
from headscope.verification.verify import verify
from tests.support.commands import headscope_here
from tests.support.experiments import settings as tiny
from tests.support.heads import SIDE, make_head, write_store

pytestmark = pytest.mark.usefixtures("few_trees")

SLICES = 3


def links_of(scans, edges):
    pairs = np.array([sorted((a, b)) for a, b, _ in edges], dtype=np.intp).reshape(-1, 2)
    return Links(scans, pairs, np.array([detail for *_, detail in edges], dtype=float))


def chain(first, last, detail=0.8):
    return [(n, n + 1, detail) for n in range(first, last)]


def sizes(group):
    return sorted(np.bincount(group).tolist())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve heads of three neighbouring slices each, as pictures whose names say nothing."""
    rng = np.random.default_rng(0)
    folder, true = tmp_path_factory.mktemp("inferred") / "data", {}
    heads = [
        (f"P{n}", "AB"[n % 2], picture) for n in range(12) for picture in make_head(rng, SLICES)
    ]
    for number, row in enumerate(rng.permutation(len(heads))):
        subject, label, picture = heads[row]
        path = folder / label / f"picture ({number}).png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        true[path.relative_to(folder).as_posix()] = subject
    return folder, true


@pytest.fixture(scope="module")
def experiment(pictures, tmp_path_factory):
    data, _ = pictures
    changes = {"size": SIDE, "regimes": ["frozen"], "epochs": 1, "subjects": "inferred"}
    out = tmp_path_factory.mktemp("inferred-run") / "out"
    return run(tiny(data, out, **changes, splits=["subject"], rivals=[]))


def test_neighbours_make_one_subject_and_a_lone_weak_pair_joins_no_two():
    edges = [*chain(0, 9), *chain(10, 19), (4, 14, 0.55)]
    assert sizes(group_scans(links_of(20, edges), 0.5)) == [10, 10]
    visits = [(n, n + 10, 0.55) for n in range(4)]  # with that pair, half of either scan
    assert sizes(group_scans(links_of(20, edges + visits[1:]), 0.5)) == [10, 10]
    assert sizes(group_scans(links_of(20, edges + visits), 0.5)) == [20]
    assert sizes(group_scans(links_of(20, edges + visits), 0.6)) == [10, 10]


def test_scans_of_one_slice_need_one_pair_and_unlinked_ones_stay_alone():
    links = links_of(5, [(0, 1, 0.9), (1, 2, 0.5)])
    assert sizes(group_scans(links, 0.48)) == [1, 1, 3]
    assert sizes(group_scans(links, 0.6)) == [1, 1, 1, 2]
    assert sizes(group_scans(links_of(3, []), 0.5)) == [1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.integers(0, 11), st.floats(0.3, 1)).filter(
            lambda edge: edge[0] != edge[1]
        ),
        max_size=40,
    )
)
def test_groups_never_join_what_no_pair_connects(edges):
    group = group_scans(links_of(12, edges), 0.5)
    whole = DisjointSet(range(12))
    for a, b, detail in edges:
        if detail >= 0.5:
            whole.merge(a, b)
    for a in range(12):
        for b in range(a):
            assert group[a] != group[b] or whole.connected(a, b)


def test_neighbouring_slices_are_found_whatever_their_ids_say(tmp_path):
    def hide(table, pixels):
        return table.assign(subject_id="all", session_id="1"), pixels

    inferred = [
        infer_subjects(
            open_slices(write_store(tmp_path / name, subjects=8, sessions=1, alter=alter))
        )
        for name, alter in (("ids", None), ("hidden", hide))
    ]
    pd.testing.assert_frame_equal(*inferred)
    assert inferred[0]["strict"].nunique() == 8 and inferred[0]["detail"].isna().all()


def test_pictures_of_one_head_are_one_subject(pictures, tmp_path):
    data, true = pictures
    slices = write_slices(find_cohort(data), tmp_path, SliceSpec(size=SIDE), workers=1)
    subjects = infer_subjects(slices)
    for name in ("strict", "loose"):
        pairs = set(zip(subjects["path"].map(true), subjects[name], strict=True))
        assert len(pairs) == subjects[name].nunique() == 12
        assert subjects[name].str.startswith(f"inferred-{name}-").all()
    partner = subjects.set_index("path")["partner"]
    assert (partner.map(true) == pd.Series(true)[partner.index]).all()
    assert "12 by the strict" in note_inferred(subjects)[0]
    assert "more than a quarter" in note_inferred(subjects.assign(loose="one"))[-1]
    bounded = subjects.copy()
    bounded.attrs = {"strict": SAME_HEAD, "loose": SAME_HEAD}
    assert "upper bound" in note_inferred(bounded)[1]


def plain(sentence):
    """A sentence without tags and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", str(sentence)))


def test_validation_chooses_among_settings_of_one_split_and_partition():
    def result(split, subjects, auc, folds=1):
        setting = SimpleNamespace(subjects=subjects)
        return SimpleNamespace(
            split=split, runs=[SimpleNamespace(setting=setting)], fits=frozenset(range(folds)),
            constant_in_validation=0, validation=lambda name: auc,
        )  # fmt: skip

    strict, loose = (
        result("subject", f"inferred-{name}", auc)
        for name, auc in (("strict", 0.9), ("loose", 0.6))
    )
    best, _, count = choose_apart([strict, loose, weak := result("subject", "inferred-loose", 0.5)])
    assert (best, count) == (loose, 2) and weak is not best
    subject, site = result("subject", None, 0.6, 3), result("site", None, 0.9, 3)
    assert choose_apart([subject, site])[::2] == (subject, 1)  # other tests, other validation
    assert choose_apart([subject, result("site", None, 0.4, 4)])[0].split == "site"


def test_a_run_by_inferred_subjects_says_so_everywhere(experiment):
    runs = read_experiment(experiment)
    assert {run.setting.subjects for run in runs} == {"inferred-strict", "inferred-loose"}
    for one in runs:
        assert one.name == f"timm-test_resnet-frozen-{one.setting.subjects}-subject-seed0"
        subsets = one.predictions.groupby("subject_id")["subset"].nunique()
        assert len(subsets) == 12 and (subsets == 1).all()  # no group is split
        assert subsets.index.str.startswith(one.setting.subjects).all()
    results, audited = setting_results(runs), read_audit(experiment)
    explained = explain_by_inference(results)
    flags = answer(results, [], audited, {}, explained=[explained]).flags
    said = [*flags, *verdict(results, compare_runs(runs), []), *explained.sentences]
    words = " ".join(map(plain, said))
    assert "Subjects are inferred from pixels, not known: the honest accuracy of" in words
    assert "The honest accuracy is estimated at" in words and "inferred subjects" in words
    table, _ = marked_tables(results, audited)
    assert table["marker"].str.contains("subjects inferred from pixels").all()
    between = table["inferred"].unique()
    assert len(between) == 1
    values = sorted(100 * table["test_subject_accuracy"])
    assert "is estimated at {:.1f}% and {:.1f}% of subjects".format(*values) in between[0]
    assert between[0] in markdown_table(table) and between[0] in plain(short_table(table))
    splits = [finding for finding in audited.findings if finding.kind == "split"]
    assert all("subjects inferred from pixels" in finding.text for finding in splits)
    assert verify(experiment).whole


def test_a_rung_has_the_subjects_of_its_experiment(experiment):
    ablate(experiment, rungs=["silhouette"])
    for whole in read_experiment(experiment):
        rung = Run(experiment / "ablation" / "silhouette" / "runs" / whole.name)
        assert (rung.predictions["subject_id"] == whole.predictions["subject_id"]).all()


def test_inferred_subjects_that_have_changed_are_not_read(experiment, tmp_path):
    place = experiment / "subjects" / "subjects.tsv"
    text = place.read_text()
    try:
        place.write_text(text.replace("inferred-strict-001", "inferred-strict-002"))
        assert any(problem.startswith("subjects") for problem in verify(experiment).problems)
    finally:
        place.write_text(text)


def test_a_table_of_subjects_comes_back_corrected(pictures, tmp_path, monkeypatch, capsys):
    data, true = pictures
    table = tmp_path / "subjects.tsv"
    command = "audit", data, "--out", tmp_path, "--workers", 1, "--write-subjects", table
    assert "correct subject_id by hand" in headscope_here(monkeypatch, capsys, *command).stdout
    rows = read_table(table)
    assert rows.columns[:3].tolist() == ["path", "label", "subject_id"]
    command = "audit", "nowhere", "--write-subjects", tmp_path  # refused before anything is read
    done = headscope_here(monkeypatch, capsys, *command)
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path} is a folder: --write-subjects names a file.\n"
    corrected = rows.assign(subject_id=rows["path"].map(true))
    corrected.to_csv(tmp_path / "corrected.csv", index=False)
    cohort = find_cohort(data, subjects=tmp_path / "corrected.csv")
    assert cohort.scans["subject_id"].nunique() == 12
    notes = " ".join(note.text for note in cohort.notes)
    assert "come from corrected.csv: 12 subjects" in notes and "no known form" not in notes
    unchanged = find_cohort(data, subjects=str(table))
    assert "Of these 12 are named as they were inferred" in " ".join(map(str, unchanged.notes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="subject_id"), "lacks the column 'subject_id'"),
        (lambda rows: rows[1:], "no row for 1 scan of"),
        (lambda rows: pd.concat([rows, rows[:2]]), "names 2 paths twice, the first"),
        (lambda rows: rows.assign(path="x" + rows["path"]), "names 36 paths that .* does not hold"),
        (lambda rows: rows.assign(subject_id=""), "no subject id in 36 rows"),
    ],
)
def test_a_wrong_table_of_subjects_is_refused(pictures, tmp_path, change, message):
    data, true = pictures
    rows = pd.DataFrame({"path": list(true), "subject_id": list(true.values())})
    change(rows).to_csv(tmp_path / "subjects.csv", index=False)
    with pytest.raises(InputError, match=message):
        find_cohort(data, subjects=tmp_path / "subjects.csv")


def test_what_cannot_be_inferred_is_refused(pictures, tmp_path):
    data, _ = pictures
    cohort = find_cohort(data)
    small = write_slices(cohort, tmp_path / "small", SliceSpec(size=32), workers=1)
    with pytest.raises(InputError, match="slices of 32 pixels: --size 48"):
        infer_subjects(small)

    def turn(table, pixels):
        table.loc[:1, "plane"] = "coronal"
        return table, pixels

    planes = open_slices(write_store(tmp_path / "planes", subjects=3, alter=turn))
    with pytest.raises(InputError, match="across planes, and scans here are coronal or axial"):
        infer_subjects(planes)
    with pytest.raises(InputError, match="Balance needs ids"):
        tiny(data, tmp_path / "out", subjects="inferred", balance=["Age"])
    with pytest.raises(InputError, match=r"The subjects nowhere\.tsv do not exist"):
        run(tiny(data, tmp_path / "out", subjects="nowhere.tsv"))


def test_equal_pictures_across_a_given_partition_are_serious(tmp_path):
    rng = np.random.default_rng(1)
    first = make_head(rng)[0]  # in Training as 1 and 9, in Testing as 5
    for n in range(24):
        path = tmp_path / "data" / ("Training", "Testing")[n // 4 % 2] / "AB"[n % 2] / f"p{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(first if n in (1, 5, 9) else make_head(rng)[0]).save(path)
    result = audit(tmp_path / "data", workers=1)
    (equal,) = [finding for finding in result.findings if finding.kind == "identical"]
    assert equal.level == "serious" and "pictures" in equal.text and "scan" not in equal.text
    assert "3 pairs" in equal.text and "2 between subsets of the given partition" in equal.text
    (split,) = result.splits
    assert (split.name, split.duplicated, split.tested) == ("given", 1, 12)
    notes = [note.text for note in find_cohort(tmp_path / "data").notes]
    assert any(way in note for note in notes for way in ("--subjects inferred", "--splits given"))


def test_a_given_partition_by_path_is_marked(pictures, tmp_path):
    data, true = pictures
    subsets = ["Training" if int(subject[1:]) < 8 else "test" for subject in true.values()]
    table = pd.DataFrame({"path": list(true), "subset": subsets})
    table.to_csv(tmp_path / "parts.csv", index=False)
    changes = {"size": 32, "regimes": ["frozen"], "epochs": 1, "splits": ["given"], "rivals": []}
    split_file = tmp_path / "parts.csv"
    out = run(tiny(data, tmp_path / "out", split_file=split_file, **changes))
    (one,) = read_experiment(out)
    tested = one.predicted("test")["scan"]
    assert set(tested) == {path for path, subject in true.items() if int(subject[1:]) >= 8}
    results = setting_results([one])
    assert "The partition is as it was given" in str(inferred_flags(results)[0])
    assert results[0].marker.startswith("given partition, no subject ids")
    for change, message in (
        (table[1:], "does not cover 1 of 36 paths"),
        (pd.concat([table, table[:1]]), "names the path .* twice"),
        (table.assign(subset="some"), "names the subset 'some'"),
        (table.drop(columns="subset"), "lacks the column 'subset'"),
    ):
        change.to_csv(split_file, index=False)
        with pytest.raises(InputError, match=message):
            subsets_by_path(split_file, list(true))


@pytest.mark.real_data
def test_slices_of_real_scans_hang_together(real_data, tmp_path):
    cohort = find_cohort(real_data / "nichart_t1", label="Age", threshold=90.0, where="Age > 88")
    slices = write_slices(cohort, tmp_path, SliceSpec(count=16, size=SIDE), workers=1)
    true = slices.table["subject_id"].to_numpy(str)
    names = np.array([f"{n}" for n in range(len(true))])
    vars(slices)["table"] = slices.table.assign(scan=names, subject_id="unknown")
    subjects = infer_subjects(slices)
    assert len(set(zip(true, subjects["strict"], strict=True))) == len(set(true)) > 2


def test_thresholds_follow_what_pairs_of_different_heads_are_like():
    """Centre and spread of a normal, beside its quantiles; pairs of one head do not move them."""
    rng = np.random.default_rng(0)
    apart, same = rng.normal(0.27, 0.05, 6000), rng.uniform(0.5, 1, 600)
    detail = np.concatenate([apart, same])
    links = Links(1000, np.zeros((len(detail), 2), dtype=np.intp), detail)
    for name, share in (("strict", 0.05), ("loose", 0.25)):
        expected = stats.norm.isf(share / len(detail), 0.27, 0.05)
        assert calibrate(links)[name] == pytest.approx(expected, abs=0.03)
    few = Links(1000, links.pairs[:499], detail[:499])
    assert calibrate(few) == THRESHOLDS
    alike = replace(links, detail=np.minimum(detail + 0.4, 1))
    assert calibrate(alike) == {"strict": 0.60, "loose": 0.60}
    assert calibrate(replace(links, detail=detail / 10)) == {"strict": 0.40, "loose": 0.40}
