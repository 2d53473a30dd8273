"""The command line, in a process of its own or, faster, in this one."""

import os
import subprocess
import sys
from typing import NamedTuple

from headscope.cli import main


def headscope(*arguments, folder=None, environment=None):
    """Run a command as a user does: in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "headscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | (environment or {}),
    )


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def headscope_here(monkeypatch, capsys, *arguments, folder=None) -> Done:
    """Run a command in this process, where starting another would only cost time."""
    capsys.readouterr()
    if folder is not None:
        monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["headscope", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Done(code, *capsys.readouterr())
