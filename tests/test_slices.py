import json
import os
import shutil
import signal
import time
from dataclasses import replace
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.io import savemat

from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.files import locked
from headscope.manifest import folder_problems
from headscope.scans import volume as scans_module
from headscope.scans.volume import Scan, ScanError, read_scan
from headscope.slicing import extract
from headscope.slicing import parallel as taking
from headscope.slicing import write as slices_module
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices
from headscope.slicing.write import write_slices
from tests.support.volumes import head, save

PLANES = ("axial", "coronal", "sagittal")
FILES = ("labels.npy", "manifest.json", "problems.tsv", "slices.json", "slices.npy", "slices.tsv")


def scan(volume, spacing=(2.0, 2.0, 2.0)):
    return Scan(volume, spacing)


@pytest.fixture
def cohort_folder(tmp_path):
    for number in range(10):
        name = "AD" if number % 2 else "NC"
        save(tmp_path / "data" / name / f"sub-{number}_T1w.nii.gz", head(seed=number))
    return tmp_path / "data"


def take(folder, out, workers=None, strict=False, **options):
    spec = SliceSpec(**({"count": 4, "size": 32} | options))
    return write_slices(find_cohort(folder), out, spec, workers=workers, strict=strict)


def take_slices(scan, plane="axial", *rest, **options):
    """Take slices of one plane; return pixels and indices."""
    pixels, indices = extract.take_slices(scan, SliceSpec(plane, *rest, **options))
    return pixels, indices[plane]


def parts_folder(out):
    (folder,) = out.glob("slices.part-*")
    return folder


def test_all_48_orientations_give_identical_slices(tmp_path):
    volume = head()[:, :45]
    expected = {plane: take_slices(scan(volume), plane, 5, 48) for plane in PLANES}
    for letters in product("LR", "PA", "IS"):
        for code in permutations(letters):
            turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code))
            affine = np.diag([2, 2, 2, 1]) @ inv_ornt_aff(turn, volume.shape)
            nib.save(nib.Nifti1Image(apply_orientation(volume, turn), affine), tmp_path / "a.nii")
            for plane in PLANES:
                pixels, indices = take_slices(read_scan(tmp_path / "a.nii"), plane, 5, 48)
                np.testing.assert_array_equal(pixels, expected[plane][0])
                np.testing.assert_array_equal(indices, expected[plane][1])


def test_slices_lie_upright():
    """The bright spot is anterior and left; the neck is inferior."""
    volume = head()
    axial = take_slices(scan(volume), "axial", 1, 50, "vertex:40mm")[0][0]
    coronal = take_slices(scan(volume), "coronal", 1, 60, "volume")[0][0]
    sagittal = take_slices(scan(volume), "sagittal", 1, 60, "foreground")[0][0]
    row, column = np.unravel_index(axial.argmax(), axial.shape)
    assert row < 25  # anterior is up
    assert column < 25  # the subject's left is left
    bright = volume == volume.max()
    assert bright.any()
    for picture in (coronal, sagittal):
        widths = (picture > 60).sum(axis=1)
        rows = np.flatnonzero(widths)
        assert rows[0] > 60 - rows[-1] - 1  # air above, the neck runs out of the picture below
    # posterior is left in a sagittal picture: the neck (j from 12 to 30) lies left of the middle
    columns = np.flatnonzero(sagittal[-3] > 60)
    assert columns.mean() < 29


def test_proportions_are_true_and_padded_square():
    box = np.zeros((20, 40, 30), np.uint8)
    box[5:15, 10:30, 5:25] = 200
    box[5:15, 10:30, 15] = 100
    # 20·2 = 40 mm across, 40·1 = 40 mm along, 30·4 = 120 mm up
    coronal = take_slices(scan(box, (2.0, 1.0, 4.0)), "coronal", 1, 120, "volume")[0][0]
    rows, columns = (np.flatnonzero(coronal.any(axis=axis)) for axis in (1, 0))
    assert abs((rows[-1] - rows[0] + 1) - 80) <= 4  # 20 slices of 4 mm, a millimetre a pixel
    assert abs((columns[-1] - columns[0] + 1) - 20) <= 4
    assert abs(columns.mean() - 59.5) <= 1  # padded on both sides alike


