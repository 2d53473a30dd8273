"""The command line as a user meets it: in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from headscope.cli import app
from tests.support.commands import headscope_here
from tests.support.experiments import write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")

COMMANDS = sorted(get_command(app).commands)
README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, monkeypatch, capsys):
    shown = headscope_here(monkeypatch, capsys, command, "--help")
    assert shown.returncode == 0
    assert f"Example: headscope {command}" in shown.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_readme(command):
    assert f"headscope {command}" in README.read_text(encoding="utf-8")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['headscope', '--help']\n"
        "from headscope.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cli") / "scans")


@pytest.fixture(scope="module")
def one_class(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("one") / "scans", classes=("AD",))


@pytest.fixture(scope="module")
def two_subjects(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("two") / "scans", subjects=2)


@pytest.mark.parametrize(
    ("where", "options", "part"),
    [
        ("nowhere", [], "nowhere does not exist"),
        ("data", ["--architectures", "resnet1000"], "Unknown architecture 'resnet1000'"),
        ("data", ["--regimes", "thawed"], "Unknown regime 'thawed'; valid regimes: frozen"),
        ("data", ["--set", "epoch=3"], "did you mean 'epochs'"),
        ("data", ["--weights", "w.pth"], "w.pth does not exist"),
        ("data", ["--classes", "AD"], "--classes takes NAME=VALUE"),
        ("one_class", [], "shows only 'AD' in 6 scans: at least two classes"),
        ("two_subjects", ["--weights", "random"], "subjects"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    request, monkeypatch, capsys, tmp_path, where, options, part
):
    place = where if where == "nowhere" else request.getfixturevalue(where)
    tail = ["--architectures", "timm/test_resnet", "--size", 32, "--count", 2, "--workers", 1]
    if "--architectures" in options:
        tail = tail[2:]
    arguments = ["run", place, *options, *tail, "--out", tmp_path / "out"]
    done = headscope_here(monkeypatch, capsys, *arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert part in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_run_prints_the_table_and_the_report_and_goes_on(
    data, monkeypatch, undrawn, capsys, tmp_path
):
    arguments = ["run", data, "--architectures", "timm/test_resnet", "--weights", "random"]
    arguments += ["--size", 32, "--count", 2, "--epochs", 1, "--workers", 1, "--out", "first"]
    done = headscope_here(monkeypatch, capsys, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Test subject % [95%]" in done.stdout and "finetune" in done.stdout
    page = re.search(r"Report: (\S+)", done.stdout)
    assert page and (tmp_path / page[1]).is_file()
    again = headscope_here(monkeypatch, capsys, *arguments, folder=tmp_path)
    assert again.stderr.count("already finished") == 3
    assert headscope_here(monkeypatch, capsys, "report", "first").returncode == 0
    bad = headscope_here(monkeypatch, capsys, "report", data)
    assert bad.returncode == 2 and "is no experiment" in bad.stderr


def test_inspect_says_what_a_folder_holds(data, monkeypatch, capsys):
    done = headscope_here(monkeypatch, capsys, "inspect", data)
    assert done.returncode == 0
    assert "class folders" in done.stdout and re.search(r"AD\s+6\s+6", done.stdout)


REFUSE_SOCKETS = """
import socket
def refuse(self, address, *rest):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise SystemExit(f"a network connection was opened: {address}")
    return connect(self, address, *rest)
connect = socket.socket.connect
socket.socket.connect = refuse
socket.getaddrinfo = lambda *a, **k: (_ for _ in ()).throw(SystemExit("a name was looked up"))
"""


# The command in a process of its own, where cohort and search for shortcuts are coarse.
COARSE_DEMO = """
import functools, sys
import headscope.auditing.shortcuts as search
import headscope.experiment.demo as of
from headscope.cli import main
of.simulate_cohort = functools.partial(of.simulate_cohort, spacing_mm=6)
search.TREES, search.FOLDS, search.DRAWS = 2, 2, 20
sys.argv = ["headscope", "demo", "--out", sys.argv[1], "--subjects", "6", "--epochs", "1"]
main()
"""


@pytest.mark.slow
def test_the_demo_runs_without_a_network(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(REFUSE_SOCKETS)
    check = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('localhost', 1))"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "was looked up" in check.stderr  # the guard guards
    done = subprocess.run(
        [sys.executable, "-c", COARSE_DEMO, tmp_path / "demo"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    assert done.stdout.count("tf_efficientnet_lite0") == 4
    assert (tmp_path / "demo" / "report.html").is_file()
