"""A cohort from elsewhere: the drop, calibration, and planted heads that are found.

    python bench/evaluate.py [--subjects 80] [--out FOLDER]

An experiment is trained on a simulated cohort at 2.5 mm (frozen EfficientNet-Lite0, pretrained, two
seeds, 6 axial slices at 96 pixels). It then scores cohorts of half as many other subjects: of the
same scanner; and of others, whose voxels, noise and contrast (the exponent of all intensities)
differ. Each holds six heads of the experiment, simulated again with the other voxels, noise and
contrast under new ids. One scanner then scans two more cohorts, which did not choose it.
--weights random needs no network connection.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import headscope as hs
from headscope.console import console
from headscope.files import write_table
from headscope.simulation.cohort import plan_cohort, simulate_scan, write_oriented
from headscope.simulation.head import load_template

PLANTED = 6
KNOBS = {"ventricle_mm": 1.15, "thinning_mm": 0.2, "medial_loss": 0.06, "individuality": 1.0}
HOME = (2.5, 1.0, 0.02)
SCANNERS = (  # side of a voxel in mm, exponent of intensities, noise
    HOME,
    (2.5, 0.6, 0.02),
    (2.5, 2.0, 0.02),
    (2.5, 3.0, 0.02),
    (3.0, 2.0, 0.1),
    (4.0, 0.4, 0.05),
    (4.0, 0.6, 0.05),
    (4.0, 0.6, 0.1),
    (4.0, 2.0, 0.02),
    (4.0, 2.0, 0.05),
    (4.0, 3.0, 0.02),
    (5.0, 1.0, 0.02),
    (5.0, 2.0, 0.1),
)
COLUMNS = ("voxel, mm", "exponent", "noise", "cohort", "AUC, own test", "AUC there", "drop")
COLUMNS += ("in the large", "slope", "farther", "planted found", "others")
AGAIN = (4.0, 0.6, 0.1)  # the scanner that scans more cohorts


def write_scans(folder, plan, seed, scanner, template, prefix=""):
    """Simulate the scans of a plan as a scanner sees them; return their rows of scans.tsv."""
    spacing_mm, exponent, noise = scanner
    settings = KNOBS | {"seed": seed, "noise": noise, "spacing_mm": spacing_mm}
    rows = []
    for row in plan:
        name = f"{prefix}{row['subject_id']}_{row['session_id']}.nii.gz"
        if not (folder / name).exists():
            volume = simulate_scan(template, row, settings)[0].astype(float)
            top = np.percentile(volume, 99.9)
            changed = 1000 * np.clip(volume / top, 0, 1) ** exponent
            write_oriented(folder / name, changed.astype(np.int16), spacing_mm)
        subject = prefix + row["subject_id"]
        rows.append((name, subject, row["session_id"], row["label"]))
    return rows


def write_cohort(folder, plans, scanner, template):
    """Write a cohort of several plans: (plan, seed, prefix of its subjects' ids)."""
    rows = [
        row
        for plan, seed, prefix in plans
        for row in write_scans(folder, plan, seed, scanner, template, prefix)
    ]
    columns = ["path", "subject_id", "session_id", "label"]
    write_table(folder / "scans.tsv", pd.DataFrame(rows, columns=columns))
    return folder


def print_row(scanner, seed, result):
    """Print what the first network of an experiment does on a cohort."""
    row, (part,) = result.rows[0], result.rows[0].calibration
    auc, shared = row.scores["subject_auc"], result.overlap.new_subjects
    recognised = sum(subject.startswith("planted-") for subject in shared)
    print(
        f"| {' | '.join(f'{value:g}' for value in scanner)} | {seed} "
        f"| {auc.inside:.3f} | {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) "
        f"| {auc.drop:+.3f} ({auc.drop_low:+.3f} to {auc.drop_high:+.3f}) "
        f"| {part.large:+.2f} ({part.large_low:+.2f} to {part.large_high:+.2f}) "
        f"| {part.slope:.2f} ({part.slope_low:.2f} to {part.slope_high:.2f}) "
        f"| {row.farther:.1f} of {row.subjects} | {recognised} of {PLANTED} "
        f"| {len(shared) - recognised} of {row.subjects - PLANTED} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=80)
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    console.quiet = True
    folder = given.out or Path(tempfile.mkdtemp())
    template = load_template()
    home = plan_cohort(given.subjects, 0, 0.3, 2.2, "nifti")
    ids = sorted({row["subject_id"] for row in home})[:PLANTED]
    planted = [row for row in home if row["subject_id"] in ids]
    write_cohort(folder / "home", [(home, 0, "")], HOME, template)
    options = {"count": 6, "size": 96, "epochs": 40, "learning_rate": 0.01, "seeds": [0, 1]}
    network = {"architectures": ["tf_efficientnet_lite0"], "weights": given.weights}
    config = hs.Config(
        data=folder / "home", out=folder / "out", regimes=["frozen"], **options, **network
    )
    hs.run(config)
    print(f"# Cohorts from elsewhere: {given.subjects // 2} other subjects and {PLANTED} planted\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'--:|' * len(COLUMNS)}")
    cohorts = [(scanner, 1) for scanner in SCANNERS] + [(AGAIN, seed) for seed in (2, 3)]
    for scanner, seed in cohorts:
        away = plan_cohort(given.subjects // 2, seed, 0.3, 2.2, "nifti")
        plans = [(away, seed, "new-"), (planted, 0, "planted-")]
        name = "-".join(f"{value:g}".replace(".", "_") for value in (*scanner, seed))
        data = write_cohort(folder / name, plans, scanner, template)
        print_row(scanner, seed, hs.evaluate(folder / "out", data))


if __name__ == "__main__":
    main()
