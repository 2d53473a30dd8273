"""bench/compare_experiments.py finds what differs in value, and only that."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from headscope.files import read_table, write_table
from tests.conftest import REPOSITORY
from tests.support.synthetic import write_experiment


def compare(*arguments):
    script = REPOSITORY / "bench" / "compare_experiments.py"
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return write_experiment(
        tmp_path_factory.mktemp("compare") / "before",
        [{"regime": "frozen"}, {"regime": "scratch"}],
        width=8,
        epochs=1,
    )


@pytest.fixture
def after(before, tmp_path):
    return shutil.copytree(before, tmp_path / "after")


def test_bytes_seconds_and_versions_may_differ(before, after):
    path = next(after.glob("runs/*/metrics.json"))
    metrics = json.loads(path.read_text()) | {"train_seconds": 1.5, "environment": {"python": "4"}}
    path.write_text(json.dumps(dict(reversed(metrics.items()))))
    done = compare(before, after)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "2 runs compared, 0 files or runs differ.\n"


def test_values_that_differ_are_named(before, after):
    scratch, frozen = sorted(after.glob("runs/*"), key=lambda path: "frozen" in path.name)
    metrics = json.loads((frozen / "metrics.json").read_text())
    metrics["test"]["slice_accuracy"]["value"] += 0.25
    (frozen / "metrics.json").write_text(json.dumps(metrics))
    with np.load(scratch / "head.npz") as arrays:
        head = dict(arrays)
    head["weight"][0, 0] += 1e-6
    np.savez(scratch / "head.npz", **head)
    table = read_table(frozen / "predictions.tsv")
    table.loc[3, "predicted"] = "other"
    write_table(frozen / "predictions.tsv", table)
    done = compare(before, after)
    assert done.returncode == 1
    assert f"{frozen.name}/metrics.json: test.slice_accuracy.value: " in done.stdout
    assert f"{scratch.name}/head.npz: weight: 1 of 16 values differ, by up to " in done.stdout
    assert "predictions.tsv: predicted: 1 of 360 values differ" in done.stdout
    assert "head.npz" not in compare(before, after, "--tolerance", 1e-4).stdout


def test_runs_are_matched_by_name_and_renamed_regimes_too(before, after):
    run = next(after.glob("runs/*frozen*"))
    run.rename(run.with_name(run.name.replace("-frozen-", "-thawed-")))
    assert compare(before, after).returncode == 1
    assert compare(before, after, "--rename", "frozen=thawed").returncode == 0
