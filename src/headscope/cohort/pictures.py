"""Ready-made pictures of slices: JPEG, PNG and TIFF files → one grey slice each.

Colours become luminance, transparency black, and a picture that a camera or scanner turned by its
EXIF mark is turned back. Grey values of 8 bits are kept as they are; deeper ones have no agreed
black and white and are windowed by percentiles, as a scan is. Pixels count as square.
"""

import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from headscope.cohort.found import SUBJECT
from headscope.cohort.headers import Refused
from headscope.cohort.midslices import draw_picture
from headscope.cohort.scans import refusing, walk_files
from headscope.errors import InputError
from headscope.files import NO_ID

if TYPE_CHECKING:
    import pandas as pd

PICTURES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
FORMATS: Final = ("JPEG", "PNG", "TIFF")
LARGEST_PICTURE: Final = 2**26  # pixels; more is a bomb, or no slice of a head
DEEP: Final = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits
KEPT: Final = (0.0, 255.0)
NO_IDS: Final = (
    "The names of the pictures hold no known form of subject id: nobody knows which of them show "
    "one person. Say where the id stands with --subject-pattern, as in '^(sub-[0-9]+)'."
)


def is_picture(name: str) -> bool:
    """Say whether a file is a picture, by its suffix."""
    return name.lower().endswith(PICTURES)


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures below `folder`, sorted; hidden files and folders are passed over."""
    found: list[Path] = []
    locked: list[Path] = []
    for place, files in walk_files(folder, locked):
        found += [place / name for name in files if is_picture(name)]
    return sorted(found + locked) if found else []


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


def subjects_in(
    names: Sequence[str], pattern: str | None, *, pictures: bool
) -> tuple[list[str], str] | None:
    """Return the subject id of each name by `pattern`, and where the ids come from.

    Without a pattern, pictures take the known forms of ids where every name holds one; else none
    is known, for a file's own name is no subject: all of them are `NO_ID`. For scans None says
    that no pattern was given.

    Raises
    ------
    InputError
        The pattern is none, or a name does not match it.
    """
    if pattern is not None:
        return _matched(names, pattern), "the pattern in the names"
    if not pictures:
        return None
    known = [SUBJECT.search(name) for name in names]
    if all(known):
        return [match[0] for match in known if match], "the ids in the names"
    return [NO_ID] * len(names), ""


def number_pictures(scans: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table of pictures with `slice_index`: the last number of each name.

    Where such numbers are lacking or repeat within a subject and session, its pictures are
    numbered in their order.
    """
    numbers = [_last_number(path) for path in scans["path"]]
    place = scans.assign(place=[-1 if n is None else n for n in numbers])["place"]
    order = scans.assign(place=place).sort_values(["place", "path"]).index
    index = place.copy()
    keys = [name for name in ("subject_id", "session_id", "plane") if name in scans.columns]
    for _, rows in scans.loc[order].groupby(keys, sort=False):
        own = place[rows.index]
        if own.duplicated().any() or (own < 0).any():
            index[rows.index] = np.arange(len(rows))
    return scans.assign(slice_index=index.astype(np.int64))


def _matched(names: Sequence[str], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"--subject-pattern {pattern!r} is no regular expression: {error}."
        ) from None
    found = [compiled.search(name) for name in names]
    subjects = ["" if m is None else m[min(compiled.groups, 1)] or "" for m in found]
    if not all(subjects):
        without = subjects.count("")
        raise InputError(
            f"--subject-pattern {pattern!r} finds no id in {without} of {len(names)} names, the "
            f"first {names[subjects.index('')]!r}."
        )
    return subjects


def _last_number(name: str) -> int | None:
    match = re.search(r"(\d{1,9})\D{0,2}$", name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return None if match is None else int(match[1])


def _read_grey(path: Path, size: int) -> tuple[NDArray[Any], tuple[float, float] | None]:
    """Return the pixels (H, W) and the window: that of 8 bits, or None where it is to be found."""
    if path.exists() and not path.is_file():
        raise Refused("cannot be read: it is no regular file")
    if path.exists() and path.stat().st_size == 0:
        raise Refused("is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file is said in our own words
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
    return grey, KEPT if grey.dtype == np.uint8 else None


def _upright_grey(image: Image.Image, size: int) -> NDArray[Any]:
    width, height = image.size
    if width * height > LARGEST_PICTURE:
        raise Refused(f"is too large for a slice: its header claims {width}×{height} pixels")
    if image.format != "JPEG" and _has_pages(image):
        raise Refused("holds several pages: give each slice a file of its own")
    image.draft("L", (2 * size, 2 * size))  # of a large JPEG as much as the slice will show
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
