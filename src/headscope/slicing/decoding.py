"""A picture file by Pillow → its grey values: all of its rows, all of its bits, upright.

Pillow keeps the upper 8 bits of deep colours, does not invert deep greys whose 0 is white, and
leaves rows black that a file claims and does not hold.
"""

import math
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from headscope.scans.header import Refused

DEEP: Final = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits
ALPHA: Final = ("RGBA", "LA", "PA", "La", "RGBa")
PHOTOMETRIC, COMPRESSION, BITS, PLANAR, BYTE_COUNTS = 262, 259, 258, 284, (279, 325)  # TIFF's tags
# what Pillow lacks: deep greys with the big end first and white as 0, or with transparency
MORE_KINDS: Final[dict[Any, tuple[str, str]]] = {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    **{
        (end, 1, (1,), 1, (16, 16), (extra,)): ("RGBA", "RGBA")  # grey's two bytes, then alpha's
        for end in (b"II", b"MM")
        for extra in (0, 1, 2)
    },
}
ADAM7: Final = (  # of an interlaced PNG's passes: first column, step; first row, step
    (0, 8, 0, 8),
    (4, 8, 0, 8),
    (0, 4, 4, 8),
    (2, 4, 0, 4),
    (0, 2, 2, 4),
    (1, 2, 0, 2),
    (0, 1, 1, 2),
)
CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its type of colour
MOST_UNPACKED: Final = 2**20  # bytes of it at once
IDAT: Final = zlib.crc32(b"IDAT")
SHORT: Final = "is truncated: it holds fewer rows than the {} that its header claims"


@contextmanager
def more_kinds() -> Iterator[None]:
    """Let Pillow open deep greys that it does not know, as `read_grey` expects them."""
    kinds = TiffImagePlugin.OPEN_INFO
    added = {key: kind for key, kind in MORE_KINDS.items() if key not in kinds}
    kinds.update(added)
    try:
        yield
    finally:
        for key in added:
            del kinds[key]


def read_grey(image: ImageFile.ImageFile, path: Path) -> NDArray[Any]:
    """Return the grey values (H, W) of an open picture: uint8, or deeper where it is."""
    if image.format == "TIFF":
        _check_strips(image)
    elif image.format == "PNG":
        _check_rows(image, path)
    args = image.tile[0].args if image.tile else None
    mode, raw = image.mode, str(args[0] if isinstance(args, tuple) else args)
    if mode not in DEEP and (";16" in raw or _is_deep_grey_alpha(image)):
        return _deep_colours(image, path, raw)
    white_is_zero = image.format == "TIFF" and _tag(image, PHOTOMETRIC) == (0,)
    turned = ImageOps.exif_transpose(image)
    if mode in DEEP:
        grey = np.asarray(turned)
        if white_is_zero:  # Pillow inverts those of 8 bits alone
            grey = -grey if grey.dtype.kind == "f" else grey.max() - grey.astype(np.int64)
        return grey
    if mode in ALPHA or "transparency" in turned.info:
        rgba = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.asarray(turned.getchannel(0) if turned.mode == "LAB" else turned.convert("L"))


def _deep_colours(image: ImageFile.ImageFile, path: Path, raw: str) -> NDArray[np.uint16]:
    """Return the luminance of colours of 16 bits, 0 to 65535, transparency black.

    The file is decoded twice: as numbers whose first byte is the upper one, and the other way.
    """
    if _tag(image, PLANAR) == (2,):
        raise Refused("stores colours of 16 bits one by one: save it with planes interleaved")
    kind, _, order = raw.partition(";16")
    if _is_deep_grey_alpha(image) or kind == "LA":
        pair = np.ascontiguousarray(_decode(path, "RGBA"))  # (H, W, 4): two bytes each
        bands, kind = pair.view("<u2" if _is_little(image) else ">u2"), "LA"
    else:
        kind = "RGBX" if kind == "RGBa" else kind  # multiplied by alpha already: as on black
        order = sys.byteorder[0].upper() if order == "N" else order
        bands = 256 * _decode(path, f"{kind};16{order}").astype(np.uint16)
        bands += _decode(path, f"{kind};16{'B' if order == 'L' else 'L'}")
    return _luminance(bands, kind)


