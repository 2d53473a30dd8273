"""Subjects inferred from pixels against ids that were hidden: pairs, honest accuracy, cost.

    python bench/inferred.py pairs
    python bench/inferred.py accuracy --weights squeezenet1_1.safetensors
    python bench/inferred.py cost
    python bench/inferred.py simulated

Data: OASIS-2 (visits, one slice of a plane each) and nichart_t1 (30 neighbouring axial slices of
each scan, each a picture of its own, in random order) below HEADSCOPE_TEST_DATA. Of nichart_t1 two
pairs of ids show one head by all signs (docs/audit.md); pairs between these ids count neither way.

pairs      recall and precision of pairs of one subject. On one cohort the strict threshold is the
           highest at which recall reaches 95%, the loose one the lowest at which precision reaches
           99%; both are then tried on the other cohort. "Calibrated" are those that headscope takes
           of each set of pictures, from the pairs of that set without their ids (`calibrate`).
accuracy   a logistic head on frozen SqueezeNet features (five folds, ten seeds) by true ids, by
           inferred ones, and with none.
cost       seconds and memory for 10,000 pictures: slices of nichart_t1, each head warped.
simulated  pairs of 40 simulated heads whose slices are 3 mm apart, which were not looked at before.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import headscope as hs
from figure import Figure
from headscope.auditing.inferring import THRESHOLDS, calibrate, infer_subjects
from headscope.auditing.linking import find_links, group_scans
from headscope.cohort.layouts import find_cohort
from headscope.files import read_table
from headscope.record import read_experiment
from headscope.simulation.cohort import simulate_cohort
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet
from headscope.slicing.write import write_slices
from headscope.splits.assign import make_fold

DATA = Path(os.environ.get("HEADSCOPE_TEST_DATA", "../shared/data"))
DOUBLES = (("Subj15", "Subj16"), ("Subj10", "Subj9"))
GRID = np.round(np.arange(0.35, 0.701, 0.01), 2)
RECALL, PRECISION = 0.95, 0.99
SIZE, FOLDS = 224, 5


def take(folder, data, plane, **options):
    """Return the slices of a cohort, in the order of their scans."""
    cohort = find_cohort(DATA / data, plane=plane, **options)
    count = 30 if data == "nichart_t1" else 1
    return write_slices(cohort, folder / f"{data}-{plane}", SliceSpec(plane, count, SIZE))


def count_pairs(group, subject):
    """Return how many pairs are of one subject, of one group, and of both; doubles left out."""
    same = subject[:, None] == subject
    joined = group[:, None] == group
    unknown = np.zeros_like(same)
    for one, other in DOUBLES:
        between = (subject[:, None] == one) & (subject == other)
        unknown |= between | between.T
    above = np.triu(np.ones_like(same), 1) & ~unknown
    return np.array([(x & above).sum() for x in (same, joined, same & joined)])


def curves(folder, seed=0):
    """Return counts of pairs (thresholds, 3) of each set of pictures, and by calibration (2, 3)."""
    rng = np.random.default_rng(seed)
    result, calibrated = {}, {}
    for data, planes in (("OASIS-2", ("axial", "coronal", "sagittal")), ("nichart_t1", ("axial",))):
        for plane in planes:
            options = {"label": "Sex"} if data == "nichart_t1" else {}
            name = "oasis2" if data == "OASIS-2" else data
            slices = take(folder, name, plane, **options)
            steps = (1, 2) if data == "nichart_t1" else (1,)
            for step in steps:
                index = np.arange(len(slices.pixels))
                rows = rng.permutation(index[index % 30 % step == 0] if step > 1 else index)
                one = np.arange(len(rows))
                links = find_links(slices.pixels[rows], one, np.zeros_like(one))
                subject = slices.table["subject_id"].to_numpy(str)[rows]
                counts = [count_pairs(group_scans(links, least), subject) for least in GRID]
                name_of = data, plane if step == 1 else f"{plane}, every 2nd slice"
                result[name_of] = np.array(counts)
                thresholds = calibrate(links)
                counts = [
                    count_pairs(group_scans(links, it), subject) for it in thresholds.values()
                ]
                calibrated[name_of] = thresholds, np.array(counts)
    return result, calibrated


def rates(counts):
    """Return recall and precision of counts (..., 3)."""
    return counts[..., 2] / counts[..., 0], counts[..., 2] / np.maximum(counts[..., 1], 1)


def choose(counts):
    """Return the strict and the loose threshold that the sums of a cohort lead to."""
    recall, precision = rates(counts)
    strict, loose = GRID[recall >= RECALL].max(), GRID[precision >= PRECISION].min()
    return {"strict": strict, "loose": loose}


def pairs(options):
    """Print recall and precision by thresholds of the other cohort, and by ours."""
    with tempfile.TemporaryDirectory() as folder:
        by_set, calibrated = curves(Path(folder))
    whole = {key: counts for key, counts in by_set.items() if "every" not in key[1]}
    total = {
        data: sum(counts for (name, _), counts in whole.items() if name == data)
        for data in ("OASIS-2", "nichart_t1")
    }
    chosen = {data: choose(counts) for data, counts in total.items()}
    print("| tested on | thresholds chosen on | strict | recall | precision "
          "| loose | recall | precision |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    everything = {f"{data}, {part}": counts for (data, part), counts in by_set.items()}
    everything["OASIS-2, three planes"] = total["OASIS-2"]
    for name, counts in everything.items():
        other = "nichart_t1" if name.startswith("OASIS") else "OASIS-2"
        for where, thresholds in ((other, chosen[other]), ("fixed", THRESHOLDS)):
            row = [name, where]
            for least in thresholds.values():
                recall, precision = rates(counts[np.abs(GRID - least).argmin()])
                row += [f"{least:.2f}", f"{100 * recall:.1f}%", f"{100 * precision:.1f}%"]
            print(f"| {' | '.join(row)} |")
    oasis = [counts for (data, _), (_, counts) in calibrated.items() if data == "OASIS-2"]
    calibrated["OASIS-2", "three planes"] = {}, sum(oasis)
    for (data, part), (thresholds, counts) in calibrated.items():
        row = [f"{data}, {part}", "calibrated"]
        for name, pair in zip(THRESHOLDS, counts, strict=True):
            recall, precision = rates(pair)
            least = f"{thresholds[name]:.2f}" if thresholds else "by plane"
            row += [least, f"{100 * recall:.1f}%", f"{100 * precision:.1f}%"]
        print(f"| {' | '.join(row)} |")


def write_pictures(folder, threshold):
    """Write nichart_t1 as pictures without ids in class folders; return the true ids by path."""
    options = {"label": "Sex"} if threshold is None else {"label": "Age", "threshold": threshold}
    slices = take(folder, "nichart_t1", "axial", **options)
    order = np.random.default_rng(0).permutation(len(slices.pixels))
    rows = []
    for number, row in enumerate(order):
        label = slices.table["label"][row].replace("<=", "to ").replace(">", "over ")
        path = folder / "pictures" / label / f"picture ({number}).png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(slices.pixels[row])).save(path)
        name = path.relative_to(folder / "pictures").as_posix()
        rows.append((name, slices.table["subject_id"][row]))
    pd.DataFrame(rows, columns=["path", "subject_id"]).to_csv(folder / "true.csv", index=False)
    return folder / "pictures", str(folder / "true.csv")


def held_out(features, table, seeds):
    """Return by slice how often it was predicted correctly, and by slice its mean margin (N,)."""
    labels = np.unique(table["label"], return_inverse=True)[1]
    correct, margin = np.zeros(len(table)), np.zeros(len(table))
    for seed in range(seeds):
        for fold in range(FOLDS):
            tested = make_fold(table, fold, FOLDS, kind="subject", seed=seed) == "test"
            head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
            head.fit(features[~tested], labels[~tested])
            logits = head.decision_function(features[tested])
            correct[tested] += (logits > 0) == labels[tested]
            margin[tested] += logits
    return correct / seeds, margin * (2 * labels - 1)


def with_interval(values, draws=2000):
    """Write a mean over subjects' slices with its 95% interval over subjects, in per cent.

    values (subjects, 2): the sum of each subject's slices, and their number.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    sums = values[drawn].sum(axis=1)
    low, high = np.percentile(100 * sums[:, 0] / sums[:, 1], (2.5, 97.5))
    total = values.sum(axis=0)
    return f"{100 * total[0] / total[1]:.1f}% ({low:.1f} to {high:.1f})"


