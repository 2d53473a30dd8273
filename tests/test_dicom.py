"""DICOM series: written here by SimpleITK, and the real one of the test data."""

import importlib.util
import sys

import numpy as np
import pytest

from headscope.errors import InputError
from headscope.scans import dicom, frames
from headscope.scans.discovery import ScanFile, find_scans
from headscope.scans.volume import ScanError, read_scan
from tests.support.dicom import SHAPE, SPACING, sitk, volume, write_series


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("angle", [0.0, 0.2])
def test_a_series_of_any_plane_is_canonical(tmp_path, plane, angle):
    write_series(tmp_path / "a", volume(), plane=plane, angle=angle)
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.volume, volume())
    assert scan.spacing_mm == pytest.approx(SPACING, abs=1e-4)


@pytest.mark.parametrize("names", ["{:03d}.dcm", "IM{:04d}", "1.2.840.{}", "{:03d}.IMA"])
def test_a_folder_is_one_scan_whatever_its_files_are_called(tmp_path, names):
    folder = write_series(tmp_path / "AD" / "sub-1", volume(), names=names)
    (folder / "notes.txt").write_text("no scan")
    (folder / "README").write_text("no scan either")
    assert find_scans(tmp_path) == [ScanFile(folder, "series")]
    assert len(ScanFile.at(folder).stored()) == SHAPE[2]
    np.testing.assert_array_equal(read_scan(folder).volume, volume())


def test_each_series_of_a_folder_is_a_scan(tmp_path):
    write_series(tmp_path / "a", volume(0), series="1.2.3", names="x{:03d}.dcm")
    write_series(tmp_path / "a", volume(1), series="1.2.4", names="y{:03d}.dcm")
    files = find_scans(tmp_path)
    assert [file.path.name for file in files] == ["x001.dcm", "y001.dcm"]
    for seed, file in enumerate(files):
        np.testing.assert_array_equal(read_scan(file).volume, volume(seed))
    with pytest.raises(ScanError, match="holds several DICOM series: name the first file of one"):
        read_scan(tmp_path / "a")


def test_one_of_several_volumes_is_chosen(tmp_path):
    for echo in range(2):
        write_series(tmp_path / "a", volume(echo), names=f"{echo}-{{:03d}}.dcm")
    with pytest.raises(ScanError, match="holds 2 volumes: choose one with 'volume', 0 to 1"):
        read_scan(tmp_path / "a")
    np.testing.assert_array_equal(read_scan(tmp_path / "a", volume=1).volume, volume(1))
    with pytest.raises(ScanError, match="there is no volume 2"):
        read_scan(tmp_path / "a", volume=2)


def test_volumes_are_told_apart_by_number_where_depths_differ_by_rounding(tmp_path):
    def file(depth, instance):
        origin = np.array([0.0, 0.0, depth])
        path = tmp_path / f"{instance}.dcm"
        return frames.Frame(path, "1", instance, (4, 4), 4, np.full(3, 2.0), origin, np.eye(3))

    files = [file(-1e-6, 3), file(0.0, 1), file(2.0, 2), file(2.0 + 1e-6, 4)]
    depths = dicom._by_depth(files)
    for number, numbers in ((0, [1, 2]), (1, [3, 4])):
        assert [same[number].instance for same in depths] == numbers


def test_a_damaged_neighbour_gives_no_shortened_volume(tmp_path):
    write_series(tmp_path / "a", volume(0), series="1.2.3", names="a{:03d}.dcm")
    write_series(tmp_path / "a", volume(1), series="1.2.4", names="b{:03d}.dcm")
    first = tmp_path / "a" / "a001.dcm"
    np.testing.assert_array_equal(read_scan(first).volume, volume(0))
    damaged = tmp_path / "a" / "a008.dcm"
    damaged.write_bytes(damaged.read_bytes()[:150])
    with pytest.raises(ScanError, match="is beside a file that may belong to it and is damaged"):
        read_scan(first)


def test_gaps_and_strangers_are_refused(tmp_path):
    write_series(tmp_path / "gap", volume(), skip=(3,))
    with pytest.raises(ScanError, match="lacks slices: they are 2 to 4 mm apart"):
        read_scan(tmp_path / "gap")
    write_series(tmp_path / "mixed", volume(), names="a{:03d}.dcm")
    write_series(tmp_path / "mixed", volume(), names="b{:03d}.dcm", plane="coronal")
    with pytest.raises(ScanError, match="mixes slices of different"):
        read_scan(tmp_path / "mixed")
    write_series(tmp_path / "cut", volume())
    (tmp_path / "cut" / "004.dcm").write_bytes((tmp_path / "cut" / "004.dcm").read_bytes()[:150])
    with pytest.raises(ScanError, match="is damaged: SimpleITK finds no DICOM slice"):
        read_scan(tmp_path / "cut")
    (tmp_path / "empty.d").mkdir()
    with pytest.raises(ScanError, match="is a folder without DICOM files"):
        read_scan(tmp_path / "empty.d")


def test_a_claim_beyond_measure_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write_series(tmp_path / "a", volume())
    monkeypatch.setattr(dicom, "LARGEST_VOLUME", 1000)
    monkeypatch.setattr(dicom, "_read_voxels", lambda frames: pytest.fail("voxels were read"))
    with pytest.raises(ScanError, match="is too large"):
        read_scan(tmp_path / "a")


def test_without_simpleitk_the_extra_is_named(tmp_path, monkeypatch):
    write_series(tmp_path / "a", volume())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    frames.load.cache_clear()
    assert find_scans(tmp_path) == [ScanFile(tmp_path / "a", "series")]
    with pytest.raises(InputError, match=r"pip install 'headscope\[dicom\]'") as error:
        read_scan(tmp_path / "a")
    assert not isinstance(error.value, ScanError)  # every series would fail: the work stops
    frames.load.cache_clear()


@pytest.mark.real_data
def test_the_real_series_reads_as_simpleitk_reads_it(real_data):
    folder = real_data / "formats" / "dicom_t1"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.DICOMOrient(sitk.ReadImage(names), "RAS")
    scan = read_scan(folder)
    np.testing.assert_array_equal(scan.volume, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    assert scan.spacing_mm == pytest.approx(image.GetSpacing())