def test_resizing_is_antialiased():
    fine = np.indices((256, 256)).sum(axis=0) % 2 * 200
    volume = np.repeat(fine[..., None], 3, axis=2).astype(np.uint8)
    picture = take_slices(scan(volume, (1.0, 1.0, 1.0)), "axial", 1, 64, "volume")[0][0]
    inner = picture[4:-4, 4:-4].astype(float)
    assert inner.std() < 3  # a checkerboard finer than a pixel is grey, not noise


@pytest.mark.parametrize("plane", PLANES)
def test_the_vertex_finds_the_same_anatomy_at_any_neck(plane):
    """Seven voxels more neck move the head within the grid, not the slices within the head."""
    volume = head(top=4, noise=0)
    longer = np.pad(volume, ((0, 0), (0, 0), (7, 0)), mode="edge")
    _, first = take_slices(scan(volume), plane, 6, 40, "vertex:40mm")
    _, second = take_slices(scan(longer), plane, 6, 40, "vertex:40mm")
    assert (second - first).tolist() == [7 if plane == "axial" else 0] * 6


def test_centres():
    volume = np.zeros((20, 20, 100), np.uint8)
    volume[5:15, 5:15, 10:50] = np.arange(100, 140)
    start = {
        centre: int(take_slices(scan(volume), "axial", 10, 16, centre)[1][0])
        for centre in ("volume", "foreground", "vertex:30mm", "vertex:0mm", "vertex:500")
    }
    assert start == {
        "volume": 45,
        "foreground": 25,
        "vertex:30mm": 50 - 15 - 5,  # 15 slices of 2 mm below the top, half of ten before it
        "vertex:0mm": 45,
        "vertex:500": 0,  # never beyond the grid
    }


def test_the_window_ignores_the_background_and_the_scale():
    volume = head(neck=False).astype(np.int16)
    small, _ = take_slices(scan(volume), "axial", 3, 40)
    padded = np.pad(volume, ((0, 0), (40, 40), (0, 0)))
    _, indices = take_slices(scan(padded), "axial", 3, 40)
    scaled, _ = take_slices(scan((volume * 37 + 11).astype(np.int32)), "axial", 3, 40)
    as_float, _ = take_slices(scan(volume.astype(np.float32) / 7), "axial", 3, 40)
    assert small.max() > 250
    assert small.min() == 0
    np.testing.assert_array_equal(small, scaled)
    np.testing.assert_allclose(small.astype(int), as_float.astype(int), atol=1)
    assert len(indices) == 3
    # OASIS-2's background is about 27, not 0: it must come out black
    lifted = np.where(volume < 10, 27, volume + 40)
    pixels, _ = take_slices(scan(lifted), "axial", 3, 40)
    assert np.median(pixels[:, :3]) == 0


def test_ready_slices_and_too_few_slices(tmp_path):
    picture = head()[20]
    one = scan(picture[None])
    pixels, indices = take_slices(one, "sagittal", 30, 64)
    assert pixels.shape == (1, 64, 64)
    assert indices.tolist() == [0]
    with pytest.raises(ScanError, match="shows no axial slices: its grid is 1×50×60, one sagittal"):
        take_slices(one, "axial", 30, 64)
    with pytest.raises(ScanError, match="has 40 sagittal slices, and 41 are asked for"):
        take_slices(scan(head()), "sagittal", 41, 64)
    for options in ({"plane": "x"}, {"count": 0}, {"size": 0}, {"centre": "top"}):
        with pytest.raises(InputError, match=r"Unknown|must be 1 or more"):
            take_slices(scan(head()), **options)
    for centre in ("vertex:", "vertex:-3mm", "vertex:nan", "vertex:7cm"):
        with pytest.raises(InputError, match="choose volume, foreground, or a depth"):
            take_slices(scan(head()), centre=centre)


def test_a_spec_checks_itself_and_comes_back_from_settings():
    assert SliceSpec() == SliceSpec(centre="vertex:70mm")  # auto is resolved at once
    spec = SliceSpec("all", 7, 96, "foreground", 2.5, 1, "RPI")
    settings = spec.as_settings()
    assert settings["analyze_orientation"] == "RPI"
    assert SliceSpec.from_settings(settings | {"version": 2, "slices": 9}) == spec
    assert SliceSpec.from_settings({"count": 7}) == SliceSpec(count=7)
    assert spec.planes == ("axial", "coronal", "sagittal")
    for orientation in ("LLS", "XYZ", "LA", "las"):
        with pytest.raises(InputError, match="Unknown orientation"):
            SliceSpec(orientation=orientation)