def accuracy(options):
    """Print what a head on frozen features reaches by true ids and by inferred ones."""
    print("| cohort | ids | subjects | slice accuracy | subject accuracy |")
    print("|---|---|---|---|---|")
    for name, threshold in (("sex", None), ("age above 80", 80.0), ("OASIS-2, axial", None)):
        with tempfile.TemporaryDirectory() as temporary:
            folder, oasis = Path(temporary), name.startswith("OASIS")
            data, true = (DATA / "oasis2", None) if oasis else write_pictures(folder, threshold)
            config = hs.Config(
                data=data, out=folder / "out", architectures=["squeezenet1_1"],
                weights=str(options.weights.resolve()), regimes=["frozen"], epochs=1,
                subjects="inferred", rivals=[], workers=1,
                classes={"AD": ["Demented"], "NC": ["Nondemented"]} if oasis else None,
            )  # fmt: skip
            first, *_ = read_experiment(hs.run(config))
            table, features = first.predictions, first.features["features"]
            inferred = read_table(folder / "out" / "subjects" / "subjects.tsv").set_index("path")
            if true is None:
                ids = table["scan"].str.extract(r"(OAS2_\d+)")[0]
            else:
                ids = table["scan"].map(pd.read_csv(true).set_index("path")["subject_id"])
            kinds = {"true": ids} | {
                kind: table["scan"].map(inferred[kind]) for kind in ("strict", "loose")
            }
            for kind, subject in kinds.items():
                by = table.assign(subject_id=subject)
                correct, margin = held_out(features, by, options.seeds)
                of_slices = pd.DataFrame({"sum": correct, "count": 1.0}).groupby(subject).sum()
                scans = pd.Series(margin).groupby(subject.to_numpy()).mean() > 0
                of_subjects = np.stack([scans.to_numpy(float), np.ones(len(scans))], axis=1)
                cells = [with_interval(of_slices.to_numpy()), with_interval(of_subjects)]
                print(f"| {name} | {kind} | {len(scans)} | {cells[0]} | {cells[1]} |", flush=True)
            none = table.assign(subject_id=np.arange(len(table)).astype(str))
            slices = held_out(features, none, options.seeds)[0].mean()
            print(f"| {name} | none: by slice | | {100 * slices:.1f}% | |", flush=True)


