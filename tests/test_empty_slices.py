"""Slices that show nothing are named and counted, and a CT gets its window."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from headscope.errors import InputError
from headscope.experiment.config import make_config, parse_change, read_config
from headscope.scans.volume import Scan
from headscope.slicing.background import CT
from headscope.slicing.export import slice_data
from headscope.slicing.extract import count_empty, take_slices
from headscope.slicing.notes import Remarks, summarise_remarks
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices
from tests.support.commands import headscope_here
from tests.support.volumes import head, save

RAW = head(noise=0).astype(np.int16)
HEAD = RAW > 0


def brain_in_a_skull(seed=0):
    """Hounsfield units: air, a skull of 1000, white matter of 25 and a lesion of 60."""
    volume = np.where(HEAD, 25, -1000)
    inner = np.zeros_like(HEAD)
    for axis in range(3):
        inner |= HEAD & ~(np.roll(HEAD, 2, axis) & np.roll(HEAD, -2, axis))
    volume[inner] = 1000
    volume[18:23, 22:28, :][HEAD[18:23, 22:28, :] & ~inner[18:23, 22:28, :]] = 60
    return (volume + np.random.default_rng(seed).normal(0, 3, volume.shape)).astype(np.int16)


def cohort(folder, volumes, affine=None):
    for k, (label, volume) in enumerate(volumes.items()):
        for number in range(2):
            save(folder / label / f"sub-{k}{number}.nii.gz", volume)
    return folder


def contrast(pixels):
    """Greys between lesion and white matter in the middle of a slice."""
    return int(pixels[:, 20, 20].mean()) - int(pixels[:, 20, 14].mean())


def animal(seed=0):
    """A small body at the top of a tall grid: 70 mm below its top there is nothing."""
    volume = np.zeros((40, 40, 90), np.int16)
    volume[10:30, 10:30, 70:85] = np.random.default_rng(seed).integers(100, 200, (20, 20, 15))
    return volume


def test_a_store_of_black_slices_says_so(tmp_path):
    data = cohort(tmp_path / "data", {"animal": animal(), "scan": RAW})
    slices = slice_data(data, tmp_path / "out", count=3, size=32, workers=1)
    (note,) = [note for note in slices.notes if "show nothing" in note]
    assert note.startswith(
        "6 of 12 slices show nothing but one grey, in 2 of 4 scans (animal/sub-00.nii.gz: 3 of 3, "
        "animal/sub-01.nii.gz: 3 of 3): a mask or label map, a CT without --window"
    )
    listed = pd.read_csv(tmp_path / "out" / "notes.tsv", sep="\t")
    assert listed.to_numpy().tolist() == [
        [f"animal/sub-0{number}.nii.gz", "3 of 3 slices show nothing"] for number in range(2)
    ]


def test_a_store_whose_slices_show_something_has_no_such_note(tmp_path):
    data = cohort(tmp_path / "data", {"a": RAW, "b": head(seed=1)})
    slices = slice_data(data, tmp_path / "out", count=3, size=32, workers=1)
    assert not any("show nothing" in note for note in slices.notes)
    assert not (tmp_path / "out" / "notes.tsv").exists()


def test_a_mask_shows_nothing():
    pixels, _ = take_slices(Scan(HEAD.astype(np.uint8), (3.5,) * 3), SliceSpec(count=4, size=32))
    assert count_empty(pixels) == 4


def test_empty_is_black_one_grey_or_a_speck():
    pixels = np.zeros((6, 40, 40), np.uint8)
    pixels[1] = 255
    pixels[2] = np.arange(40) % 8  # a ramp that nobody sees
    pixels[3, :2, :3] = 255  # 6 of 1600 pixels
    pixels[4, :4, :4] = 255
    pixels[5] = np.arange(40) * 6
    assert [count_empty(part[None]) for part in pixels] == [1, 1, 1, 1, 0, 0]
    assert count_empty(np.zeros((0, 4, 4), np.uint8)) == 0


def test_remarks_name_three_scans_at_most():
    remarks = [Remarks(f"s{number}", ["Odd"], number % 2, 2) for number in range(8)]
    assert summarise_remarks(remarks)[0] == "Odd: 8 of 8 scans (s0, s1, s2, …)."
    assert "4 of 16 slices show nothing" in summarise_remarks(remarks)[1]
    assert (
        "in 4 of 8 scans (s1: 1 of 2, s3: 1 of 2, s5: 1 of 2, …)" in summarise_remarks(remarks)[1]
    )


@pytest.mark.parametrize("stored", ["as it is", "shifted", "scaled"])
def test_a_window_shows_a_brain_in_a_ct(tmp_path, stored):
    volume = brain_in_a_skull()
    slope, intercept = {"as it is": (1, 0), "shifted": (1, -1024), "scaled": (0.5, -1024)}[stored]
    scan = Scan(((volume - intercept) / slope).astype(np.int16), (3.5,) * 3, slope, intercept)
    notes, none = [], []
    without, _ = take_slices(scan, SliceSpec(count=3, size=40), notes)
    with_window, _ = take_slices(scan, SliceSpec(count=3, size=40, window=(0, 80)), none)
    assert notes == [CT] and none == []
    assert contrast(without) < 20 and contrast(with_window) > 80
    assert (with_window[:, 0] == 0).all()


def test_the_window_travels_from_the_command_line_to_the_store(tmp_path, monkeypatch, capsys):
    data = cohort(tmp_path / "data", {"a": brain_in_a_skull(), "b": brain_in_a_skull(1)})
    out = tmp_path / "out"
    options = ("--count", 2, "--size", 40, "--workers", 1)
    done = headscope_here(monkeypatch, capsys, "slice", data, out, *options, "--window", "-20,80")
    assert done.returncode == 0
    settings = json.loads((out / "slices.json").read_text())
    assert settings["window"] == [-20, 80] and settings["percentiles"] == [1, 98]
    assert SliceSpec.from_settings(settings).window == (-20, 80)
    again = headscope_here(monkeypatch, capsys, "slice", data, out, *options, "--window=-20,80")
    assert again.returncode == 0
    other = headscope_here(monkeypatch, capsys, "slice", data, out, *options)
    assert other.returncode == 2 and "window [-20.0, 80.0] (now None)" in other.stderr


@pytest.mark.parametrize("window", ["80,0", "0", "low,high", "0,1,2", "0,nan", "5,5", "0,inf"])
def test_what_is_no_window_is_refused(tmp_path, monkeypatch, capsys, window):
    save(tmp_path / "data" / "a.nii.gz", RAW)
    done = headscope_here(
        monkeypatch, capsys, "slice", tmp_path / "data", tmp_path / "out", "--window", window
    )
    assert done.returncode == 2
    assert "two intensities, the lower first, such as 0,80" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_window_of_a_run_is_that_of_its_toml(tmp_path):
    config = make_config(data="scans", window=[0, 80])
    assert config.slice_spec.window == (0, 80)
    config.save(tmp_path / "experiment.toml")
    assert read_config(tmp_path / "experiment.toml", {}).slice_spec == config.slice_spec
    changes = dict([parse_change("window=-100,300")])
    assert read_config(tmp_path / "experiment.toml", changes).slice_spec.window == (-100, 300)
    with pytest.raises(InputError, match="the lower first"):
        _ = make_config(data="scans", window=[80, 0]).slice_spec
    with pytest.raises(InputError, match="window"):
        make_config(data="scans", window=[80])


def test_a_store_of_names_of_any_bytes_opens_again(tmp_path):
    import os

    names = ["two\nlines", "tab\there", os.fsdecode(b"\xe9t\xe9"), "red\x1b[31m", "x" * 240]
    for label in ("A", os.fsdecode(b"B\xe9")):
        folder = tmp_path / "data" / label
        folder.mkdir(parents=True)
        for name in names:
            scan = nib.Nifti1Image(RAW[::2, ::2, ::2], np.diag([4, 4, 4, 1]))
            (folder / f"{label[0]}-{name}.nii").write_bytes(scan.to_bytes())
    (tmp_path / "data" / "A" / "bad\nname.nii").write_bytes(b"no scan")
    out = tmp_path / "out"
    slices = slice_data(tmp_path / "data", out, count=1, size=16, workers=1, picture_format="png")
    assert slices.class_names == ["A", r"B\xe9"]
    opened = open_slices(out)
    assert len(opened.table) == len(opened.pixels) == 10
    scans = set(opened.table["scan"])
    assert {r"A/A-two\nlines.nii", r"A/A-tab\there.nii", r"B\xe9/B-\xe9t\xe9.nii"} <= scans
    pictures = pd.read_csv(out / "pictures.tsv", sep="\t", dtype=str)
    assert all((out / path).is_file() for path in pictures["path"])
    assert pictures["path"].is_unique and len(pictures) == 10
    problems = pd.read_csv(out / "problems.tsv", sep="\t")
    assert problems["path"].tolist() == [r"A/bad\nname.nii"]
    slice_data(tmp_path / "data", out, count=1, size=16, workers=1, picture_format="png")
