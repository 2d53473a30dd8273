"""Resampling against Pillow, against exact sums of whole numbers, and against itself."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from headscope.scans.volume import ScanError, read_scan
from headscope.slicing import resampling
from headscope.slicing.resampling import FINE, UNIT, resample

SIZES = [
    ((219, 181), (224, 185)),  # a little larger
    ((106, 127), (187, 224)),  # twice
    ((256, 256), (224, 224)),  # a little smaller
    ((256, 200), (64, 50)),  # a quarter
    ((37, 300), (180, 64)),  # taller and narrower
    ((5, 7), (224, 160)),
    ((40, 41), (1, 1)),
    ((1, 1), (9, 4)),
    ((64, 64), (64, 64)),
]


def pictures(shape, count=5, seed=0):
    """Sixteenths of greys (n, H, W): noise, and bright edges against black."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 255 * FINE + 1, (count, *shape)).astype(np.float32)
    grey[1:3, : shape[0] // 2] = 0
    grey[2, :, shape[1] // 3 :] = 255 * FINE
    return grey


def resampled(grey, size, box=None):
    rows, columns = box or (slice(0, grey.shape[1]), slice(0, grey.shape[2]))
    into = np.zeros((len(grey), *size), dtype=np.uint8)
    part = np.ascontiguousarray(grey[:, rows, columns].swapaxes(0, 1))
    resample(part, into, grey.shape[1:], (rows, columns))
    return into


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_the_filter_is_that_of_pillow(shape, size):
    grey = pictures(shape)
    for ours, theirs in zip(resampled(grey, size), grey / FINE, strict=True):
        image = Image.fromarray(theirs).resize(size[::-1], Image.Resampling.BILINEAR)
        assert np.abs(ours - np.asarray(image)).max() < 0.75  # half a grey is rounding


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_every_sum_is_exact(shape, size):
    """The same in whole numbers of 64 bits, where nothing is lost."""
    grey = pictures(shape)
    down, across = (
        np.rint(resampling._weights(before, after) * np.float64(UNIT)).astype(np.int64)
        for before, after in zip(shape, size, strict=True)
    )
    for weights in (down, across):
        assert (weights.sum(axis=1) == UNIT).all()
        assert weights.min() >= 0
    between = np.rint(down @ grey.astype(np.int64) / UNIT).astype(np.int64)
    exact = np.rint(between @ across.T / (UNIT * FINE))
    np.testing.assert_array_equal(resampled(grey, size), exact)


def test_bytes_depend_on_no_bands_threads_or_stack(monkeypatch):
    grey = pictures((256, 200), count=9)
    expected = resampled(grey, (224, 175))
    for band in (1, 7, 64, 1000):
        monkeypatch.setattr(resampling, "BAND", band)
        resampling._bands.cache_clear()
        with threadpool_limits(2, user_api="blas"):
            np.testing.assert_array_equal(resampled(grey, (224, 175)), expected)
    resampling._bands.cache_clear()
    alone = [resampled(grey[n : n + 1], (224, 175))[0] for n in range(9)]
    np.testing.assert_array_equal(alone, expected)


@pytest.mark.parametrize(("shape", "size"), SIZES[:6])
def test_black_about_a_box_costs_nothing_and_changes_nothing(shape, size):
    grey = pictures(shape)
    box = tuple(slice(n // 4, n // 4 + max(1, n // 2)) for n in shape)
    outside = np.ones(shape, dtype=bool)
    outside[box] = False
    grey[:, outside] = 0
    np.testing.assert_array_equal(resampled(grey, size, box), resampled(grey, size))


def test_even_pictures_stay_even():
    for value in (0, 1, 128, 255):
        grey = np.full((2, 90, 70), value * FINE, dtype=np.float32)
        assert (resampled(grey, (224, 50)) == value).all()


def test_a_point_too_faint_to_show_leaves_black():
    grey = np.zeros((1, 2, 20_000), dtype=np.float32)
    grey[0, 0, 0] = 1
    assert not resampled(grey, (1, 1), (slice(0, 1), slice(0, 1))).any()


def test_weights_take_memory_like_the_side():
    _, bands = resampling._bands(2**15, 224, 0, 2**15, 1)
    assert sum(weights.nbytes for _, _, weights in bands) < 3 * 2**20  # 28 MiB as one matrix
    assert sum(weights.sum() for _, _, weights in bands) == 224


@pytest.mark.parametrize("shape", [(2**16, 2, 2), (2**13, 2**13, 1)])
def test_what_no_scan_is_as_wide_as_is_refused_by_its_header(tmp_path, shape):
    header = nib.Nifti2Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+2", 544
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(2000))
    with pytest.raises(ScanError, match=rf"too large: its header claims {shape[0]}×"):
        read_scan(tmp_path / "a.nii")
