"""The audit finds what was planted, and nothing where nothing was."""

import json
from functools import cache
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from headscope.audit_record import Shortcut
from headscope.auditing import duplicates, shortcuts
from headscope.auditing.audit import audit
from headscope.auditing.duplicates import find_matches
from headscope.auditing.shortcuts import FAMILIES, find_shortcuts, slice_facts
from headscope.auditing.wording import shortcut_finding
from headscope.errors import InputError
from headscope.experiment.run import run
from headscope.files import NO_ID, write_table
from headscope.reporting.chapters.audit import write_audit
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort
from tests.support.heads import make_head, write_store

quickly = pytest.mark.usefixtures("short_search")


@cache
def sixty_heads(slices):
    rng = np.random.default_rng(slices)
    return np.concatenate([make_head(rng, slices) for _ in range(60)]), rng.permutation(60)[:20]


def turned(pictures, rng):
    return np.stack(
        [np.asarray(Image.fromarray(p).rotate(1, Image.Resampling.BILINEAR)) for p in pictures]
    )


def compressed(pictures, rng):
    packed = []
    for picture in pictures:
        stream = BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=40)
        packed.append(np.asarray(Image.open(stream)))
    return np.stack(packed)


def brightened(pictures, rng):
    factor, offset = rng.uniform(0.7, 1.3), rng.uniform(0, 25)
    return np.clip(pictures * factor + offset, 0, 255).astype(np.uint8)


def all_three(pictures, rng):
    return brightened(compressed(turned(pictures, rng), rng), rng)


ALTERED = [turned, compressed, brightened, all_three]


def plant(pixels, scan, chosen, alter, rng):
    """Append an altered copy of each chosen scan; return pixels, scan numbers, true pairs."""
    count = scan.max() + 1
    copies = [alter(pixels[scan == k], rng) for k in chosen]
    numbers = [np.full(len(c), count + n) for n, c in enumerate(copies)]
    true = {(int(k), int(count + n)) for n, k in enumerate(chosen)}
    return np.concatenate([pixels, *copies]), np.concatenate([scan, *numbers]), true


def precision_and_recall(found, true):
    found = {(match.first, match.second) for match in found}
    return len(found & true) / max(1, len(found)), len(found & true) / len(true)


@pytest.mark.parametrize("alter", ALTERED)
@pytest.mark.parametrize("slices", [1, 5])
def test_altered_copies_of_synthetic_heads_are_found(alter, slices):
    pixels, chosen = sixty_heads(slices)
    scan, rng = np.repeat(np.arange(60), slices), np.random.default_rng(slices)
    pixels, scan, true = plant(pixels, scan, chosen, alter, rng)
    found = find_matches(pixels, scan, [str(n) for n in range(80)]).pairs
    assert min(precision_and_recall(found, true)) >= 0.95


def test_a_copy_one_slice_off_is_found():
    rng = np.random.default_rng(5)
    heads = np.stack([make_head(rng, 8) for _ in range(20)])  # (20, 8, H, W)
    pixels = np.concatenate([*heads[:, :7], heads[3, 1:8]])
    found = find_matches(pixels, np.repeat(np.arange(21), 7), [str(n) for n in range(21)])
    assert [(match.first, match.second) for match in found.pairs] == [(3, 20)]


def test_blocks_and_bounded_memory_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    pixels = np.concatenate([make_head(rng, 5) for _ in range(30)])
    pixels, scan, true = plant(pixels, np.repeat(np.arange(30), 5), [0, 7, 29], turned, rng)
    people = [str(n) for n in range(33)]
    whole = find_matches(pixels, scan, people)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert find_matches(pixels, scan, people) == whole
    monkeypatch.setattr(duplicates, "MOST_SLICES", 33 * 3)
    assert {(m.first, m.second) for m in find_matches(pixels, scan, people).pairs} == true


