"""How far scans of other kinds are from training, and how often held-out subjects are beyond it.

    python bench/novelty.py EXPERIMENTS --data ../shared/data --weights resnet50_v1.safetensors

EXPERIMENTS is the folder that bench/trust.py wrote: the frozen ResNet-50 runs of OASIS-2-axial (one
slice per scan) and nichart_t1-sex (30 slices). Distances are shares of the limit of
`headscope.analysis.novelty`: above 1 a scan is farther than any training subject.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from headscope.analysis.novelty import training_scans
from headscope.experiment.new_scans.trained import pass_slices
from headscope.models.network import build_network
from headscope.record import Run
from headscope.scans.discovery import ScanFile
from headscope.slicing.parallel import take_file
from headscope.slicing.spec import SliceSpec

SOME = 5  # scans of each kind
OTHERS = {"OASIS-2-axial": "nichart_t1", "nichart_t1-sex": "formats/nifti"}


def held_out(run):
    """Return the share of each held-out subject's scans that is farthest."""
    reference, table = training_scans(run), run.predictions
    inside = table[table["subset"] == "test"]
    shares = {}
    for (subject, _), rows in inside.groupby(["subject_id", "session_id"]).indices.items():
        share = reference.share_of_limit(run.features["features"][inside.index[rows]])
        shares[subject] = max(shares.get(subject, 0.0), share)
    return np.array(list(shares.values())), reference.subjects


def kinds(spec, home, other, coronal):
    """Return the slices of each scan (n, H, W), by what was done to it."""
    scans = [take_file(ScanFile.at(path), spec.plane, spec).pixels for path in home[:SOME]]
    rng = np.random.default_rng(0)
    turned = replace(spec, plane="coronal")
    return {
        "another cohort": [take_file(ScanFile.at(path), "axial", spec).pixels for path in other],
        "coronal": [take_file(ScanFile.at(path), "coronal", turned).pixels for path in coronal],
        "upside down": [scan[:, ::-1] for scan in scans],
        "inverted": [255 - scan for scan in scans],
        "dimmed to 60%": [(0.6 * scan).astype(np.uint8) for scan in scans],
        "blurred, 2 pixels": [gaussian_filter(scan, (0, 2, 2)) for scan in scans],
        "noise of 20 greys": [
            np.clip(scan + rng.normal(0, 20, scan.shape), 0, 255).astype(np.uint8) for scan in scans
        ],
        "noise alone": [rng.integers(0, 255, scan.shape, dtype=np.uint8) for scan in scans],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiments", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    given = parser.parse_args()
    print("# Distance from the training scans, over the limit\n")
    for name, other in OTHERS.items():
        runs = [Run(path) for path in sorted((given.experiments / name / "runs").iterdir())]
        runs = [r for r in runs if r.setting.split == "subject" and r.setting.regime == "frozen"]
        tested = [held_out(run) for run in runs]
        beyond = np.concatenate([shares for shares, _ in tested]) > 1
        subjects = np.mean([count for _, count in tested])
        share, expected = 100 * beyond.mean(), 100 / (subjects + 1)
        print(
            f"{name}: {beyond.sum()} of {len(beyond)} held-out subjects ({share:.1f}%, {len(runs)} "
            f"splits) are above 1; with {subjects:.0f} in training {expected:.1f}% are expected.\n"
        )
        run, settings = runs[0], runs[0].settings
        one = {} if "nichart" in name else {"count": 1}
        stored = dict(settings["slicing"]) | {"size": int(settings["slice_size"])} | one
        network = build_network(
            "resnet50_v1", "frozen", given.weights, classes=2, size=stored["size"], seed=0
        )
        reference = training_scans(run)
        oasis = given.data / "oasis2"
        home = sorted((oasis / "axl" if one else given.data / "nichart_t1").glob("*.nii.gz"))
        coronal = sorted((oasis / "cor").glob("*.nii.gz")) if one else home
        others = sorted((given.data / other).glob("*.nii*"))[:SOME]
        spec = SliceSpec.from_settings(stored)
        print("| scan | distance, least to most |\n|---|--:|")
        for kind, scans in kinds(spec, home, others, coronal[:SOME]).items():
            passed = [pass_slices(network, np.ascontiguousarray(s), run).features for s in scans]
            shares = [reference.share_of_limit(features) for features in passed]
            print(f"| {kind} | {min(shares):.2f} to {max(shares):.2f} |", flush=True)
        print()


if __name__ == "__main__":
    main()
