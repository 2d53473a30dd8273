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
from headscope.experiment.run import run
from headscope.simulation.cohort import simulate_cohort


def seconds(config):
    """Return the seconds of a start."""
    start = time.perf_counter()
    run(config)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=56)
    parser.add_argument("--slices", type=int, default=30, help="of a scan")
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulate_cohort(Path(folder) / "data", subjects=given.subjects, seed=0)
        settings = {
            "data": Path(folder) / "data", "out": Path(folder) / "out", "count": given.slices,
            "size": given.size, "architectures": ("timm/test_resnet",), "weights": "random",
            "regimes": ("frozen",), "epochs": 1,
        }  # fmt: skip
        seconds(hs.Config(**settings, rivals=()))
        whole, rest = (seconds(hs.Config(**settings)) for _ in range(2))
        runs = hs.read_experiment(Path(folder) / "out", rivals=True)
        for one in runs:
            if one.is_rival:
                fit = one.metrics["train_seconds"]
                print(f"{one.name}: fitted in {fit:.2f} s, strength {one.metrics['strength']}")
        print(
            f"{len(runs[0].predictions):,} slices: the rivals cost {whole - rest:.1f} s, "
            "scores and records included"
        )


if __name__ == "__main__":
    main()
