"""Ready-made pictures of slices: JPEG, PNG and TIFF files → one grey slice each.

Colours become luminance, transparency becomes black, and the rotation that EXIF stores is applied.
Grey values of 8 bits stay as they are; deeper ones have no agreed black and white and are windowed
by percentiles, as those of a scan. Pixels count as square.
"""

import struct
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headscope.scans.header import Refused
from headscope.scans.volume import refusing
from headscope.slicing.extract import draw_picture

FORMATS: Final = ("JPEG", "PNG", "TIFF")
LARGEST_PICTURE: Final = 2**26  # pixels; more is a decompression bomb, or no slice
DEEP: Final = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits
WHOLE: Final = (0.0, 255.0)


def take_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """Return a picture as one slice (1, size, size), padded square with black.

    Raises
    ------
    ScanError
        It is damaged, larger than any slice, of several pages, or shows nothing.
    """
    with refusing(path):
        grey, window = _read_grey(path, size)
        return draw_picture(grey, size, window)[None]


def _read_grey(path: Path, size: int) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the pixels (H, W) and their window: that of 8 bits, or None for deeper ones."""
    if path.exists() and not path.is_file():
        raise Refused("cannot be read: it is no regular file")
    if path.exists() and path.stat().st_size == 0:
        raise Refused("is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # errors name what is wrong with a file
        try:
            with Image.open(path, formats=FORMATS) as image:
                grey = _upright_grey(image, size)
        except Image.DecompressionBombError:
            raise Refused("is too large for a slice: its header claims a bomb of pixels") from None
        except Image.UnidentifiedImageError:
            raise Refused("is no picture: neither JPEG, PNG nor TIFF") from None
        except (SyntaxError, struct.error, AttributeError, NotImplementedError) as error:
            raise Refused(f"is damaged ({str(error) or type(error).__name__})") from None
    if not np.isfinite(grey).all():
        raise Refused("holds infinite intensities, or none")
    if grey.min() == grey.max():
        raise Refused(f"shows nothing: every pixel is {grey.min()}")
    return grey, WHOLE if grey.dtype == np.uint8 else None


def _upright_grey(image: Image.Image, size: int) -> NDArray[Any]:
    width, height = image.size
    if width * height > LARGEST_PICTURE:
        raise Refused(f"is too large for a slice: its header claims {width}×{height} pixels")
    if image.format != "JPEG" and _has_pages(image):
        raise Refused("holds several pages: give each slice a file of its own")
    image.draft("L", (2 * size, 2 * size))  # decode of a large JPEG only what the slice can show
    turned = ImageOps.exif_transpose(image)
    if turned.mode in DEEP:
        return np.asarray(turned)
    if turned.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in turned.info:
        rgba = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.asarray(turned.convert("L"))


def _has_pages(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return False
    return True
