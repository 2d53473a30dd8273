"""Whether a volume is a mask or a label map: few whole numbers in patches of one value."""

import math
from typing import Final

import numpy as np

from headscope.scans.discovery import ScanFile
from headscope.scans.header import (
    GZIPPED,
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
FLAT_SHARE: Final = 0.8  # of neighbours inside: those of a scan differ by noise
LARGEST_CHECKED: Final = 2**27  # bytes


def is_label_map(scan: ScanFile) -> bool:
    """Return whether a volume holds few whole numbers, which lie in patches of one value.

    The header and the size of the packed file tell most scans from label maps without a voxel;
    of a plain file the middle is read. A file that cannot be read is no label map: slicing it will
    say what is wrong.
    """
    if scan.kind != "volume":
        return False
    try:
        with np.errstate(all="ignore"):
            header = read_header(scan.path)
            check_header(header)
            voxels = _middle(header)
    except (Refused, MemoryError, *UNREADABLE):
        return False
    return voxels is not None and _is_flat(voxels)


def _middle(header: Header) -> np.ndarray | None:
    """Return the middle (I, J, n) of a volume, or None where its packed size shows a scan."""
    shape = squeeze_shape(header.shape)[:3]
    if len(shape) < 3:
        return None
    plane, depth = shape[0] * shape[1], shape[2]
    size = math.prod(shape) * header.dtype.itemsize
    with header.data.open("rb") as file:
        packed = file.read(2) == GZIPPED
        stored = file.seek(0, 2)
    if size > LARGEST_CHECKED or (packed and stored > PACKED_SHARE * size):
        return None
    first, last = (depth // 3, math.ceil(2 * depth / 3)) if not packed else (0, depth)
    step = plane * header.dtype.itemsize
    raw = read_bytes(header.data, header.offset + first * step, (last - first) * step)
    voxels = np.frombuffer(raw, header.dtype, plane * (last - first))
    return voxels.reshape((shape[0], shape[1], last - first), order="F")


def _is_flat(voxels: np.ndarray) -> bool:
    """Return whether voxels (I, J, K) are few whole numbers in patches of one value."""
    whole = voxels.astype(np.float32)
    sample = whole.ravel()[:: max(whole.size // 20_000, 1)]
    if not np.isfinite(sample).all() or (sample != np.round(sample)).any():
        return False
    levels = np.unique(voxels)
    if not 2 <= len(levels) <= FEW_LEVELS or (levels != np.round(levels)).any():
        return False
    inside = whole != 0
    pairs = [(inside[1:] & inside[:-1]), (inside[:, 1:] & inside[:, :-1])]
    equal = [whole[1:] == whole[:-1], whole[:, 1:] == whole[:, :-1]]
    count = sum(int(pair.sum()) for pair in pairs)
    same = sum(int((pair & match).sum()) for pair, match in zip(pairs, equal, strict=True))
    return count > 0 and same >= FLAT_SHARE * count