def test_a_cohort_is_written_and_opened(cohort_folder, tmp_path):
    stored = take(cohort_folder, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".lock", *sorted(FILES)]
    assert stored.pixels.shape == (40, 32, 32) and stored.pixels.dtype == np.uint8
    assert isinstance(stored.pixels, np.memmap)
    assert stored.table.columns.tolist() == list(slices_module.COLUMNS)
    assert stored.class_names == ["AD", "NC"]
    assert stored.labels.dtype == np.int64
    names = np.array(stored.class_names)[stored.labels]
    np.testing.assert_array_equal(names, stored.table["label"])
    for row, pixels in zip(stored.table.itertuples(), stored.pixels, strict=True):
        expected, indices = take_slices(read_scan(cohort_folder / row.scan), "axial", 4, 32)
        np.testing.assert_array_equal(pixels, expected[indices == row.slice_index][0])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "slices.npy"), stored.pixels)
    assert open_slices(tmp_path / "out").sha256 == stored.sha256
    assert stored.settings["left_out"] == stored.settings["classes_by"] == []
    options = {"classes": {"ill": ["AD"], "well": ["NC"]}, "contrast": "T1w"}
    cohort = find_cohort(cohort_folder, **options)
    again = write_slices(cohort, tmp_path / "again", SliceSpec(count=4, size=32)).settings
    assert again["classes_by"] == ["Classes by class folder: ill = AD; well = NC."]
    assert set(again["classes_by"]) < set(again["notes"])


def test_a_second_call_reads_no_scan(cohort_folder, tmp_path, monkeypatch):
    first = take(cohort_folder, tmp_path / "out", workers=1)
    monkeypatch.setattr(taking, "read_scan", None)
    assert take(cohort_folder, tmp_path / "out", workers=1).sha256 == first.sha256


def test_other_settings_or_scans_are_refused(cohort_folder, tmp_path):
    take(cohort_folder, tmp_path / "out")
    with pytest.raises(InputError, match=r"holds slices of size 32 \(now 64\), plane|size 32"):
        take(cohort_folder, tmp_path / "out", size=64)
    save(cohort_folder / "AD" / "sub-1_T1w.nii.gz", head(seed=99))
    with pytest.raises(InputError, match="the scans, ids or labels have changed"):
        take(cohort_folder, tmp_path / "out")
    save(cohort_folder / "AD" / "sub-99_T1w.nii.gz", head(seed=99))
    with pytest.raises(InputError, match=r"scans 10 \(now 11\)"):
        take(cohort_folder, tmp_path / "out")


def test_scans_that_were_copied_are_known_by_their_slices(cohort_folder, tmp_path, monkeypatch):
    first = take(cohort_folder, tmp_path / "out", workers=1)
    for path in cohort_folder.rglob("*.nii.gz"):
        os.utime(path, (1e9, 1e9))
    again = take(cohort_folder, tmp_path / "out", workers=1)
    assert (again.sha256, again.notes) == (first.sha256, first.notes)
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert folder_problems(tmp_path / "out") == {} and not (tmp_path / "out.again").exists()
    monkeypatch.setattr(taking, "read_scan", None)
    take(cohort_folder, tmp_path / "out", workers=1)  # the dates are noted: no scan is read again
    shutil.move(cohort_folder / "AD" / "sub-1_T1w.nii.gz", cohort_folder / "NC")
    with pytest.raises(InputError, match="the scans, ids or labels have changed"):
        take(cohort_folder, tmp_path / "out", workers=1)  # nor for labels that differ


def test_the_files_are_the_same_for_any_number_of_workers(cohort_folder, tmp_path):
    for workers in (1, 2):
        take(cohort_folder, tmp_path / str(workers), workers=workers)
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def slowly(monkeypatch, before=lambda: None):
    """Make this process slow, so that its helper comes to work; return what it took itself."""
    own, take_file = [], taking.take_file

    def slow(path, *rest):
        before()
        own.append(path)
        time.sleep(0.3)
        return take_file(path, *rest)

    monkeypatch.setattr(taking, "take_file", slow)
    return own


