"""Locks on folders, and JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headscope.errors import InputError
from headscope.files import locked, write_json

HOLD = """
import sys, time
from pathlib import Path
from headscope.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_takes_one_writer_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="Another headscope is at work in"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with locked(tmp_path / "new" / "folder"):
        pass
    with locked(tmp_path):
        pass


def test_whole_numbers_of_a_list_stand_in_one_line(tmp_path: Path) -> None:
    value = {"rows": [[1, -2], [30, 4]], "share": [0.5, 1], "none": [], "said": "[\n1,\n2]"}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "[\n    [1, -2],\n    [30, 4]\n  ]" in text
