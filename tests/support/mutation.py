"""Sound files of every format, and what damages them: the same damage for the same generator."""

import gzip
import importlib.util
import re
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

SHAPE = (18, 20, 16)
CHECKED = ("nii.gz", "2.nii.gz", "mgz", "png")  # their checksum tells that a byte is another one
EXTREMES = {  # of fields of a header, by their form
    "<h": (0, -1, 32767, -32768),
    ">h": (0, -1, 32767, -32768),
    "<i": (0, -1, 2**31 - 1, -(2**31)),
    ">i": (0, -1, 2**31 - 1, -(2**31)),
    "<q": (0, -1, 2**63 - 1, 2**40),
    "<f": (0.0, -1.0, 1e30, -1e30, float("nan"), float("inf"), 1e-30),
    ">f": (0.0, -1.0, 1e30, float("nan"), float("inf")),
}
NUMBER = re.compile(rb"-?\d+(\.\d+)?(e[+-]?\d+)?")
NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"1e308", b"9" * 30, b"null", b"", b"-0.0", b"2", b"[]")
WORD = re.compile(rb"[A-Za-z_]{2,}")
WORDS = (b"", b"test", b"train", b"AD", b"NC", b"\xff\xfe", b"null", b"a\tb", b"\n", b'"', b"=1+1")


def sound_volume(seed: int = 0) -> np.ndarray:
    """Return the voxels of a ball in noise."""
    rng = np.random.default_rng(seed)
    ball = sum(axis**2 for axis in np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE])) < 0.8
    return (ball * 300 + rng.integers(0, 60, ball.shape)).astype(np.int16)


def sound_scans(folder: Path) -> dict[str, dict[str, bytes]]:
    """Write a scan of each format; return the bytes of its files by suffix, by format."""
    folder.mkdir(parents=True, exist_ok=True)
    volume, affine = sound_volume(), np.diag([-8.0, 8, 10, 1])
    images = {
        "nii": nib.Nifti1Image(volume, affine),
        "nii.gz": nib.Nifti1Image(volume.astype(np.float32), affine),
        "2.nii.gz": nib.Nifti2Image(volume, affine),
        "mgz": nib.MGHImage(volume.astype(np.float32), affine),
        "mgh": nib.MGHImage(volume, affine),
        "img": nib.Spm2AnalyzeImage(volume, affine),
        "pair.img": nib.Nifti1Pair(volume, affine),
    }
    for suffix, image in images.items():
        nib.save(image, folder / f"whole.{suffix}")
    scans = {suffix: _files(folder, suffix) for suffix in images}
    return scans | _sound_series(folder)


def sound_pictures(folder: Path) -> dict[str, dict[str, bytes]]:
    """Write a picture of each format, as `sound_scans` does."""
    folder.mkdir(parents=True, exist_ok=True)
    plane = sound_volume()[:, :, 8]
    grey = Image.fromarray((plane / plane.max() * 255).clip(0, 255).astype(np.uint8))
    deep = Image.fromarray(plane.astype(np.uint16))
    grey.save(folder / "whole.png")
    grey.convert("RGB").save(folder / "whole.jpg")
    deep.save(folder / "whole.tif")
    grey.save(folder / "whole.lzw.tif", compression="tiff_lzw")
    return {suffix: _files(folder, suffix) for suffix in ("png", "jpg", "tif", "lzw.tif")}


def _files(folder: Path, suffix: str) -> dict[str, bytes]:
    suffixes = (suffix.replace("img", "hdr"), suffix) if suffix.endswith("img") else (suffix,)
    return {name: (folder / f"whole.{name}").read_bytes() for name in suffixes}


