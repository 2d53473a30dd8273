"""Who trains which run: claims, devices, names of runs, and the scripts of docs/cluster.md."""

import json
import re
import signal
import socket
import subprocess
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

import headscope as hs
import headscope.experiment.run as module
from headscope.errors import InputError, RunError
from headscope.experiment.config import make_config
from headscope.experiment.engines import engine as engines
from headscope.experiment.engines.claims import claim, claim_of, is_free
from headscope.experiment.engines.engine import (
    Processes,
    assign,
    divide,
    find_engine,
    visible_devices,
)
from headscope.experiment.engines.grid import LOST
from headscope.experiment.run import RunsFailed, run
from headscope.files import claimed
from headscope.record import read_failures
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort

DOCUMENT = Path(__file__).parents[1] / "docs" / "cluster.md"
ONE = {"regimes": ["frozen"], "splits": ["subject"], "epochs": 1, "count": 2}

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "scans")


@pytest.mark.parametrize(
    ("workers", "devices", "expected"),
    [
        (3, ["0", "1"], ["0", "1", "0"]),
        (2, ["GPU-a", "MIG-b", "2"], ["GPU-a", "MIG-b"]),
        (4, ["5"], ["5"] * 4),
        (2, [], [None, None]),
    ],
)
def test_devices_go_round(workers, devices, expected):
    assert assign(workers, devices) == expected


@pytest.mark.parametrize(
    ("workers", "threads", "devices", "cores", "expected"),
    [
        (None, None, 4, 32, (4, 8)),  # one per GPU, and the cores divided among them
        (6, None, 2, 16, (6, 2)),  # three on each
        (None, None, 0, 16, (4, 4)),
        (None, None, 0, 2, (2, 1)),
        (None, 2, 0, 16, (8, 2)),
        (None, 4, 0, 2, (1, 4)),
        (8, 3, 0, 2, (8, 3)),
        (8, None, 0, 2, (8, 1)),
    ],
)
def test_cores_are_divided_among_processes(workers, threads, devices, cores, expected):
    assert divide(workers, threads, devices, cores) == expected


def test_devices_are_those_that_may_be_seen(monkeypatch):
    assert visible_devices("cpu") == []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices("auto") == ["0", "1", "2"] and visible_devices("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f")
    assert visible_devices("cuda") == ["2", "GPU-5f"]


class Pool:
    """A process that never starts; what it was given is kept."""

    made: ClassVar[list["Pool"]] = []

    def __init__(self, workers, env, **options):
        assert workers == 1
        self.env, self.futures, self.broken = env, [], False
        self.made.append(self)

    def submit(self, function, *args):
        if self.broken:
            raise engines.BrokenProcessPool("killed")
        self.futures.append(Future())
        return self.futures[-1]

    def shutdown(self, **options):
        self.futures = None


