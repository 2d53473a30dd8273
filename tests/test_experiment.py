"""The whole path on a small cohort of our own making: scans in, records and report out."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import headscope
import headscope.experiment.run as experiment_module
from headscope.analysis.leakage.permutation import permutation_test, permute_labels
from headscope.analysis.units import read_samples
from headscope.errors import InputError, RunError
from headscope.experiment.run import RunsFailed, run
from headscope.manifest import stored_entries
from headscope.metrics import softmax, subset_scores
from headscope.models.zoo import find_architecture
from headscope.record import read_experiment
from headscope.reporting import write_report
from headscope.training import cache
from headscope.training import resume as resume_module
from tests.support.experiments import fail, settings, write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "scans")


@pytest.fixture(scope="module")
def experiment(data, tmp_path_factory):
    return run(settings(data, tmp_path_factory.mktemp("out") / "experiment"))


def test_every_run_of_the_grid_leaves_a_whole_record(experiment):
    runs = read_experiment(experiment)
    regimes = ("finetune", "frozen", "scratch")
    names = [f"timm-test_resnet-{r}-{s}-seed0" for r in regimes for s in ("slice", "subject")]
    assert [record.name for record in runs] == names
    shared = {"features.npy", "layers.npz", "maps.npz", "backbone.safetensors"}
    for record in runs:
        files = {path.name for path in record.path.iterdir()}
        frozen = record.setting.regime == "frozen"
        assert ("state.safetensors" in files) == frozen
        assert set(stored_entries(record.path)) == (shared if frozen else set())
        assert (files | {*stored_entries(record.path)}) - {"state.safetensors"} == {
            "run.toml",
            "history.jsonl",
            "predictions.tsv",
            "metrics.json",
            "head.npz",
            "features.npy",
            "features.npz",
            "layers.npz",
            "maps.npz",
            "backbone.safetensors" if frozen else "model.safetensors",
            "manifest.json",
        }
        assert len(record.history) == 2
        assert record.class_names == ["AD", "NC"]


def test_a_record_opens_with_numpy_and_pandas_alone_and_agrees_with_itself(experiment):
    for record in read_experiment(experiment):
        head = np.load(record.path / "head.npz")
        found = np.load(record.path / "features.npz")
        table = pd.read_csv(record.path / "predictions.tsv", sep="\t")
        logits = np.load(record.place("features.npy")) @ head["weight"].T + head["bias"]
        np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
        probabilities = table[["probability_AD", "probability_NC"]].to_numpy()
        stored = table[["logit_AD", "logit_NC"]].to_numpy(np.float32)
        np.testing.assert_array_equal(stored, found["logits"])
        np.testing.assert_allclose(probabilities, softmax(found["logits"]), atol=1e-12)
        assert (table["predicted"] == head["class_names"][logits.argmax(axis=1)]).all()
        assert (table["subset"] == found["subset"]).all()
        assert (table["label"] == head["class_names"][found["label"]]).all()
        test = found["subset"] == "test"
        metrics = json.loads((record.path / "metrics.json").read_text())
        expected = subset_scores(
            found["label"][test],
            found["logits"][test],
            found["subject_id"][test],
            class_names=record.class_names,
        )
        assert metrics["test"] == expected
        if record.setting.regime != "frozen":  # of which head.npz has the classifier
            model = load_file(record.path / "model.safetensors")
            assert np.array_equal(model["fc.weight"], head["weight"])
        maps = np.load(record.place("maps.npz"))
        assert set(found["subset"][maps["slice"]]) == {"test"}


def test_the_record_names_the_version_that_ran(experiment):
    """Of an editable install, the metadata may be of an earlier one."""
    packages = json.loads((experiment / "environment.json").read_text())["packages"]
    assert packages["headscope"] == headscope.__version__
    assert packages["torch"] == importlib.metadata.version("torch")


def test_the_subject_split_shares_no_subject_and_the_slice_split_does(experiment):
    for record in read_experiment(experiment):
        groups = record.predictions.groupby("subject_id")["subset"].nunique()
        shared = (groups > 1).any()
        assert shared == (record.settings["split"] == "slice")


def test_only_the_frozen_backbone_is_certified_unchanged(experiment):
    for record in read_experiment(experiment):
        certificate = record.metrics["freeze_certificate"]
        frozen = record.settings["regime"] == "frozen"
        assert certificate["identical"] == frozen
        assert (certificate["before"] == certificate["after"]) == frozen


def test_the_regimes_begin_with_the_same_head(experiment):
    heads = [record.head["initial_weight"] for record in read_experiment(experiment)]
    assert all(np.array_equal(heads[0], head) for head in heads)


@pytest.mark.parametrize("name", ["metrics.json", "head.npz", "run.toml", "history.jsonl"])
def test_a_damaged_record_is_named(experiment, tmp_path, name):
    """Alone it is an error; the report goes on with the others (tests/test_verify.py)."""
    shutil.copytree(experiment, tmp_path / "copy")
    record, *others = read_experiment(tmp_path / "copy")
    for other in others:
        shutil.rmtree(other.path)
    (record.path / name).write_text("{")
    with pytest.raises(InputError, match=rf"{name} has changed since it was written"):
        write_report(tmp_path / "copy")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"weights": "nowhere.pth"}, "nowhere.pth does not exist"),
        ({"split_file": "nowhere.tsv"}, "nowhere.tsv does not exist"),
        ({"device": "cuda"}, "'cuda' is not available"),
    ],
)
def test_what_is_missing_is_said_before_any_work(data, tmp_path, changes, part):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InputError, match=part):
        run(settings(data, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


MISFIT = {
    "another network's file": "alone.safetensors do not fit timm/test_resnet: the file lacks bn1",
    "text": "text.pth cannot be read as weights",
    "layerwise": "layerwise:99 trains more stages than timm/test_resnet has: N goes from 1 to ",
    "size": "alexnet does not take slices of 32 × 32 pixels",
}


@pytest.mark.parametrize("case", MISFIT)
def test_networks_that_cannot_be_are_said_once_before_slicing(data, tmp_path, monkeypatch, case):
    save_file({"alone": torch.zeros(2)}, tmp_path / "alone.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    changes = {
        "another network's file": {"weights": str(tmp_path / "alone.safetensors")},
        "text": {"weights": str(tmp_path / "text.pth")},
        "layerwise": {"regimes": ["scratch", "layerwise:99"]},
        "size": {"architectures": ["timm/test_resnet", "alexnet"]},
    }[case]
    monkeypatch.setattr(experiment_module, "store_slices", lambda *_: pytest.fail("sliced"))
    with pytest.raises(InputError) as caught:  # of 3 regimes, 2 splits and 2 seeds
        run(settings(data, tmp_path / "out", seeds=[0, 1], **changes))
    assert MISFIT[case] in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_every_network_that_cannot_be_is_said(data, tmp_path):
    changes = {"architectures": ["alexnet", "timm/test_resnet"], "regimes": ["layerwise:99"]}
    with pytest.raises(InputError, match=r"^alexnet does not take.*\n.*99 trains more stages"):
        run(settings(data, tmp_path / "out", **changes))


def test_the_data_are_no_place_for_the_experiment(data):
    with pytest.raises(InputError, match="holds the data"):
        run(settings(data, data))


def snapshot(folder: Path):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_same_command_again_does_nothing_twice(data, experiment):
    before = snapshot(experiment / "runs") | snapshot(experiment / "slices")
    run(settings(data, experiment))
    assert snapshot(experiment / "runs") | snapshot(experiment / "slices") == before


def test_what_a_killed_process_left_is_removed(data, tmp_path):
    config = settings(data, tmp_path / "out", splits=["subject"], regimes=["frozen"], epochs=1)
    folder = run(config) / "runs" / "timm-test_resnet-frozen-subject-seed0"
    before = snapshot(folder)
    (folder / "checkpoint").mkdir()
    for left in (".tmp-abcmodel.safetensors", "checkpoint/last.pt", "checkpoint/.tmp-xlast.pt"):
        (folder / left).write_bytes(b"left")
    run(config)
    assert snapshot(folder) == before and not (folder / "checkpoint").exists()
    (folder / "metrics.json").unlink()  # killed as it wrote the record
    (folder / ".tmp-xhead.npz").write_bytes(b"left")
    run(config)
    assert snapshot(folder).keys() == before.keys()


def test_other_settings_for_a_standing_run_are_refused(data, experiment):
    with pytest.raises(InputError, match=r"begun with other settings \(epochs 2 instead of 1\)"):
        run(settings(data, experiment, epochs=1))
    with pytest.raises(InputError, match=r"cannot continue from 2 to 3 epochs: state\.safetensors"):
        run(settings(data, experiment, epochs=3))  # finetune and scratch kept no state
    with pytest.raises(InputError, match="size"):
        run(settings(data, experiment, size=48))


def test_a_split_made_by_other_settings_is_refused(data, experiment):
    with pytest.raises(InputError, match=r"subject-seed0.tsv was made by other settings \(ratio"):
        run(settings(data, experiment, ratio=[2, 1, 1], regimes=["frozen"]))


def test_a_run_goes_on_with_its_own_split_alone(data, tmp_path):
    config = settings(data, tmp_path / "out", regimes=["frozen"], splits=["subject"])
    run(config)
    split = config.out / "splits" / "subject-seed0.tsv"
    table = pd.read_csv(split, sep="\t")
    table["subset"] = table["subset"].replace({"test": "train", "train": "test"})
    table.to_csv(split, sep="\t", index=False)
    with pytest.raises(InputError, match=r"subject-seed0\.tsv has changed since it was written"):
        run(config)
    (split.parent / "manifest.json").unlink()  # as in an experiment of an earlier version
    with pytest.raises(InputError, match="split_sha256"):
        run(config)


def test_a_finished_run_that_has_changed_is_named_and_not_trained_on(data, tmp_path, capsys):
    config = settings(data, tmp_path / "out", regimes=["frozen"], epochs=1)
    first, second = read_experiment(run(config))
    (second.path / "run.toml").write_text("epochs = 99\n")
    shutil.rmtree(first.path)
    with pytest.raises(RunsFailed) as failed:
        run(config)
    assert list(failed.value.failures) == [second.name] and failed.value.finished
    assert "run.toml has changed since it was written" in capsys.readouterr().err
    assert [record.name for record in read_experiment(config.out)] == [first.name]
    shutil.rmtree(second.path)
    pixels = np.load(config.out / "slices" / "slices.npy", mmap_mode="r+")
    pixels[0, 0, 0] ^= 1
    pixels.flush()
    with pytest.raises(RunsFailed, match=r"slices\.npy has changed since it was written"):
        run(config)
    assert not (second.path / "metrics.json").exists()


def test_an_out_that_is_a_file_is_named(data, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file"):
        run(settings(data, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "mine"


def test_an_interrupted_experiment_goes_on_to_the_same_numbers(
    data, experiment, tmp_path, monkeypatch
):
    saved, epochs = resume_module.ResumeFile.save, []

    def stop(*args):
        saved(*args)
        epochs.append(1)
        if len(epochs) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume_module, "SHARE", float("inf"))  # after every epoch, however short
    monkeypatch.setattr(resume_module.ResumeFile, "save", stop)
    config = settings(data, tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        run(config)
    run(config)
    assert len(epochs) == 12
    for one, two in zip(read_experiment(experiment), read_experiment(config.out), strict=True):
        network = "backbone" if one.setting.regime == "frozen" else "model"
        for name in (f"{network}.safetensors", "predictions.tsv", "head.npz"):
            assert one.place(name).read_bytes() == two.place(name).read_bytes(), name


def test_a_frozen_backbone_that_moves_fails(data, tmp_path, monkeypatch):
    from headscope.models.network import Network

    hashes = iter(["a", "b"])  # before and after
    monkeypatch.setattr(Network, "frozen_hash", lambda self: next(hashes))
    with pytest.raises(RunError, match="what the regime frozen freezes changed"):
        run(settings(data, tmp_path / "out", regimes=["frozen"], splits=["subject"]))


def test_three_classes_go_all_the_way(tmp_path):
    data = write_cohort(tmp_path / "scans", subjects=4, classes=("AD", "MCI", "NC"))
    out = run(settings(data, tmp_path / "out", regimes=["frozen"], splits=["subject"]))
    record = read_experiment(out)[0]
    assert record.head["weight"].shape[0] == 3
    assert 0 <= record.metrics["test"]["slice_auc"]["value"] <= 1


def test_unknown_names_are_found_before_any_work(data, tmp_path):
    with pytest.raises(InputError, match="Unknown architecture"):
        run(settings(data, tmp_path / "out", architectures=["resnet18", "nonsense"]))
    with pytest.raises(InputError, match="Unknown initialisation of the classifier 'xavier'"):
        run(settings(data, tmp_path / "out", head_init="xavier"))
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_record_and_the_network(data, tmp_path):
    options = {"regimes": ["lp-ft"], "splits": ["subject"], "count": 2, "epochs": 2}
    row = {"regime": "lp-ft", "head_init": "zero", "select": "best", "probe_epochs": 1}
    config = settings(data, tmp_path / "out", rows=[row], aggregate="vote", **options)
    record = read_experiment(run(config))[0]
    known = record.settings
    assert (known["head_init"], known["select"], known["probe_epochs"]) == ("zero", "best", 1)
    assert known["aggregate"] == "vote" and known["tail"] == ["mean", "linear:fc"]
    assert not record.head["initial_weight"].any()
    assert record.history["phase"].tolist() == ["probe", "train", "train"]
    losses = record.history["val_loss"][1:]
    assert record.metrics["selected_epoch"] == int(losses.idxmin()) + 1
    test = record.features["subset"] == "test"
    assert record.metrics["test"] == subset_scores(
        record.features["label"][test],
        record.features["logits"][test],
        record.features["subject_id"][test],
        class_names=record.class_names,
        aggregate="vote",
    )


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (RunError("The loss is no longer finite in epoch 2."), "no longer finite"),
        (MemoryError(), "Out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "Out of memory"),
        (InputError("The weights of resnet18 could not be downloaded."), "not be downloaded"),
    ],
)
def test_a_run_that_fails_does_not_stop_the_others(data, tmp_path, monkeypatch, error, part):
    config = settings(data, tmp_path / "out", splits=["subject"], epochs=1, count=2)
    with monkeypatch.context() as patched:
        fail(patched, "finetune", error)
        with pytest.raises(RunsFailed, match=f"1 of 3 runs failed.*\n.*finetune.*{part}") as caught:
            run(config)
    assert caught.value.finished
    stands = [record.settings["regime"] for record in read_experiment(config.out)]
    assert stands == ["frozen", "scratch"]
    assert part in (config.out / "failures.tsv").read_text()
    if not isinstance(error, InputError):
        assert not (config.out / "runs" / "timm-test_resnet-finetune-subject-seed0").exists()
    run(config)
    assert len(read_experiment(config.out)) == 3
    assert not (config.out / "failures.tsv").exists()


@pytest.mark.parametrize("regime", ["frozen", "frozen-adabn", "finetune"])
def test_a_pass_that_does_not_fit_says_what_helps(data, tmp_path, monkeypatch, regime):
    config = settings(data, tmp_path / "out", splits=["subject"], regimes=[regime], epochs=1)
    build = experiment_module.build_network

    def narrow(*args, **options):
        """Batches of 8, as in training, fit; a pass of more does not."""
        network = build(*args, **options)
        forward = network.model.forward

        def limited(x):
            if len(x) > config.recipe.batch_size:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(x)

        network.model.forward = limited
        return network

    with monkeypatch.context() as patched:
        patched.setattr(experiment_module, "build_network", narrow)
        part = r"24 slices .* at once do not fit into the memory of cpu, whatever the batch_size; "
        with pytest.raises(RunsFailed, match=part + r"smaller slices \(size\)"):
            run(config)
    folder = config.out / "runs" / f"timm-test_resnet-{regime}-subject-seed0"
    assert folder.exists() == (regime == "finetune")  # what has trained stays
    monkeypatch.setattr("headscope.training.loop.train_epoch", lambda *_: pytest.fail("trained"))
    if regime == "finetune":
        run(config)
        assert len(read_experiment(config.out)) == 1


def test_what_every_run_fails_at_is_said_once(data, tmp_path, monkeypatch, capsys):
    fail(monkeypatch, "", RunError("The loss is no longer finite in epoch 1."))
    with pytest.raises(RunsFailed) as caught:
        run(settings(data, tmp_path / "out", count=2))
    assert not caught.value.finished
    assert str(caught.value).count("no longer finite") == 1
    assert str(caught.value).startswith("6 of 6 runs failed")
    assert all(name in str(caught.value) for name in caught.value.failures)
    told = capsys.readouterr().err
    assert told.count("no longer finite") == 1
    assert told.count("failed, as timm-test_resnet-frozen-subject-seed0.") == 5


def test_what_nobody_foresaw_is_raised(data, tmp_path, monkeypatch):
    fail(monkeypatch, "finetune", RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(settings(data, tmp_path / "out", count=2, splits=["subject"], epochs=1))


def test_ctrl_c_stops_at_once(data, tmp_path, monkeypatch):
    fail(monkeypatch, "frozen", KeyboardInterrupt())
    config = settings(data, tmp_path / "out", count=2, splits=["subject"])
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert [path.name for path in (config.out / "runs").iterdir()] == [
        "timm-test_resnet-frozen-subject-seed0"
    ]


def test_finished_runs_need_their_weights_no_more(data, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(find_architecture("timm/test_resnet").build().state_dict(), weights)
    quick = {"regimes": ["frozen"], "splits": ["subject"], "epochs": 1, "count": 2}
    config = settings(data, tmp_path / "out", weights=str(weights), **quick)
    run(config)
    before = snapshot(config.out / "runs")
    weights.rename(tmp_path / "elsewhere")
    run(config)
    assert snapshot(config.out / "runs") == before
    with pytest.raises(InputError, match=r"w\.safetensors does not exist"):
        run(config.model_copy(update={"seeds": (0, 1)}))
    save_file(find_architecture("timm/test_resnet").build().state_dict(), weights)
    with pytest.raises(InputError, match="weights_sha256"):  # other weights of the same name
        run(config)


def test_refused_settings_leave_the_experiments_own_in_place(data, experiment):
    kept = (experiment / "experiment.toml").read_text()
    with pytest.raises(InputError, match="begun with other settings"):
        run(settings(data, experiment, learning_rate=0.1))
    assert (experiment / "experiment.toml").read_text() == kept


def test_experiments_may_share_their_features_and_drop_their_networks(data, tmp_path, monkeypatch):
    passes = []
    extracted = cache.extract_features
    monkeypatch.setattr(
        cache, "extract_features", lambda *a, **k: passes.append(1) or extracted(*a, **k)
    )
    options = {"regimes": ["frozen"], "splits": ["subject"], "epochs": 1, "count": 2}
    options |= {"cache": tmp_path / "shared", "keep_model": False}
    for name in ("one", "two"):
        run(settings(data, tmp_path / name, **options))
        record = read_experiment(tmp_path / name)[0]
        assert not record.keeps_network and record.place("features.npy").is_file()
        assert not (tmp_path / name / "cache").exists()
    assert len(passes) == 1 and len(list((tmp_path / "shared").glob("features-*"))) == 1


def test_permuted_labels_stand_apart_and_are_shared_by_a_subjects_slices(data, tmp_path):
    options = {"regimes": ["frozen", "scratch"], "splits": ["slice"], "epochs": 1, "count": 2}
    out = run(settings(data, tmp_path / "out", permutations=1, **options))
    true = {record.settings["regime"]: record for record in read_experiment(out)}
    assert set(true) == {"frozen", "scratch"}
    (permuted,) = read_experiment(out, permuted=True)
    assert permuted.name == "timm-test_resnet-scratch-slice-seed0-permuted1"
    assert permuted.settings["permutation"] == 1
    assert not (permuted.path / "model.safetensors").exists()
    of_subject = permuted.predictions.groupby("subject_id")["label"]
    assert all(len(set(labels)) == 1 for _, labels in of_subject)
    labels = true["scratch"].predictions.groupby("subject_id")["label"].first()
    assert (of_subject.first() != labels).any()
    assert sorted(of_subject.first()) == sorted(labels)
    assert (permuted.predictions["subset"] == true["scratch"].predictions["subset"]).all()
    stored = np.load(permuted.path / "features.npz")["label"]
    assert (np.array(permuted.class_names)[stored] == permuted.predictions["label"]).all()


def test_a_permutation_is_the_one_that_frozen_runs_are_tested_on(data, tmp_path):
    options = {"regimes": ["frozen", "scratch"], "splits": ["subject"], "epochs": 1, "count": 2}
    out = run(settings(data, tmp_path / "out", permutations=2, seeds=[5], **options))
    frozen = read_samples(read_experiment(out)[0])
    tested = permute_labels(
        frozen.label, frozen.subject, frozen.session, 2, subset=frozen.subset
    )  # (N, 2)
    trained = read_experiment(out, permuted=True)
    assert [record.settings["permutation"] for record in trained] == [1, 2]
    for k, record in enumerate(trained):
        assert (record.features["label"] == tested[:, k]).all()
    found = permutation_test(read_experiment(out)[1], permuted=trained)
    assert found.draws == 2


def test_a_damaged_scan_is_spoken_of_while_running_and_on_the_page(tmp_path, undrawn, capsys):
    data = write_cohort(tmp_path / "scans")
    broken = data / "AD" / "sub-AD0_T1w.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    out = run(settings(data, tmp_path / "out", regimes=["frozen"], splits=["subject"], epochs=1))
    told = "1 of 12 scans could not be used"
    assert told in " ".join(capsys.readouterr().err.split())
    assert told in write_report(out).read_text(encoding="utf-8")