def cost(options):
    """Print seconds and memory for 10,000 pictures: slices of nichart_t1, each head warped."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        slices = take(Path(temporary), "nichart_t1", "axial", label="Sex")
        scans = slices.pixels[:, ::2, ::2].reshape(-1, 30, SIZE // 2, SIZE // 2)
        grid = np.mgrid[: SIZE // 2, : SIZE // 2].astype(np.float32)
        pixels = []
        for head in range(334):
            bend = gaussian_filter(rng.normal(size=grid.shape), (0, 8, 8)) * 60
            pixels += [map_coordinates(it, grid + bend, order=1) for it in scans[head % len(scans)]]
        pixels = np.stack(pixels)
        table = pd.DataFrame({"scan": [f"picture {n}" for n in range(len(pixels))]})
        table = table.assign(subject_id="unknown", session_id="1", plane="axial", label="A")
        pictures = SliceSet(Path(temporary), pixels, ["A"], {"notes": []}, "")
        vars(pictures)["table"] = table
        time_inference(pictures)


def simulated(options):
    """Print how many pairs of simulated heads are joined, whose slices are 3 mm apart."""
    for name, (recall, precision) in rates_simulated(40).items():
        print(f"{name}: recall {100 * recall:.1f}%, precision {100 * precision:.1f}%")


def rates_simulated(subjects):
    """Return recall and precision of pairs of simulated heads, by threshold."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        simulate_cohort(
            folder / "scans", subjects=subjects, seed=0, spacing_mm=3.0, repeat_share=0.0
        )
        cohort = find_cohort(folder / "scans")
        slices = write_slices(cohort, folder / "slices", SliceSpec("axial", 30, 128))
        truth = slices.table["subject_id"].to_numpy(str)
        names = [f"picture {n}" for n in range(len(truth))]
        vars(slices)["table"] = slices.table.assign(scan=names, subject_id="unknown")
        groups = time_inference(slices)
        return {name: rates(count_pairs(groups[name].to_numpy(str), truth)) for name in THRESHOLDS}


def time_inference(slices):
    """Infer the subjects of pictures; print how long it took and what came of it."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    subjects = infer_subjects(slices)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    print(f"{len(subjects)} pictures: {seconds:.0f} s ({after.ru_utime - before.ru_utime:.0f} s "
          f"of one core), {after.ru_maxrss / 2**20:.2f} GB at most")  # fmt: skip
    for name in THRESHOLDS:
        counts = subjects[name].value_counts()
        print(f"{name}: {len(counts)} subjects, the largest of {counts.iloc[0]} pictures")
    return subjects


def short(place):
    """Return recall and precision on 12 simulated heads."""
    found = rates_simulated(12)
    return [
        Figure("recall, loose", 100 * found["loose"][0], "%", at_least=90),
        Figure("precision, strict", 100 * found["strict"][1], "%", at_least=99),
    ]


def main():
    """Run the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = {"pairs": pairs, "accuracy": accuracy, "cost": cost, "simulated": simulated}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--weights", type=Path, help="Weights of squeezenet1_1, for accuracy.")
    parser.add_argument("--seeds", type=int, default=10, help="Divisions into folds, for accuracy.")
    options = parser.parse_args()
    parts[options.part](options)


if __name__ == "__main__":
    main()
