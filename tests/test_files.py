"""Locks on folders, files written whole or not at all, tables and JSON."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from headscope.errors import InputError
from headscope.files import (
    atomic_path,
    clear_leftovers,
    locked,
    read_table,
    utf8_path,
    write_json,
    write_table,
    write_text,
)
from headscope.tables import Table

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


def test_leftovers_of_killed_processes_go_and_files_being_written_stay(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    left = [tmp_path / ".tmp-headscope-a.npz", tmp_path / "deep" / ".tmp-headscope-b.npz"]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / ".tmp-other").write_bytes(b"of another program")
    with atomic_path(tmp_path / "x.txt") as temporary:  # the first writing clears its folder
        assert not left[0].exists() and left[1].exists()
        clear_leftovers(tmp_path)
        assert temporary.exists() and not left[1].exists()
        temporary.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"x.txt", "deep", ".tmp-other"}


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + "x" * 9 + ".json")  # 254 bytes
    write_json(path, [])
    assert path.read_text(encoding="utf-8") == "[]\n"


def write_npz(path: Path) -> None:
    np.savez(path, a=np.arange(100_000))


def write_weights(path: Path) -> None:
    save_file({"a": np.arange(100_000)}, path)


def write_resume_file(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(100_000)}, file)


def write_picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300))
    Image.fromarray(noise.astype(np.uint8)).save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.txt", lambda path: path.write_text("x" * 100_000)),
        ("x.npz", write_npz),
        ("x.safetensors", write_weights),
        ("x.pt", write_resume_file),
        ("x.png", write_picture),
    ],
)
def test_a_full_disk_is_named_and_leaves_what_was_there(
    tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    """The limit of a file's size stands for a full disk: writers see the same failure."""
    path = tmp_path / name
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught, atomic_path(path) as temporary:
            write(temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == b"before"


CELLS = ["=1+1", "+cmd", "-x", "@a", "\ttab", "\rcr", "'=x", "''=x", "'x", "-5", "+1.5e3", "-", "x"]


def test_no_cell_is_a_formula_and_every_cell_reads_back_the_same(tmp_path: Path) -> None:
    table = pd.DataFrame({"subject_id": CELLS, "=why": CELLS, "x": [-1.5] * len(CELLS)})
    write_table(tmp_path / "t.tsv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.tsv"), table)
    text = (tmp_path / "t.tsv").read_bytes().decode().replace('"', "")
    cells = [cell for line in text.split("\n") for cell in line.split("\t")]
    assert {cell for cell in cells if cell[:1] in set("=+-@")} == {"-1.5", "-5", "+1.5e3"}
    shown = Table("", ["@name"], [["=1+1"], ["-5"]]).to_tsv()
    assert shown == "'@name\n'=1+1\n-5\n"


def test_bytes_that_are_no_text_are_escaped_in_text(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", os.fsdecode(b"b\xe9"))
    assert (tmp_path / "x.txt").read_bytes() == rb"b\udce9"
    write_weights(tmp_path / os.fsdecode(b"\xe9"))
    with utf8_path(tmp_path / os.fsdecode(b"\xe9")) as name:
        assert len(load_file(name)["a"]) == 100_000
    with utf8_path(tmp_path / "x.txt") as name:
        assert name == str(tmp_path / "x.txt")