def _sound_series(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return a DICOM series as files of one slice each, packed, and of many frames."""
    if not (importlib.util.find_spec("pydicom") and importlib.util.find_spec("SimpleITK")):
        return {}
    from tests.support import dicom_objects

    ras = dicom_objects.volume()
    dicom_objects.write_axial(folder / "plain", ras)
    dicom_objects.write_axial(folder / "packed", ras, edit=_pack)
    order = [(0, k) for k in range(ras.shape[2])]
    dicom_objects.save(dicom_objects.enhanced([ras], order), folder / "frames" / "a.dcm")
    return {
        f"{name}.dcm": {path.name: path.read_bytes() for path in sorted((folder / name).iterdir())}
        for name in ("plain", "packed", "frames")
    }


def _pack(data, *_) -> None:
    from pydicom.uid import RLELossless

    data.compress(RLELossless)


def damaged_scan(
    scan: dict[str, bytes], others: list[dict[str, bytes]], rng: np.random.Generator
) -> tuple[dict[str, bytes], bool]:
    """Damage one file of a scan; the second value tells whether a checksum can still fit."""
    name = str(rng.choice(list(scan)))
    raw, fits = scan[name], False
    if rng.random() < 0.06:  # the file of another scan
        other = others[rng.integers(len(others))]
        return scan | {name: other[str(rng.choice(list(other)))]}, True
    if name.endswith("z") and rng.random() < 0.5:  # what is packed in it
        raw, fits = gzip.compress(mutated(gzip.decompress(raw), rng), 1), True
    else:
        raw = mutated(raw, rng)
    return scan | {name: raw}, fits


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage bytes in one to three ways."""
    ways = (_flip, _overwrite, _extremes, _cut, _zero, _double, _replace_text)
    data = bytearray(raw)
    for way in rng.choice(len(ways), rng.integers(1, 4), p=(0.25, 0.15, 0.25, 0.1, 0.1, 0.05, 0.1)):
        if data:
            data = ways[way](data, rng)
    return bytes(data)


def _flip(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(data), rng.integers(1, 20)):
        data[place] ^= 1 << int(rng.integers(8))
    return data


def _overwrite(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, min(len(data), 700), rng.integers(1, 8)):
        data[place] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    return data


def _extremes(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Set a field of the header, wherever it may lie, to an extreme."""
    for _ in range(rng.integers(1, 3)):
        code = str(rng.choice(list(EXTREMES)))
        last = min(len(data), 700) - struct.calcsize(code)
        if last > 0:
            value = EXTREMES[code][rng.integers(len(EXTREMES[code]))]
            struct.pack_into(code, data, int(rng.integers(0, last)) // 2 * 2, value)
    return data


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(0, len(data))]


def _range(data: bytearray, rng: np.random.Generator) -> slice:
    start = int(rng.integers(0, len(data)))
    return slice(start, start + int(rng.integers(1, max(2, len(data) // 4))))


def _zero(data: bytearray, rng: np.random.Generator) -> bytearray:
    place = _range(data, rng)
    data[place] = bytes(len(data[place]))
    return data


def _double(data: bytearray, rng: np.random.Generator) -> bytearray:
    place = _range(data, rng)
    return data[: place.stop] + data[place] + data[place.stop :]


def _replace_text(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Replace a number or a word, wherever bytes look like one, by another."""
    for _ in range(rng.integers(1, 4)):
        pattern, values = ((NUMBER, NUMBERS), (WORD, WORDS))[rng.integers(2)]
        places = [match.span() for match in pattern.finditer(data)]
        if places:
            start, stop = places[rng.integers(len(places))]
            data[start:stop] = values[rng.integers(len(values))]
    return data


def mutated_text(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage a text: numbers and words replaced, lines moved, doubled or dropped, or its bytes."""
    data, way = bytearray(raw), rng.integers(6)
    if way < 3:
        return bytes(_replace_text(data, rng))
    lines = raw.splitlines(keepends=True)
    if way == 5 or len(lines) < 2:
        return mutated(raw, rng)
    first, second = sorted(rng.integers(0, len(lines), 2))
    if way == 3:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first : second + 1] = lines[first : second + 1] * int(rng.choice([0, 2]))
    return b"".join(lines)
