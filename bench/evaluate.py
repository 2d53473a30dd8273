"""A cohort from elsewhere: the drop, calibration, and planted heads that are found.

    python bench/evaluate.py [--subjects 80] [--out FOLDER]

An experiment is trained on a simulated cohort at 2.5 mm (frozen EfficientNet-Lite0 with the weights
of its publication, two seeds, 6 axial slices at 96 pixels). It then scores other simulated cohorts:
of the same scanner; and of others, whose voxels, noise and contrast (the exponent of all
intensities) differ. Each holds six heads of the experiment, simulated again at the other
resolution, noise and contrast under new ids. --weights random needs no network connection.
"""

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

import headscope as hs
from headscope.console import console
from headscope.files import read_table, write_table

PLANTED = 6
SCANNERS = {  # name: side of a voxel in mm, exponent of intensities, noise
    "same": (2.5, 1.0, 0.02),
    "contrast": (2.5, 0.6, 0.02),
    "resolution": (4.0, 1.0, 0.02),
    "both": (4.0, 0.6, 0.05),
}


def simulate(folder, subjects, seed, spacing_mm, exponent, noise):
    """Simulate a cohort, change its contrast, and return its table of scans."""
    hs.simulate(
        folder,
        subjects=subjects,
        seed=seed,
        spacing_mm=spacing_mm,
        noise=noise,
        scan_format="nifti",
    )
    table = read_table(folder / "scans.tsv")
    for name in table["path"] if exponent != 1 else ():
        image = nib.load(folder / name)
        values = np.asarray(image.dataobj, dtype=np.float64)
        top = np.percentile(values, 99.9)
        changed = (1000 * np.clip(values / top, 0, 1) ** exponent).astype(np.int16)
        nib.save(nib.Nifti1Image(changed, image.affine), folder / name)
    return table.assign(path=[str(folder / name) for name in table["path"]])


def write_elsewhere(folder, subjects, scanner):
    """Write a cohort of other subjects and of planted ones; return how many it has."""
    spacing_mm, exponent, noise = scanner
    new = simulate(folder / "new", subjects, 1, spacing_mm, exponent, noise)
    old = simulate(folder / "old", subjects, 0, spacing_mm, exponent, noise)
    ids = sorted(old["subject_id"].unique())[:PLANTED]
    planted = old[old["subject_id"].isin(ids)]
    planted = planted.assign(subject_id="planted-" + planted["subject_id"])
    table = pd.concat([new.assign(subject_id="new-" + new["subject_id"]), planted])
    table["path"] = [str(Path(name).relative_to(folder)) for name in table["path"]]
    write_table(folder / "scans.tsv", table)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=80)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    console.quiet = True
    folder = given.out or Path(tempfile.mkdtemp())
    hs.simulate(
        folder / "home", subjects=given.subjects, seed=0, spacing_mm=2.5, scan_format="nifti"
    )
    options = {"count": 6, "size": 96, "epochs": 40, "learning_rate": 0.01, "seeds": [0, 1]}
    network = {"architectures": ["tf_efficientnet_lite0"], "weights": given.weights}
    config = hs.Config(
        data=folder / "home", out=folder / "out", regimes=["frozen"], **options, **network
    )
    hs.run(config)
    print(
        f"# Cohorts from elsewhere: {given.subjects} subjects in each, {PLANTED} of them planted\n"
    )
    print("| scanner | AUC, own test | AUC there | drop | in the large | slope | farther |", end="")
    print(" planted found | others |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, scanner in SCANNERS.items():
        if not (folder / name / "scans.tsv").exists():
            write_elsewhere(folder / name, given.subjects, scanner)
        result = hs.evaluate(folder / "out", folder / name)
        row, (part,) = result.rows[0], result.rows[0].calibration
        auc = row.scores["subject_auc"]
        shared = result.overlap.new_subjects
        planted = sum(subject.startswith("planted-") for subject in shared)
        print(
            f"| {name} | {auc.inside:.3f} | {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) "
            f"| {auc.drop:+.3f} ({auc.drop_low:+.3f} to {auc.drop_high:+.3f}) "
            f"| {part.large:+.2f} ({part.large_low:+.2f} to {part.large_high:+.2f}) "
            f"| {part.slope:.2f} ({part.slope_low:.2f} to {part.slope_high:.2f}) "
            f"| {row.farther:.1f} of {row.subjects} | {planted} of {PLANTED} "
            f"| {len(shared) - planted} of {row.subjects - PLANTED} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