@pytest.mark.parametrize("alter", [None, brightened])
def test_many_copies_of_one_scan_hide_no_other_copy(monkeypatch, alter):
    """Their pairs would fill the limit: each scan keeps those that are most like it."""
    rng = np.random.default_rng(8)
    pixels = np.concatenate([make_head(rng, 3) for _ in range(12)])
    scan = np.repeat(np.arange(12), 3)
    same = alter or (lambda pictures, rng: pictures)
    pixels, scan, crowd = plant(pixels, scan, [2] * 20, same, rng)
    pixels, scan, true = plant(pixels, scan, [5, 9], all_three, rng)
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 60)
    matches = find_matches(pixels, scan, [str(n) for n in range(34)])
    pairs = {(match.first, match.second) for match in matches.pairs}
    assert true <= pairs
    assert matches.cut == (alter is not None) and (alter is None or len(pairs) <= 60)
    assert {scan for pair in pairs for scan in pair} >= {scan for pair in crowd for scan in pair}
    highest = duplicates._highest_of_each(
        np.array([[0, 1], [0, 2], [1, 2], [3, 4]]), np.array([0.9, 0.8, 0.95, 0.1]), 1
    )
    assert highest.tolist() == [0, 2, 3]


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(2)
    pixels = np.concatenate([make_head(rng) for _ in range(12)])
    pixels, scan, _ = plant(pixels, np.arange(12), [4], turned, rng)
    match = find_matches(pixels, scan, [str(n) for n in range(13)]).pairs[0]
    small = duplicates.shrink(pixels, duplicates.SIDE).reshape(13, -1).astype(float)
    assert np.isclose(match.correlation, np.corrcoef(small[4], small[12])[0, 1], atol=1e-5)
    unit = (small - small.mean(1, keepdims=True)) / small.std(1, keepdims=True)
    own = unit - unit.mean(0)
    assert np.isclose(match.deviation, np.corrcoef(own[4], own[12])[0, 1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.real_data
@quickly
def test_oasis2_holds_no_head_twice_and_planted_ones_are_found(real_data, tmp_path):
    """One plane of three, for time."""
    found = audit(real_data / "oasis2", out=tmp_path, plane="axial", workers=1)
    assert found.pairs == [] and not found.serious
    known, recognised = found.visits
    assert recognised > 0.8 * known
    pixels = np.load(tmp_path / "slices.npy")
    table = pd.read_csv(tmp_path / "slices.tsv", sep="\t")
    first = ~table["subject_id"].duplicated().to_numpy()  # a visit of each: all else is a copy
    pixels, people = pixels[first], table["subject_id"][first].to_numpy(str)
    for alter in ALTERED:
        rng = np.random.default_rng(3)
        chosen = rng.permutation(len(people))[:40]
        more, scan, true = plant(pixels, np.arange(len(people)), chosen, alter, rng)
        ids = [*people, *(f"new{n}" for n in range(40))]
        assert min(precision_and_recall(find_matches(more, scan, ids).pairs, true)) >= 0.95


@pytest.mark.real_data
@quickly
def test_nichart_has_two_people_under_two_ids(real_data):
    found = audit(real_data / "nichart_t1", label="Sex", workers=1)
    assert [pair.subjects for pair in found.pairs] == [("Subj15", "Subj16"), ("Subj10", "Subj9")]
    assert {pair.kind for pair in found.pairs} == {"alike"} and found.serious


def level(found, check):
    return next(each.level for each in found.findings if each.check == check)


def test_a_clean_store_is_clean(tmp_path):
    found = audit(write_store(tmp_path / "a"))
    assert not found.serious and found.pairs == [] and "serious" not in str(found)
    assert (found.scans, found.subjects, found.slices) == (24, 24, 48)
    assert level(found, "Shortcut: grid") == "not checked"


@quickly
def test_identical_scans_are_serious_between_subjects_only(tmp_path):
    def across(table, pixels):
        pixels[2:4] = pixels[:2]  # P00, AD and P01, NC
        return table, pixels

    found = audit(write_store(tmp_path / "a", alter=across))
    assert level(found, "Identical scans") == "serious"
    assert found.pairs[0].subjects == ("P00", "P01") and found.pairs[0].labels == ("AD", "NC")

    def within(table, pixels):
        pixels[2:4] = pixels[:2]  # both visits of P00
        return table, pixels

    found = audit(write_store(tmp_path / "b", sessions=2, alter=within))
    assert level(found, "Identical scans") == "notice" and not found.serious


@quickly
def test_one_slice_in_two_scans_is_found(tmp_path):
    def alter(table, pixels):
        pixels[10] = pixels[0]
        pixels[[20, 30]] = 0  # black slices are equal and mean nothing
        return table, pixels

    found = audit(write_store(tmp_path, alter=alter))
    assert level(found, "Slices in several scans") == "serious"
    text = next(each.text for each in found.findings if each.check == "Slices in several scans")
    assert text.startswith("1 pair of scans")


@quickly
def test_a_subject_with_two_labels_is_named(tmp_path):
    def alter(table, pixels):
        table.loc[table["scan"] == "s3-1.nii", "label"] = "AD"
        return table, pixels

    found = audit(write_store(tmp_path, sessions=2, alter=alter))
    assert found.conflicts == {"P03": ["AD", "NC"]}
    assert level(found, "Labels of a subject") == "serious"


@quickly
def test_a_file_listed_in_two_classes_is_found(tmp_path):
    def alter(table, pixels):
        table.loc[2:3, ["scan", "subject_id"]] = ["s0-0.nii", "P00"]
        pixels[2:4] = pixels[:2]
        return table, pixels

    found = audit(write_store(tmp_path, alter=alter))
    assert found.conflicts == {"P00": ["AD", "NC"]}
    assert level(found, "Identical scans") == "serious"  # equal scans of two classes


@quickly
def test_subjects_in_two_subsets_are_found(tmp_path):
    store = write_store(tmp_path / "slices")
    table = pd.read_csv(store / "slices.tsv", sep="\t")
    subjects = table["subject_id"].unique()
    clean = pd.DataFrame({"subject_id": subjects, "subset": ["train", "val", "test"] * 8})
    leaky = pd.concat([clean, pd.DataFrame({"subject_id": ["P00"], "subset": ["test"]})])
    mixed = table[["subject_id", "session_id", "plane", "slice_index"]]
    mixed = mixed.assign(subset=["train", "test"] * 24)
    for name, split in (("clean", clean), ("leaky", leaky), ("mixed", mixed)):
        write_table(tmp_path / "splits" / f"{name}.tsv", split)
    found = audit(tmp_path)
    assert level(found, "Split clean") == "fine"
    assert level(found, "Split leaky") == "serious" and found.splits[1].shared == ["P00"]
    assert level(found, "Split mixed") == "notice" and len(found.splits[2].shared) == 24


@quickly
def test_the_table_of_a_balanced_split_is_no_split(tmp_path):
    data = write_cohort(tmp_path / "data", subjects=8)
    rows = [
        f"{path.name.split('_')[0]}\t{path.parent.name}\t{60 + number}"
        for number, path in enumerate(sorted(data.rglob("*.nii.gz")))
    ]
    (data / "participants.tsv").write_text("\n".join(["id\tdx\tage", *rows]) + "\n")
    known = {"label": "dx", "balance": ["age"], "splits": ["subject"], "regimes": ["frozen"]}
    experiment = run(settings(data, tmp_path / "out", epochs=1, **known))
    assert list((experiment / "splits").glob("*.balance.tsv"))
    assert [split.name for split in audit(experiment).splits] == ["subject-seed0"]


@quickly
def test_a_pair_says_in_which_split_it_leaks(tmp_path):
    def alter(table, pixels):
        pixels[2:4] = turned(pixels[:2], None)
        return table, pixels

    store = write_store(tmp_path / "slices", alter=alter)
    subjects = pd.read_csv(store / "slices.tsv", sep="\t")["subject_id"].unique()
    split = pd.DataFrame({"subject_id": subjects, "subset": ["train", "test"] * 12})
    write_table(tmp_path / "splits" / "subject-seed0.tsv", split)
    pair = audit(tmp_path).pairs[0]
    assert pair.subsets == {"subject-seed0": (("train",), ("test",))}
    assert pair.crosses("subject-seed0") and not pair.crosses("subject-seed1")


@quickly
def test_without_ids_every_scan_is_a_person(tmp_path):
    def alter(table, pixels):
        pixels[2:4] = pixels[:2]
        return table.assign(subject_id=NO_ID), pixels

    store = write_store(tmp_path / "slices", alter=alter)
    split = pd.read_csv(store / "slices.tsv", sep="\t")
    split = split[["subject_id", "session_id", "plane", "slice_index"]]
    split = split.assign(subset=["train", "test"] * 24)
    write_table(tmp_path / "splits" / "slice-seed0.tsv", split)
    found = audit(tmp_path)
    assert level(found, "Identical pictures") == "serious"
    assert level(found, "Labels of a subject") == "not checked" and found.conflicts == {}
    assert level(found, "Split slice-seed0") == "serious"  # the equal ones train and test


def test_a_planted_border_is_raised_and_chance_is_not(tmp_path):
    def alter(table, pixels):
        rows = (table["label"] == "AD").to_numpy()
        pixels[rows, :, :2] = 40  # a grey line down the left edge of one class
        return table, pixels

    found = audit(write_store(tmp_path, subjects=40, alter=alter))
    border = next(each for each in found.shortcuts if each.family == "border")
    assert border.raised and border.serious and border.auc > 0.95
    assert level(found, "Shortcut: border") == "serious" and found.serious


def test_a_border_behind_the_padding_is_raised():
    rng = np.random.default_rng(0)
    pixels = np.concatenate([make_head(rng) for _ in range(40)])
    pixels[:, :, :10] = pixels[:, :, -10:] = 0
    label = np.array(["AD", "NC"] * 20)
    pixels[label == "AD", 20:70, 10] = 90
    facts = slice_facts(pixels, np.arange(40))
    found = {each.family: each for each in find_shortcuts(facts, label, np.arange(40))}
    assert found["border"].serious


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 16, 12), (2, 64, 64)])
def test_facts_of_brightness_are_those_of_numpy(shape):
    rng = np.random.default_rng(7)
    pixels = np.where(rng.random(shape) < 0.3, 0, rng.integers(0, 256, shape)).astype(np.uint8)
    darkest = np.sort(pixels.reshape(len(pixels), -1), axis=1)[:, : max(1, pixels[0].size // 10)]
    (facts,) = slice_facts(pixels, np.array([0])).to_dict("records")
    expected = {
        "brightness: mean": pixels.mean(),
        "brightness: sd": pixels.std(),
        "brightness: median": np.median(pixels),
        "brightness: 75%": np.percentile(pixels, 75),
        "brightness: 90%": np.percentile(pixels, 90),
        "brightness: 99%": np.percentile(pixels, 99),
        "brightness: black": (pixels == 0).mean(),
        "background: mean": darkest.mean(),
        "background: sd": darkest.std(),
    }
    assert {name: facts[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("family", ["grid", "spacing", "file", "file size"])
def test_facts_that_follow_the_label_are_raised(family):
    label = np.array(["AD", "NC"] * 20)
    value = np.where(label == "AD", 1.0, 2.0)
    fact = value if family != "file" else np.where(label == "AD", ".nii", ".mgz")
    facts = pd.DataFrame({f"{family}: fact": fact})
    found = {each.family: each for each in find_shortcuts(facts, label, np.arange(40))}
    assert found[family].serious and found[family].auc == 1.0
    assert all(found[other].auc is None for other in FAMILIES if other != family)


@pytest.mark.slow
def test_random_facts_raise_no_alarm(monkeypatch):
    monkeypatch.setattr(shortcuts, "DRAWS", 300)
    monkeypatch.setattr(shortcuts, "TREES", 30)
    raised = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        label = rng.permutation(np.array(["AD", "NC"] * 20))
        facts = pd.DataFrame({"border: a": rng.normal(size=40), "border: b": rng.normal(size=40)})
        raised += any(each.raised for each in find_shortcuts(facts, label, np.arange(40)))
    assert raised == 0


def test_sessions_of_a_subject_stay_together():
    """A fact that names the subject and nothing else tells no label of unseen subjects."""
    rng = np.random.default_rng(4)
    person = np.repeat(np.arange(40), 4)
    label = rng.permutation(np.array(["AD", "NC"] * 20))[person]
    facts = pd.DataFrame({"spacing: x": rng.normal(size=40)[person]})
    found = next(e for e in find_shortcuts(facts, label, person) if e.family == "spacing")
    assert not found.raised and found.auc < 0.75


def test_too_few_subjects_is_said():
    facts = pd.DataFrame({"grid: x": np.arange(8.0)})
    found = find_shortcuts(facts, np.array(["A", "B"] * 4), np.arange(8))[0]
    assert found.auc is None and "a class has 4 subjects" in found.note


def test_auc_equals_that_of_scikit_learn():
    rng = np.random.default_rng(6)
    for _ in range(50):
        scores, positive = rng.integers(0, 6, 30) / 6, rng.random(30) < 0.4
        if positive.any() and not positive.all():
            assert np.isclose(shortcuts._auc(scores, positive), roc_auc_score(positive, scores))


def test_a_threshold_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"choose 0\.9 to 1"):
        audit(tmp_path, copy_threshold=0.5)


@quickly
def test_the_page_stands_alone(tmp_path):
    def alter(table, pixels):
        pixels[2:4] = turned(pixels[:2], None)
        table.loc[table["subject_id"] == "P00", "subject_id"] = "<b>P00</b>"
        return table, pixels

    found = audit(write_store(tmp_path / "slices", alter=alter))
    page = write_audit(tmp_path / "audit.html", found).read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 2 * len(found.pairs) > 0
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv=", "")
    assert "<b>P00</b>" not in page and "&lt;b&gt;P00" in page
    assert "serious finding" in page
    assert f'"correlation" data-value="{found.pairs[0].correlation!r}"' in page
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["serious"] is True


@quickly
def test_the_command_ends_with_3_where_it_is_serious(tmp_path, monkeypatch, capsys):
    scans = write_cohort(tmp_path / "scans")
    files = sorted(path for path in scans.rglob("*.nii*"))
    ours = next(path for path in files if path.parent.name == "AD")
    theirs = next(path for path in files if path.parent.name == "NC")
    theirs.write_bytes(ours.read_bytes())
    options = ("--count", 2, "--workers", 1, "--json")
    done = headscope_here(monkeypatch, capsys, "audit", scans, *options, folder=tmp_path)
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["serious"] and found["pairs"][0]["kind"] == "identical"
    assert (tmp_path / "headscope-audit" / "audit.html").is_file()


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.40, 0.60, "may be chance"),
        (0.23, 0.38, "is below chance and predicts nothing"),
        (0.52, 0.60, "is hardly above chance"),
    ],
)
def test_an_auc_that_is_not_raised_is_called_what_its_interval_says(low, high, text):
    shortcut = Shortcut(
        "border", "black rim", False, ["rim"], (low + high) / 2, low, high, False, False, "tried"
    )
    finding = shortcut_finding(shortcut)
    assert finding.level == "fine" and finding.text.endswith(f"), which {text}")
