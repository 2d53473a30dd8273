"""From .nii.gz to slices: beside a plain nibabel loop, on two processes, and its peak memory.

What two processes can gain at best is shown by two runs of one process each at the same time.

    python bench/slices.py [--data FOLDER_OF_NII_GZ] [--out FOLDER]

Without --data, six whole scans of 1 mm are simulated, and set into the grid of 256 × 256 × 256
bytes to which FreeSurfer conforms every scan. Times are CPU seconds of one thread, the least of
several rounds taken by turns, so that a shared machine matters little; those on one and two
processes are seconds on the clock.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor
from PIL import Image

from figure import Figure
from headscope.scans.volume import read_scan
from headscope.simulation.cohort import simulate_cohort
from headscope.slicing.extract import take_slices
from headscope.slicing.spec import SliceSpec

COUNT, SIZE, ROUNDS = 30, 224, 9


def plain_loop(path):
    """What one writes first: get_fdata, take slices, resize with Pillow."""
    volume = nib.load(path).get_fdata()
    low, high = volume.min(), volume.max()
    first = volume.shape[2] // 2 - COUNT // 2
    return [resized(volume[:, :, k], low, high) for k in range(first, first + COUNT)]


def same_work_loop(path):
    """The same with what headscope does besides: canonical axes, a window over the foreground."""
    volume = nib.as_closest_canonical(nib.load(path)).get_fdata()
    dark, bright = np.percentile(volume, [2, 98])
    foreground = volume > dark + 0.1 * (bright - dark)
    low, high = np.percentile(volume[foreground], [1, 98])
    top = np.flatnonzero(foreground.any(axis=(0, 1)))[-1]
    first = min(max(0, top - 70 - COUNT // 2), volume.shape[2] - COUNT)
    return [resized(volume[:, :, k].T[::-1], low, high) for k in range(first, first + COUNT)]


def resized(picture, low, high):
    grey = (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def headscope_loop(path):
    return take_slices(read_scan(path), SliceSpec("axial", COUNT, SIZE))


def bare_inflate(path):
    packed = path.read_bytes()
    size = int.from_bytes(packed[-4:], "little")  # known beforehand: growing memory costs as much
    return IgzipDecompressor(flag=DECOMP_GZIP).decompress(packed, size)


def conformed(path, folder):
    """Write a scan as FreeSurfer would conform it: 256 voxels of 1 mm each way, uint8."""
    image = nib.load(path)
    volume = image.get_fdata()
    volume = np.clip(volume * (220 / np.percentile(volume, 99.8)), 0, 255).astype(np.uint8)
    missing = [256 - n for n in volume.shape]
    whole = np.pad(volume, [(n // 2, n - n // 2) for n in missing])
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(whole, image.affine), folder / path.name)


def one_process_apart(paths):
    """Time in a fresh process, whose memory no other work has shaped."""
    child = get_context("spawn").Process(target=one_process, args=(paths,))
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(child.exitcode)


def simulated(folder):
    """Make six whole scans of 1 mm, and conform three of them."""
    options = {"subjects": 6, "spacing_mm": 1, "scan_format": "nifti", "repeat_share": 0}
    simulate_cohort(folder / "sim", **options)
    for path in sorted((folder / "sim").rglob("*.nii.gz"))[:3]:
        conformed(path, folder / "conformed")


def least(paths, rounds):
    """Return the CPU seconds per volume of each way: the least of some rounds by turns."""
    ways = (headscope_loop, plain_loop, same_work_loop, bare_inflate)
    best = {(way, path): np.inf for way in ways for path in paths}
    for _ in range(rounds):
        for way, path in best:
            start = time.thread_time()
            way(path)
            best[way, path] = min(best[way, path], time.thread_time() - start)
    return {way: np.mean([best[way, path] for path in paths]) for way in ways}


def one_process(paths):
    """Print CPU milliseconds a volume of each way."""
    image = nib.load(paths[0])
    size = np.mean([path.stat().st_size for path in paths]) / 2**20
    print(f"{len(paths)} volumes as {image.shape} {image.get_data_dtype()}, {size:.1f} MiB each")
    each = least(paths, ROUNDS)
    for way, seconds in each.items():
        print(f"{way.__name__:16} {1000 * seconds:7.1f} ms a volume")
    ours = each[headscope_loop]
    print(f"plain loop / headscope:           {each[plain_loop] / ours:.2f} x")
    print(f"loop of the same work / headscope: {each[same_work_loop] / ours:.2f} x")
    print(f"bare isal inflate / headscope:     {each[bare_inflate] / ours:.0%} of its time")


CHILD = """
import resource, sys, time
from pathlib import Path
from headscope.cohort.layouts import find_cohort
from headscope.slicing.write import write_slices
cohort = find_cohort(Path(sys.argv[1]))
start = time.perf_counter()
write_slices(cohort, Path(sys.argv[2]), workers=int(sys.argv[3]))
seconds = time.perf_counter() - start
# ru_maxrss of this process would hold what its parent had when it started it
status = Path("/proc/self/status").read_text()
own = int(status.split("VmHWM:")[1].split()[0])
print(seconds, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


def whole_cohort(paths, number, workers, folder):
    """Slice `number` volumes in a process of its own; return its seconds."""
    (done,) = sliced(paths, number, [workers], folder)
    seconds, peak = map(float, done.split())
    print(
        f"{number:4} volumes, {workers} process{'es' * (workers > 1)}: {seconds:6.1f} s, "
        f"{1000 * seconds / number:5.1f} ms a volume, peak memory of a process {peak:.0f} MiB"
    )
    return seconds


def sliced(paths, number, runs, folder):
    """Slice `number` volumes (links to the few there are) in runs of so many workers at once."""
    data = folder / f"cohort{number}"
    for n in range(number):
        place = data / ("AD" if n % 2 else "NC")
        place.mkdir(parents=True, exist_ok=True)
        link = place / f"sub-{n:03d}_T1w.nii.gz"
        if not link.exists():
            link.symlink_to(paths[n % len(paths)].resolve())
    children = []
    for n, workers in enumerate(runs):
        out = folder / f"slices{n}"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-c", CHILD, data, out, str(workers)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        children.append(subprocess.Popen(command, **pipes))
    printed = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        sys.exit("slicing failed")
    return printed


def short(place):
    """Return the figures of three simulated volumes of 1 mm, in this process."""
    options = {"subjects": 6, "spacing_mm": 1, "scan_format": "nifti", "repeat_share": 0}
    simulate_cohort(place.folder / "sim", **options)
    spent = least(sorted((place.folder / "sim").rglob("*.nii.gz"))[:3], 3)
    ours = spent[headscope_loop]
    return [
        Figure("plain loop over headscope", spent[plain_loop] / ours, "×", at_least=3),
        Figure("loop of the same work over headscope", spent[same_work_loop] / ours, "×"),
        Figure("bare inflation over headscope", spent[bare_inflate] / ours, "×"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--quick", action="store_true", help="one process alone")
    parser.add_argument("--many", type=int, default=460)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.data is None:
            simulated(folder)
        paths = sorted((options.data or folder / "sim").rglob("*.nii.gz"))[:6]
        one_process_apart(paths)
        if options.data is None:
            one_process_apart(sorted((folder / "conformed").iterdir()))
        if options.quick:
            return
        whole_cohort(paths, 23, 1, folder)
        one, two = (whole_cohort(paths, options.many, workers, folder) for workers in (1, 2))
        beside = sliced(paths, options.many, [1, 1], folder)
        best = 2 * one / max(float(line.split()[0]) for line in beside)
        print(f"two processes are {one / two:.2f} x as fast as one; two runs at once {best:.2f} x")


if __name__ == "__main__":
    main()