def _luminance(bands: NDArray[np.uint16], kind: str) -> NDArray[np.uint16]:
    """Return the luminance (H, W) by BT.601 of bands (H, W, n), band by band to save memory."""
    weights = (1.0,) if kind == "LA" else (0.299, 0.587, 0.114)
    grey = np.zeros(bands.shape[:2], dtype=np.float32)
    for band, weight in enumerate(weights):
        light = 65535 - bands[..., band] if kind == "CMYK" else bands[..., band]
        grey += light * np.float32(weight)
    if kind in ("LA", "RGBA", "CMYK"):
        share = 65535 - bands[..., -1] if kind == "CMYK" else bands[..., -1]
        grey *= share / np.float32(65535)
    return np.rint(grey).astype(np.uint16)


def _decode(path: Path, raw: str) -> NDArray[np.uint8]:
    """Return the bands (H, W, n) of a picture, decoded as if its raw mode were another."""
    with Image.open(path, formats=("PNG", "TIFF")) as image:
        image.tile = [
            tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
            for tile in image.tile
        ]
        return np.asarray(ImageOps.exif_transpose(image))


def _is_deep_grey_alpha(image: ImageFile.ImageFile) -> bool:
    return image.format == "TIFF" and _tag(image, BITS) == (16, 16)


def _is_little(image: ImageFile.ImageFile) -> bool:
    """Return whether the lower byte of a number comes first as decoded."""
    if image.format == "PNG":
        return False
    if image.tile[0].codec_name == "libtiff":
        return sys.byteorder == "little"
    return bool(image.tag_v2.prefix == b"II")  # type: ignore[attr-defined]


def _tag(image: ImageFile.ImageFile, number: int) -> tuple[Any, ...]:
    """Return the values of a tag of a TIFF."""
    value = getattr(image, "tag_v2", {}).get(number, ())
    return value if isinstance(value, tuple) else (value,)


def _check_strips(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF whose strips or tiles do not cover the picture that its header claims."""
    width, height = image.size
    covered = 0
    for tile in image.tile:
        left, above, right, below = tile.extents or (0, 0, width, height)
        covered += (right - left) * (below - above)
    stored = max((sum(_tag(image, number)) for number in BYTE_COUNTS), default=0)
    bits = sum(_tag(image, BITS) or (1,))
    short = _tag(image, COMPRESSION) == (1,) and 0 < stored < height * math.ceil(width * bits / 8)
    if covered < width * height or short:
        raise Refused(SHORT.format(height))


def _check_rows(image: ImageFile.ImageFile, path: Path) -> None:
    """Refuse a PNG whose rows end before those that its header claims, or fail their checksum.

    Pillow compares the checksums of all chunks but those of the pixels.
    """
    content = path.read_bytes()
    wanted = _unpacked_size(*image.size, *struct.unpack(">BBxxB", content[24:29]))
    unpacker, place, size = zlib.decompressobj(), 8, 0
    while size < wanted and place + 8 <= len(content) and not unpacker.eof:
        (length,) = struct.unpack(">I", content[place : place + 4])
        start = place + 8
        packed = content[start : start + length] if content[place + 4 : start] == b"IDAT" else b""
        checksum = content[start + length : start + length + 4]
        if packed and len(checksum) == 4 and zlib.crc32(packed, IDAT) != int.from_bytes(checksum):
            raise Refused("is damaged: the checksum of its pixels is another")
        while packed and size < wanted:
            size += len(unpacker.decompress(packed, MOST_UNPACKED))
            packed = unpacker.unconsumed_tail
        place = start + length + 4
    if size < wanted:
        raise Refused(SHORT.format(image.size[1]))


def _unpacked_size(width: int, height: int, bits: int, colour: int, interlaced: int) -> int:
    """Return the bytes of a PNG's rows, each with that of its filter."""
    size = 0
    for left, across, top, down in ADAM7 if interlaced else ((0, 1, 0, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        row = 1 + math.ceil(columns * bits * CHANNELS[colour] / 8)
        size += rows * row if columns > 0 else 0
    return size
