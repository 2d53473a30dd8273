"""How long the report of an experiment takes, first and again, and how heavy its page is.

    python bench/report.py EXPERIMENT… [--rounds 3] [--busy 2]

Copies each experiment without its networks and stored analyses, and writes its report in new
processes: once with nothing stored, then again. With `--busy N` the same beside N processes that
multiply matrices without a pause; the last column is that time over the time alone.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figure import Figure

REPORT = "import sys; import headscope as hs; hs.report(sys.argv[1])"
BUSY = "import numpy as np\na = np.ones((500, 500))\nwhile True: a @ a"


def timed(folder):
    """Return the seconds that a report takes in a process of its own, imports included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", REPORT, folder], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def busily(folder, count):
    """Return the seconds beside `count` busy processes."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        return timed(folder)
    finally:
        for other in others:
            other.kill()
            other.wait()


def short(place):
    """Return the seconds of the report of four small made runs, first and again."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.support.leakage_runs import write_both

    folder = write_both(place.folder / "made")
    first, again = timed(folder), timed(folder)
    return [
        Figure("first report of 4 runs × 144 slices", first, "s", at_most=20),
        Figure("the report again", again, "s", at_most=3),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    print("| experiment | runs | first, s | again, s | page, MB | busy over alone |")
    print("|---|---|---|---|---|---|")
    for experiment in options.experiments:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / experiment.resolve().name
            leave = shutil.ignore_patterns("leakage.json", "analysis.json", "cache", "report.*")
            shutil.copytree(experiment, folder, ignore=leave)
            first = timed(folder)
            again = min(timed(folder) for _ in range(options.rounds))
            beside = f"{busily(folder, options.busy) / again:.1f}" if options.busy else ""
            size = (folder / "report.html").stat().st_size / 1e6
            runs = len(list((folder / "runs").iterdir()))
        print(f"| {experiment.name} | {runs} | {first:.1f} | {again:.1f} | {size:.2f} | {beside} |")


if __name__ == "__main__":
    main()
