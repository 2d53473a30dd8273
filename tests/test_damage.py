"""Damaged input, from the file to problems.tsv: named, bounded, and the rest goes on."""

import gzip
import os
import struct
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.scans import volume as scans_module
from headscope.scans.discovery import ScanFile, find_scans
from headscope.scans.volume import ScanError, read_scan
from headscope.slicing.picture import take_picture
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from tests.conftest import REPOSITORY
from tests.support import mutation


@pytest.mark.slow
def test_damaged_files_of_every_kind_are_named_or_make_no_difference(tmp_path):
    """The short form of bench/damage.py."""
    done = subprocess.run(
        [sys.executable, "bench/damage.py", "--short"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    formats = {*mutation.sound_scans(tmp_path), *mutation.sound_pictures(tmp_path)}
    assert all(f" {name} named: " in done.stdout for name in formats)
    for part in ("400 damaged files", "10 damaged files", "9 damaged files", "5 damaged files"):
        assert f": {part} in " in done.stdout


def head(seed=0):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 20)] * 3, indexing="ij"))
    rng = np.random.default_rng(seed)
    return ((grid**2).sum(axis=0) < 0.8) * 300.0 + rng.integers(0, 60, (20, 20, 20))


def save(path, volume):
    path.parent.mkdir(parents=True, exist_ok=True)
    scan = nib.Nifti1Image(volume.astype(np.float32), np.diag([8.0, 8, 8, 1]))
    nib.save(scan, path)
    return path


def sound_cohort(data, subjects=70):
    """Class folders of so many sound scans that the damaged ones are few among them."""
    for number in range(subjects):
        save(data / ("AD", "NC")[number % 2] / f"sub-{number:03d}.nii", head(number))
    return data


def claim(path, place, code, *values):
    """Overwrite a field of the header of an unpacked file."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, place, *values)
    path.write_bytes(raw)
    return path


def damage(folder):
    """One file of each kind that the issue names; the reason each must be given."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = save(folder / "x-whole.nii", head()).read_bytes()
    (folder / "x-whole.nii").unlink()
    (folder / "x-truncated.nii.gz").write_bytes(gzip.compress(whole)[:3000])
    claim(save(folder / "x-claim.nii", head()), 40, "<4h", 3, 10000, 10000, 10000)
    save(folder / "x-nan.nii", np.full((20, 20, 20), np.nan))
    save(folder / "x-constant.nii", np.full((20, 20, 20), 5.0))
    for name, affine in (("spacing", np.zeros((3, 4))), ("singular", np.ones((3, 4)))):
        path = claim(save(folder / f"x-{name}.nii", head()), 252, "<2h", 0, 1)  # its sform counts
        claim(path, 280, "<12f", *affine.ravel())
    (folder / "x-magic.nii").write_bytes(whole[:344] + b"xyz\0" + whole[348:])
    (folder / "x-empty.nii.gz").write_bytes(b"")
    (folder / "x-loop.nii").symlink_to("x-loop.nii")
    (folder / "x-lost.nii").symlink_to("nowhere.nii")
    os.mkfifo(folder / "x-pipe.nii")
    (folder / "x-folder").symlink_to(folder.parent)  # a loop of folders: passed through once
    return {
        "x-truncated.nii.gz": "damaged|truncated",
        "x-claim.nii": "too large: its header claims 10000×10000×10000 voxels",
        "x-nan.nii": "every voxel is NaN",
        "x-constant.nii": "every voxel is 5",
        "x-spacing.nii": "spacing of 0 × 0 × 0 mm|singular",
        "x-singular.nii": "affine is singular",
        "x-magic.nii": "magic number is wrong",
        "x-empty.nii.gz": "is empty",
        "x-loop.nii": "symbolic links|no regular file|damaged",
        "x-lost.nii": "does not exist",
        "x-pipe.nii": "no regular file",
    }


def test_every_kind_of_damage_is_listed_and_the_rest_goes_on(tmp_path):
    data = sound_cohort(tmp_path / "data")
    expected = damage(data / "AD")
    slices = write_slices(
        find_cohort(data), tmp_path / "out", SliceSpec(count=2, size=32), workers=1
    )
    assert len(slices.pixels) == 140
    problems = pd.read_csv(tmp_path / "out" / "problems.tsv", sep="\t").set_index("path")
    assert sorted(problems.index) == sorted(f"AD/{name}" for name in expected)
    for name, reason in expected.items():
        assert pd.Series([problems.loc[f"AD/{name}", "reason"]]).str.contains(reason).all(), name
    assert f"{len(expected)} of 81 scans could not be used; problems.tsv says why." in slices.notes
    with pytest.raises(ScanError, match="x-"):
        write_slices(
            find_cohort(data), tmp_path / "strict", SliceSpec(count=2, size=32), strict=True
        )