def test_a_helper_takes_its_part_and_changes_nothing(cohort_folder, tmp_path, monkeypatch):
    (cohort_folder / "NC" / "sub-8_T1w.nii.gz").write_bytes(b"no scan")
    whole = take(cohort_folder, tmp_path / "whole", workers=1)
    own = slowly(monkeypatch)
    shared = take(cohort_folder, tmp_path / "shared", workers=2)
    assert 0 < len(own) < 10
    assert shared.sha256 == whole.sha256
    assert {path.name for path in (tmp_path / "shared").iterdir()} == {*FILES, ".lock"}


def test_what_a_helper_refuses_is_refused_as_ever(cohort_folder, tmp_path, monkeypatch):
    for path in cohort_folder.rglob("*.nii.gz"):
        nib.save(nib.AnalyzeImage(np.asarray(nib.load(path).dataobj), None), f"{path}.hdr")
        path.unlink()
    own = slowly(monkeypatch)
    slow = taking.take_file
    monkeypatch.setattr(  # this process alone does not mind
        taking,
        "take_file",
        lambda path, plane, spec: slow(path, plane, replace(spec, orientation="LAS")),
    )
    spec = SliceSpec(count=4, size=32)
    object.__setattr__(spec, "orientation", "XYZ")  # which its own check would refuse
    with pytest.raises(InputError, match="'XYZ'"):
        write_slices(find_cohort(cohort_folder), tmp_path / "out", spec, workers=2)
    assert 0 < len(own) < 10
    assert all(path.name.isdigit() for path in parts_folder(tmp_path / "out").iterdir())


def test_a_scan_too_large_to_slice_is_a_problem_of_its_own(cohort_folder, tmp_path, monkeypatch):
    draw = taking.take_slices

    def fails(scan, *rest):
        if "sub-3" in scan.path.name:
            raise MemoryError
        return draw(scan, *rest)

    monkeypatch.setattr(taking, "take_slices", fails)
    stored = take(cohort_folder, tmp_path / "out", workers=1)
    reasons = pd.read_csv(tmp_path / "out" / "problems.tsv", sep="\t")["reason"].tolist()
    assert reasons == ["cannot be sliced: it does not fit into memory"]
    assert "may succeed at another try" in stored.notes[-1]


def test_the_faintest_intensities_are_seen():
    volume = np.random.default_rng(0).random((9, 10, 11), dtype=np.float32)
    faint = Scan(volume * np.float32(2**-130), (3.0, 3.0, 3.0))  # subnormal
    pixels, _ = take_slices(faint, count=4, size=16)
    plain, _ = take_slices(Scan(volume, (3.0, 3.0, 3.0)), count=4, size=16)
    assert np.abs(pixels.astype(int) - plain).max() <= 1


def test_a_killed_helper_is_named_and_the_next_call_goes_on(cohort_folder, tmp_path, monkeypatch):
    whole = take(cohort_folder, tmp_path / "whole", workers=1)
    started = []

    class Watched(taking.ProcessPoolExecutor):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    def kill():
        for pid in list(started[0]._processes):
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(taking, "ProcessPoolExecutor", Watched)
    with monkeypatch.context() as patch:
        slowly(patch, kill)
        with pytest.raises(InputError, match=r"A process that took slices was killed.*--workers 1"):
            take(cohort_folder, tmp_path / "out", workers=2)
    taken = len(list(parts_folder(tmp_path / "out").iterdir()))
    assert taken > 0
    taking_again = []
    read = taking.read_scan
    monkeypatch.setattr(
        taking, "read_scan", lambda path, **rest: taking_again.append(path) or read(path, **rest)
    )
    assert take(cohort_folder, tmp_path / "out", workers=1).sha256 == whole.sha256
    assert len(taking_again) == 10 - taken


