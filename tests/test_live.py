"""Running work in a terminal is a table and bars in place; elsewhere it is plain lines."""

import os
import re
import subprocess
import sys
from io import StringIO
from time import perf_counter, sleep
from types import SimpleNamespace

import pytest

from headscope import console as module
from headscope.console import PlainConsole, busy, live, track
from headscope.experiment import live as board_module
from headscope.experiment.config import make_config
from headscope.experiment.live import Board
from headscope.experiment.plan import plan_runs

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROW = {
    "learning_rate": 0.1, "train_loss": 0.6931, "val_loss": 0.7512, "seconds": 2.0,
    "train_slice_accuracy": 0.875, "val_slice_accuracy": 0.5,
}  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """Return a function that puts a console in the place of stderr: a terminal, or none."""

    def put(terminal, height=40):
        console = PlainConsole(
            file=StringIO(), force_terminal=terminal, width=120, height=height, highlight=False,
            markup=False, record=True, _environ={"TERM": "xterm"},
        )  # fmt: skip
        monkeypatch.setattr(module, "console", console)
        monkeypatch.setattr(board_module, "console", console)
        return console

    return put


def board(count=2):
    seeds = tuple(range(count))
    config = make_config(
        data="scans", architectures=("timm/test_resnet",), weights="random", seeds=seeds,
        regimes=("frozen",), epochs=4,
    )  # fmt: skip
    return Board(plan_runs(config))


def train(board):
    """Run through a grid of which the second run fails and the last had finished."""
    board.lines[-1].state = "already finished"
    with board.shown(said=False):
        for number in range(len(board.lines) - 1):
            board.begin(number)
            for epoch in (1, 2):
                for _ in track(range(3), board.title(number), 3):
                    pass
                board.watch(ROW | {"epoch": epoch})
            ended = ("failed", "failed. No room.") if number == 1 else ("finished", "")
            board.end(number, *ended)
        board.end(len(board.lines) - 1, "already finished")


def last_table(text):
    """The table as it stood at the end: what a screen shows after the last redrawing."""
    plain = CODES.sub("", text)
    return plain[plain.rindex("Run ") :]


def test_a_terminal_shows_one_table_in_place(shown, capsys):
    console = shown(True)
    train(board(3))
    text = console.file.getvalue()
    table = last_table(text)
    rows = [line.split()[1:7] for line in table.splitlines() if "seed" in line]
    scores = ["2/4", "0.693", "0.751", "87.5", "50.0"]
    assert rows == [["finished", *scores], ["failed", *scores], ["earlier"]]
    assert "3 of 3 runs ended" in table and "about" not in table
    assert "\x1b[1A" in text  # it was drawn in place
    assert "failed. No room." in text and "finished after" not in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor comes back
    assert capsys.readouterr() == ("", "")


def test_time_that_is_left_is_of_epochs_alike(shown):
    shown(True)
    runs = board(2)
    assert runs.left() == ""
    runs.begin(0)
    runs.watch(ROW | {"epoch": 1})
    assert runs.left() == "0:14"  # 3 epochs here and 4 there, of 2 s
    runs.lines[1].kind = "another network"
    assert runs.left() == "> 0:06"
    assert runs._progress() == "0 of 2 runs ended; more than 0:06 left"  # it read 'about > 0:06'


def test_a_long_table_shows_the_run_that_trains(shown):
    console = shown(True, height=16)
    runs = board(50)
    runs.begin(30)
    console.print(runs)
    text = console.export_text()
    assert "seed30 " in text and "seed0 " not in text
    assert "above and" in text and len(text.splitlines()) < 16
    runs.over = True
    console.print(runs)
    assert "seed49 " in console.export_text()


