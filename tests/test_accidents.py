"""Accidents: signals at any moment, streams closed or full, pipes where a file should be."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headscope.cli.streams import plain_streams
from headscope.console import console
from headscope.signals import STOPPED
from tests.support.commands import headscope, headscope_here
from tests.support.experiments import write_cohort

CAUGHT = 1 << (signal.SIGTERM - 1)


def heed_interrupts():
    """Answer Ctrl-C, which a shell has its commands in the background ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments, **options):
    """Start a command; return it once it answers signals."""
    command = [sys.executable, "-m", "headscope", *map(str, arguments)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts, **options
    )
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if int(status.split("SigCgt:")[1].split()[0], 16) & CAUGHT:
            break
        time.sleep(0.001)
    return process


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@linux
@pytest.mark.parametrize(("number", "wait"), [("SIGINT", 0), ("SIGTERM", 0.05), ("SIGINT", 0.2)])
def test_a_signal_while_importing_ends_in_one_line(tmp_path, number, wait):
    with start("models", stdout=subprocess.DEVNULL) as process:
        time.sleep(wait)
        process.send_signal(getattr(signal, number))
        said = process.communicate()[1]
    assert process.returncode == 128 + getattr(signal, number)
    assert said == f"\n{STOPPED}\n"


def in_session(session):
    """Return the processes of a session that have not ended."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        lines += [path.parent.name] if fields[3] == str(session) and fields[0] != "Z" else []
    return lines


@linux
def test_helpers_end_soon_after_a_main_process_that_was_killed(tmp_path):
    data = write_cohort(tmp_path / "scans", subjects=20)
    command = ["slice", data, tmp_path / "out", "--count", 20, "--size", 1000, "--workers", 3]
    with start(*command, start_new_session=True) as process:
        while len(in_session(process.pid)) < 4 and process.poll() is None:  # the tracker is one
            time.sleep(0.01)
        process.kill()
        process.wait()
        until = time.monotonic() + 20
        while in_session(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert not in_session(process.pid)
        assert "Traceback" not in process.stderr.read()


def shell(line):
    """Run a line of bash; `headscope` stands for the command."""
    line = line.replace("headscope", f"{sys.executable} -m headscope")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def test_closed_and_full_streams_end_without_a_traceback():
    closed = shell("headscope --version >&- && headscope --version 2>&- <&-")
    assert (closed.returncode, closed.stderr) == (0, "") and "headscope" in closed.stdout
    if Path("/dev/full").exists():
        full = shell("headscope --version > /dev/full")
        assert full.returncode == 1 and full.stderr.count("\n") == 1
        assert full.stderr.endswith(": No space left on device.\n")
    left = shell("headscope --help | true; exit ${PIPESTATUS[0]}")  # none reads it
    assert (left.returncode, left.stderr) == (0, "")


def test_text_that_an_encoding_lacks_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with plain_streams():
        print("50–60", os.fsdecode(b"b\xe9b\xe9"))
    assert raw.getvalue() == rb"50\u201360 b\xe9b\xe9" + b"\n"


def test_escapes_in_names_are_escaped_when_they_are_printed(monkeypatch, capsys, tmp_path):
    done = headscope_here(monkeypatch, capsys, "inspect", tmp_path / "a\x1b[31m\x9b")
    assert done.returncode == 2 and r"a\x1b[31m\x9b does not exist" in done.stderr
    data = write_cohort(tmp_path / "scans", subjects=3)
    next((data / "AD").iterdir()).rename(data / "AD" / "sub-\x1b[2J_T1w.nii.gz")
    (data / "NC" / "sub-\x07_T1w.nii.gz").write_bytes(b"broken")
    shown = headscope_here(monkeypatch, capsys, "inspect", data, "--count", 2)
    console.print("a scan named \x1b[31m")
    assert "\x1b" not in "".join((*shown[1:], *capsys.readouterr()))


def test_a_backend_that_is_absent_is_not_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "module://nonsense")
    assert headscope_here(monkeypatch, capsys, "--version").returncode == 0
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "pipe"),
        ("audit", "pipe"),
        ("run", "pipe.toml"),
        ("slice", "scans", "out", "--pseudonym-key", "pipe"),
        ("audit", "scans", "--pseudonym-key", "pipe"),
        ("head", "pipe"),
    ],
)
def test_a_pipe_is_no_file(monkeypatch, capsys, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkfifo("pipe.toml")
    if "scans" in command:
        write_cohort(Path("scans"), subjects=1)
    done = headscope_here(monkeypatch, capsys, *command)
    assert done.returncode == 2 and "pipe" in done.stderr and done.stderr.count("\n") <= 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = " + "[" * 50_000, "recursion"),
        ("x = " + "{a=" * 5_000, "recursion"),
        ("epochs = " + "9" * 6_000, "4300 digits"),
        ("\0", "Cannot"),
    ],
)
def test_toml_that_python_cannot_read_is_one_sentence(monkeypatch, capsys, tmp_path, text, reason):
    (tmp_path / "x.toml").write_text(text)
    done = headscope_here(monkeypatch, capsys, "run", tmp_path / "x.toml")
    assert done.returncode == 2 and "x.toml cannot be read as TOML" in done.stderr
    assert reason.lower() in done.stderr.lower() and len(done.stderr) < 400


def test_numbers_that_no_run_needs_are_refused_at_once(monkeypatch, capsys, tmp_path):
    huge = 10**30
    for command in (
        ["slice", "x", "y", "--count", huge],
        ["slice", "x", "y", "--size", 10**8],
        ["simulate", tmp_path / "c", "--subjects", 10**9],
        ["simulate", tmp_path / "c", "--seed", huge],
        ["audit", "x", "--permutations", 10**9],
    ):
        begin = time.monotonic()
        done = headscope_here(monkeypatch, capsys, *command)
        assert done.returncode == 2 and time.monotonic() - begin < 10, command
        assert len(done.stderr) < 600 and not (tmp_path / "c").exists()


def test_an_ignored_signal_stays_ignored():
    assert headscope("--version").returncode == 0
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from headscope.signals import end_at_signals; end_at_signals()\n"
        "assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN\n"
        "assert callable(signal.getsignal(signal.SIGTERM))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
