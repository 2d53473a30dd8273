"""Pictures of any depth show what the same picture of 8 bits shows; cut ones are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from headscope.scans.volume import ScanError
from headscope.slicing.picture import CUT, take_picture
from tests.support.pictures import SIGNATURE, chunk, png, tiff

SIZE = 48
ROWS, COLUMNS = np.indices((SIZE, SIZE))
DISC = np.hypot(ROWS - 22, COLUMNS - 25) < 17
GREY = np.where(DISC, 40 + 4 * ROWS + COLUMNS // 8, 0).astype("u1")
DEEP = GREY.astype("u2") * 16  # 12 bits, as scanners store them
SOLID = np.full_like(DEEP, 65535)
HALF = np.where(COLUMNS < 24, 65535, 0).astype("u2")


def colour(*bands):
    return np.stack(bands, axis=-1)


def by_pillow(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def taken(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return take_picture(tmp_path / name, SIZE)[0]


def lzw(mode, pixels):
    return by_pillow(Image.fromarray(pixels, mode), "TIFF", compression="tiff_lzw")


DEEP_KINDS = {
    "grey.png": png(DEEP, 0),
    "white is zero.tif": tiff(4095 - DEEP, 0),
    "white is zero, big end first.tif": tiff(4095 - DEEP, 0, end=">"),
    "colour.png": png(colour(DEEP, DEEP, DEEP), 2),
    "colour.tif": tiff(colour(DEEP, DEEP, DEEP), 2),
    "colour, big end first.tif": tiff(colour(DEEP, DEEP, DEEP), 2, end=">"),
    "transparent.png": png(colour(DEEP, DEEP, DEEP, SOLID), 6),
    "transparent.tif": tiff(colour(DEEP, DEEP, DEEP, SOLID), 2, extra=2),
    "unused band.tif": tiff(colour(DEEP, DEEP, DEEP, 0 * DEEP), 2, extra=0),
    "grey and alpha.png": png(colour(DEEP, SOLID), 4),
    "grey and alpha.tif": tiff(colour(DEEP, SOLID), extra=2),
    "grey and alpha, big end first.tif": tiff(colour(DEEP, SOLID), extra=2, end=">"),
    "whole numbers.tif": tiff(DEEP.astype("i4"), kind=2),
    "float.tif": tiff(DEEP.astype("f4"), kind=3),
    "float, white is zero.tif": tiff(-DEEP.astype("f4"), 0, kind=3),
    "one broken pixel.tif": tiff(np.where((ROWS == 3) & (COLUMNS == 3), np.inf, DEEP).astype("f4"),
                                 kind=3),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP_KINDS)
def test_deep_pictures_keep_their_depth(tmp_path, name):
    expected = taken(tmp_path, "a.tif", tiff(DEEP)).astype(int)
    shown = taken(tmp_path, name, DEEP_KINDS[name]).astype(int)
    if "broken" in name:
        shown[3, 3] = 0
    assert np.abs(shown - expected).max() <= 1
    assert np.corrcoef(shown.ravel(), GREY.ravel())[0, 1] > 0.95
    assert len(np.unique(shown)) > 100


def test_deep_transparency_is_black(tmp_path):
    for name, content in {
        "a.png": png(colour(DEEP, HALF), 4),
        "b.png": png(colour(DEEP, DEEP, DEEP, HALF), 6),
        "c.tif": tiff(colour(DEEP, DEEP, DEEP, HALF), 2, extra=2),
    }.items():
        shown = taken(tmp_path, name, content)
        assert not shown[:, 25:].any() and shown[:, :23].max() > 200


WHOLE_KINDS = {
    "white is zero.tif": tiff(255 - GREY, 0),
    "grey and alpha.png": png(colour(GREY, np.full_like(GREY, 255)), 4),
    "palette.png": by_pillow(Image.fromarray(GREY).convert("P"), "PNG"),
    "ink.tif": by_pillow(Image.merge("CMYK", [Image.new("L", (SIZE, SIZE))] * 3
                                     + [Image.fromarray(255 - GREY)]), "TIFF"),
    "packed.tif": by_pillow(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"),
    "Lab.tif": by_pillow(Image.merge("LAB", [Image.fromarray(GREY)]
                                     + [Image.new("L", (SIZE, SIZE))] * 2), "TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE_KINDS)
def test_pictures_of_8_bits_stay_as_they_are(tmp_path, name):
    shown = taken(tmp_path, name, WHOLE_KINDS[name]).astype(int)
    assert np.abs(shown - GREY).max() <= 1


def test_one_bit_is_black_and_white(tmp_path):
    content = by_pillow(Image.fromarray(GREY > 100), "PNG")
    np.testing.assert_array_equal(taken(tmp_path, "a.png", content), (GREY > 100) * 255)


def test_a_deep_picture_takes_a_window(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(DEEP))
    shown = take_picture(tmp_path / "a.tif", SIZE, (0, 4080))[0].astype(int)
    assert np.abs(shown - GREY).max() <= 1


def claims(content, rows):
    """Let a JPEG claim more rows than it holds."""
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">H", rows) + content[place + 2 :]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tif", tiff(GREY, rows=200, strips=4), "fewer rows than the 200 that its header claims"),
        ("b.tif", tiff(DEEP, rows=50), "truncated"),
        ("c.png", png(GREY, 0, rows=200), "fewer rows than the 200"),
        ("d.png", png(colour(DEEP, SOLID), 4, rows=49), "fewer rows than the 49"),
        ("e.tif", tiff(np.ones((1, 9), "u1"), rows=2**26), "is too large for a slice"),
        ("f.png", png(np.eye(9, dtype="u1"), 0, rows=40_000), "claims 9×40000 pixels"),
    ],
)  # fmt: skip
def test_more_rows_than_there_are_are_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=reason):
        take_picture(tmp_path / name, SIZE)


@pytest.mark.parametrize("short", [0, 1, 6])
def test_interlaced_rows_are_counted(tmp_path, short):
    """Pillow writes none. Of 3 × 2 pixels, passes 1, 4, 6 and 7 hold some, each after a filter."""
    rows = bytes([0, 10, 0, 30, 0, 20, 0, 40, 50, 60])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 1))
    packed = chunk(b"IDAT", zlib.compress(rows[: len(rows) - short]))
    (tmp_path / "a.png").write_bytes(SIGNATURE + head + packed + chunk(b"IEND", b""))
    if short:
        with pytest.raises(ScanError, match="fewer rows than the 2"):
            take_picture(tmp_path / "a.png", 3)
    else:
        shown = take_picture(tmp_path / "a.png", 3)[0]
        np.testing.assert_array_equal(shown[:2], [[10, 20, 30], [40, 50, 60]])


def test_a_cut_jpeg_is_noted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(claims(by_pillow(Image.fromarray(GREY), "JPEG"), 400))
    notes = []
    take_picture(tmp_path / "a.jpg", SIZE, None, notes)
    assert notes == [CUT]
