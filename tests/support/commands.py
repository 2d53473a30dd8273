"""The command line in this process, where starting one of its own would only cost time."""

import sys
from typing import NamedTuple

from headscope.cli import main


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def headscope_here(monkeypatch, capsys, *arguments) -> Done:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["headscope", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Done(code, *capsys.readouterr())