@pytest.mark.parametrize("cut", ["absent", "pixels", "line", "temporary", "nothing"])
def test_a_killed_call_goes_on_where_it_stopped(cohort_folder, tmp_path, monkeypatch, cut):
    whole = take(cohort_folder, tmp_path / "whole", workers=1)
    read, seen = taking.read_scan, []

    def dies_at_the_seventh(path, **options):
        seen.append(path)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return read(path, **options)

    monkeypatch.setattr(taking, "read_scan", dies_at_the_seventh)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        take(cohort_folder, out, workers=1)
    assert not (out / "slices.json").exists()
    part = parts_folder(out) / "5"
    if cut == "absent":  # killed before the file had its name
        part.unlink()
    elif cut == "temporary":  # killed while the next was written
        part.with_name("6.1234").write_bytes(part.read_bytes()[:-10])
    elif cut == "line":  # the disk lost all but the name
        part.write_bytes(b"")
    elif cut == "pixels":  # the disk lost the last pixels
        part.write_bytes(part.read_bytes()[:-10])
    seen.clear()
    monkeypatch.setattr(
        taking,
        "read_scan",
        lambda path, **options: seen.append(path) or read(path, **options),
    )
    resumed = take(cohort_folder, out, workers=1)
    assert len(seen) == (4 if cut in ("nothing", "temporary") else 5)
    assert resumed.sha256 == whole.sha256
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_settings_start_afresh_after_a_kill(cohort_folder, tmp_path, monkeypatch):
    read = taking.read_scan

    def dies(file, **options):
        if "sub-5" in file.path.name:
            raise KeyboardInterrupt
        return read(file, **options)

    monkeypatch.setattr(taking, "read_scan", dies)
    with pytest.raises(KeyboardInterrupt):
        take(cohort_folder, tmp_path / "out", workers=1)
    monkeypatch.setattr(taking, "read_scan", read)
    assert take(cohort_folder, tmp_path / "out", size=24).pixels.shape == (40, 24, 24)


def test_bad_scans_are_listed_and_the_rest_goes_on(cohort_folder, tmp_path):
    (cohort_folder / "AD" / "sub-3_T1w.nii.gz").write_bytes(b"")
    save(cohort_folder / "NC" / "sub-4_T1w.nii.gz", head()[..., :3])
    for workers in (1, 2):
        stored = take(cohort_folder, tmp_path / str(workers), workers=workers)
        assert len(stored.pixels) == 32
    problems = pd.read_csv(tmp_path / "1" / "problems.tsv", sep="\t")
    assert problems.to_numpy().tolist() == [
        ["AD/sub-3_T1w.nii.gz", "is empty"],
        ["NC/sub-4_T1w.nii.gz", "has 3 axial slices, and 4 are asked for"],
    ]
    assert stored.notes[-1].startswith("2 of 10 scans could not be used")
    with pytest.raises(ScanError, match=r"sub-3_T1w.nii.gz is empty"):
        take(cohort_folder, tmp_path / "strict", strict=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_more_than_a_fifth_of_bad_scans_stops(cohort_folder, tmp_path, workers):
    for number in (1, 3, 5):
        (cohort_folder / "AD" / f"sub-{number}_T1w.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"more than 20% .* The first: .*sub-1_T1w.nii.gz is"):
        take(cohort_folder, tmp_path / "out", workers=workers)
    assert not (tmp_path / "out" / "slices.json").exists()
    assert len(pd.read_csv(tmp_path / "out" / "problems.tsv", sep="\t")) == 3


def test_a_class_that_failed_altogether_stops(tmp_path):
    for number in range(9):
        save(tmp_path / "data" / "NC" / f"sub-{number}.nii", head())
    (tmp_path / "data" / "AD").mkdir()
    (tmp_path / "data" / "AD" / "sub-9.nii").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"No scan of the class 'AD' could .*AD/sub-9\.nii is "):
        take(tmp_path / "data", tmp_path / "out")
    assert (tmp_path / "out" / "problems.tsv").is_file()


@pytest.mark.parametrize("error", [PermissionError(13, "x"), MemoryError(), OSError(5, "I/O")])
def test_what_the_machine_failed_at_is_tried_again(cohort_folder, tmp_path, monkeypatch, error):
    whole = take(cohort_folder, tmp_path / "whole", workers=1)
    read = scans_module.read_header

    def fails(path):
        if "sub-3" in path.name:
            raise error
        if "sub-8" in path.name:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(scans_module, "read_header", fails)
    with pytest.raises(KeyboardInterrupt):
        take(cohort_folder, tmp_path / "out", workers=1)
    monkeypatch.setattr(scans_module, "read_header", read)
    assert take(cohort_folder, tmp_path / "out", workers=1).sha256 == whole.sha256
    assert len(whole.pixels) == 40


def test_a_second_writer_is_refused(cohort_folder, tmp_path):
    with (
        locked(tmp_path / "out"),
        pytest.raises(InputError, match="Another headscope is at work in"),
    ):
        take(cohort_folder, tmp_path / "out")


def test_labels_that_were_changed_are_refused(cohort_folder, tmp_path):
    stored = take(cohort_folder, tmp_path / "out")
    np.save(tmp_path / "out" / "labels.npy", 1 - stored.labels)
    with pytest.raises(InputError, match=r"labels.npy has changed"):
        open_slices(tmp_path / "out")


def test_the_matrix_beside_an_analyze_header_belongs_to_the_scan(tmp_path):
    for name in ("AD/a", "NC/b"):
        path = tmp_path / "data" / f"{name}.img"
        path.parent.mkdir(parents=True)
        nib.save(nib.Spm99AnalyzeImage(head().astype(np.int16), np.diag([2, 2, 2, 1])), path)
    take(tmp_path / "data", tmp_path / "out", workers=1)
    savemat(tmp_path / "data" / "AD" / "a.mat", {"M": np.diag([2, 2, -2, 1]), "much": np.eye(9)})
    with pytest.raises(InputError, match="the scans, ids or labels have changed"):
        take(tmp_path / "data", tmp_path / "out", workers=1)


def test_what_is_no_slice_set_is_refused(cohort_folder, tmp_path):
    with pytest.raises(InputError, match="holds no slices"):
        open_slices(tmp_path)
    take(cohort_folder, tmp_path / "out")
    table = (tmp_path / "out" / "slices.tsv").read_text().splitlines()
    (tmp_path / "out" / "slices.tsv").write_text("\n".join(table[:-1]) + "\n")
    with pytest.raises(InputError, match=r"40 slices in slices.npy, 39 in slices.tsv"):
        open_slices(tmp_path / "out")


def test_a_damaged_slice_set_is_refused(cohort_folder, tmp_path):
    take(cohort_folder, tmp_path / "out")
    (tmp_path / "out" / "slices.npy").unlink()
    with pytest.raises(InputError, match=r"out is damaged: .*slices.npy"):
        open_slices(tmp_path / "out")


def test_a_simulated_cohort_is_marked(cohort_folder, tmp_path):
    (cohort_folder / "simulation.json").write_text("{}")
    take(cohort_folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "slices.json").read_text())["simulated"] is True