def test_a_cohort_of_which_more_than_a_fifth_fails_stops(tmp_path):
    data = sound_cohort(tmp_path / "data", subjects=30)
    expected = damage(data / "AD")
    assert len(expected) > 0.2 * (30 + len(expected))
    with pytest.raises(InputError, match=r"more than 20% of all .*problems.tsv lists them"):
        write_slices(find_cohort(data), tmp_path / "out", SliceSpec(count=2, size=32), workers=1)
    assert (tmp_path / "out" / "problems.tsv").is_file()


def test_the_claim_of_a_million_million_voxels_allocates_nothing(tmp_path, monkeypatch):
    path = claim(save(tmp_path / "a.nii", head()), 40, "<4h", 3, 10000, 10000, 10000)
    monkeypatch.setattr(scans_module, "read_bytes", lambda *a: pytest.fail("voxels were read"))
    with pytest.raises(ScanError, match=r"too large.* 3\.73e\+03 GiB"):
        read_scan(path)


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "AD" / "a.nii", head())

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(scans_module, "read_header", refuse)
    with pytest.raises(ScanError, match="cannot be read: permission denied"):
        read_scan(path)


def test_a_folder_that_may_not_be_read_counts_as_a_scan(tmp_path, monkeypatch):
    save(tmp_path / "AD" / "sub-1.nii", head())
    locked = tmp_path / "AD" / "sub-2"
    locked.mkdir()
    scandir = os.scandir

    def refuse(place):
        if os.fspath(place) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)  # root reads whatever its permissions say
    files = [ScanFile(tmp_path / "AD" / "sub-1.nii", "volume"), ScanFile(locked, "series")]
    assert find_scans(tmp_path) == files
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ScanError, match="cannot be read: permission denied"):
        read_scan(locked)


def test_real_permissions(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("runs as root, who may read anything")
    path = save(tmp_path / "a.nii", head())
    path.chmod(0)
    with pytest.raises(ScanError, match="permission denied"):
        read_scan(path)


def test_a_packed_bomb_is_not_unpacked(tmp_path):
    """A header whose voxels begin behind gigabytes of packed zeros."""
    path = claim(save(tmp_path / "a.nii", head()), 108, "<f", 3e9)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ScanError, match="claims that voxels begin at byte 3000000000"):
        read_scan(packed)


@pytest.mark.parametrize("tail", [b"", b"tags" * 30, bytes(2**20)])
def test_a_checksum_behind_more_than_the_voxels_is_compared(tmp_path, tail):
    """As of FreeSurfer's MGZ, whose tags follow the voxels."""
    nib.save(nib.MGHImage(head().astype(np.float32), np.diag([8.0, 8, 8, 1])), tmp_path / "a.mgh")
    packed = bytearray(gzip.compress((tmp_path / "a.mgh").read_bytes() + tail, 0))
    (tmp_path / "a.mgz").write_bytes(packed)
    assert read_scan(tmp_path / "a.mgz").volume.shape == (20, 20, 20)
    packed[5000] ^= 1
    (tmp_path / "a.mgz").write_bytes(packed)
    with pytest.raises(ScanError, match="is damaged"):
        read_scan(tmp_path / "a.mgz")


@pytest.mark.parametrize("place", [60, 300, -20])
def test_a_png_whose_pixels_fail_their_checksum_is_refused(tmp_path, place):
    values = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png", compress_level=0)
    raw = bytearray((tmp_path / "a.png").read_bytes())
    assert take_picture(tmp_path / "a.png", 32).shape == (1, 32, 32)
    raw[place] ^= 1
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(ScanError, match="is damaged: the checksum of its pixels"):
        take_picture(tmp_path / "a.png", 32)


def test_a_dicom_field_that_claims_gigabytes_asks_for_none(tmp_path):
    dicom_objects = pytest.importorskip("tests.support.dicom_objects")
    folder = dicom_objects.write_axial(tmp_path / "series", dicom_objects.volume())
    path = folder / "IM003.dcm"
    raw = path.read_bytes()
    for place, claim_of in ((136, b"UN"), (140, b"OB")):  # in the group that comes first
        field = raw[:4] * 0 + struct.pack("<HH2sHI", 2, 1, claim_of, 0, 2**32 - 100)
        path.write_bytes(raw[:place] + field + raw[place:])
        code = (
            "import resource, sys; from pathlib import Path; import pydicom, SimpleITK\n"
            "from headscope.scans.volume import ScanError, read_scan\n"
            "size = int(Path('/proc/self/statm').read_text().split()[0]) * 4096 + 2**30\n"
            "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
            "try: read_scan(Path(sys.argv[1]))\n"
            "except ScanError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True
        )
        assert "is damaged" in done.stdout, done.stderr
