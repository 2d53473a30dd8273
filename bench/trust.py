"""What accuracy is worth on real scans: the tables and figures of docs/trust.md.

    python bench/trust.py --data ../shared/data --weights resnet50_v1.safetensors --out FOLDER

Frozen ResNet-50, five seeds, both splits, on OASIS-2 (three planes together and each) and on
nichart_t1 (age above 80, sex); there also what it matters that two people seem to stand under two
ids. Most of the time goes to passes through the backbone. The same command goes on where it was
stopped; --figures FOLDER draws the figures of the page.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from headscope.analysis.leakage.findings import centre, setting_p
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.retrain import head_recipe, train_heads
from headscope.analysis.units import read_samples
from headscope.experiment.config import make_config
from headscope.experiment.run import run
from headscope.figures import plot_dose, plot_gap, plot_identity, plot_permutations
from headscope.record import read_experiment
from headscope.splits.assign import make_split

SAME = {"Subj16": "Subj15", "Subj9": "Subj10"}  # found by 'headscope audit': likely one person each
RECIPE = {
    "architectures": ["resnet50_v1"],
    "regimes": ["frozen"],
    "splits": ["subject", "slice"],
    "seeds": [0, 1, 2, 3, 4],
    "learning_rate": 0.01,
    "keep_model": False,
}


def cohorts(data):
    """Name each cohort, with the settings that find it."""
    oasis, nichart = data / "oasis2", data / "nichart_t1"
    found = {"OASIS-2, three planes": {"data": oasis, "plane": "all"}}
    for plane in ("axial", "coronal", "sagittal"):
        found[f"OASIS-2, {plane}"] = {"data": oasis, "plane": plane}
    found["nichart_t1, age above 80"] = {"data": nichart, "label": "Age", "threshold": 80}
    found["nichart_t1, sex"] = {"data": nichart, "label": "Sex"}
    return found


def twins(run):
    """What two ids of one person do to a split by subject: 100 splits, heads trained anew."""
    slices, recipe = read_samples(run), head_recipe(run)
    table = run.predictions[["subject_id", "session_id", "plane", "slice_index", "label"]]
    twin = {**SAME, **{b: a for a, b in SAME.items()}}
    reached, known = {False: [], True: []}, {False: [], True: []}
    for merged in (False, True):
        people = table["subject_id"].replace(SAME) if merged else table["subject_id"]
        dealt = table.assign(subject_id=people, session_id=table["subject_id"])
        for seed in range(100):
            subset = make_split(dealt, kind="subject", seed=seed)
            train, test = np.flatnonzero(subset == "train"), np.flatnonzero(subset == "test")
            weight, bias = train_heads(
                slices.features, slices.label[:, None], train, replace(recipe, seed=seed)
            )
            said = (slices.features[test] @ weight[0].T + bias[0]).argmax(axis=1)
            right = said == slices.label[test]
            reached[merged].append(right.mean())
            trained = set(table["subject_id"].iloc[train])
            for name in set(table["subject_id"].iloc[test]) & twin.keys() if not merged else ():
                own = (table["subject_id"].iloc[test] == name).to_numpy()
                known[twin[name] in trained].append(right[own].mean())
    for merged, values in reached.items():
        words = "pairs merged" if merged else "as it is"
        print(f"  {words}: slice accuracy {100 * np.mean(values):.1f} ± {100 * np.std(values):.1f}")
    for seen, values in known.items():
        print(
            f"  slices of the four ids, other id {'in' if seen else 'not in'} training: "
            f"{100 * np.mean(values):.1f} ({len(values)} times)"
        )


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
    drawn = np.concatenate([t.scores[figure].permuted for t in tests if t.split == split])
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
    of = gap.scores
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
        percent([t.scores["slice_balanced_accuracy"].observed for t in found.permuted
                 if t.split == "subject"]),
        ", ".join(f"{t.scores['subject_balanced_accuracy'].p:.3f}" for t in found.permuted
                  if t.split == "subject")
        + f"; {setting_p([t for t in found.permuted if t.split == 'subject']):.3f}",
        null(found.permuted, "slice"),
        percent([t.scores["slice_balanced_accuracy"].observed for t in found.permuted
                 if t.split == "slice"]),
    ]  # fmt: skip
    near = [each for each in found.neighbours if each.split == "slice"]
    who = found.reidentification
    yield "identity", [
        name,
        *(percent([getattr(each, part) for each in near])
          for part in ("share", "same_accuracy", "other_accuracy")),
        who[0].over if who else "–",
        *(f"{percent([getattr(each, part).accuracy for each in who])}, chance "
          f"{100 * np.mean([getattr(each, part).chance for each in who]):.0f}" if who else "–"
          for part in ("nearest_subject", "linear_subject", "nearest_class", "linear_class")),
    ]  # fmt: skip
    for dose in found.dose_responses:
        yield "dose", [
            name,
            *(f"{100 * m:.1f} ± {100 * s:.1f}"
              for m, s in zip(dose.means[::2], dose.spreads[::2], strict=True)),
            f"{100 * dose.paper:.1f}",
        ]  # fmt: skip


HEADS = {
    "gap": "cohort | slice accuracy, subjects apart | slices mixed | gap | "
    "subject accuracy, subjects apart | slices mixed | gap | gap of slice AUC",
    "permuted": "cohort | permuted, subjects apart | true | "
    "p over subjects, by seed; of the mean | permuted, slices mixed | true",
    "identity": "cohort | nearest is the same subject | accuracy on those | on the rest | over | "
    "subject, nearest | subject, linear | class, nearest | class, linear",
    "dose": "cohort | 0% | 20% | 40% | 60% | 80% | 100% | slices mixed",
}


def draw(found, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("permutations", plot_permutations(found.permuted, "Permuted labels")),
        ("dose", plot_dose(found.dose_responses[0], "DoseResponse of leakage")),
        ("gap", plot_gap(found.gaps, "Leak gap")),
        ("identity", plot_identity(found.reidentification, "Who, and what")),
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
    for name, settings in cohorts(known.data).items():
        if known.only not in name:
            continue
        folder = known.out / folder_of(name)
        run(make_config(**settings, **RECIPE, out=folder, weights=str(known.weights),
                        epochs=known.epochs, workers=1))  # fmt: skip
        for file in folder.glob("runs/*/maps.npz"):  # a hundred megabytes each, not needed here
            file.unlink()
        found = stored_leakage(folder)
        if "nichart" in name:
            print(f"{name}: two ids, one person")
            twins(read_experiment(folder)[-1])
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