@pytest.mark.real_data
def test_left_and_right_of_the_same_brain(real_data):
    nifti = real_data / "formats" / "nifti"
    for plane in PLANES:
        both = [take_slices(read_scan(nifti / f"mni{n}.nii.gz"), plane) for n in ("LR", "RL")]
        np.testing.assert_array_equal(both[0][0], both[1][0])
        np.testing.assert_array_equal(both[0][1], both[1][1])


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["analyze/avg152T1.hdr", "nifti/IXI012-HH-1211_T1.nii.gz", "nifti/IXI015-HH-1258_T1.nii.gz"],
)
def test_real_heads_lie_upright(real_data, name):
    """A crown is narrower than what lies below it, and a brain narrower before than behind."""
    whole = read_scan(real_data / "formats" / name)
    for plane in ("coronal", "sagittal"):
        picture = take_slices(whole, plane, 1, 96)[0][0] > 40
        assert picture[-10:].mean() > picture[:10].mean()
    axial = take_slices(whole, "axial", 1, 96)[0][0] > 40
    widths = axial.sum(axis=1)
    rows = np.flatnonzero(widths)
    middle = (rows[0] + rows[-1]) // 2
    assert widths[middle : rows[-1]].sum() > widths[rows[0] : middle].sum()
    mirrored = (axial == axial[:, ::-1]).mean()
    assert mirrored > (axial == axial.T).mean()


@pytest.mark.real_data
def test_nichart_gives_30_slices_of_each_scan(real_data, tmp_path):
    stored = write_slices(
        find_cohort(real_data / "nichart_t1", label="Sex"),
        tmp_path / "out",
        SliceSpec(size=64),
        workers=1,
    )
    assert stored.pixels.shape == (690, 64, 64)
    assert (stored.table.groupby("scan").size() == 30).all()
    assert (stored.table.groupby("scan")["slice_index"].agg(np.ptp) == 29).all()


@pytest.mark.real_data
def test_oasis2_gives_its_331_labelled_axial_slices(real_data, tmp_path):
    stored = write_slices(
        find_cohort(real_data / "oasis2"), tmp_path / "out", SliceSpec(size=32), workers=1
    )
    assert stored.pixels.shape == (331, 32, 32)
    assert (stored.table["slice_index"] == 0).all()
    assert np.median(stored.pixels[:, 0]) == 0  # OASIS-2's grey background came out black
    shutil.rmtree(tmp_path / "out")
