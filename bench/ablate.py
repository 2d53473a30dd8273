"""What a rung of the ablation ladder costs: slices through the backbone, and seconds.

    python bench/ablate.py EXPERIMENT [--rungs blurred,silhouette]

The experiment is copied, so that its own ladder stays as it is. A rung costs one forward pass where
each slice went through each backbone once, whatever the number of seeds, folds and heads.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import headscope as hs
import headscope.training.features as features
from headscope.record import read_experiment
from headscope.slicing.rungs import RUNGS

PASSED = {"slices": 0}


def counting(extract):
    """Count the slices that pass through a backbone."""

    def counted(model, inputs, rows, *args, **options):
        for batch in extract(model, inputs, rows, *args, **options):
            PASSED["slices"] += len(batch[0])
            yield batch

    return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--rungs", default=",".join(RUNGS))
    options = parser.parse_args()
    features.extract = counting(features.extract)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "experiment"
        ignored = shutil.ignore_patterns("ablation", "report.html", "cache")
        shutil.copytree(options.experiment, copy, ignore=ignored)
        runs = [run for run in read_experiment(copy) if run.setting.regime == "frozen"]
        networks = {run.setting.architecture for run in runs}
        slices = len(runs[0].predictions)
        print(f"{len(runs)} frozen runs of {len(networks)} networks, {slices:,} slices")
        print("| rung | slices through a backbone | passes per backbone | seconds |")
        print("|---|---|---|---|")
        for rung in options.rungs.split(","):
            PASSED["slices"] = 0
            start = time.perf_counter()
            hs.ablate(copy, rungs=[rung])
            spent = time.perf_counter() - start
            caches = len([*(copy / "ablation" / rung / "cache").glob("features-*.npz")])
            passes = PASSED["slices"] / slices / max(caches, 1)
            print(f"| {rung} | {PASSED['slices']:,} | {passes:.2f} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
