"""The command line as a user meets it."""

import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.main import get_command

import headscope.experiment.demo as demo_module
from headscope.cli import app
from tests.support.commands import headscope_here
from tests.support.experiments import write_cohort
from tests.support.network import refuse

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


@pytest.mark.slow
def test_the_demo_runs_without_a_network(tmp_path, monkeypatch, capsys):
    """A small cohort; test_engines shows that the imports of a run need none either."""
    refuse(monkeypatch.setattr)
    with pytest.raises(SystemExit, match="was looked up"):  # the guard guards
        socket.create_connection(("localhost", 1))
    with socket.socket() as guarded, pytest.raises(SystemExit, match="was opened"):
        guarded.connect(("127.0.0.1", 1))
    coarse = partial(demo_module.simulate_cohort, spacing_mm=6, workers=1)
    monkeypatch.setattr(demo_module, "simulate_cohort", coarse)
    command = ("demo", "--out", tmp_path / "demo", "--subjects", "6", "--epochs", "1")
    done = headscope_here(monkeypatch, capsys, *command)
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stdout
    assert done.stdout.count("tf_efficientnet_lite0") == 4
    assert (tmp_path / "demo" / "report.html").is_file()
