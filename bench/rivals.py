"""What the simple rivals cost beside the networks of an experiment.

    python bench/rivals.py [--subjects 56] [--slices 30] [--size 224]

Simulates a cohort, trains one small frozen network on it without rivals, then adds them by a second
start, and starts a third time, when nothing is left to do: the second less the third is their cost.
"""

import argparse
import tempfile
import time
from pathlib import Path

import headscope as hs
from figure import Figure
from headscope.experiment.run import run
from headscope.simulation.cohort import simulate_cohort


def seconds(config):
    """Return the seconds of a start."""
    start = time.perf_counter()
    run(config)
    return time.perf_counter() - start


def measure(folder, subjects, slices, size):
    """Return the seconds that rivals add to an experiment."""
    simulate_cohort(folder / "data", subjects=subjects, seed=0)
    settings = {
        "data": folder / "data", "out": folder / "out", "count": slices, "size": size,
        "architectures": ("timm/test_resnet",), "weights": "random", "regimes": ("frozen",),
        "epochs": 1,
    }  # fmt: skip
    seconds(hs.Config(**settings, rivals=()))
    whole, rest = (seconds(hs.Config(**settings)) for _ in range(2))
    return whole - rest


def short(place):
    """Return the cost of the rivals on a small cohort."""
    return [
        Figure(
            "rivals of 16 subjects × 10 slices", measure(place.folder, 16, 10, 96), "s", at_most=20
        )
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=56)
    parser.add_argument("--slices", type=int, default=30, help="of a scan")
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spent = measure(Path(folder), given.subjects, given.slices, given.size)
        runs = hs.read_experiment(Path(folder) / "out", rivals=True)
        for one in runs:
            if one.is_rival:
                fit = one.metrics["train_seconds"]
                print(f"{one.name}: fitted in {fit:.2f} s, strength {one.metrics['strength']}")
        print(
            f"{len(runs[0].predictions):,} slices: the rivals cost {spent:.1f} s, "
            "scores and records included"
        )


if __name__ == "__main__":
    main()
