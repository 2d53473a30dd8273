"""A finished run continues to more epochs: as if trained at once, with nothing lost on the way."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from headscope.errors import InputError
from headscope.experiment.run import run
from headscope.record import Run, finish_longer, read_experiment
from headscope.training import resume as resume_module
from headscope.verification.runs import run_problems
from headscope.verification.verify import verify
from tests.support.experiments import settings, write_cohort
from tests.support.records import reseal

pytestmark = pytest.mark.usefixtures("few_trees")

ROWS = (
    {"regime": "frozen", "optimizer": "adamw", "select": "best", "class_weights": "balanced"},
    {"regime": "frozen", "name": "patient", "patience": 1, "learning_rate": 3.0},
    {"regime": "finetune", "momentum": 0.8, "sampling": "weighted"},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "scans")


def trained(data, out, epochs, **changes):
    known = {"rows": ROWS, "splits": ["subject"], "keep_state": True, "rivals": []}
    return run(settings(data, out, epochs=epochs, **(known | changes)))


@pytest.fixture(scope="module")
def short(data, tmp_path_factory):
    return trained(data, tmp_path_factory.mktemp("short") / "out", 2)


@pytest.fixture
def begun(short, tmp_path):
    return shutil.copytree(short, tmp_path / "out")


def manifests(experiment):
    return {path.parent.name: json.loads(path.read_text())["files"]
            for path in experiment.glob("runs/*/manifest.json")}  # fmt: skip


def test_more_epochs_end_as_a_run_of_as_many_at_once(data, begun, tmp_path, monkeypatch):
    before, saved, written = manifests(begun), resume_module.ResumeFile.save, []

    def stop(self, model, optimizer, progress):
        saved(self, model, optimizer, progress)
        written.append(len(progress.history))
        if len(written) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume_module.ResumeFile, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            trained(data, begun, 4)
    assert written == [3]  # the first two epochs are not trained again
    assert manifests(begun) == before and len(read_experiment(begun)) == 3  # the old are whole
    trained(data, begun, 4)
    at_once = trained(data, tmp_path / "at-once", 4)
    assert manifests(begun) == manifests(at_once) != before
    assert not (begun / "continued").exists() and not verify(begun).problems
    patient = next(run for run in read_experiment(begun) if run.setting.variant == "patient")
    assert len(patient.history) < 4 == patient.settings["epochs"]


def test_what_a_killed_start_left_is_completed(begun):
    path = next((begun / "runs").glob("*-finetune-*"))
    longer = begun / "continued" / path.name
    whole = manifests(begun)
    for state in ("whole", "old moved", "old left"):
        (begun / "continued").mkdir(exist_ok=True)
        old = longer.with_name(f"{path.name}.old")
        if state == "whole":
            shutil.copytree(path, longer)
        elif state == "old moved":
            path.rename(old)
            shutil.copytree(old, longer)
        else:
            shutil.copytree(path, old)
        finish_longer(begun)
        assert manifests(begun) == whole and not old.exists() and not longer.exists(), state
        assert Run(path).finished


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epochs": 1}, "begun with other settings (epochs 2 instead of 1)"),
        ({"epochs": 4, "batch_size": 4}, "begun with other settings (batch_size 8 instead of 4, e"),
    ],
)
def test_fewer_epochs_and_other_settings_are_refused(data, begun, changes, reason):
    with pytest.raises(InputError) as caught:
        trained(data, begun, **changes)
    assert reason in str(caught.value)


def test_what_cannot_go_on_says_why(data, begun, tmp_path):
    for state in begun.glob("runs/*-finetune-*/state.safetensors"):
        state.unlink()
    assert len(read_experiment(begun)) == 3  # a state may be deleted to save room
    with pytest.raises(InputError, match=r"from 2 to 4 epochs: state\.safetensors, the"):
        trained(data, begun, 4)
    cosine = {"rows": (), "regimes": ["frozen"], "schedule": "cosine"}
    trained(data, tmp_path / "cosine", 2, **cosine)
    with pytest.raises(InputError, match=r"from 2 to 4 epochs: by its cosine schedule the rate"):
        trained(data, tmp_path / "cosine", 4, **cosine)


def test_a_state_of_another_classifier_is_named(begun):
    paths = [*begun.glob("runs/*/state.safetensors")]
    assert len(paths) == 3
    for path in paths:
        state = load_file(path)
        save_file({name: np.asarray(array + 1) for name, array in state.items()}, path)
        problems = run_problems(reseal(path.parent))
        assert "state.safetensors has another classifier (weight) than head.npz" in problems
