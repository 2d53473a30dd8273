"""Several processes, several nodes: the same records, nothing lost, nothing done twice."""

import os
import signal
import subprocess
import sys
from collections import Counter
from threading import Thread

import pytest

import headscope.experiment.run as module
from headscope.experiment.engines.engine import find_engine
from headscope.experiment.run import run
from tests.conftest import REPOSITORY
from tests.support.experiments import settings, write_cohort
from tests.support.grid import GRID, counted, epochs, held, wait_until

pytestmark = pytest.mark.usefixtures("few_trees")
PATH = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "src"), *filter(None, sys.path)])


def manifests(experiment):
    """What each run wrote, by its hashes: seconds are no part of them."""
    return {path.parent.name: path.read_bytes() for path in experiment.glob("runs/*/manifest.json")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "scans")


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The manifests of four runs that one process trained."""
    return manifests(run(settings(data, tmp_path_factory.mktemp("alone") / "out", **GRID)))


@pytest.fixture
def prepare(data, tmp_path, monkeypatch):
    """Return a function that makes an experiment without runs, which will stop after an epoch."""

    def make(**engine):
        run(settings(data, tmp_path / "out", **GRID, **engine), only=[])
        monkeypatch.setattr(module, "train_run", counted)
        (tmp_path / "hold").touch()
        return tmp_path / "out"

    return make


def started(data, out, *changes):
    """Start the experiment in another process."""
    command = [sys.executable, "-m", "tests.support.grid", str(data), str(out), *changes]
    environment = os.environ | {"PYTHONPATH": PATH, "PYTHONWARNINGS": "ignore"}
    with (out.parent / "stderr").open("wb") as log:
        return subprocess.Popen(command, env=environment, stderr=log)


def meanwhile(action):
    """Start a thread that acts while runs train; return it."""
    thread = Thread(target=action)
    thread.start()
    return thread


def check_once(out, alone):
    """Every epoch was trained once, and every record is that of one process."""
    times = Counter((name, epoch) for name, epoch, _ in epochs(out))
    assert len(times) == 8 and set(times.values()) == {1}
    assert len(alone) == 4 and manifests(out) == alone
    assert not [*(out / ".locks").iterdir()] and not [*out.rglob(".tmp-*")]


@pytest.mark.slow
def test_processes_share_an_experiment_and_one_that_is_killed_is_replaced(
    data, prepare, alone, capsys
):
    out = prepare()
    other = started(data, out)

    def disturb():
        try:
            wait_until(lambda: len(epochs(out)) == 2)
            mine = next(int(pid) for _, _, pid in epochs(out) if int(pid) != other.pid)
            os.kill(mine, signal.SIGKILL)
            wait_until(lambda: len(epochs(out)) == 3)
        finally:
            (out.parent / "hold").unlink()

    thread = meanwhile(disturb)
    run(settings(data, out, **GRID, engine="processes", workers=1))
    thread.join()
    assert other.wait(60) == 0, (out.parent / "stderr").read_text()
    check_once(out, alone)
    text = capsys.readouterr().err
    assert "its process was killed; it continues from its resume file" in text
    assert f", process {other.pid}) trains it." in text and "finished elsewhere" in text
    assert len({pid for _, _, pid in epochs(out)}) == 3


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one CPU each, on this machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'headscope[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PYTHONPATH": PATH,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_health_check_initial_delay_ms": "500",
            "RAY_health_check_period_ms": "300",
            "RAY_health_check_failure_threshold": "3",
        }.items():
            patch.setenv(name, value)
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(True, head_node_args=small | {"include_dashboard": False})
        cluster.second = cluster.add_node(**small)
        cluster.wait_for_nodes()
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of ray's own processes and sockets
def test_ray_loses_nothing_with_its_driver_a_worker_or_a_node(
    data, prepare, alone, cluster, capsys
):
    ray_settings = {"engine": "ray", "address": cluster.address}
    out = prepare(**ray_settings)  # Ray takes the slices
    # 1. the driver is killed while two nodes train
    driver = started(data, out, "engine=ray", f"address={cluster.address}")
    wait_until(lambda: len(epochs(out)) == 2 or driver.poll() is not None)
    driver.kill()
    driver.wait()
    assert len(epochs(out)) == 2, (out.parent / "stderr").read_text()
    wait_until(lambda: not held(out))

    def disturb():
        try:
            # 2. both runs continue; then a process is killed, and its run begun again
            wait_until(lambda: len(epochs(out)) == 4)
            os.kill(int(epochs(out)[-1][2]), signal.SIGKILL)
            wait_until(lambda: len(epochs(out)) == 5)
            # 3. one of the two nodes goes
            cluster.remove_node(cluster.second, allow_graceful=False)
            wait_until(lambda: held(out) == 1)  # its process ends after it
        finally:
            (out.parent / "hold").unlink()

    thread = meanwhile(disturb)
    run(settings(data, out, **GRID, **ray_settings))
    thread.join()
    check_once(out, alone)
    assert capsys.readouterr().err.count("its process was killed") == 2
    with find_engine(settings(data, out, **GRID, **ray_settings)) as engine:
        error = engine.submit(os.stat, "none").exception()  # what was raised there, not a traceback
    assert type(error) is FileNotFoundError and error.filename == "none"
