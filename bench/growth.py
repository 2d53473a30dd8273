"""How time and memory of audit, report and comparisons grow with the number of slices.

    python bench/growth.py [--slices 1680 16800 168000] [--width 2048] [--scratch FOLDER]
    python bench/growth.py --slices 1000000 --width 4 --steps score report

Writes made-up experiments of two runs (one frozen, one fine-tuned, tested on the same subjects)
whose slices are 64 pixels wide, 28 of each subject, and measures each step in a process of its
own: processor time and peak memory (`ru_maxrss`). Each step may take at most 12
times the processor time of the one before it, and the largest 3 GB: exit code 1 otherwise. The
second line scores the predictions of a million slices, and writes their report.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from headscope.files import write_json, write_table
from headscope.manifest import write_last
from headscope.metrics import logit_columns, run_scores, softmax
from headscope.record import SUBSETS, start_run, write_run

NAMES, SIDE, EACH, BLOCK, EPOCHS = ["NC", "AD"], 64, 28, 8192, 6
STEPS = {
    "audit": "hs.audit(path)",
    "report": "hs.report(path)",
    "comparisons": "hs.compare_runs(hs.read_experiment(path))",
    "leakage": "hs.analyse_leakage(hs.read_experiment(path))",
    "score": "hs.score(hs.read_experiment(path)[0].path / 'predictions.tsv')",
}
MOST_RATIO, MOST_GB = 12.0, 3.0


def slice_table(count):
    """Return the rows of so many slices: 28 of each scan, one scan of each subject."""
    subject, index = np.divmod(np.arange(count), EACH)
    ids = np.char.add("sub-", np.char.zfill(subject.astype(str), 5))
    label = subject % 2
    return pd.DataFrame(
        {
            "scan": np.char.add(ids, ".nii.gz"),
            "subject_id": ids,
            "session_id": "ses-1",
            "label": np.array(NAMES)[label],
            "plane": "axial",
            "slice_index": index,
        }
    ), label


def write_slices(folder, table, label):
    """Write a set of slices: each subject's own blobs, a little other in each slice."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(
        folder / "slices.npy", "w+", np.uint8, (len(table), SIDE, SIDE), version=(1, 0)
    )
    for start in range(0, len(table), EACH):
        coarse = rng.integers(20, 180, (SIDE // 4, SIDE // 4)).repeat(4, 0).repeat(4, 1)
        noise = rng.integers(0, 60, pixels[start : start + EACH].shape)
        pixels[start : start + EACH] = coarse + noise
    del pixels
    np.save(folder / "labels.npy", label.astype(np.int64))
    write_table(folder / "slices.tsv", table)
    settings = {"class_names": NAMES, "slices": len(table), "sha256": "0" * 64, "notes": []}
    files = ("slices.npy", "labels.npy", "slices.tsv")
    write_last(folder / "slices.json", json.dumps(settings), files)


def write_features(path, table, label, width):
    """Write features (N, D) block by block: of the class, of the subject, of the slice."""
    owner = pd.factorize(table["subject_id"])[0]
    features = np.lib.format.open_memmap(path, "w+", np.float32, (len(table), width))
    apart = np.random.default_rng(1).normal(0, 0.05, (2, width)).astype(np.float32)
    for start in range(0, len(table), EACH):
        rng = np.random.default_rng((2, owner[start]))
        subject = rng.standard_normal(width, np.float32) + apart[label[start]]
        part = features[start : start + EACH]
        part[:] = rng.standard_normal(part.shape, np.float32) + 0.5 * subject
    del features
    return np.load(path, mmap_mode="r")


def write_one(experiment, table, label, features, regime):
    """Write a run whose head is the difference of the class means of its training slices."""
    rng = np.random.default_rng(0)
    unit = pd.factorize(table["subject_id"])[0]
    drawn = rng.permutation(unit.max() + 1) / (unit.max() + 1)
    subset = np.array(SUBSETS)[np.searchsorted([0.5, 0.7], drawn, side="right")][unit]
    width = features.shape[1]
    initial = rng.uniform(-1, 1, (2, width)).astype(np.float32) / np.float32(width**0.5)
    weight = initial.copy()
    for k in (0, 1):
        rows = np.flatnonzero((subset == "train") & (label == k))[:4000]
        weight[k] += (0.2 if regime == "frozen" else 0.3) * features[rows].mean(axis=0)
    bias = np.zeros(2, np.float32)
    parts = range(0, len(table), BLOCK)
    logits = np.concatenate([features[start : start + BLOCK] @ weight.T for start in parts])
    path = experiment / "runs" / f"resnet50-{regime}-subject-seed0"
    known = {"name": path.name, "architecture": "resnet50", "variant": regime, "seed": 0}
    known |= {"regime": regime, "split": "subject", "epochs": EPOCHS, "learning_rate": 0.002}
    known |= {"batch_size": 64, "momentum": 0.9, "weight_decay": 1e-4, "class_names": NAMES}
    known |= {"slice_size": SIDE, "planes": ["axial"], "simulated": True, "weights": "random"}
    start_run(path, known)
    probabilities = softmax(logits)
    predictions = table.drop(columns="scan").assign(
        subset=subset,
        predicted=np.array(NAMES)[logits.argmax(axis=1)],
        **{f"probability_{name}": probabilities[:, k] for k, name in enumerate(NAMES)},
        **{name: logits[:, k] for k, name in enumerate(logit_columns(NAMES))},
    )
    epoch = {"learning_rate": 0.002, "seconds": 1.0, "train_loss": 0.6, "val_loss": 0.6}
    epoch |= {"train_slice_accuracy": 0.7, "val_slice_accuracy": 0.7}
    digest = f"{len(table):064x}"
    after = digest if regime == "frozen" else digest[::-1]
    certificate = {"before": digest, "after": after, "identical": regime == "frozen"}
    some = np.linspace(0, len(table) - 1, min(len(table), 512)).astype(int)
    write_run(
        path,
        history=[{"epoch": n + 1} | epoch for n in range(EPOCHS)],
        predictions=predictions,
        metrics=run_scores(predictions, NAMES)
        | {"epochs": EPOCHS, "train_seconds": 6.0, "freeze_certificate": certificate},
        head={
            **{"weight": weight, "bias": bias, "class_names": np.array(NAMES)},
            **{"initial_weight": initial, "initial_bias": bias},
        },
        features={
            "features": features,
            "logits": logits,
            "label": label,
            "subject_id": table["subject_id"].to_numpy(str),
            "subset": subset,
            "slice": np.arange(len(table)),
        },
        layers={"layer4": features[some], "slice": some},
        maps={"maps": np.zeros((2, 4, 3, 3), np.float32), "slice": np.arange(2)},
        model={"fc.weight": weight, "fc.bias": bias},
    )


def write_experiment(experiment, count, width):
    """Write an experiment of two runs on so many slices."""
    table, label = slice_table(count)
    write_slices(experiment / "slices", table, label)
    features = write_features(experiment / "features.npy", table, label, width)
    for regime in ("frozen", "finetune"):
        write_one(experiment, table, label, features, regime)
    (experiment / "features.npy").unlink()
    write_json(experiment / "environment.json", {})


def measure(path, code):
    """Run code in a process of its own; return its processor seconds and its peak GB."""
    program = f"import sys; import headscope as hs; path = sys.argv[1]; {code}"
    child = subprocess.Popen([sys.executable, "-c", program, path], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{code} failed with {path}.")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def main():
    """Print a table of processor time and memory, and say whether both keep their limits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[1680, 16800, 168000])
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=[*STEPS][:3])
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    print("| slices | step | processor time, s | of the step before | peak memory, GB |")
    print("|---|---|---|---|---|")
    before, kept = {}, True
    for count in options.slices:
        with tempfile.TemporaryDirectory(dir=options.scratch) as name:
            write = "from bench.growth import write_experiment as w; from pathlib import Path; "
            write += f"w(Path(path), {count}, {options.width})"
            measure(f"{name}/made", write)
            for step in options.steps:
                seconds, peak = measure(f"{name}/made", STEPS[step])
                ratio = seconds / before[step] if step in before else 1.0
                kept &= ratio <= MOST_RATIO and peak <= MOST_GB
                before[step] = seconds
                row = f"| {count:,} | {step} | {seconds:.1f} | {ratio:.1f} | {peak:.2f} |"
                print(row, flush=True)
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
