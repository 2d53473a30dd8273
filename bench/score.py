"""How long `headscope score` takes on a table of many rows, and how much memory.

    python bench/score.py [--rows 100000] [--rows 1000000]

Each row is a slice; the process is a fresh one, so that imports are in the time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from figure import Figure

CASES = ((100_000, 400), (100_000, 1_000), (100_000, 3_333), (100_000, 100_000))


def write_rows(path, rows, subjects, classes=2):
    """Write predictions of so many rows of so many subjects."""
    rng = np.random.default_rng(0)
    owner = np.arange(rows) % subjects
    label = owner % classes
    lean = rng.normal(size=subjects)[owner] + rng.normal(size=rows)
    p = 1 / (1 + np.exp(-(lean + label - 0.5)))
    names = np.array(["NC", "AD"])
    pd.DataFrame(
        {
            "subject_id": np.char.add("sub-", owner.astype(str)),
            "session_id": 1,
            "label": names[label],
            "subset": "test",
            "predicted": names[(p > 0.5).astype(int)],
            "probability_AD": p,
            "probability_NC": 1 - p,
        }
    ).to_csv(path, index=False)


def measure(rows, subjects):
    """Return the file's MB, seconds, seconds of a processor, and peak MB of a process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write_rows(path, rows, subjects)
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "headscope", "score", str(path), "--json"],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(child.pid, 0)
        spent = time.perf_counter() - start
        assert status == 0, "headscope score failed"
        size = path.stat().st_size / 1e6
    return size, spent, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def short(place):
    """Return the figures of 100,000 rows."""
    _, _, busy, peak = measure(100_000, 1_000)
    return [
        Figure("100,000 rows", busy, "s of a processor", at_most=5),
        Figure("peak memory", peak, "MB", at_most=700),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, action="append")
    options = parser.parse_args()
    cases = [(rows, rows // 30) for rows in options.rows] if options.rows else CASES
    print("| rows | subjects | MB | seconds | of a processor | peak MB |")
    print("|---|---|---|---|---|---|")
    for rows, subjects in cases:
        size, spent, busy, peak = measure(rows, subjects)
        print(
            f"| {rows:,} | {subjects:,} | {size:.0f} | {spent:.1f} | {busy:.1f} | {peak:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
