"""2,000 damaged files by a fixed seed, each read in a process whose memory is limited.

Run as `python -m tests.support.mutation FOLDER`: it prints, as JSON, how many files of each format
gave slices, every reason given, the longest time and whatever went wrong.
"""

import gzip
import json
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from headscope.scans.volume import ScanError, read_scan
from headscope.slicing.extract import take_slices
from headscope.slicing.picture import take_picture
from headscope.slicing.spec import SliceSpec

FILES = 2000
LIMIT = 2 * 2**30
SLICES, SIZE = 3, 32


def whole_files(folder: Path) -> dict[str, bytes]:
    """One sound file of each format: its suffix and its bytes."""
    rng = np.random.default_rng(0)
    ball = (
        sum(axis**2 for axis in np.meshgrid(*[np.linspace(-1, 1, n) for n in (18, 20, 16)])) < 0.8
    )
    volume = (ball * 300 + rng.integers(0, 60, ball.shape)).astype(np.int16)
    affine = np.diag([-2.0, 2, 2.5, 1])
    images = {
        ".nii": nib.Nifti1Image(volume, affine),
        ".nii.gz": nib.Nifti1Image(volume.astype(np.float32), affine),
        ".2.nii.gz": nib.Nifti2Image(volume, affine),
        ".mgz": nib.MGHImage(volume.astype(np.float32), affine),
        ".mgh": nib.MGHImage(volume, affine),
        ".img": nib.Spm2AnalyzeImage(volume, affine),
    }
    for suffix, image in images.items():
        nib.save(image, folder / f"whole{suffix}")
    picture = (volume[:, :, 8] / volume.max() * 255).clip(0, 255).astype(np.uint8)
    for suffix in (".png", ".jpg"):
        Image.fromarray(picture).save(folder / f"whole{suffix}")
    Image.fromarray(volume[:, :, 8].astype(np.uint16)).save(folder / "whole.tif")
    Image.fromarray(picture).save(folder / "whole.lzw.tif", compression="tiff_lzw")
    suffixes = [*images, ".png", ".jpg", ".tif", ".lzw.tif"]
    if write_dicom(folder / "whole.dcm", volume[:, :, 8]):
        suffixes.append(".dcm")
    return {
        suffix: (folder / f"whole{'.hdr' if suffix == '.img' else suffix}").read_bytes()
        for suffix in suffixes
    }


def write_dicom(path: Path, picture) -> bool:
    """Write one slice as DICOM; False where SimpleITK is not installed."""
    try:
        import SimpleITK
    except ImportError:
        return False
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(picture)[None])
    SimpleITK.WriteImage(image, str(path))
    return True


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, overwrite bytes of the header, cut the file, or do several of these."""
    data = bytearray(raw)
    kinds = rng.random(3) < (0.5, 0.6, 0.3)
    if kinds[0] or not kinds.any():
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= 1 << int(rng.integers(8))
    if kinds[1]:
        for place in rng.integers(0, min(len(data), 700), rng.integers(1, 8)):
            data[place] = int(rng.choice([0, 1, 127, 128, 255, rng.integers(256)]))
    if kinds[2]:
        data = data[: rng.integers(0, len(data))]
    return bytes(data)


def damage(suffix: str, raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file as it lies, or, where it is packed, half of the time what is packed in it."""
    if suffix.endswith("z") and rng.random() < 0.5:
        return gzip.compress(mutated(gzip.decompress(raw), rng), 1)
    return mutated(raw, rng)


def give_slices(path: Path, plane: str):
    """Do what `write_slices` does with one file."""
    if path.suffix in (".png", ".jpg", ".tif"):
        return take_picture(path, SIZE)
    scan = read_scan(path, plane=plane)
    return take_slices(scan, SliceSpec(plane, 1 if path.suffix == ".dcm" else SLICES, SIZE))[0]


def main(folder: Path) -> dict:
    whole = whole_files(folder)
    rng = np.random.default_rng(20221)
    for suffix in whole:  # everything is imported and warm before memory is limited
        give_slices(folder / f"whole{'.hdr' if suffix == '.img' else suffix}", "axial")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, used + LIMIT))
    warnings.simplefilter("error")
    given, reasons, wrong, longest = Counter(), Counter(), [], (0.0, "")
    place = folder / "mutated"
    for number in range(FILES):
        suffix = list(whole)[number % len(whole)]
        (place / str(number)).mkdir(parents=True)
        path = place / str(number) / f"a{'.hdr' if suffix == '.img' else suffix}"
        path.write_bytes(damage(suffix, whole[suffix], rng))
        if suffix == ".img":
            voxels = (folder / "whole.img").read_bytes()
            path.with_suffix(".img").write_bytes(voxels if number % 4 else mutated(voxels, rng))
        start = time.perf_counter()
        try:
            slices = give_slices(path, ("axial", "coronal", "sagittal")[number % 3])
            given[suffix] += 1
            if slices.dtype != np.uint8 or slices.shape[1:] != (SIZE, SIZE):
                wrong.append(f"{number}{suffix}: slices of {slices.shape}")
        except ScanError as error:
            reasons[f"{suffix} {error.reason}"] += 1
            if not error.reason or "\n" in error.reason or str(place) in error.reason:
                wrong.append(f"{number}{suffix}: {error.reason!r}")
        except Exception:  # noqa: BLE001 (whatever it is, it is what the test looks for)
            wrong.append(f"{number}{suffix}: {traceback.format_exc()}")
        longest = max(longest, (time.perf_counter() - start, f"{number}{suffix}"))
    return {"given": given, "reasons": reasons, "wrong": wrong, "longest": longest}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
