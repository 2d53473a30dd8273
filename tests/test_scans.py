import gzip
import pickle
import struct
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from scipy.io import savemat

from headscope.auditing.inspect import inspect_cohort
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.scans import dicom, discovery
from headscope.scans.discovery import ScanFile, find_scans
from headscope.scans.volume import ScanError, read_scan, with_plane
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices

SPACING = (1.0, 1.5, 2.0)
ORIENTATIONS = [
    "".join(code) for letters in product("LR", "PA", "IS") for code in permutations(letters)
]


def brain(shape=(7, 9, 11), dtype=np.int16):
    """A volume without any symmetry, in RAS."""
    return np.random.default_rng(0).integers(1, 1000, shape).astype(dtype)


def stored_as(volume, orientation):
    """The image of a RAS volume whose axes run as `orientation` says."""
    ornt = axcodes2ornt(orientation)
    image = nib.Nifti1Image(volume, np.diag([*SPACING, 1]))
    turn = nib.orientations.ornt_transform(axcodes2ornt("RAS"), ornt)
    data = nib.orientations.apply_orientation(volume, turn)
    affine = image.affine @ inv_ornt_aff(turn, volume.shape)
    assert "".join(nib.aff2axcodes(affine)) == orientation
    return nib.Nifti1Image(data, affine)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_gives_the_same_volume(tmp_path, orientation):
    volume = brain()
    nib.save(stored_as(volume, orientation), tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.volume, volume)
    assert scan.spacing_mm == pytest.approx(SPACING)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".mgh", ".mgz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_formats_read_as_nibabel_reads_them(tmp_path, suffix, dtype):
    angle = 0.2
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = affine @ np.diag([-1.2, 0.9, 2, 1]) @ np.eye(4)[[1, 2, 0, 3]]
    kind = {".mgh": nib.MGHImage, ".mgz": nib.MGHImage, ".img": nib.Nifti1Pair}
    image = kind.get(suffix, nib.Nifti1Image)(brain(dtype=dtype), affine)
    nib.save(image, tmp_path / f"a{suffix}")
    scan = read_scan(tmp_path / f"a{suffix}")
    oracle = nib.as_closest_canonical(image)
    np.testing.assert_array_equal(scan.volume, np.asanyarray(oracle.dataobj))
    assert scan.spacing_mm == pytest.approx(oracle.header.get_zooms())
    assert scan.volume.dtype.newbyteorder("=") == dtype


def test_nifti_2_and_scaling_and_units(tmp_path):
    image = nib.Nifti2Image(brain(), np.diag([1000, 1000, 1000, 1]))
    image.header.set_slope_inter(2, 5)
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz")
    oracle = nib.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(scan.volume * scan.slope + scan.intercept, oracle)
    assert scan.spacing_mm == pytest.approx((1, 1, 1))


def test_a_negative_slope_is_applied(tmp_path):
    image = nib.Nifti1Image(brain(), np.eye(4))
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = struct.pack("<ff", -2, 3000)
    (tmp_path / "a.nii").write_bytes(raw)
    scan = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(scan.volume, brain() * -2.0 + 3000)
    assert (scan.slope, scan.intercept) == (1, 0)


def test_analyze_lies_as_it_is_told_to(tmp_path):
    volume = brain()
    nib.save(nib.AnalyzeImage(volume[..., None], np.diag([-1, 1.5, 2, 1])), tmp_path / "a.img")
    for name in ("a.hdr", "a.img"):
        scan = read_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.volume, volume[::-1])
        assert scan.spacing_mm == pytest.approx(SPACING)
    told = read_scan(tmp_path / "a.hdr", analyze_orientation="RAS")
    np.testing.assert_array_equal(told.volume, volume)
    turned = read_scan(tmp_path / "a.hdr", analyze_orientation="PSR")
    np.testing.assert_array_equal(turned.volume, volume.transpose(2, 0, 1)[:, ::-1])
    with pytest.raises(InputError, match="Unknown orientation 'LLS'"):
        read_scan(tmp_path / "a.hdr", analyze_orientation="LLS")


