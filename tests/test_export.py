import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headscope.auditing.inspect import inspect_data
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.slicing.export import export_pictures, slice_data
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices
from headscope.slicing.write import write_slices
from tests.support.commands import headscope
from tests.support.volumes import head, save


@pytest.fixture
def scans(tmp_path):
    for number in range(4):
        name = "AD" if number % 2 else "NC"
        save(tmp_path / "scans" / name / f"sub-{number}_T1w.nii.gz", head(seed=number))
    return tmp_path / "scans"


@pytest.mark.parametrize(
    ("picture_format", "suffix", "off"), [("png", "png", 0), ("jpeg", "jpg", 12)]
)
def test_pictures_show_the_slices(scans, tmp_path, picture_format, suffix, off):
    out = tmp_path / "out"
    slices = slice_data(
        scans, out, picture_format=picture_format, plane="all", count=2, size=40, workers=1
    )
    table = pd.read_csv(out / "pictures.tsv", sep="\t")
    assert len(table) == len(slices.pixels) == 4 * 3 * 2
    first = slices.table.iloc[0]
    assert table["path"][0] == f"NC/sub-0_1_{first.plane}_slice-{first.slice_index:03d}.{suffix}"
    for name, pixels in zip(table["path"], slices.pixels, strict=True):
        with Image.open(out / name) as picture:
            assert picture.mode == "L"
            assert np.abs(np.asarray(picture).astype(int) - pixels).mean() <= off
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"AD", "NC"}


def test_pictures_that_stand_are_left(scans, tmp_path):
    out = tmp_path / "out"
    slices = slice_data(scans, out, picture_format="png", count=2, size=40, workers=1)
    pictures = sorted(out.rglob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in pictures[1:]}
    pictures[0].unlink()
    export_pictures(slices, out, "png")
    assert pictures[0].exists()
    assert before == {path: path.stat().st_mtime_ns for path in pictures[1:]}


def test_pictures_of_other_slices_are_written_anew(scans, tmp_path):
    out = tmp_path / "out"
    slice_data(scans, out, picture_format="png", count=2, size=40, workers=1, centre="volume")
    first = sorted(out.rglob("*.png"))
    other = take_other(scans, tmp_path / "other")
    export_pictures(other, out, "png")
    assert sorted(out.rglob("*.png")) == first
    table = pd.read_csv(out / "pictures.tsv", sep="\t")
    for name, pixels in zip(table["path"], other.pixels, strict=True):
        with Image.open(out / name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)


def take_other(scans, out):
    """Slices of the same names from other scans."""
    for path in scans.rglob("*.nii.gz"):
        save(path, 255 - head(seed=7))
    return write_slices(
        find_cohort(scans), out, SliceSpec(count=2, size=40, centre="volume"), workers=1
    )


def test_pictures_come_back_as_the_same_slices(scans, tmp_path):
    """What headscope wrote, headscope reads: ids by name, one slice a picture."""
    out = tmp_path / "out"
    slices = slice_data(scans, out, picture_format="png", count=2, size=40, workers=1)
    ready = tmp_path / "ready"
    for name in slices.class_names:
        shutil.copytree(out / name, ready / name)
    cohort = find_cohort(ready)
    assert cohort.scans["subject_id"].nunique() == 4
    assert len(cohort.scans) == len(slices.pixels)


def test_unknown_formats_and_names_twice_are_refused(scans, tmp_path):
    with pytest.raises(InputError, match="Unknown format 'bmp': choose store, jpeg, png"):
        slice_data(scans, tmp_path / "out", picture_format="bmp")
    assert not (tmp_path / "out").exists()
    slices = slice_data(scans, tmp_path / "out", count=2, size=40, workers=1)
    with pytest.raises(InputError, match="Unknown format 'bmp'"):
        export_pictures(slices, tmp_path / "out", "bmp")
    slices.table["subject_id"] = slices.table["subject_id"].replace("sub-0", "sub/2")
    slices.table["subject_id"] = slices.table["subject_id"].replace("sub-2", "sub 2")
    with pytest.raises(InputError, match="Two slices would be written as NC/sub-2_1"):
        export_pictures(slices, tmp_path / "out", "png")


