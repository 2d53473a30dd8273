"""Each change of a record is noticed: by `verify`, and by whoever reads what has changed."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

import headscope as hs
from headscope.analysis.leakage.stored import stored_leakage
from headscope.audit_record import changed_inputs, read_audit
from headscope.errors import InputError
from headscope.files import read_table, write_table
from headscope.manifest import content_hash
from headscope.metrics import subset_scores
from headscope.record import Run, find_runs, open_network, read_experiment
from headscope.reporting import write_report
from headscope.slicing.store import open_slices
from headscope.verification.runs import RANKS, differing
from tests.support.commands import headscope_here
from tests.support.records import forget, reseal, unshare

SUBJECT, SLICE = (f"timm-test_resnet-frozen-{split}-seed0" for split in ("subject", "slice"))
FILES = (
    *("run.toml", "history.jsonl", "predictions.tsv", "metrics.json", "manifest.json"),
    *("head.npz", "features.npz", "features.npy", "layers.npz", "maps.npz"),
)


@pytest.fixture(scope="module")
def reported(trained):
    """An experiment with its report, of which each test changes a copy."""
    write_report(trained)
    return trained


@pytest.fixture
def copy(reported, tmp_path):
    return shutil.copytree(reported, tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))


def table(change):
    """Return what changes `predictions.tsv`."""

    def apply(run):
        path = run / "predictions.tsv"
        write_table(path, change(read_table(path)))

    return apply


def cell(column, value):
    return table(lambda rows: rows.assign(**{column: [value, *rows[column][1:]]}))


def arrays(name, change):
    """Return what changes the arrays of a NumPy file."""

    def apply(run):
        with np.load(Run(run).place(name)) as stored:
            held = dict(stored)
        change(held)
        np.savez(run / name, **held)

    return apply


def feature(value):
    def apply(run):
        held = np.load(Run(run).place("features.npy"))
        held[0, 0] += value
        np.save(run / "features.npy", held)

    return apply


def add(key, value=1.0):
    def change(held):
        held[key] = held[key].copy()
        held[key].reshape(-1)[0] += value

    return change


def swap(key):
    def change(held):
        held[key] = held[key][::-1].copy()

    return change


def text(name, old, new):
    def apply(run):
        whole = (run / name).read_text()
        assert old in whole
        (run / name).write_text(whole.replace(old, new, 1))

    return apply


def model(change):
    def apply(run):
        with open_network(Run(run)) as tensors:
            held = dict(tensors)
        change(held)
        save_file(held, run / "model.safetensors")

    return apply


def negate(held):
    held["fc.weight"], held["fc.bias"] = -held["fc.weight"], -held["fc.bias"]


def score(run):
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["test"]["subject_accuracy"]["value"] = 0.987
    path.write_text(json.dumps(metrics))


def certificate(run):
    path = run / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["freeze_certificate"] |= {"before": "0" * 64, "after": "0" * 64}
    path.write_text(json.dumps(metrics))


# what changes a run and what it leaves for whoever computes its numbers again
RECOMPUTED = {
    "rows reordered": table(lambda rows: rows.iloc[::-1]),
    "a row dropped": table(lambda rows: rows.iloc[:-1]),
    "a row doubled": table(lambda rows: pd.concat([rows, rows.iloc[:1]])),
    "a label": table(lambda rows: rows.assign(label=rows["label"][::-1].to_numpy())),
    "a subset": table(lambda rows: rows.assign(subset=np.roll(rows["subset"], 1))),
    "a subject": cell("subject_id", "sub-other"),
    "a scan": cell("scan", "other.nii"),
    "a prediction": table(lambda rows: rows.assign(predicted=rows["label"])),
    "a probability": cell("probability_AD", 0.123),
    "a logit": cell("logit_AD", 1.5),
    "a feature": feature(100.0),
    "a logit of the features": arrays("features.npz", add("logits")),
    "labels of the features": arrays("features.npz", swap("label")),
    "subsets of the features": arrays("features.npz", swap("subset")),
    "a weight": arrays("head.npz", add("weight")),
    "a bias": arrays("head.npz", add("bias")),
    "the classes": arrays("head.npz", swap("class_names")),
    "a score": score,
    "the certificate": certificate,
    "a negated classifier": model(negate),
    "a weight of the backbone": model(lambda held: add(min(held))(held)),
}
CHANGES = (
    RECOMPUTED
    | {
        "an initial weight": arrays("head.npz", add("initial_weight")),
        "a stage": arrays("layers.npz", add("layer1")),
        "a map": arrays("maps.npz", add("maps")),
        "a setting": text("run.toml", "seed = 0", "seed = 1"),
        "a loss": text("history.jsonl", '"train_loss": 0', '"train_loss": 1'),
        "the manifest": text("manifest.json", '"head.npz"', '"tail.npz"'),
        "the manifest gone": lambda run: (run / "manifest.json").unlink(),
        "the scores gone": lambda run: (run / "metrics.json").unlink(),
    }
    | {
        f"{name} of another run": lambda run, name=name: shutil.copy(
            run.with_name(SLICE) / name, run / name
        )
        for name in ("run.toml", "predictions.tsv", "metrics.json", "head.npz", "manifest.json")
    }
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_run_is_noticed(copy, change, capsys):
    run = copy / "runs" / SUBJECT
    CHANGES[change](run)
    verification = hs.verify(copy)
    assert not verification.whole
    assert all(problem.startswith(f"runs/{SUBJECT}: ") for problem in verification.problems)
    of_network = change in ("a negated classifier", "a weight of the backbone")
    with pytest.raises(InputError, match=SUBJECT):
        hs.predict(run, copy)
    if not of_network:  # readers of arrays do without the network
        assert [run.name for run in read_experiment(copy)] == [SLICE]
        assert f"{SUBJECT} is left out: " in capsys.readouterr().err


@pytest.mark.parametrize("change", RECOMPUTED)
def test_a_change_is_noticed_even_where_the_manifest_knows_no_other(copy, change):
    run = copy / "runs" / SUBJECT
    RECOMPUTED[change](run)
    reseal(run)
    problems = hs.verify(copy).problems
    assert problems and all(problem.startswith(f"runs/{SUBJECT}: ") for problem in problems)


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_cut_or_of_other_bytes_are_named(copy, name):
    path = unshare(copy / "runs" / SUBJECT).path / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (whole[:middle], b"", flipped):
        path.write_bytes(damaged)
        left_out = find_runs(copy).left_out
        assert list(left_out) == [SUBJECT]
        assert name in left_out[SUBJECT] or name == "manifest.json"  # of which a hash has changed


@pytest.mark.parametrize("name", FILES[:4] + FILES[5:7] + FILES[8:])
def test_files_of_an_earlier_version_are_named_where_they_cannot_be_read(copy, name):
    """Without a manifest a change can pass; what cannot be read, or does not fit, does not."""
    run = forget(copy / "runs" / SUBJECT)
    records = find_runs(copy)
    assert records.unchecked == [SUBJECT] and "cannot be checked" in records.notes[0]
    (copy / "leakage.json").unlink()
    assert hs.verify(copy).whole
    path = run.path / name
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 50, b"[" * 5000):
        path.write_bytes(damaged)
        assert list(find_runs(copy).left_out) == [SUBJECT]


def test_a_record_that_lacks_a_setting_names_it(copy):
    """Of a run without a manifest the reader that asks for the setting says so."""
    run = forget(copy / "runs" / SUBJECT)
    text("run.toml", "momentum = 0.9\n", "")(run.path)
    (copy / "leakage.json").unlink()
    with pytest.raises(InputError, match=r"run\.toml lacks the setting 'momentum'"):
        stored_leakage(copy)


def test_a_logit_beyond_float32_in_an_earlier_record_leaves_it_out(copy):
    run = forget(copy / "runs" / SUBJECT)
    cell("logit_AD", 1e308)(run.path)
    assert "logits of predictions.tsv differ" in find_runs(copy).left_out[SUBJECT]


@pytest.mark.parametrize("setting", ['of = "scans"', "slice_size = 32"])
def test_a_prediction_names_a_setting_that_an_earlier_record_lacks(copy, setting):
    run = forget(copy / "runs" / SUBJECT)
    text("run.toml", setting, "other = 1")(run.path)
    with pytest.raises(InputError, match=r"run\.toml (lacks the setting|is damaged)"):
        hs.predict(run.path, copy)


def test_an_audit_names_the_number_of_a_slice_that_is_none(copy):
    (copy / "splits" / "manifest.json").unlink()
    path = copy / "splits" / "slice-seed0.tsv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[:2], "", *rows[2:], "\t\t\t\ttrain"]) + "\n")
    with pytest.raises(InputError, match="slice_index holds '', which is no whole number"):
        hs.audit(copy)


def test_a_run_under_another_name_or_of_other_slices_is_left_out(copy):
    shutil.copytree(copy / "runs" / SUBJECT, copy / "runs" / f"{SUBJECT}-again")
    assert find_runs(copy).left_out == {f"{SUBJECT}-again": f"it is the record of {SUBJECT}"}
    text("run.toml", 'slices_sha256 = "', 'slices_sha256 = "0')(copy / "runs" / SLICE)
    reseal(copy / "runs" / SLICE)
    assert "other slices" in find_runs(copy).left_out[SLICE]


def pixel(folder):
    pixels = np.load(folder / "slices.npy", mmap_mode="r+")
    pixels[3, 4, 5] ^= 1
    pixels.flush()


def labels(folder):
    values = np.load(folder / "labels.npy")
    np.save(folder / "labels.npy", values[::-1])


OF_SLICES = {
    "a pixel": pixel,
    "the labels": labels,
    "a row": text("slices.tsv", "sub-AD0", "sub-AD1"),
    "the classes": text("slices.json", '"AD"', '"MCI"'),
    "a note": text("slices.json", '"notes": [', '"notes": ["nothing was left out", '),
    "a subject of the split": text("../splits/subject-seed0.tsv", "\ttest", "\ttrain"),
}


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("change", OF_SLICES)
def test_a_change_of_slices_or_splits_is_noticed(copy, change, manifest):
    if not manifest:  # as an earlier version wrote them
        (copy / "slices" / "manifest.json").unlink()
        (copy / "splits" / "manifest.json").unlink()
    OF_SLICES[change](copy / "slices")
    if manifest:
        assert any(changed_inputs(copy))
        with pytest.raises(InputError, match=r"has changed since"):
            hs.audit(copy)
    if manifest or change not in ("a note", "the classes"):
        assert not hs.verify(copy).whole


def test_training_refuses_pixels_that_have_changed(copy):
    slices = open_slices(copy / "slices")
    slices.check_pixels()
    pixel(copy / "slices")
    with pytest.raises(InputError, match=r"slices\.npy has changed since it was written"):
        slices.check_pixels()
    (copy / "slices" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"slices\.npy has changed since it was written"):
        slices.check_pixels()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("audit.json", '"scans": 12', '"scans": 13'),
        ("leakage.json", '"subjects": 4', '"subjects": 5'),
        ("table.tsv", "frozen", "finetune"),
        ("runs.tsv", "\t4\t", "\t5\t"),
        ("table.md", "frozen", "finetune"),
        ("report.html", "</html>", ""),
        ("report.json", "test", "none"),
        ("report.json", "{", ""),
    ],
)
def test_a_change_of_what_was_made_of_runs_is_noticed(copy, name, old, new):
    text(name, old, new)(copy)
    problem, *others = hs.verify(copy).problems
    assert problem.startswith(f"{name}: ") and (name == "audit.json") == bool(others)
    if name == "audit.json":
        assert read_audit(copy) is None and "headscope audit" in changed_inputs(copy)[0]
    if name == "leakage.json":  # made again
        stored_leakage(copy)
        assert hs.verify(copy).whole


def test_a_stale_leakage_analysis_is_not_returned(copy):
    """Its key holds the features and heads, and no measured seconds."""
    before = (copy / "leakage.json").read_bytes()
    run = copy / "runs" / SUBJECT
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"train_seconds": 99.5}, indent=2))
    reseal(run)
    stored_leakage(copy)
    assert (copy / "leakage.json").read_bytes() == before
    feature(3.0)(run)
    reseal(run)
    stored_leakage(copy)
    assert json.loads((copy / "leakage.json").read_text())["key"] != json.loads(before)["key"]


def test_seconds_are_no_part_of_a_manifest(copy):
    """So that two undisturbed runs have the same manifest."""
    run = copy / "runs" / SUBJECT
    before = (run / "manifest.json").read_bytes()
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"seconds": 1 / 3}) + "\n" for row in rows]
    (run / "history.jsonl").write_text("".join(lines))
    reseal(run)
    assert (run / "manifest.json").read_bytes() == before


def test_features_of_another_name_are_not_those_of_the_cache(copy):
    (path,) = (copy / "cache").glob("features-*.json")
    path.rename(path.with_name("features-other.json"))
    assert hs.verify(copy).problems[0].startswith("cache/features-other.json: it is not what was")
    stored = json.loads(path.with_name("features-other.json").read_text())
    assert stored["sha256"] == content_hash([path.name, stored["files"]])


def test_the_report_goes_on_with_the_other_runs(copy, undrawn, monkeypatch, capsys):
    cell("label", "NC")(copy / "runs" / SUBJECT)
    pixel(copy / "slices")
    done = headscope_here(monkeypatch, capsys, "report", copy)
    assert done.returncode == 0, done.stderr
    assert f"{SUBJECT} is left out: predictions.tsv has changed" in done.stderr
    assert "slices.npy has changed since it was written" in done.stderr
    page = (copy / "report.html").read_text()
    assert "The record has changed since it was written" in page and "slices.npy has" in page
    assert read_table(copy / "table.tsv")["split"].tolist() == ["slice"]


def test_the_command_says_one_line_for_each_problem(copy, monkeypatch, capsys):
    done = headscope_here(monkeypatch, capsys, "verify", copy)
    assert done.returncode == 0 and "whole (2 runs" in done.stdout
    cell("label", "NC")(copy / "runs" / SUBJECT)
    pixel(copy / "slices")
    done = headscope_here(monkeypatch, capsys, "verify", copy)
    assert done.returncode == 1
    assert done.stdout.count("has changed since it was written") == 2
    done = headscope_here(monkeypatch, capsys, "verify", copy, "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["whole"] is False
    assert headscope_here(monkeypatch, capsys, "verify", copy / "slices").returncode == 2


def test_verify_imports_no_torch():
    code = "import sys, headscope; headscope.verify; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ends_of_intervals_of_many_ranks_may_be_those_of_another_version(monkeypatch):
    """Records of before 0.3.0 told more ranks apart; the scores themselves must be equal."""
    rng = np.random.default_rng(0)
    labels, subjects = np.repeat([0, 1], 5000), np.arange(10_000).astype(str)
    logits = np.stack([np.zeros(10_000), rng.normal(0, 1, 10_000) + labels], axis=1)

    def scored():
        return subset_scores(
            labels, logits.astype(np.float32), subjects, class_names=["AD", "NC"], seed=0
        )

    again = scored()
    monkeypatch.setattr(sys.modules["headscope.metrics.scores"], "_FINE", 16_384)
    stored = scored()
    places = {*differing(stored, again, "test")}
    assert places and all(re.search("(auc|average_precision).(low|high)$", at) for at in places)
    assert not [*differing(stored, again, "test", RANKS)]
    again["slice_auc"]["value"] += 1e-5
    assert [*differing(stored, again, "test", RANKS)] == ["test.slice_auc.value"]
