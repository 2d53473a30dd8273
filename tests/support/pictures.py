"""Pictures byte by byte, of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def tiff(pixels, photometric=1, *, end="<", rows=None, strips=None, extra=None, kind=1):
    """A TIFF without compression of pixels (H, W) or (H, W, n); `rows` are those it claims.

    `strips` divides the rows, `extra` says what a last band is, `kind` 1 unsigned, 3 float.
    """
    stored = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, bands = stored.shape
    parts = np.array_split(stored, strips or 1)
    data = [part.astype(part.dtype.newbyteorder(end)).tobytes() for part in parts]
    starts = 8 + np.cumsum([0, *map(len, data)])
    bits = [8 * pixels.dtype.itemsize] * bands
    tags = [
        (256, "I", [width]),
        (257, "I", [rows or height]),
        (258, "H", bits),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", starts[:-1].tolist()),
        (277, "H", [bands]),
        (278, "I", [len(parts[0])]),
        (279, "I", list(map(len, data))),
        (284, "H", [1]),
        *([(338, "H", [extra])] if extra is not None else []),
        (339, "H", [kind] * bands),
    ]
    place = int(starts[-1])
    beyond, entries = b"", b""
    for tag, letter, values in tags:
        packed = struct.pack(f"{end}{len(values)}{letter}", *values)
        if len(packed) > 4:
            place_of = place + 2 + 12 * len(tags) + 4 + len(beyond)
            beyond, packed = beyond + packed, struct.pack(f"{end}I", place_of)
        number = {"H": 3, "I": 4}[letter]
        entries += struct.pack(f"{end}HHI", tag, number, len(values)) + packed.ljust(4, b"\0")
    head = (b"II" if end == "<" else b"MM") + struct.pack(f"{end}HI", 42, place)
    return head + b"".join(data) + struct.pack(f"{end}H", len(tags)) + entries + bytes(4) + beyond


def png(pixels, colour, *, rows=None):
    """A PNG of 8 or 16 bits whose rows are filtered by their left neighbour (filter 1)."""
    height, width = pixels.shape[:2]
    stored = pixels.astype(pixels.dtype.newbyteorder(">"))
    step = stored.dtype.itemsize * (stored.shape[2] if stored.ndim == 3 else 1)
    lines = np.frombuffer(stored.tobytes(), np.uint8).reshape(height, -1).astype(np.int16)
    filtered = lines.copy()
    filtered[:, step:] -= lines[:, :-step]
    packed = zlib.compress(b"".join(b"\1" + line.tobytes() for line in filtered.astype(np.uint8)))
    depth = 8 * stored.dtype.itemsize
    head = struct.pack(">IIBBBBB", width, rows or height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def chunk(kind, data):
    """One part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