def test_a_pipe_gets_plain_lines(shown, capsys):
    console = shown(False)
    train(board(3))
    lines = console.file.getvalue().splitlines()
    name = "timm-test_resnet-frozen-subject-seed"
    lines = [re.sub(r"in 0:0\d", "in 0:00", line) for line in lines]
    assert f"[1/3] {name}0: 3 of 3 in 0:00" in lines
    assert (
        f"[1/3] {name}0: finished after 2 epochs: loss 0.693 (validation 0.751), slice accuracy "
        "87.5% (validation 50.0%), in 0:00; about 0:08 left" in lines
    )
    assert f"[2/3] {name}1: failed. No room." in lines
    assert lines[-1] == f"[3/3] {name}2: already finished"
    assert "\x1b" not in console.file.getvalue() and capsys.readouterr() == ("", "")


def test_a_pipe_hears_of_runs_that_train_in_other_processes(shown, monkeypatch):
    console, runs = shown(False), board(2)
    monkeypatch.setattr(module, "FIRST_S", 0.02)
    with runs.shown(said=True):
        runs.begin(0)
        runs.watch(ROW | {"epoch": 1})
        deadline = perf_counter() + 30
        while not console.file.getvalue() and perf_counter() < deadline:
            sleep(0.01)
    assert console.file.getvalue() == "0 of 2 runs ended; about 0:14 left\n"
    with runs.shown(said=False):
        sleep(0.1)
    assert console.file.getvalue().count("\n") == 1


def test_trackers_hear_of_epochs_from_who_trains_the_run(shown):
    console, runs, heard = shown(False), board(2), []
    runs.followers = SimpleNamespace(epoch=lambda name, row: heard.append((name, row["epoch"])))
    runs.begin(0)
    runs.leave(1, "another headscope")
    for number in (0, 1):
        runs.watch(ROW | {"epoch": 1}, number)
    assert heard == [(runs.names[0], 1)] and runs.lines[1].last["epoch"] == 1
    runs.followers = None
    runs.end(1, "finished elsewhere")  # after how many epochs is not said: more than were heard of
    assert console.file.getvalue().splitlines()[-1].endswith("seed1: finished elsewhere")


def test_a_step_that_lasts_says_so_and_a_short_one_is_silent(shown, monkeypatch):
    monkeypatch.setattr(module, "FIRST_S", 0.02)
    console = shown(False)
    with busy("Sorting"):
        sleep(0.05)
    for _ in track(range(2), "Counting", 4, 2):
        sleep(0.03)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Sorting: for 0:00"
    assert re.match(r"Counting: [23] of 4", lines[1])
    assert lines[2:] == ["Counting: 4 of 4 in 0:00"]
    monkeypatch.setattr(module, "FIRST_S", 9.0)
    console = shown(False)
    with busy("Sorting"):
        pass
    assert console.file.getvalue() == ""


def test_a_spinner_leaves_nothing_and_bars_stay_unless_a_table_stands(shown):
    console = shown(True)
    with busy("Sorting"):
        pass
    assert "Sorting" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K")  # the line is erased
    with live("table"):
        for _ in track(range(2), "Counting", 2):
            pass
    assert CODES.sub("", console.file.getvalue()).rstrip().endswith("table")
    assert not console.shows_table


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_ctrl_c_gives_the_cursor_back():
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from headscope.signals import end_at_signals\nend_at_signals()\n"
        "from headscope.cli.streams import plain_streams\n"
        "from headscope.console import live, track\nimport os, time\n"
        "with plain_streams(), live('table'):\n"
        "    for n in track(range(99), 'Counting', 99):\n"
        "        time.sleep(0.1)\n"
        "        if n == 3: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    import pty

    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=subprocess.PIPE, stderr=slave,
        env=environment,
    )  # fmt: skip
    os.close(slave)
    text = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    out, _ = done.communicate(timeout=20)
    os.close(master)
    assert done.returncode == 130 and out == b""
    assert b"Counting" in text and b"table" in text and rb"\x1b" not in text
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")
    assert text.decode().rstrip().endswith("continues from what is finished.")