def test_analyze_with_a_mat_file_lies_as_that_says(tmp_path):
    image = nib.Spm99AnalyzeImage(brain(), np.diag([*SPACING, 1]))
    nib.save(image, tmp_path / "a.img")
    assert (tmp_path / "a.mat").exists()
    np.testing.assert_array_equal(read_scan(tmp_path / "a.img").volume, brain())


def test_a_mat_file_that_cannot_be_read_is_named(tmp_path):
    nib.save(nib.Spm99AnalyzeImage(brain(), np.diag([*SPACING, 1])), tmp_path / "a.img")
    matrix = tmp_path / "a.mat"
    matrix.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600))
    with pytest.raises(ScanError, match=r"of MATLAB 7\.3 beside it: save that with -v6"):
        read_scan(tmp_path / "a.img")
    savemat(matrix, {"other": np.eye(4)})
    with pytest.raises(ScanError, match="holds no 4×4 matrix"):
        read_scan(tmp_path / "a.img")
    for junk in (b"", b"junk", bytes(200)):
        matrix.write_bytes(junk)
        with pytest.raises(ScanError):
            read_scan(tmp_path / "a.img")


def test_nifti_without_orientation_lies_as_analyze_does(tmp_path):
    image = nib.Nifti1Image(brain(), None)
    assert image.header["sform_code"] == image.header["qform_code"] == 0
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii").volume, brain()[::-1])


