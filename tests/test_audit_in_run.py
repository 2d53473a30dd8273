"""A run audits its slices: `audit.json` holds it, and table, verdict and page say what it found."""

import itertools
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import headscope.auditing.audit as audit_module
from headscope.analysis.leakage.findings import split_finding
from headscope.audit_record import Audit, audit_key, read_audit, summary_line
from headscope.auditing.audit import audit, audit_slices
from headscope.auditing.crossings import Units, check_split, count_between, find_subsets
from headscope.auditing.duplicates import Matches, find_matches
from headscope.auditing.shortcuts import find_shortcuts
from headscope.experiment.run import run
from headscope.files import read_table, write_table
from headscope.record import read_experiment
from headscope.reporting import write_report
from headscope.reporting.cautions import cautions
from headscope.slicing.store import open_slices
from tests.support.experiments import settings, write_cohort
from tests.support.heads import SIDE, make_head, write_store
from tests.support.synthetic import write_experiment


def text_of(page):
    """The page's words, without tags and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))


def write_pictures(folder, count=24, *, twins=(), named=True, alter=None, seed=0):
    """Class folders of one PNG per subject; `twins` (a, b) says that b's picture is a's."""
    rng = np.random.default_rng(seed)
    heads = [make_head(rng)[0] for _ in range(count)]
    for a, b in twins:
        heads[b] = heads[a]
    for n, head in enumerate(heads):
        label = ("AD", "NC")[n % 2]
        head = head if alter is None else alter(head.copy(), label)
        place = folder / label / (f"sub-{n:02d}.png" if named else f"picture{chr(97 + n)}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(head).save(place)
    return folder


def frozen(data, out, **changes):
    usual = {"size": SIDE, "regimes": ["frozen"], "epochs": 1, "splits": ["subject"]}
    return run(settings(data, out, **(usual | changes)))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    return frozen(write_pictures(folder / "data", 20), folder / "out")


def test_a_clean_cohort_gives_no_caution(clean, undrawn, tmp_path):
    experiment = shutil.copytree(clean, tmp_path / "out")
    result = read_audit(experiment)
    assert not result.serious and result.pairs == [] and result.unit == "subjects"
    assert cautions(result, read_experiment(experiment)) == []
    page = write_report(experiment).read_text(encoding="utf-8")
    words = text_of(page)
    assert "What the audit of the slices found" in words and "Nothing serious was found." in words
    assert "shortcut tells" not in words and "share heads" not in words
    table = read_table(experiment / "table.tsv")
    assert table["test_duplicates"].tolist() == [0]
    assert table[["marker", "shortcuts"]].fillna("").to_numpy().tolist() == [["", ""]]
    assert summary_line(result) == "Audit of the slices: nothing serious."


def test_a_border_that_tells_the_class_is_in_table_verdict_and_page(tmp_path, undrawn, capsys):
    def border(head, label):
        if label == "AD":
            head[:, :2] = 60
        return head

    experiment = frozen(write_pictures(tmp_path / "data", 20, alter=border), tmp_path / "out")
    assert "Shortcut: border" in " ".join(capsys.readouterr().err.split())
    (shortcut,) = [s for s in read_audit(experiment).shortcuts if s.family == "border"]
    assert shortcut.serious and shortcut.auc == 1.0  # a fact that separates the classes
    page = write_report(experiment).read_text(encoding="utf-8")
    verdict = text_of(page[page.index('id="verdict"') : page.index('<section id="results"')])
    assert "A shortcut tells the label. Border alone" in verdict
    assert "AUC of 1.000 (1.000 to 1.000) over subjects" in verdict
    assert "the accuracy need not be about anatomy" in verdict
    assert page.count('href="#audit"') >= 2 and '<div id="audit">' in page
    (marker,) = read_table(experiment / "table.tsv")["marker"]
    assert "border" in marker and marker.endswith("alone tells the label")
    assert marker in (experiment / "table.md").read_text(encoding="utf-8")


def duplicated_by_hand(split, twins):
    """Test subjects of whom a twin trains, pair by pair."""
    subset = split.set_index("subject_id")["subset"].to_dict()
    name = "sub-{:02d}".format
    both = [(name(a), name(b)) for a, b in twins] + [(name(b), name(a)) for a, b in twins]
    return len({a for a, b in both if (subset[a], subset[b]) == ("test", "train")})


def test_duplicates_are_counted_by_the_split_of_each_run(tmp_path, undrawn, short_search):
    twins = [(0, 2), (1, 3), (4, 7), (6, 8), (10, 11)]
    data = write_pictures(tmp_path / "data", 24, twins=twins)
    experiment = frozen(data, tmp_path / "out", folds=3, seeds=[0, 1])
    result = read_audit(experiment)
    assert len(result.splits) == 6 and len(result.pairs) == len(twins)
    by_hand = {}
    for check in result.splits:
        split = read_table(experiment / "splits" / f"{check.name}.tsv")
        by_hand[check.name] = duplicated_by_hand(split, twins)
        subset = split.set_index("subject_id")["subset"].to_dict()
        apart = sum(subset[f"sub-{a:02d}"] != subset[f"sub-{b:02d}"] for a, b in twins)
        assert (check.duplicated, check.crossing["identical"]) == (by_hand[check.name], apart)
        assert check.tested == sum(value == "test" for value in subset.values())
        assert sum(pair.crosses(check.name) for pair in result.pairs) == apart
    assert len(set(by_hand.values())) > 1  # splits differ, so one number for all would be wrong
    page = text_of(write_report(experiment).read_text(encoding="utf-8"))
    for row in read_table(experiment / "runs.tsv").to_dict("records"):
        fold = row["fold"].replace(" of ", "of")
        count = by_hand[f"subject-fold{fold}-seed{row['seed']}"]
        assert row["test_duplicates"] == count
        verb = "has" if count == 1 else "have"
        words = f"{count} of 8 test subjects {verb} duplicates in training"
        assert (words in str(row["marker"])) == (count > 0)
    crossed, worst = sum(count > 0 for count in by_hand.values()), max(by_hand.values())
    assert f"Training and test share heads. This holds of {crossed} of 6 splits" in page
    assert f"{worst} of the 8 test subjects have a duplicate in training under another id" in page
    assert "duplicates of" in page and "under other ids" in page  # in what the split is worth


def test_equal_pictures_without_ids_are_counted_over_all_pairs(tmp_path, undrawn, short_search):
    twins = [(0, 2), (0, 4), (0, 6), (1, 3), (1, 5), (8, 9), (10, 12), (11, 13)]
    data = write_pictures(tmp_path / "data", 26, twins=twins, named=False)
    experiment = frozen(data, tmp_path / "out", splits=["slice"])
    result = read_audit(experiment)
    assert result.unit == "pictures"
    (check,) = result.splits
    stored = open_slices(experiment / "slices")
    table = stored.table.merge(read_table(experiment / "splits" / "slice-seed0.tsv"))
    subset, pixels = table["subset"].tolist(), np.asarray(stored.pixels)
    equal = [
        (i, j)
        for i, j in itertools.combinations(range(len(pixels)), 2)
        if (pixels[i] == pixels[j]).all()
    ]
    assert len(equal) == 6 + 3 + 3  # a group of four, one of three, three of two
    apart = sum(subset[i] != subset[j] for i, j in equal)
    leaked = {
        a
        for i, j in equal
        for a, b in ((i, j), (j, i))
        if (subset[a], subset[b]) == ("test", "train")
    }
    assert 0 < apart < len(equal) and leaked
    assert check.crossing["identical"] == apart
    assert check.duplicated == check.equal_slices == len(leaked)
    (finding,) = [f for f in result.findings if f.kind == "identical"]
    assert finding.counts["pairs"] == len(equal) and finding.level == "serious"
    assert "12 pairs of pictures, equal in every pixel" in finding.text
    assert f"{apart} between subsets of slice-seed0" in finding.text
    assert "subject" not in finding.text and "scan" not in finding.text
    page = text_of(write_report(experiment).read_text(encoding="utf-8"))
    assert f"{len(leaked)} of the {subset.count('test')} test pictures ha" in page
    marker = f"{len(leaked)} of {subset.count('test')} test pictures have duplicates in training"
    assert marker in page


@given(
    st.lists(
        st.sets(st.sampled_from(["train", "val", "test"]), min_size=1), min_size=6, max_size=6
    ),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_what_crosses_a_split_is_what_pair_by_pair_crosses_it(subsets, pictures, person):
    table = pd.DataFrame({"subject_id": [f"s{n}" for n in range(6)]})
    rows = [(f"s{n}", subset) for n, names in enumerate(subsets) for subset in sorted(names)]
    split = pd.DataFrame(rows, columns=["subject_id", "subset"])
    groups = [
        members
        for picture in range(4)
        if len(members := tuple(n for n in range(6) if pictures[n] == picture)) > 1
    ]
    numbers, units = np.array(pictures) + 1, np.array(person)
    matches = Matches([], [], [], False, groups, numbers, compared=True)
    check = check_split(
        "s", split, find_subsets(table, split), Units(np.arange(6), units, units), matches
    )
    pairs = [two for group in groups for two in itertools.combinations(group, 2)]
    assert check.crossing["identical"] == sum(len(subsets[a] | subsets[b]) > 1 for a, b in pairs)
    assert count_between(groups, units) == sum(person[a] != person[b] for a, b in pairs)
    both = [two for pair in pairs for two in (pair, pair[::-1])]
    leaked = {
        person[a]
        for a, b in both
        if person[a] != person[b] and "test" in subsets[a] and "train" in subsets[b]
    }
    assert check.duplicated == len(leaked)
    trained = {pictures[n] for n in range(6) if "train" in subsets[n]}
    assert check.equal_slices == sum(
        "test" in subsets[n] and pictures[n] in trained for n in range(6)
    )


def test_the_audit_is_made_once_and_again_where_splits_change(
    clean, tmp_path, monkeypatch, short_search
):
    source = clean.parent / "data"
    experiment = frozen(source, tmp_path / "out")
    first = (experiment / "audit.json").read_bytes()
    (experiment / "audit.json").unlink()
    frozen(source, tmp_path / "out")
    assert (experiment / "audit.json").read_bytes() == first  # the same slices, the same bytes
    with monkeypatch.context() as patched:
        patched.setattr(audit_module, "audit_slices", None)  # would fail if it were called
        frozen(source, tmp_path / "out")
    frozen(source, tmp_path / "out", seeds=[0, 1])
    result = read_audit(experiment)
    assert [check.name for check in result.splits] == ["subject-seed0", "subject-seed1"]
    assert (experiment / "audit.json").read_bytes() != first


def test_an_audit_of_other_slices_or_splits_is_not_read(clean, tmp_path):
    experiment = shutil.copytree(clean, tmp_path / "out")
    assert read_audit(experiment) == audit(experiment)
    shutil.rmtree(experiment / "slices")  # deleted to save room: nothing has changed
    assert read_audit(experiment) is not None and read_audit(experiment, exact=True) is None
    split = experiment / "splits" / "subject-seed0.tsv"
    write_table(split, read_table(split).assign(subset="train"))
    assert read_audit(experiment) is None
    shutil.copytree(clean / "slices", experiment / "slices")
    shutil.copy(clean / "splits" / split.name, split)
    settings_file = experiment / "slices" / "slices.json"
    settings_file.write_text(
        settings_file.read_text().replace(audit_key(clean)["slices"], "0" * 64)
    )
    assert read_audit(experiment) is None
    (experiment / "audit.json").write_text("{")
    assert read_audit(experiment) is None


def test_the_command_shows_the_values_of_the_file(clean, tmp_path):
    experiment = shutil.copytree(clean, tmp_path / "out")
    stored = json.loads((experiment / "audit.json").read_text(encoding="utf-8"))
    shown = json.loads(json.dumps(audit(experiment).to_dict()))
    assert {name: shown[name] for name in shown if name != "path"} == {
        name: stored[name] for name in stored if name not in ("key", "sha256")
    }
    (experiment / "audit.json").unlink()  # an experiment of an earlier version
    assert read_audit(experiment) is None
    assert audit(experiment).shortcuts == read_audit(experiment).shortcuts


def test_an_experiment_without_an_audit_reports_as_before(tmp_path, undrawn):
    experiment = write_experiment(tmp_path, width=32)
    page = write_report(experiment).read_text(encoding="utf-8")
    assert read_audit(experiment) is None and 'id="audit"' not in page
    assert "test_duplicates" not in read_table(experiment / "table.tsv")


def test_no_id_is_in_the_audit_of_pseudonymised_scans(tmp_path, short_search):
    data = write_cohort(tmp_path / "scans")
    experiment = frozen(data, tmp_path / "out", size=48, pseudonym_key=tmp_path / "study.key")
    text = (experiment / "audit.json").read_text(encoding="utf-8")
    result = read_audit(experiment)
    assert result.pairs and all(subject.startswith("sub-") for subject in result.pairs[0].subjects)
    assert not re.search(r"(AD|NC)\d|T1w", text) and str(tmp_path) not in text
    outcomes = {s.family: s.outcome for s in result.shortcuts}
    assert outcomes["file size"] != "unknown"  # the files are at hand while it runs


def test_one_scan_one_class_and_no_test_are_said(tmp_path):
    store = write_store(tmp_path / "one", subjects=1)
    result = audit(store)
    assert (result.scans, result.serious) == (1, False)
    label = np.array(["AD"] * 8)
    facts = pd.DataFrame({"grid: x": np.arange(8.0)})
    assert find_shortcuts(facts, label, np.arange(8))[0].note == "not tried: there is one class"
    experiment = tmp_path / "out"
    write_store(experiment / "slices", subjects=6)
    subjects = [f"P{n:02d}" for n in range(6)]
    split = pd.DataFrame({"subject_id": subjects, "subset": ["train", "val"] * 3})
    write_table(experiment / "splits" / "subject-seed0.tsv", split)
    (check,) = audit(experiment).splits
    assert (check.tested, check.duplicated, check.test_slices, check.equal_slices) == (0, 0, 0, 0)


def test_slices_too_small_to_tell_heads_apart_are_not_compared(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.stack([make_head(rng)[0, ::3, ::3] for _ in range(12)])
    pixels[5] = pixels[2]
    matches = find_matches(pixels, np.arange(12), np.arange(12))
    assert not matches.compared
    assert [(match.first, match.second, match.kind) for match in matches.pairs] == [
        (2, 5, "identical")
    ]
    store = write_store(tmp_path / "slices")
    np.save(store / "slices.npy", np.load(store / "slices.npy")[:, ::3, ::3])
    levels = {f.kind: f.level for f in audit_slices(open_slices(store), "", None, []).findings}
    assert (levels["identical"], levels["copy"], levels["alike"]) == ("fine", *["not checked"] * 2)


def test_a_split_whose_test_heads_train_under_other_ids_is_serious():
    finding = split_finding("resnet50 frozen, subject split", "subject", 0, 12, duplicated=3)
    assert finding.level == "serious" and "duplicates of 3 of 12 test subjects" in finding.text
    assert split_finding("", "subject", 0, 12).level == "fine"


def test_an_unknown_split_of_a_run_has_no_check():
    assert (
        Audit("", "", "subjects", 0, 0, 0, {}, [], [], (0, 0), {}, [], [], []).split(None) is None
    )
