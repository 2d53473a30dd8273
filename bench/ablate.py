"""What a rung of the ablation ladder costs: slices through the backbone, and seconds.

    python bench/ablate.py EXPERIMENT [--rungs blurred,silhouette]
    python bench/ablate.py --simulate

The experiment is copied, so that its own ladder stays as it is. A rung costs one forward pass where
each slice went through each backbone once, whatever the number of seeds, folds and heads.
--simulate makes cohorts whose classes differ in what is inside of a ball, or in its outline alone,
and prints what the ladder says of each.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

import headscope as hs
import headscope.training.features as features
from figure import Figure
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


def write_balls(folder, kind, subjects=20):
    """Write class folders of balls: the inner part or the outline tells the class."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    for k, name in enumerate(("AD", "NC")):
        (folder / name).mkdir(parents=True)
        for subject in range(subjects):
            outer = 0.85 - 0.15 * k * (kind == "outline") + rng.normal(0, 0.02)
            inner = 0.35 + 0.2 * k * (kind == "inside") + rng.normal(0, 0.02)
            volume = 400 * (radius < outer) + 300 * (radius < inner)
            volume = volume + rng.normal(0, 30, radius.shape) * (radius < outer)
            voxels = np.clip(volume, 0, 1000).astype(np.int16)
            scan = nib.Nifti1Image(voxels, np.diag([8, 8, 8, 1]))
            nib.save(scan, folder / name / f"sub-{name}{subject}_T1w.nii.gz")


def simulate(kind):
    """Return the ladder of a frozen random network on balls."""
    with tempfile.TemporaryDirectory() as folder:
        write_balls(Path(folder) / "scans", kind)
        out = hs.run(
            hs.Config(
                data=Path(folder) / "scans",
                out=Path(folder) / "out",
                architectures=["timm/test_resnet"],
                weights="random",
                regimes=["frozen"],
                count=2,
                size=64,
                epochs=60,
                learning_rate=0.5,
            )
        )
        return hs.ablate(out)


def short(place):
    """Return what silhouettes reach where the outline tells the class, and where not."""
    rows = {kind: accuracies(simulate(kind)) for kind in ("outline", "inside")}
    return [
        Figure("silhouettes where the outline tells", rows["outline"]["silhouette"], "%", 80),
        Figure("silhouettes where it does not", rows["inside"]["silhouette"], "%", at_most=80),
    ]


def accuracies(ladder):
    """Return the subject accuracy in per cent by rung."""
    (setting,) = [one for one in ladder.settings if one.full.split == "subject"]
    return {rung.name: 100 * rung.accuracy.value for rung in setting.rungs}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path, nargs="?")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--rungs", default=",".join(RUNGS))
    options = parser.parse_args()
    if options.simulate:
        for kind in ("inside", "outline"):
            print(f"{kind}\n{simulate(kind)}")
        return
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
