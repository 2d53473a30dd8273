"""The background is found wherever it lies in the range, and a broken voxel blackens nothing."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_dilation

from headscope.scans.volume import INFINITE, NOT_A_NUMBER, OUTLIERS, Scan, read_scan, with_finite
from headscope.slicing.background import CT, PADDED, REPAIRED, UNCLEAR, darken_background
from headscope.slicing.export import slice_data
from headscope.slicing.extract import take_slices
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices
from tests.support.volumes import head, save

RAW = head(noise=0).astype(np.float32)
HEAD = RAW > 0
Z = np.where(HEAD, (RAW - RAW[HEAD].mean()) / RAW[HEAD].std(), 0).astype(np.float32)
ACROSS, ALONG, _ = np.indices(RAW.shape)
ROUND = np.hypot(ACROSS - 19.5, ALONG - 24.5) < 20  # the field of view of a CT
AIR = np.random.default_rng(0).normal(-1000, 6, RAW.shape)
HOUNSFIELD = np.where(HEAD, RAW, AIR)
WIDE = binary_dilation(HEAD, iterations=3)
AIRY = (RAW - RAW[HEAD].mean()) / RAW[HEAD].std()
WEDGES = np.abs(ACROSS + ALONG - sum(RAW.shape[:2]) / 2) > 28


def noise(deviation, seed=0):
    return np.random.default_rng(seed).normal(0, deviation, RAW.shape)


def taken(volume):
    """Slices about 70 mm below the vertex, as whole numbers; their indices; the notes."""
    notes = []
    volume, repaired = with_finite(np.asarray(volume))
    scan = Scan(volume, (3.5, 3.5, 3.5))
    pixels, indices = take_slices(scan, SliceSpec(count=6, size=40), notes)
    return pixels.astype(int), indices["axial"].tolist(), [*repaired, *notes]


def scaled(volume, low, high):
    return (volume - volume.min()) / np.ptp(volume) * (high - low) + low


SAME = {  # what shows the same head, by how its background is written
    "zero, z-scored": (Z, [REPAIRED]),
    "zero, z-scored in 64 bits": (Z.astype(np.float64), [REPAIRED]),
    "zero, z-scored in whole numbers": (np.rint(Z * 3000).astype(np.int16), [REPAIRED]),
    "mid-grey, 0 to 1": (scaled(Z, 0, 1), [REPAIRED]),
    "mid-grey, -1 to 1": (scaled(Z, -1, 1), [REPAIRED]),
    "mid-grey of 16 bits": (np.rint(scaled(Z, 0, 65535)).astype(np.uint16), [REPAIRED]),
    "NaN, z-scored": (np.where(HEAD, Z, np.nan), [NOT_A_NUMBER, REPAIRED]),
    "NaN, raw": (np.where(HEAD, RAW, np.nan), [NOT_A_NUMBER]),
    "infinite": (np.where(HEAD, RAW, -np.inf), [INFINITE]),
    "brightest": (np.where(HEAD, RAW, 1000), [REPAIRED]),
    "brightest of 8 bits": (np.where(HEAD, RAW, 255).astype(np.uint8), [REPAIRED]),
    "infinitely bright": (np.where(HEAD, RAW, np.inf), [INFINITE, REPAIRED]),
    "-1024": (np.where(HEAD, RAW, -1024), [CT]),
    "-32768": (np.where(HEAD, RAW, -32768).astype(np.int16), []),
    "far below": (np.where(HEAD, Z, -5), []),
    "zero, z-scored within a wider mask": (np.where(WIDE, AIRY, 0), [REPAIRED]),
    "zero in the corners of a turned grid": (np.where(WEDGES, 0, AIRY), [REPAIRED]),
}


@pytest.mark.parametrize("name", SAME)
def test_slices_are_those_of_the_raw_scan(name):
    volume, expected = SAME[name]
    pixels, indices, notes = taken(volume)
    raw, positions, _ = taken(RAW)
    assert indices == positions
    assert notes == expected
    assert np.abs(pixels - raw).max() <= 1
    assert (pixels[:, 0] == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_background_in_the_middle_is_found(seed):
    pixels, indices, notes = taken(Z + noise(0.02, seed))
    raw, positions, _ = taken(RAW)
    assert indices == positions and notes == [REPAIRED]
    assert np.abs(pixels - raw).mean() < 4 and np.median(pixels[:, :4]) == 0


@pytest.mark.parametrize("fill", [-3024, -2000, 0, 3000, np.nan])
def test_a_fill_value_about_a_field_of_view_is_no_background(fill):
    whole, positions, notes = taken(HOUNSFIELD)
    assert notes == [CT]
    pixels, indices, notes = taken(np.where(ROUND, HOUNSFIELD, fill))
    assert indices == positions
    assert np.abs(pixels - whole).mean() < 2
    assert notes[-2:] == [PADDED if fill < -1000 else REPAIRED, CT]


def test_a_small_head_in_a_wide_field_is_found():
    wide = [(60, 60), (60, 60), (5, 60)]
    raw, positions, _ = taken(np.pad(RAW[::2, ::2, ::2], wide))
    pixels, indices, notes = taken(np.pad(Z[::2, ::2, ::2], wide))
    assert indices == positions and notes == [REPAIRED]
    assert np.abs(pixels - raw).max() <= 1
    assert raw.max() > 200


def test_what_is_darkest_already_stays_as_it_is():
    for volume in (RAW, head(), RAW + np.abs(noise(8)).astype(np.float32), HOUNSFIELD):
        scan, notes = Scan(volume, (3.5, 3.5, 3.5)), []
        assert darken_background(scan, notes) is scan and notes == []


def test_enclosed_voxels_of_the_grey_of_the_background_stay():
    volume = np.where(HEAD, np.rint(Z * 3000), 0)
    inside = np.zeros_like(HEAD)
    inside[19:22, 24:27, 28:31] = True
    volume[inside] = 0
    repaired = darken_background(Scan(volume, (3.5, 3.5, 3.5)), [])
    assert (repaired.volume[inside] == 0).all()
    assert (repaired.volume[~HEAD] < volume.min()).all()


def test_a_border_that_says_nothing_is_noted(tmp_path):
    _, _, notes = taken(np.random.default_rng(0).normal(0, 1, (30, 30, 30)))
    assert notes == [UNCLEAR]
    cut = 300 + RAW[12:26, 14:34, 15:40]  # the inside of a head
    assert taken(cut + noise(20)[:14, :20, :25])[2] == [UNCLEAR]


def test_a_store_says_which_backgrounds_were_repaired(tmp_path):
    for number in range(4):
        save(tmp_path / "scans" / "raw" / f"sub-r{number}.nii.gz", RAW * 1.003)
        save(tmp_path / "scans" / "z" / f"sub-z{number}.nii.gz", Z)
    out = tmp_path / "out"
    slices = slice_data(tmp_path / "scans", out, count=4, size=32, workers=1)
    assert f"{REPAIRED}: 4 of 8 scans (z/sub-z0.nii.gz, z/sub-z1.nii.gz, z/sub-z2.nii.gz, …)." in (
        slices.notes
    )
    listed = pd.read_csv(out / "notes.tsv", sep="\t")
    assert listed["path"].tolist() == [f"z/sub-z{number}.nii.gz" for number in range(4)]
    raw = slices.table["label"] == "raw"
    assert slices.table["slice_index"][raw].tolist() == slices.table["slice_index"][~raw].tolist()
    difference = slices.pixels[raw].astype(int) - slices.pixels[~raw]
    assert np.abs(difference).max() <= 1


BROKEN = {"inf": (np.inf, INFINITE), "-inf": (-np.inf, INFINITE), "nan": (np.nan, NOT_A_NUMBER),
          "1e30": (1e30, OUTLIERS), "-1e38": (-1e38, OUTLIERS)}  # fmt: skip


@pytest.mark.parametrize("place", [(0, 0, 0), (20, 25, 30), (39, 49, 59)])
@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_voxel_blackens_nothing(tmp_path, name, place):
    value, note = BROKEN[name]
    volume = RAW.copy()
    volume[place] = value
    nib.save(nib.Nifti1Image(volume, np.diag([3.5, 3.5, 3.5, 1])), tmp_path / "a.nii")
    scan = read_scan(tmp_path / "a.nii")
    assert scan.notes == (note,) and np.isfinite(scan.volume).all()
    pixels, indices = take_slices(scan, SliceSpec(count=6, size=40))
    raw, positions, _ = taken(RAW)
    assert indices["axial"].tolist() == positions
    assert (np.abs(pixels.astype(int) - raw) > 1).mean() < 0.01


def test_a_thin_structure_is_not_outshone_by_a_broken_voxel():
    volume = np.zeros((60, 60, 60), np.int32)
    volume[28:32, 28:32, 10:50] = (100 + 10 * np.arange(4))[:, None]
    volume[0, 0, 0] = 2**31 - 1
    pixels, _, _ = taken(volume)
    assert (pixels.max(axis=(1, 2)) > 150).all()


def test_a_deep_picture_may_have_a_grey_background(tmp_path):
    from PIL import Image

    for k, label in enumerate("AB"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            slice_ = Z[:, :, 30 + number].T if k else RAW[:, :, 30 + number].T
            Image.fromarray(slice_).save(tmp_path / "data" / label / f"sub-{k}{number}.tif")
    from headscope.cohort.layouts import find_cohort

    slices = write_slices(find_cohort(tmp_path / "data"), tmp_path / "out", SliceSpec(size=40))
    pixels = slices.pixels.astype(int)
    assert np.abs(pixels[:2] - pixels[2:]).max() <= 1
    assert any(note.startswith(f"{REPAIRED}: 2 of 4 scans") for note in slices.notes)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_range_that_a_type_holds_is_repaired_without_overflow(dtype):
    largest = np.finfo(dtype).max
    values = np.linspace(0, 1, 6000, dtype=dtype).reshape(20, 20, 15)
    values[3, 3, :4] = largest, -largest, np.inf, np.nan
    repaired, notes = with_finite(values)
    assert notes == [NOT_A_NUMBER, INFINITE, OUTLIERS]
    assert repaired.dtype == dtype and np.isfinite(repaired).all()
    assert np.array_equal(repaired[4:], values[4:])
    wide = np.linspace(-1, 1, 6000).reshape(20, 20, 15).astype(dtype) * largest
    wide[0, 0, 0] = -np.inf
    assert np.isfinite(with_finite(wide)[0]).all()