def test_batches_are_rows_of_the_pixels(scans, tmp_path):
    slices = slice_data(scans, tmp_path / "out", count=3, size=24, workers=1)
    rows = np.array([5, 0, 11, 5])
    np.testing.assert_array_equal(slices.batch(rows), slices.pixels[rows])
    with pytest.raises(IndexError, match="row 12 of 12 slices"):
        slices.batch(np.array([12]))
    labels = slices.labels
    (tmp_path / "out" / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"is damaged: labels\.npy is missing"):
        open_slices(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()  # a store of an earlier version has neither
    np.testing.assert_array_equal(open_slices(tmp_path / "out").labels, labels)


def test_slices_lie_as_far_apart_as_asked(scans, tmp_path):
    slices = slice_data(scans, tmp_path / "out", count=5, size=24, spacing_mm=7, workers=1)
    for _, group in slices.table.groupby("scan"):
        steps = np.diff(group["slice_index"]) * 2.0  # voxels of 2 mm
        assert np.abs(steps - 7).max() <= 1
        assert steps.mean() == pytest.approx(7, abs=0.5)
    for spacing, reason in ((1, "slices 1 mm apart: its voxels are 2 mm"), (40, "40 mm apart,")):
        with pytest.raises(InputError, match=reason):
            slice_data(scans, tmp_path / str(spacing), count=5, spacing_mm=spacing, workers=1)
    with pytest.raises(InputError, match="Spacing 0 mm of slices must be above 0"):
        slice_data(scans, tmp_path / "none", spacing_mm=0)


def test_one_plane_of_all_is_that_plane_alone(scans, tmp_path):
    cohort = find_cohort(scans)
    whole = write_slices(
        cohort, tmp_path / "all", SliceSpec(plane="all", count=3, size=32), workers=2
    )
    for plane in ("axial", "coronal", "sagittal"):
        alone = write_slices(
            cohort, tmp_path / plane, SliceSpec(plane=plane, count=3, size=32), workers=1
        )
        rows = np.flatnonzero(whole.table["plane"] == plane)
        np.testing.assert_array_equal(whole.pixels[rows], alone.pixels)
        pd.testing.assert_frame_equal(
            whole.table.iloc[rows].reset_index(drop=True), alone.table, check_dtype=False
        )


def test_inspection_counts_grids_and_names_problems(scans):
    save(scans / "AD" / "sub-9_T1w.nii.gz", head()[:, :40], spacing=3.0)
    (scans / "NC" / "sub-8_T1w.nii.gz").write_bytes(b"no scan")
    found = inspect_data(scans, plane="all", count=30, size=100)
    assert (found.subjects, found.sessions) == (6, 6)
    assert found.classes.to_numpy().tolist() == [["AD", 3, 3, 3], ["NC", 3, 3, 3]]
    assert found.grids.to_numpy().tolist() == [
        ["NIfTI, gzipped", "40×50×60", "2 × 2 × 2", 4],
        ["NIfTI, gzipped", "40×40×60", "3 × 3 × 3", 1],
    ]
    assert found.problems["path"].tolist() == ["NC/sub-8_T1w.nii.gz"]
    assert found.slices == 5 * 90
    assert found.store_bytes == 450 * 100**2
    assert json.loads(json.dumps(found.as_dict()))["problems"][0]["reason"]
    assert "450 slices: 4 MiB on disk" in found.cost


def test_inspection_says_why_scans_give_no_slices(scans):
    found = inspect_data(scans, plane="all", count=45)  # of 40 sagittal ones
    assert found.slices == 0
    assert found.notes[-1] == (
        "4 scans have fewer than 45 slices of each plane and would give none: lower --count."
    )
    assert inspect_data(scans, count=45).slices == 4 * 45


def test_inspection_says_that_a_volume_is_to_be_chosen(scans):
    save(scans / "AD" / "sub-7_T1w.nii.gz", np.stack([head()] * 2, axis=-1))
    assert inspect_data(scans).notes[-1] == "1 scan holds several volumes: --volume chooses one."


def test_what_was_written_beside_the_scans_is_no_scan(tmp_path):
    for number in range(4):
        path = tmp_path / ("AD", "NC")[number % 2] / f"sub-{number}_1.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(head()[20].astype(np.uint8)).save(path)
    known = {"picture_format": "png", "size": 24, "workers": 1}
    first = slice_data(tmp_path, tmp_path / "slices", **known)
    (tmp_path / "run" / "figures").mkdir(parents=True)
    (tmp_path / "run" / "experiment.toml").touch()
    shutil.copy(tmp_path / "AD" / "sub-0_1.png", tmp_path / "run" / "figures" / "a.png")
    again = find_cohort(str(tmp_path))
    assert again.class_names == ["AD", "NC"] and len(again.scans) == 4
    assert not any("Left out" in note.text for note in again.notes)
    stored = slice_data(str(tmp_path), str(tmp_path / "slices"), **known)
    assert stored.sha256 == first.sha256
    np.testing.assert_array_equal(stored.batch([2, 0]), stored.pixels[[2, 0]])
    assert len(find_cohort(tmp_path / "slices").scans) == 4  # asked for by name they count


def test_names_of_any_script_keep_their_letters(scans, tmp_path):
    slices = slice_data(scans, tmp_path / "out", count=2, size=40, workers=1)
    names = {"sub-0": "李雷", "sub-1": "王芳 (2)", "sub-2": "Zoë"}
    slices.table["subject_id"] = slices.table["subject_id"].replace(names)
    paths = set(export_pictures(slices, tmp_path / "out", "png")["path"].str.split("_").str[0])
    assert {path.split("/")[1] for path in paths} >= {"李雷", "王芳-2-", "Zoë"}


def test_inspection_tells_canonical_grids(tmp_path):
    volume = head()
    turned = nib.Nifti1Image(volume.transpose(2, 0, 1), np.eye(4)[[1, 2, 0, 3]] * [4, 2, 3, 1])
    for name in ("AD", "NC"):
        (tmp_path / name).mkdir()
        nib.save(turned, tmp_path / name / "sub-1.nii")
    found = inspect_data(tmp_path)
    assert found.grids.to_numpy().tolist() == [["NIfTI", "40×50×60", "2 × 3 × 4", 2]]


def test_folders_without_classes_are_inspected_and_sliced_but_not_run(tmp_path):
    save(tmp_path / "scans" / "sub-1_T1w.nii", head())
    found = inspect_data(tmp_path / "scans")
    assert found.layout == "scans"
    assert any("No classes are known" in note for note in found.notes)
    slices = slice_data(tmp_path / "scans", tmp_path / "out", count=2, size=24, workers=1)
    assert set(slices.table["label"]) == {"unlabelled"}
    with pytest.raises(InputError, match="neither class folders nor a table"):
        find_cohort(tmp_path / "scans")


def test_the_commands_inspect_and_slice(scans, tmp_path):
    shown = headscope("inspect", scans, "--json", "--count", 5)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["slices"] == 20
    done = headscope(
        *["slice", scans, tmp_path / "out", "--format", "jpeg", "--plane", "coronal"],
        *["--count", 2, "--size", 32, "--workers", 1],
    )
    assert done.returncode == 0, done.stderr
    assert "Slices: 8 in" in done.stdout
    assert len(list((tmp_path / "out").rglob("*_coronal_slice-*.jpg"))) == 8


@pytest.mark.real_data
def test_every_folder_of_real_data_is_inspected(real_data):
    folders = ["nichart_t1", "formats/analyze", "formats/nifti"]
    assert [len(inspect_data(real_data / name).problems) for name in folders] == [0, 0, 0]
    found = inspect_data(real_data / "oasis2", plane="all")
    assert (found.slices, found.subjects) == (1003, 136)
