"""What accuracy is worth on real scans: the tables and figures of docs/trust.md.

    python bench/trust.py --data ../shared/data --weights resnet50_v1.safetensors --out FOLDER

Frozen ResNet-50, five seeds, both splits, on OASIS-2 (three planes together and each) and on
nichart_t1 (age above 80, sex; and with two pairs of scans that seem to be of one person merged).
Minutes on two cores, most of it the passes through the backbone. The same command goes on where it
stopped; --figures FOLDER draws the figures of the page.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from headscope.analysis.findings import centre
from headscope.analysis.leakage_file import stored_leakage
from headscope.config import make_config
from headscope.experiment import run
from headscope.figures import plot_dose, plot_gap, plot_identity, plot_permutations

SAME = {"Subj16": "Subj15", "Subj9": "Subj10"}  # found by 'headscope audit': likely one person each
RECIPE = {
    "architectures": ["resnet50_v1"],
    "regimes": ["frozen"],
    "splits": ["subject", "slice"],
    "seeds": [0, 1, 2, 3, 4],
    "learning_rate": 0.01,
}


def cohorts(data, out):
    """Name each cohort, with the settings that find it."""
    oasis, nichart = data / "oasis2", data / "nichart_t1"
    found = {"OASIS-2, three planes": {"data": oasis, "plane": "all"}}
    for plane in ("axial", "coronal", "sagittal"):
        found[f"OASIS-2, {plane}"] = {"data": oasis, "plane": plane}
    found["nichart_t1, age above 80"] = {"data": nichart, "label": "Age", "threshold": 80}
    found["nichart_t1, sex"] = {"data": nichart, "label": "Sex"}
    people = pd.read_csv(nichart / "participants.csv")
    for name, label in (
        ("age above 80, pairs merged", np.where(people["Age"] > 80, "above", "below")),
        ("sex, pairs merged", people["Sex"]),
    ):
        folder = out / name.replace(", ", "-").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(
            {
                "path": [str((nichart / f"{one}_T1.nii.gz").resolve()) for one in people["MRID"]],
                "subject_id": people["MRID"].replace(SAME),
                "session_id": people["MRID"],
                "label": label,
            }
        )
        table.to_csv(folder / "scans.tsv", sep="\t", index=False)
        found[f"nichart_t1, {name}"] = {"data": folder}
    return found


def folder_of(name):
    return name.replace(", ", "-").replace(" ", "-")


def percent(values):
    """Mean over the seeds, and their range."""
    values = 100 * np.asarray(values)
    return f"{values.mean():.1f} ({values.min():.1f}–{values.max():.1f})"


def pooled(tests, split):
    return centre([test for test in tests if test.split == split])


def null(tests, split, figure="slice_balanced_accuracy"):
    found = pooled(tests, split)
    drawn = np.concatenate([t.figures[figure].permuted for t in tests if t.split == split])
    low, high = 100 * np.quantile(drawn, [0.025, 0.975])
    return (
        f"{100 * found.mean:.1f} ({100 * found.low:.1f}–{100 * found.high:.1f}); "
        f"{low:.0f}–{high:.0f}"
    )


def interval(figure, name):
    found = figure[name]
    text = f"{100 * found.gap:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return text.replace("-", "−")


def row(name, found):
    """One row of each table of the page."""
    (gap,) = found.gaps
    of = gap.figures
    slices, people = of["slice_accuracy"], of["subject_accuracy"]
    yield (
        "gap",
        [
            name,
            percent(slices.by_subject),
            percent(slices.by_slice),
            interval(of, "slice_accuracy"),
            percent(people.by_subject),
            percent(people.by_slice),
            interval(of, "subject_accuracy"),
            interval(of, "slice_auc"),
        ],
    )
    yield "permuted", [
        name,
        null(found.permuted, "subject"),
        percent([t.figures["slice_balanced_accuracy"].observed for t in found.permuted
                 if t.split == "subject"]),
        ", ".join(f"{t.figures['subject_balanced_accuracy'].p:.3f}" for t in found.permuted
                  if t.split == "subject"),
        null(found.permuted, "slice"),
        percent([t.figures["slice_balanced_accuracy"].observed for t in found.permuted
                 if t.split == "slice"]),
    ]  # fmt: skip
    near = [each for each in found.neighbours if each.split == "slice"]
    who = found.identity
    yield "identity", [
        name,
        *(percent([getattr(each, part) for each in near])
          for part in ("share", "same_accuracy", "other_accuracy")),
        who[0].over if who else "–",
        *(f"{percent([getattr(each, part).accuracy for each in who])}, chance "
          f"{100 * np.mean([getattr(each, part).chance for each in who]):.0f}" if who else "–"
          for part in ("nearest_subject", "linear_subject", "nearest_class", "linear_class")),
    ]  # fmt: skip
    for dose in found.doses:
        yield "dose", [
            name,
            *(f"{100 * m:.1f} ± {100 * s:.1f}"
              for m, s in zip(dose.means[::2], dose.spreads[::2], strict=True)),
            f"{100 * dose.paper:.1f}",
        ]  # fmt: skip


HEADS = {
    "gap": "cohort | slice accuracy, subjects apart | slices mixed | gap | "
    "subject accuracy, subjects apart | slices mixed | gap | gap of slice AUC",
    "permuted": "cohort | permuted, subjects apart | true | p over subjects, by seed | "
    "permuted, slices mixed | true",
    "identity": "cohort | nearest is the same subject | accuracy on those | on the rest | over | "
    "subject, nearest | subject, linear | class, nearest | class, linear",
    "dose": "cohort | 0% | 20% | 40% | 60% | 80% | 100% | slices mixed",
}


def draw(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("permutations", plot_permutations(found.permuted, "Permuted labels")),
        ("dose", plot_dose(found.doses[0], "Dose of leakage")),
        ("gap", plot_gap(found.gaps, "Leak gap")),
        ("identity", plot_identity(found.identity, "Who, and what")),
    ):
        figure.savefig(folder / f"trust-{name}.png", dpi=200)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--only", default="", help="cohorts whose name holds this")
    parser.add_argument("--figures", type=Path)
    known = parser.parse_args()
    begin, tables = time.perf_counter(), {name: [] for name in HEADS}
    for name, settings in cohorts(known.data, known.out).items():
        if known.only not in name:
            continue
        folder = known.out / folder_of(name)
        run(make_config(**settings, **RECIPE, out=folder, weights=str(known.weights),
                        epochs=known.epochs, workers=1))  # fmt: skip
        for heavy in ("model.safetensors", "maps.npz"):  # a hundred megabytes a run, not needed
            for file in folder.glob(f"runs/*/{heavy}"):
                file.unlink()
        found = stored_leakage(folder)
        for table, cells in row(name, found):
            tables[table].append(cells)
        for finding in found.findings:
            print(f"{name}: {finding.level}: {finding.text}")
        if known.figures is not None and name == "nichart_t1, sex":
            draw(found, known.figures)
    for name, rows in tables.items():
        columns = HEADS[name].split(" | ")
        lines = [columns, ["---"] * len(columns), *rows]
        print("\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    print(f"\n{time.perf_counter() - begin:.0f} s, {known.epochs} epochs")


if __name__ == "__main__":
    main()
