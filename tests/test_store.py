"""The store of an experiment: what frozen runs share, who finds it, and a run that stands alone."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import load_file

import headscope as hs
from headscope.audit_record import add_splits, read_audit
from headscope.files import atomic_path, clear_leftovers, read_table
from headscope.manifest import file_hash, folder_problems, keep, located, stored_entries
from headscope.record import BACKBONE, FEATURES, Run, find_runs, manifest_problems, open_network
from headscope.record.store import clear_store, unused
from headscope.record.write import _save_tensors
from headscope.training.features import map_rows_of
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort
from tests.support.records import forget, reseal

pytestmark = pytest.mark.usefixtures("few_trees")
FOLDS = {"regimes": ["frozen"], "splits": ["subject"], "folds": 3, "rivals": ["pixels"]}
FOLDS |= {"epochs": 1, "count": 2}
SHARED = {FEATURES, "layers.npz", "maps.npz", BACKBONE}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("store") / "scans")


@pytest.fixture(scope="module")
def folds(scans, tmp_path_factory):
    """Three folds of a frozen network, and what small pixels reach."""
    out = tmp_path_factory.mktemp("store") / "out"
    return hs.run(settings(scans, out, **FOLDS))


@pytest.fixture
def copy(folds, tmp_path):
    return shutil.copytree(folds, tmp_path / "copy")


def age(path, days=2):
    os.utime(path, times=(path.stat().st_mtime - days * 86400,) * 2)


def test_runs_of_one_backbone_have_it_and_what_it_computes_once(folds):
    runs = hs.read_experiment(folds)
    assert len(runs) == 3 and hs.verify(folds).whole
    places = {name: {run.place(name) for run in runs} for name in SHARED}
    assert all(len(found) == 1 for found in places.values())
    for run in runs:
        assert set(stored_entries(run.path)) == SHARED
        assert not SHARED & {path.name for path in run.path.iterdir()}
    for path in (folds / "store").iterdir():
        assert file_hash(path) == path.stem
    pixels = {run.place(FEATURES) for run in find_runs(folds).rivals}
    assert len(find_runs(folds).rivals) == 3 and len(pixels) == 1
    assert not unused(folds)


def test_maps_of_a_fold_are_those_of_its_test_slices(folds):
    runs = hs.read_experiment(folds)
    for run in runs:
        rows = run.maps["slice"]
        assert len(run.maps["maps"]) == len(rows) > 0
        assert np.array_equal(rows, run.rows("test"))  # of so few slices all are chosen
    assert sorted(np.concatenate([run.maps["slice"] for run in runs])) == [*range(24)]


def test_folds_have_as_many_maps_between_them_as_one_split():
    subsets = np.array(["train", "val", "test"])[np.random.default_rng(0).integers(0, 3, 3000)]
    whole, fold = map_rows_of(subsets), map_rows_of(subsets, fold=True)
    frozen = map_rows_of(subsets, fold=True, frozen=True)
    assert len(whole) == len(frozen) == 256
    assert set(subsets[whole]) == set(subsets[fold]) == {"test"}
    assert np.array_equal(fold, frozen[subsets[frozen] == "test"])
    few = subsets[:200]
    assert np.array_equal(map_rows_of(few), map_rows_of(few, fold=True))


def test_features_are_read_by_memory_map_and_in_blocks(folds):
    run = hs.read_experiment(folds)[0]
    features = run.features["features"]
    assert isinstance(features.base, np.memmap) and not features.flags.writeable
    assert np.array_equal(features, np.load(run.place(FEATURES)))
    parts = [*run.feature_blocks("train", size=3)]
    assert [len(rows) for rows, _ in parts[:-1]] == [3] * (len(parts) - 1)
    assert np.array_equal(np.concatenate([rows for rows, _ in parts]), run.rows("train"))
    read = np.concatenate([block for _, block in parts])
    assert np.array_equal(read, features[run.features["subset"] == "train"])
    assert sum(len(rows) for rows, _ in run.feature_blocks(size=5)) == len(features)


def test_a_record_of_an_earlier_version_reads_as_the_one_that_shares(copy):
    run = hs.read_experiment(copy)[0]
    old = forget(shutil.copytree(copy, copy.with_name("old")) / "runs" / run.name)
    assert {path.name for path in old.path.iterdir()} >= {"features.npz", "model.safetensors"}
    assert old.features.keys() == run.features.keys()
    for name, values in run.features.items():
        assert np.array_equal(old.features[name], values)
    with open_network(run) as one, open_network(old) as two:
        assert one.keys() == two.keys() and len(one) == len(two)
        assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("name", sorted(SHARED))
def test_damage_in_the_store_names_each_run_that_has_it(copy, name, damage):
    runs = [run.name for run in hs.read_experiment(copy)]
    path = Run(copy / "runs" / runs[0]).place(name)
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes(flipped if damage == "flipped" else whole[:middle])
    for run in runs:
        assert any(name in text for text in manifest_problems(Run(copy / "runs" / run)))
    if name != BACKBONE or damage == "cut":  # which readers of arrays do without
        assert list(find_runs(copy).left_out) == runs
    elif damage == "flipped":
        with pytest.raises(hs.InputError, match=f"{path.name} has changed.*and train it again"):
            hs.predict(copy / "runs" / runs[0], copy)
        problems = hs.verify(copy).problems
        assert [text.split(": ")[0] for text in problems] == [
            f"store/{path.name}",
            *(f"runs/{run}" for run in runs),
        ]


def test_a_run_trained_again_heals_the_store(copy, scans):
    (path,) = {run.place(FEATURES) for run in hs.read_experiment(copy)}
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    again = next(iter(find_runs(copy).left_out))
    shutil.rmtree(copy / "runs" / again)
    with pytest.raises(hs.RunError):  # those whose record was not whole at the start
        hs.run(settings(scans, copy, **FOLDS))
    assert path.read_bytes() == whole and len(hs.read_experiment(copy)) == 3


def test_what_no_run_names_is_removed_a_day_later(copy):
    runs = hs.read_experiment(copy)
    extra = keep(copy / "store", "features.npy", lambda path: np.save(path, np.arange(3.0)))
    path = copy / "store" / f"{extra['sha256']}.npy"
    (copy / "store" / "mine.txt").write_text("mine")
    assert unused(copy) == [path]
    clear_store(copy)
    assert path.exists()  # a run at work may be about to name it
    for stored in (copy / "store").iterdir():
        age(stored)
    clear_store(copy)
    assert not path.exists() and (copy / "store" / "mine.txt").exists()
    # the cache names what passes computed; without it and its runs nothing does
    shutil.rmtree(copy / "cache")
    for run in runs:
        shutil.rmtree(run.path)
    rivals = find_runs(copy).rivals
    named = {run.place(FEATURES) for run in rivals}
    assert len(unused(copy)) == 4 and "No run needs 4 of" in hs.verify(copy).notes[-1]
    clear_store(copy)
    assert named <= {*(copy / "store").iterdir()} and not unused(copy)
    assert {path.suffix for path in (copy / "store").iterdir()} == {".npy", ".npz", ".txt"}
    # where a manifest cannot be read, nothing is certain
    (rivals[0].path / "manifest.json").write_text("[")
    clear_store(copy)
    assert all(stored.exists() for stored in named)


def test_writers_of_one_file_do_not_clash(tmp_path):
    values = np.arange(50_000.0)
    with ThreadPoolExecutor(8) as pool:
        entries = list(
            pool.map(
                lambda _: keep(tmp_path, "a.npy", lambda path: np.save(path, values)), range(48)
            )
        )
    (path,) = tmp_path.iterdir()
    assert {entry["sha256"] for entry in entries} == {path.stem}
    age(path)
    before = path.stat().st_mtime
    keep(tmp_path, "b.npy", lambda path: np.save(path, values))
    assert path.stat().st_mtime > before  # it is named again


def test_a_writer_that_is_stopped_leaves_nothing(tmp_path):
    def stop(path):
        path.write_bytes(b"half")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        keep(tmp_path, "a.npy", stop)
    assert not list(tmp_path.iterdir())


def test_a_manifest_leads_nowhere_but_to_the_store(copy):
    run = hs.read_experiment(copy)[0]
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][FEATURES]["sha256"] = "../slices/slices"
    path.write_text(json.dumps(manifest))
    assert located(run.path / FEATURES) == run.path / FEATURES
    assert FEATURES in find_runs(copy).left_out[run.name]


def test_a_run_away_from_its_store_says_how_it_is_made_whole(copy, monkeypatch, capsys, tmp_path):
    run = hs.read_experiment(copy)[0]
    away = shutil.copytree(run.path, tmp_path / "away" / run.name)
    for command in (["predict", away, copy], ["export", away, tmp_path / "alone"]):
        done = headscope_here(monkeypatch, capsys, *command)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert "in the store of the experiment in which it was trained" in done.stderr
        assert "'headscope export RUN OUT', where the experiment is, writes" in done.stderr
    with pytest.raises(hs.InputError, match="headscope export RUN OUT"):
        Run(away).features  # noqa: B018
    assert not (tmp_path / "alone").exists()
    # a link to the run is the run, and so is a path from within
    (tmp_path / "link").symlink_to(run.path)
    assert np.array_equal(Run(tmp_path / "link").features["logits"], run.features["logits"])
    monkeypatch.chdir(run.path)
    assert len(Run(run.path.relative_to(run.path)).features["features"]) == 24


def test_an_exported_run_stands_alone(copy, scans, monkeypatch, capsys, tmp_path, undrawn):
    run, other = hs.read_experiment(copy)[:2]
    expected = hs.predict(run.path, scans / "AD").slices
    manifest = (run.path / "manifest.json").read_bytes()
    stored = {name: run.place(name).read_bytes() for name in SHARED}
    audit = (copy / "audit.json").read_bytes()
    done = headscope_here(monkeypatch, capsys, "export", run.path, tmp_path / "alone")
    record = tmp_path / "alone" / "runs" / run.name
    assert (done.returncode, done.stdout) == (0, f"{record}\n")
    hs.export(other.path, tmp_path / "alone")
    with pytest.raises(hs.InputError, match="alone holds runs without their slices: audit the exp"):
        hs.audit(tmp_path / "alone")  # it was taken for a cohort without scans
    shutil.rmtree(copy)
    assert {name: (record / name).read_bytes() for name in SHARED} == stored
    assert (record / "manifest.json").read_bytes() == manifest and not folder_problems(record)
    alone = hs.verify(tmp_path / "alone")
    assert alone.whole and alone.runs == 2
    assert hs.predict(record, scans / "AD").slices.equals(expected)
    assert (tmp_path / "alone" / "audit.json").read_bytes() == audit
    assert "Not audited" not in hs.report(tmp_path / "alone").read_text(encoding="utf-8")
    assert len(read_table(tmp_path / "alone" / "runs.tsv")) == 2


def test_an_exported_run_brings_what_the_audit_says_of_its_split(copy, tmp_path, undrawn):
    """Of the second experiment the folder has an audit, which knows nothing of its split."""
    run, alone = hs.read_experiment(copy)[0], tmp_path / "alone"
    first = json.loads((copy / "audit.json").read_text())
    name = first["splits"][0]["name"]
    for other, sha256 in (("elsewhere-seed7", "0" * 64), (name, first["splits"][0]["sha256"])):
        text = json.dumps(first).replace(name, other)
        audit = json.loads(text.replace(first["splits"][0]["sha256"], sha256))
        audit.pop("sha256")
        (tmp_path / other).mkdir()
        (tmp_path / other / "audit.json").write_text(json.dumps(audit))
        add_splits(tmp_path / other, copy)
    merged = json.loads((tmp_path / "elsewhere-seed7" / "audit.json").read_text())
    assert {split["name"] for split in merged["splits"]} >= {name, "elsewhere-seed7"}
    assert set(merged["key"]["splits"]) >= {name, "elsewhere-seed7"}
    assert [one for one in merged["findings"] if one["name"] == name] == [
        one for one in first["findings"] if one["name"] == name
    ]
    both = read_audit(tmp_path / "elsewhere-seed7")
    assert both and both.split("0" * 64) and both.split(run.settings["split_sha256"])
    same = json.loads((tmp_path / name / "audit.json").read_text())
    assert same["splits"] == first["splits"] and same["findings"] == first["findings"]
    hs.export(run.path, alone)
    settings = alone / "runs" / run.name / "run.toml"
    rival = find_runs(copy).rivals[0]  # of the same fold
    for name, words in (
        ("split_sha256", "another split by subject of seed 0"),
        ("slices_sha256", "other slices"),
    ):
        settings.write_text(settings.read_text().replace(run.settings[name], "f" * 64))
        reseal(alone / "runs" / run.name)
        with pytest.raises(hs.InputError, match=f"holds {run.name}, a run on {words}: choose"):
            hs.export(rival.path, alone)


def test_an_export_writes_over_nothing_and_goes_on_where_it_was_stopped(copy, tmp_path):
    run = hs.read_experiment(copy)[0]
    target = hs.export(run.path, tmp_path / "alone")
    with pytest.raises(hs.InputError, match="is there already: choose another folder"):
        hs.export(run.path, tmp_path / "alone")
    with pytest.raises(hs.InputError, match="is there already"):
        hs.export(run.path, copy)
    for name in ("metrics.json", "predictions.tsv"):
        (target / name).unlink()
    assert hs.export(run.path, tmp_path / "alone") == target
    assert hs.verify(tmp_path / "alone").whole
    (tmp_path / "mine.txt").touch()
    with pytest.raises(hs.InputError, match=r"mine\.txt is a file: name a folder"):
        hs.export(run.path, tmp_path / "mine.txt")
    with pytest.raises(hs.InputError, match=r"is an experiment: name one of its runs, .*: timm-t"):
        hs.export(copy, tmp_path / "other")
    with pytest.raises(hs.InputError, match=r"is no run: it has no run\.toml"):
        hs.export(copy / "slices", tmp_path / "other")
    (run.path / "metrics.json").unlink()
    with pytest.raises(hs.InputError, match="is a run that has not ended"):
        hs.export(run.path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_being_written_is_no_leftover(tmp_path):
    """Another process that clears the folder leaves it; save_file of safetensors takes its lock."""
    with atomic_path(tmp_path / "backbone.safetensors") as temporary:
        _save_tensors({"weight": np.ones(3)}, temporary)
        clear_leftovers(tmp_path)
        assert temporary.exists()
    assert load_file(tmp_path / "backbone.safetensors")["weight"].sum() == 3
