"""Whether a volume is a mask or a label map: few whole numbers in patches of one value."""

import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.scans.discovery import ScanFile
from headscope.scans.header import (
    GZIPPED,
    LARGEST_SLICE,
    UNREADABLE,
    Header,
    Refused,
    check_header,
    read_bytes,
    read_header,
    squeeze_shape,
)

PACKED_SHARE: Final = 0.15  # of its voxels' bytes: no scan is packed to less, but for its air
FEW_LEVELS: Final = 64
DAMAGED: Final = (  # what Pillow makes of a damaged picture
    *(OSError, EOFError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError),
    *(SyntaxError, AttributeError, struct.error, zlib.error),
)
FLAT_SHARE: Final = 0.8  # of neighbours inside: those of a scan differ by noise
FEW_GREYS: Final = 16
NEAR: Final = 16  # greys of 256 that JPEG makes of black, and of white
MOST_EXTREME: Final = 0.98
LARGEST_CHECKED: Final = 2**26  # bytes


def is_label_map(scan: ScanFile) -> bool:
    """Return whether a volume holds few whole numbers, in patches of one value.

    The size of a packed file tells most scans from label maps without a voxel; of a plain file the
    middle is read, and the rest where that does not tell. A file that cannot be read is no label
    map: slicing it will say what is wrong.
    """
    if scan.kind != "volume":
        return False
    try:
        with np.errstate(all="ignore"):
            header = read_header(scan.path)
            check_header(header)
            return _holds_labels(header)
    except UNREADABLE:
        return False
    except (Refused, MemoryError):
        return False


def is_label_picture(path: Path) -> bool:
    """Return whether a picture is black and white (as JPEG keeps them) or has few greys."""
    from PIL import Image  # rarely needed here

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if math.prod(image.size) > LARGEST_SLICE:
                    return False
                counts = np.array(image.convert("L").histogram())
    except (*DAMAGED, Image.DecompressionBombError):
        return False
    extremes = counts[:NEAR].sum() + counts[-NEAR:].sum()
    levels = np.count_nonzero(counts)
    return bool(levels > 1 and (levels <= FEW_GREYS or extremes >= MOST_EXTREME * counts.sum()))


def _holds_labels(header: Header) -> bool:
    shape = squeeze_shape(header.shape)[:3]
    size = math.prod(shape) * header.dtype.itemsize
    with header.data.open("rb") as file:
        packed = file.read(2) == GZIPPED
        stored = file.seek(0, 2)
    if len(shape) < 3 or size > LARGEST_CHECKED or (packed and stored > PACKED_SHARE * size):
        return False
    middle = range(shape[2] // 3, math.ceil(2 * shape[2] / 3))
    return (packed or _few(_voxels(header, middle))) and _is_flat(_voxels(header, range(shape[2])))


def _voxels(header: Header, depths: range) -> NDArray[Any]:
    """Return voxels (I, J, n) as stored."""
    rows, columns = header.shape[:2]
    step = rows * columns * header.dtype.itemsize
    raw = read_bytes(header.data, header.offset + depths[0] * step, len(depths) * step)
    voxels = np.frombuffer(raw, header.dtype, rows * columns * len(depths))
    return voxels.reshape((rows, columns, len(depths)), order="F")


def _few(voxels: NDArray[Any]) -> bool:
    """Return whether voxels are few whole numbers: of some first, then of an eighth."""
    parts = (voxels[::5, ::5, ::5], voxels[::2, ::2, ::2]) if voxels.size > 1000 else (voxels,)
    return all(
        len(levels := np.unique(part)) <= FEW_LEVELS and bool((levels == np.round(levels)).all())
        for part in parts
    )


def _is_flat(voxels: NDArray[Any]) -> bool:
    """Return whether voxels (I, J, K) are few whole numbers in patches of one value.

    Of up to eight values half of the neighbours may differ, as those of small lesions do.
    """
    if not _few(voxels):
        return False
    planes = voxels[:, :, ::2]
    levels, count, same = len(np.unique(planes)), 0, 0
    for first, second in ((planes[1:], planes[:-1]), (planes[:, 1:], planes[:, :-1])):
        inside = (first != 0) & (second != 0)
        count += int(inside.sum())
        same += int((inside & (first == second)).sum())
    return levels >= 2 and count > 0 and same >= (0.5 if levels <= 8 else FLAT_SHARE) * count
