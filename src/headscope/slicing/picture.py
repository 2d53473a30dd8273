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
from PIL import Image, ImageFile

from headscope.scans.header import Refused
from headscope.scans.volume import refusing, with_finite
from headscope.slicing.decoding import more_kinds, read_grey
from headscope.slicing.extract import draw_picture

FORMATS: Final = ("JPEG", "PNG", "TIFF")
LARGEST_PICTURE: Final = 2**25  # pixels; more is a decompression bomb, or no slice
LARGEST_SIDE: Final = 2**15
WHOLE: Final = (0.0, 255.0)
BARE: Final = 0.5  # share of the rows
CUT: Final = "More than half of the rows of a picture are one grey at its end: it may be cut short"


def take_picture(
    path: Path,
    size: int,
    window: tuple[float, float] | None = None,
    notes: list[str] | None = None,
) -> NDArray[np.uint8]:
    """Return a picture as one slice (1, size, size), padded square with black.

    `window` holds the greys of a deep picture that become black and white; without it they are
    percentiles. `notes` gets a sentence for each thing that was assumed or repaired.

    Raises
    ------
    ScanError
        It is damaged, larger than any slice, of several pages, or shows nothing.
    """
    notes = [] if notes is None else notes
    with refusing(path):
        grey = _read(path, size)
        grey, repaired = with_finite(grey)
        notes += repaired
        if grey.min() == grey.max():
            raise Refused(f"shows nothing: every pixel is {grey.min()}")
        even = (grey == grey[-1, 0]).all(axis=1)[::-1]  # (H,), from below
        if np.argmin(even) > BARE * len(grey):
            notes.append(CUT)
        window = WHOLE if grey.dtype == np.uint8 else window
        return draw_picture(grey, size, window, notes)[None]


def _read(path: Path, size: int) -> NDArray[Any]:
    """Return the grey values (H, W) of a file."""
    if path.exists() and not path.is_file():
        raise Refused("cannot be read: it is no regular file")
    if path.exists() and path.stat().st_size == 0:
        raise Refused("is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # errors name what is wrong with a file
        try:
            with more_kinds(), Image.open(path, formats=FORMATS) as image:
                _check_size(image)
                # decode of a large JPEG only what the slice can show
                image.draft("L", (2 * size, 2 * size))
                return read_grey(image, path)
        except Image.DecompressionBombError:
            raise Refused("is too large for a slice: its header claims a bomb of pixels") from None
        except Image.UnidentifiedImageError:
            kinds = "neither JPEG, PNG nor TIFF, or of a kind that cannot be read"
            raise Refused(f"is no picture: {kinds}") from None
        except (SyntaxError, struct.error, AttributeError, NotImplementedError) as error:
            raise Refused(f"is damaged ({str(error) or type(error).__name__})") from None


def _check_size(image: ImageFile.ImageFile) -> None:
    """Refuse what no slice can be, before anything is decoded."""
    width, height = image.size
    if width * height > LARGEST_PICTURE or max(width, height) > LARGEST_SIDE:
        raise Refused(f"is too large for a slice: its header claims {width}×{height} pixels")
    if image.format != "JPEG" and _has_pages(image):
        raise Refused("holds several pages: give each slice a file of its own")


def _has_pages(image: ImageFile.ImageFile) -> bool:
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return False
    return True
