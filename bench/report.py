"""How long the report of an experiment takes, first and again, and how heavy its page is.

    PYTHONPATH=. python bench/report.py [EXPERIMENT…] [--runs 4 12] [--rounds 3] [--busy 2]

Copies each experiment without its networks and stored analyses, and writes its report in new
processes: once with nothing stored, then again. Without an experiment it makes some of so many
runs, 1,680 slices x 2,048 features. With `--busy N` the first report is written once more beside N
processes that multiply matrices without a pause; the last columns are its time and its processor
time over those alone, and the exit code is 1 where the first is above 3.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.synthetic import write_experiment

from figure import Figure

REPORT = "import sys; import headscope as hs; hs.report(sys.argv[1])"
BUSY = "import numpy as np\na = np.ones((500, 500))\nwhile True: a @ a"


STORED = ("leakage.json", "analysis.json", "report.json", "report.html")
MOST_RATIO = 3.0


def timed(folder):
    """Return the seconds of a report in a new process, imports included: clock, processor."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", REPORT, folder], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"The report of {folder} failed.")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def first_time(folder, busy=0):
    """Return the seconds of a report with nothing stored, beside so many busy processes."""
    for name in STORED:
        (folder / name).unlink(missing_ok=True)
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        return timed(folder)
    finally:
        for other in others:
            other.kill()
            other.wait()


def make(folder, runs):
    """Write an experiment of so many runs: networks, regimes and splits in turn."""
    parts = product(range(9), ("resnet50", "squeezenet1_1"), ("subject", "slice"),
                    ("frozen", "finetune", "scratch"))  # fmt: skip
    settings = [
        {"seed": seed, "architecture": name, "split": split, "regime": regime}
        for seed, name, split, regime in islice(parts, runs)
    ]
    return write_experiment(folder, settings, subjects=60, slices_each=28, width=2048, epochs=6)


def row_of(experiment, rounds, busy):
    """Return the row of an experiment, and how much longer it takes beside busy processes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / experiment.resolve().name
        leave = shutil.ignore_patterns("leakage.json", "analysis.json", "cache", "report.*")
        shutil.copytree(experiment, folder, ignore=leave)
        first, work = first_time(folder)
        again = min(timed(folder)[0] for _ in range(rounds))
        size = (folder / "report.html").stat().st_size / 1e6
        runs = len(list((folder / "runs").iterdir()))
        seconds, cost = first_time(folder, busy) if busy else (first, work)
    ratio = seconds / first
    values = (f"{runs}", f"{first:.1f}", f"{work:.1f}", f"{again:.1f}", f"{size:.2f}")
    beside = (f"{ratio:.1f}", f"{cost / work:.2f}") if busy else ("", "")
    return " | ".join((f"| {experiment.name}", *values, *beside)) + " |", ratio


def short(place):
    """Return the seconds of the report of four made runs, first and again."""
    folder = make(place.folder / "made", 4)
    return [
        Figure("first report of 4 runs × 1,680 slices", first_time(folder)[0], "s", at_most=20),
        Figure("the report again", timed(folder)[0], "s", at_most=3),
    ]


def main():
    """Print one row per experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="*", type=Path)
    parser.add_argument("--runs", nargs="+", type=int, default=[4, 12])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    print("| experiment | runs | first, s | of a processor, s | again, s | page, MB "
          "| busy over alone | of a processor |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        made = [] if options.experiments else options.runs
        folders = [make(Path(scratch) / f"made-{runs}", runs) for runs in made]
        ratios = []
        for experiment in [*options.experiments, *folders]:
            row, ratio = row_of(experiment, options.rounds, options.busy)
            print(row, flush=True)
            ratios.append(ratio)
    raise SystemExit(0 if max(ratios) <= MOST_RATIO else 1)


if __name__ == "__main__":
    main()