@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", (7, 9, 1)), ("coronal", (7, 1, 9)), ("sagittal", (1, 7, 9))]
)
def test_a_ready_slice_is_placed_in_its_plane(tmp_path, plane, shape):
    picture = brain((7, 9))
    nib.save(nib.Nifti1Image(picture, None), tmp_path / "a.nii.gz")
    scan = read_scan(tmp_path / "a.nii.gz", plane=plane)
    np.testing.assert_array_equal(scan.volume, picture.reshape(shape))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_one_of_several_volumes_is_chosen(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    several = brain((7, 9, 11, 3))
    nib.save(nib.Nifti1Image(several, np.eye(4)), path)
    np.testing.assert_array_equal(read_scan(path, volume=2).volume, several[..., 2])
    with pytest.raises(ScanError, match=r"holds 3 volumes .* choose one with 'volume', 0 to 2"):
        read_scan(path)
    with pytest.raises(ScanError, match="there is no volume 3"):
        read_scan(path, volume=3)


def test_nan_outside_the_brain_becomes_zero(tmp_path):
    volume = brain(dtype=np.float32)
    volume[0] = np.nan
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.nii").volume, np.nan_to_num(volume))


def nifti(change=None, volume=None, affine=None):
    raw = bytearray(nib.Nifti1Image(brain() if volume is None else volume, np.eye(4)).to_bytes())
    sform = [] if affine is None else [(252, "<hh", 0, 1), (280, "<12f", *affine[:3].ravel())]
    for place, code, *values in [*sform, *(change or ())]:
        struct.pack_into(code, raw, place, *values)
    return bytes(raw)


def with_nan(value):
    volume = brain(dtype=np.float32)
    volume[...] = value
    return volume


SINGULAR = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
DAMAGED = {
    "empty": ("a.nii", b"", "is empty"),
    "empty gzip": ("a.nii.gz", b"", "is empty"),
    "text": ("a.nii", b"no scan at all, only words" * 40, "magic number is wrong"),
    "magic": ("a.nii", nifti([(344, "4s", b"xyz\0")]), "magic number is wrong"),
    "short header": ("a.nii", nifti()[:200], "magic number is wrong"),
    "truncated": ("a.nii", nifti()[:-100], "is truncated: 1286 of 1386 bytes"),
    "truncated gzip": ("a.nii.gz", gzip.compress(nifti())[:-400], "is damaged|is truncated"),
    "wrong checksum": ("a.nii.gz", gzip.compress(nifti())[:-8] + bytes(8), "is damaged"),
    "10^12 voxels": (
        "a.nii.gz",
        gzip.compress(nifti([(40, "<4h", 3, 10000, 10000, 10000)])),
        "too large: its header claims 10000×10000×10000 voxels",
    ),
    "more than gzip can pack": (
        "a.nii.gz",
        gzip.compress(nifti([(40, "<4h", 3, 700, 700, 700)])),
        "is truncated: .* packed bytes cannot hold",
    ),
    "no axes": ("a.nii", nifti([(40, "<h", 0)]), "is damaged or no scan|is no volume"),
    "empty axis": ("a.nii", nifti([(40, "<4h", 3, 7, 0, 11)]), "is no volume: its shape is 7×0"),
    "negative axis": ("a.nii", nifti([(40, "<4h", 3, 7, -9, 11)]), "is no volume"),
    "zero spacing": ("a.nii", nifti(affine=np.diag([1, 0, 1, 1])), "spacing of 1 × 0 × 1 mm"),
    "huge spacing": ("a.nii", nifti(affine=np.diag([1, 1e9, 1, 1])), r"spacing of 1 × 1e\+09"),
    "singular": ("a.nii", nifti(affine=SINGULAR), "affine is singular"),
    "NaN affine": ("a.nii", nifti([(280, "<f", np.nan)]), "not finite|is damaged"),
    "all NaN": ("a.nii", nifti(volume=with_nan(np.nan)), "every voxel is NaN"),
    "constant": ("a.nii", nifti(volume=np.full((7, 9, 11), 5, np.int16)), "every voxel is 5"),
    "colour": ("a.nii", nifti([(70, "<hh", 128, 24)]), "holds no intensities"),
    "unknown type": ("a.nii", nifti([(70, "<hh", 3, 16)]), "is damaged or no scan"),
    "mgh": ("a.mgh", b"\0" * 400, "is no MGH file"),
    "header without voxels": (
        "a.hdr",
        nifti([(344, "4s", b"ni1\0")]),
        "its .img does not exist",
    ),
    "no Analyze": ("a.hdr", b"0123456789" * 40, "is no Analyze file|is damaged"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused_with_their_reason(tmp_path, case):
    name, content, reason = DAMAGED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=reason) as error:
        read_scan(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ScanError, match="does not exist"):
        read_scan(tmp_path / "a.nii")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(ScanError, match="folder"):
        read_scan(tmp_path / "folder.nii")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    with pytest.raises(ScanError, match="loop"):
        read_scan(tmp_path / "loop.nii")


def test_the_error_survives_the_way_from_another_process():
    error = pickle.loads(pickle.dumps(ScanError(Path("a.nii"), "is empty")))
    assert (error.path, error.reason, str(error)) == (Path("a.nii"), "is empty", "a.nii is empty.")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz", ".img"])
def test_a_mutated_file_gives_a_volume_or_a_reason(tmp_path, suffix):
    kind = {".mgh": nib.MGHImage, ".mgz": nib.MGHImage, ".img": nib.Spm2AnalyzeImage}
    image = kind.get(suffix, nib.Nifti1Image)(brain(dtype=np.float32), np.eye(4))
    nib.save(image, tmp_path / f"whole{suffix}")
    mutated = tmp_path / f"mutated{'.hdr' if suffix == '.img' else suffix}"
    whole = (tmp_path / mutated.name.replace("mutated", "whole")).read_bytes()
    if suffix == ".img":
        (tmp_path / "mutated.img").write_bytes((tmp_path / "whole.img").read_bytes())
    packed = suffix in (".nii.gz", ".mgz")
    rng = np.random.default_rng(1)
    for number in range(120):
        inner = packed and number % 2
        raw = bytearray(gzip.decompress(whole) if inner else whole)
        for place in rng.integers(0, min(len(raw), 400), rng.integers(1, 6)):
            raw[place] = rng.integers(256)
        raw = raw[: rng.integers(1, len(raw))] if number % 5 == 0 else raw
        mutated.write_bytes(gzip.compress(raw) if inner else raw)
        try:
            assert np.isfinite(read_scan(mutated).volume).all()
        except ScanError as error:
            assert error.reason


def test_scans_are_found_once_each(tmp_path):
    names = ["b/z.nii.gz", "b/a.nii", "c.hdr", "c.img", "d.mgz", "e.MGH"]
    for name in [*names, ".hidden.nii", ".git/x.nii", "b/._a.nii", "notes.txt", "alone.img"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.nii").symlink_to(tmp_path / "nowhere.nii")
    names = [file.path.relative_to(tmp_path).as_posix() for file in find_scans(tmp_path)]
    assert names == ["b/a.nii", "b/z.nii.gz", "broken.nii", "c.hdr", "d.mgz", "e.MGH"]


def test_each_file_is_looked_at_once(tmp_path, monkeypatch):
    """What discovery says of a file holds for slicing and for inspection."""
    for number, name in enumerate(["AD/sub-1.nii", "AD/sub-2.hdr", "NC/sub-3.mgz", "NC/sub-4.nii"]):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {".hdr": nib.AnalyzeImage, ".mgz": nib.MGHImage}.get(name[-4:], nib.Nifti1Image)
        nib.save(kind(brain() + np.int16(number), np.diag([2, 2, 2, 1])), tmp_path / "data" / name)
    cohort = find_cohort(tmp_path / "data")
    assert [file.kind for file in cohort.files] == ["volume"] * 4
    for module in (discovery, dicom):
        monkeypatch.setattr(module, "is_dicom", lambda path: pytest.fail(f"looked at {path}"))
    stored = write_slices(cohort, tmp_path / "out", SliceSpec(count=2, size=24), workers=1)
    assert len(stored.pixels) == 8
    assert inspect_cohort(cohort, count=2).grids["scans"].sum() == 4


@pytest.mark.parametrize("name", ["a_cor.nii", "a_coronal_slice-012.nii", "a.nii"])
def test_the_plane_of_a_ready_slice_is_that_of_its_name_where_its_header_is_silent(tmp_path, name):
    path = tmp_path / name
    plane = None if name == "a.nii" else "coronal"
    nib.save(nib.Nifti1Image(brain((7, 9)), None), path)
    assert ScanFile.at(path) == ScanFile(path, "volume")
    assert with_plane(ScanFile.at(path)) == ScanFile(path, "slice", plane)
    shape = (7, 1, 9) if plane else (7, 9, 1)
    assert read_scan(with_plane(ScanFile.at(path))).volume.shape == shape
    for oriented in (brain((7, 9)), brain()):
        nib.save(nib.Nifti1Image(oriented, np.eye(4)), path)
        assert with_plane(ScanFile.at(path)) == ScanFile(path, "volume")
    picture = ScanFile.at(tmp_path / f"{path.stem}.png")
    assert with_plane(picture) == ScanFile(picture.path, "picture", plane)


@pytest.mark.real_data
def test_real_files_read_as_nibabel_reads_them(real_data):
    files = [file.path for file in find_scans(real_data / "formats")]
    assert len(files) == 7
    for path in (path for path in files if path.is_file()):
        oracle = nib.as_closest_canonical(nib.load(path))
        scan = read_scan(path)
        values = scan.volume * scan.slope + scan.intercept
        np.testing.assert_allclose(values, np.squeeze(oracle.get_fdata()), rtol=1e-6)
        assert scan.spacing_mm == pytest.approx(oracle.header.get_zooms()[:3])


@pytest.mark.real_data
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_real_format_gives_slices(real_data, tmp_path, plane):
    pytest.importorskip("SimpleITK", reason="DICOM needs SimpleITK: pip install '.[dicom]'")
    for number, scan in enumerate(find_scans(real_data / "formats")):
        path = scan.path
        folder = tmp_path / "data" / ("A" if number % 2 else "B")
        folder.mkdir(parents=True, exist_ok=True)
        for file in [path, *path.parent.glob("*.img")]:
            (folder / file.name).unlink(missing_ok=True)
            (folder / file.name).symlink_to(file)
    cohort = find_cohort(tmp_path / "data")
    assert len(cohort.scans) == 7
    slices = write_slices(
        cohort, tmp_path / "out", SliceSpec(plane=plane, count=3, size=64), workers=1
    )
    assert len(slices.pixels) == 21
    left, right = (slices.pixels[slices.table["subject_id"] == f"mni{n}"] for n in ("LR", "RL"))
    np.testing.assert_array_equal(left, right)
    assert slices.pixels.reshape(21, -1).std(axis=1).min() > 20
