"""A slice set of a million slices: how fast it opens, what random batches of 64 cost.

    python bench/million.py [--slices 1000000]

The set is written sparse: its 50 GB of zeros take no room on a disk that knows holes.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from figure import Figure
from headscope.files import write_json
from headscope.slicing.store import open_slices

SIZE, BATCH, BATCHES = 224, 64, 500


def write_sparse(out, slices):
    """Write the four files of a set by hand; every thousandth slice is not black."""
    out.mkdir()
    pixels = np.lib.format.open_memmap(
        out / "slices.npy", "w+", np.uint8, (slices, SIZE, SIZE), version=(1, 0)
    )
    pixels[::1000, 100, 100] = 255
    del pixels
    np.save(out / "labels.npy", (np.arange(slices) // 30 % 2).astype(np.int64))
    with (out / "slices.tsv").open("w") as file:
        file.write("scan\tsubject_id\tsession_id\tlabel\tplane\tslice_index\n")
        for row in range(slices):
            subject = row // 30
            label = ("AD", "NC")[subject % 2]
            file.write(
                f"{label}/sub-{subject}.nii.gz\tsub-{subject}\t1\t{label}\taxial\t{row % 30}\n"
            )
    settings = {"class_names": ["AD", "NC"], "slices": slices, "sha256": "0" * 64, "notes": []}
    write_json(out / "slices.json", settings)


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def short(place):
    """Return the figures of opening and reading a million slices."""
    write_sparse(place.folder / "set", 1_000_000)
    start = time.perf_counter()
    slices = open_slices(place.folder / "set")
    count = len(slices.labels)
    opened = time.perf_counter() - start
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for _ in range(BATCHES):
        slices.batch(rng.integers(0, count, BATCH))
    batch = (time.perf_counter() - start) / BATCHES
    return [
        Figure("a million slices opened", opened, "s", at_most=1),
        Figure("a random batch of 64", 1000 * batch, "ms", at_most=20),
        Figure("peak memory", peak_mib(), "MiB", at_most=400),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--set", type=Path, help="(the measuring process: a set that stands)")
    options = parser.parse_args()
    if options.set is None:
        import subprocess
        import sys

        with tempfile.TemporaryDirectory() as name:
            write_sparse(Path(name) / "set", options.slices)
            subprocess.run([sys.executable, __file__, "--set", f"{name}/set"], check=True)
        return
    start = time.perf_counter()
    slices = open_slices(options.set)
    labels = slices.labels
    opened = time.perf_counter() - start
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    bright = 0
    for _ in range(BATCHES):
        rows = rng.integers(0, len(labels), BATCH)
        pixels = slices.batch(rows)
        assert pixels.shape == (BATCH, SIZE, SIZE)
        assert ((pixels[:, 100, 100] > 0) == (rows % 1000 == 0)).all()
        bright += int((rows % 1000 == 0).sum())
    each = (time.perf_counter() - start) / BATCHES
    stored = json.loads((options.set / "slices.json").read_text())["slices"]
    print(f"{stored:,} slices of {SIZE} x {SIZE}: opened with labels in {opened:.2f} s")
    print(f"{BATCHES} random batches of {BATCH}: {1000 * each:.1f} ms each, {bright} not black")
    print(f"peak memory {peak_mib():.0f} MiB")
    start = time.perf_counter()
    table = slices.table
    print(f"the table, read on demand: {len(table):,} rows in {time.perf_counter() - start:.1f} s")
    print(f"peak memory with the table {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