def test_each_process_sees_one_device_and_a_killed_one_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(Pool, "made", [])
    monkeypatch.setattr(engines, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(engines, "visible_devices", lambda device: ["0", "7"])
    config = make_config(data=tmp_path, engine="processes", workers=3, threads=2)
    with Processes(config) as engine:
        assert engine.text == "3 processes on GPU 0, GPU 7, 2 threads each."
        first, *_ = [engine.submit(print) for _ in range(engine.slots)]
        assert [pool.env["CUDA_VISIBLE_DEVICES"] for pool in Pool.made] == ["0", "7", "0"]
        assert {pool.env["OMP_NUM_THREADS"] for pool in Pool.made} == {"2"}
        first.set_exception(engines.BrokenProcessPool("killed"))
        assert engine.is_lost(first.exception()) and not engine.is_lost(RunError("diverged"))
        engine.submit(print)
        assert [pool.env["CUDA_VISIBLE_DEVICES"] for pool in Pool.made] == ["0", "7", "0", "0"]
        Pool.made[1].futures[0].set_result(None)
        engine.submit(print)
        assert len(Pool.made) == 4 and len(Pool.made[1].futures) == 2  # the same process again
        Pool.made[2].futures[0].set_result(None)
        Pool.made[2].broken = True  # it is killed while it waits
        engine.submit(print)
        assert len(Pool.made) == 5 and len(Pool.made[4].futures) == 1


def test_settings_of_ray_are_said_not_to_be_used_by_others(tmp_path, capsys):
    with find_engine(make_config(data=tmp_path, address="auto", num_cpus=2, num_gpus=0)):
        pass
    said = capsys.readouterr().err
    assert "address, num_cpus and num_gpus: of the engine ray, and not used by" in said
    with find_engine(make_config(data=tmp_path)):
        assert not capsys.readouterr().err


def test_a_claim_is_one_process_and_outlives_no_run(tmp_path):
    path = tmp_path / "runs" / "one"
    with claim(path) as mine:
        mine.begin()
        with claim(path) as other:
            assert other is None and not is_free(path)
        mine.watch({"epoch": 1})
        assert claim_of(path)["row"] == {"epoch": 1} and claim_of(path)["process"] > 0
        mine.fail("diverged")
    assert is_free(path) and claim_of(path)["failed"] == "diverged"
    with claim(path) as mine:
        assert mine.facts["failed"] == "diverged"
        mine.clear()
    assert not list((tmp_path / ".locks").iterdir()) and claim_of(path) == {}
    lock = tmp_path / "lock"
    with claimed(lock) as first:  # removed while it is held: who comes next has another file
        lock.unlink()
        with claimed(lock) as second:
            assert first is not None and second is not None
    lock.write_text("[1")
    (tmp_path / ".locks" / "one").write_text("[1")
    assert claim_of(path) == {}


def test_what_failed_meanwhile_elsewhere_is_not_tried_again(data, tmp_path, monkeypatch):
    """While the first run trains, another process fails at the second."""
    config, trained = settings(data, tmp_path / "out", **ONE | {"seeds": [0, 1, 2]}), []
    train_run = module.train_run

    def train(plan, shared, known, **options):
        trained.append(plan.setting.seed)
        if plan.setting.seed == 0:
            with claim(shared.folder(plan).with_name(hs.list_runs(config)[1])) as other:
                other.fail("The loss is no longer finite in epoch 1.")
        return train_run(plan, shared, known, **options)

    monkeypatch.setattr(module, "train_run", train)
    with pytest.raises(RunsFailed) as failed:
        run(config)
    assert trained == [0, 2]
    reasons = {hs.list_runs(config)[1]: "The loss is no longer finite in epoch 1."}
    assert failed.value.failures == reasons == read_failures(config.out)
    run(config, only=hs.list_runs(config)[:1])  # of another part: failures of this one stay
    assert read_failures(config.out) == reasons
    run(config)  # the next command tries it again
    assert trained == [0, 2, 1] and read_failures(config.out) == {}


def test_a_run_whose_process_is_always_killed_fails(data, tmp_path, monkeypatch, capsys):
    class Killing(engines.Here):
        here = False

        def __init__(self, config, needed):
            super().__init__(config)

        def submit(self, function, *args):
            future = Future()
            future.set_exception(engines.BrokenProcessPool("killed"))
            return future

        def is_lost(self, error):
            return isinstance(error, engines.BrokenProcessPool)

    monkeypatch.setattr(module, "find_engine", Killing)
    with pytest.raises(RunsFailed) as failed:
        run(settings(data, tmp_path / "out", **ONE))
    assert [*failed.value.failures.values()] == [LOST]
    assert capsys.readouterr().err.count("continues from its resume file") == 2


def test_names_of_runs_that_there_are_not(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path / "out", **ONE)
    with pytest.raises(InputError, match="did you mean 'timm-test_resnet-frozen-subject-seed0'"):
        run(config, only=["timm-test_resnet-frozen-subject-seed1"])
    assert not config.out.exists()
    by_site = settings(data, tmp_path / "out", rows=[{"regime": "frozen", "splits": ["site"]}])
    with pytest.raises(InputError, match="needs the site of every subject"):  # not: no such run
        run(by_site, only=["timm-test_resnet-frozen-fold1of3-site-seed0"])
    monkeypatch.setattr(module, "find_scans", None)  # which takes minutes of a large cohort
    with pytest.raises(InputError, match="did you mean 'timm-test_resnet-frozen-subject-seed0'"):
        run(config, only=["timm-test_resnet-frozen-subject-seed1"])


def test_a_cluster_that_does_not_answer_is_named_at_once(data, tmp_path, monkeypatch):
    """Ray tried the address for ten minutes, with a warning every few seconds."""
    ray = SimpleNamespace(is_initialized=lambda: False, init=None)
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    config = settings(data, tmp_path, engine="ray", address=address)
    words = f"at {address} cannot be joined: Connection refused. --address takes auto or"
    with pytest.raises(InputError, match=words), find_engine(config):
        pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:70000")
    with pytest.raises(InputError, match=words):
        find_engine(config).__enter__()
    with pytest.raises(InputError, match=r"at 127\.0\.0\.1:70000 cannot be joined"):
        find_engine(settings(data, tmp_path, engine="ray", address="auto")).__enter__()


def test_sigterm_stays_with_headscope_when_ray_is_joined(data, tmp_path, monkeypatch):
    """Slurm sends it: Ray answered with a trace of its own, and nothing said how to continue."""
    ray = SimpleNamespace(init=lambda **_: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    monkeypatch.setitem(__import__("sys").modules, "ray", ray)
    before = signal.getsignal(signal.SIGTERM)
    find_engine(settings(data, tmp_path, engine="ray"))._join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_ray_is_named_where_it_is_missing(data, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"needs the package ray: install headscope\[ray\]"):
        run(settings(data, tmp_path / "out", **ONE, engine="ray"))
    assert not (tmp_path / "out").exists()


HEADSCOPE = """#!/bin/bash
printf '%s\\n' "$*" >> calls
[[ "$*" == *--list* ]] && cat names
exit 0
"""
SBATCH = """#!/bin/bash
printf '%s\\n' "$*" >> submitted
echo 7
"""


def test_the_scripts_of_a_slurm_array_train_every_run(data, tmp_path, monkeypatch, capsys, undrawn):
    """bash runs the scripts as printed; the commands that they call are run in this process."""
    array, submit, _ = re.findall(r"```bash\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    for name, text in (("headscope", HEADSCOPE), ("sbatch", SBATCH)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    grid = settings(data, tmp_path / "headscope-experiment", **ONE | {"seeds": [0, 1]})
    grid.save(tmp_path / "experiment.toml")

    def here(*arguments):
        done = headscope_here(monkeypatch, capsys, *arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = here("run", "experiment.toml", "--list")
    (tmp_path / "names").write_text(names)
    listed = json.loads(here("run", "experiment.toml", "--list", "--json"))
    assert [run["name"] for run in listed] == names.split() == hs.list_runs(grid)
    assert not any(run["finished"] for run in listed)

    def bash(text, **variables):
        (tmp_path / "calls").unlink(missing_ok=True)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        subprocess.run(["bash", "-c", text], cwd=tmp_path, env=path | variables, check=True)
        return (tmp_path / "calls").read_text().splitlines()

    bash(submit)
    first, second, third = (tmp_path / "submitted").read_text().splitlines()
    assert "--array=0-1%20 array.sh" in second and "--dependency=afterok:7" in second
    assert "--dependency=afterany:7" in third
    assert 'headscope run experiment.toml --only ""' in first
    assert "Ready to train" in here("run", "experiment.toml", "--only", "")
    for number, name in enumerate(names.split()):
        variables = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
        call = bash(array, **variables)[-1]
        assert f"{name} finished" in here(*call.split())
    assert [path.parent.name for path in sorted(grid.out.glob("runs/*/metrics.json"))] == [
        *names.split()
    ]
    report = third.partition("headscope ")[2].split()
    assert "Report: headscope-experiment/report.html" in here(*report)
