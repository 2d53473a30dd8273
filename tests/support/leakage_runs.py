"""Records of runs as the tests of the leakage analysis want them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from headscope.analysis.retrain import HeadRecipe, train_heads
from headscope.experiment.config import make_config
from headscope.experiment.run import run as run_experiment
from headscope.metrics import run_scores, softmax
from headscope.record import start_run, write_run

NAMES = ["AD", "NC"]
CURVES = {
    f"{subset}_{name}": 0.7 for subset in ("train", "val") for name in ("loss", "slice_accuracy")
}
CERTIFICATE = dict.fromkeys(("before", "after"), "0" * 64) | {"identical": True}


def cohort_table(subjects=12, sessions=1, count=6):
    """One row a slice; half of the subjects are of each class."""
    grid = [(s, v, i) for s in range(subjects) for v in range(sessions) for i in range(count)]
    subject, session, index = map(np.array, zip(*grid, strict=True))
    return pd.DataFrame(
        {
            "subject_id": [f"sub-{s:02d}" for s in subject],
            "session_id": [f"ses-{v}" for v in session],
            "plane": "axial",
            "slice_index": index,
            "label": subject % 2,
        }
    )


def features_of(table, identity=3.0, effect=0.0, width=24, seed=0):
    """Noise, a place of each subject's own, and a shift by class."""
    rng = np.random.default_rng(seed)
    owner = np.unique(table["subject_id"], return_inverse=True)[1]
    own = rng.normal(0, identity, (owner.max() + 1, width))
    found = rng.normal(0, 1, (len(table), width)) + own[owner]
    found[:, 0] += effect * (2 * table["label"].to_numpy() - 1)
    return found.astype(np.float32)


def split_of(table, kind, seed=0):
    """Half of the subjects of each class (or of all slices) train; a sixth validates."""
    rng = np.random.default_rng(seed)
    units = table["subject_id"] if kind == "subject" else pd.Series(np.arange(len(table)))
    subset = np.empty(len(table), dtype="<U5")
    for k in np.unique(table["label"]):
        own = rng.permutation(units[table["label"] == k].unique())
        marks = np.array(["train", "val", "test"])[[0] * 3 + [1] + [2] * 2]
        subset[np.isin(units, own)] = ""
        for n, unit in enumerate(own):
            subset[units == unit] = marks[n % 6]
    return subset


def make_run(folder, table, features, *, kind="subject", seed=0, subset=None, logits=None, **more):
    """Write the record of a run whose head was trained on those features, and read it again."""
    regime = more.pop("regime", "frozen")
    suffix = more.pop("suffix", "")
    subset = split_of(table, kind, seed) if subset is None else subset
    label = table["label"].to_numpy()
    classes = int(label.max()) + 1
    names = [f"{k}{name}" for k, name in enumerate("ABCDEFGH"[:classes])]
    rng = np.random.default_rng(seed)
    initial = rng.uniform(-0.3, 0.3, (classes, features.shape[1])).astype(np.float32)
    recipe = HeadRecipe((0.05,) * 5, 8, 0.9, 1e-4, seed, initial, np.zeros(classes, np.float32))
    weight, bias = train_heads(features, label[:, None], np.flatnonzero(subset == "train"), recipe)
    if logits is None:
        logits = features @ weight[0].T + bias[0]
    path = Path(folder) / "runs" / f"net-{regime}-{kind}-seed{seed}{suffix}"
    known = {"architecture": "net", "regime": regime, "split": kind, "seed": seed}
    known |= {"batch_size": 8, "momentum": 0.9, "weight_decay": 1e-4} | more
    start_run(path, known)
    predictions = table.assign(
        subset=subset,
        label=np.array(names)[label],
        predicted=np.array(names)[logits.argmax(axis=1)],
        **{f"probability_{name}": softmax(logits)[:, k] for k, name in enumerate(names)},
        **{f"logit_{name}": logits[:, k].astype(np.float32) for k, name in enumerate(names)},
    )
    ids = table["subject_id"].to_numpy(str)
    return write_run(
        path,
        history=[{"epoch": n + 1, "learning_rate": 0.05, **CURVES} for n in range(5)],
        predictions=predictions,
        metrics=run_scores(predictions, names) | {"freeze_certificate": CERTIFICATE},
        head={
            "weight": weight[0],
            "bias": bias[0],
            "initial_weight": initial,
            "initial_bias": np.zeros(classes, np.float32),
            "class_names": np.array(names),
        },
        features={
            "features": features,
            "logits": logits,
            "label": label,
            "subject_id": ids,
            "subset": subset,
            "slice": np.arange(len(table)),
        },
        layers={"slice": np.empty(0, np.int64)},
        maps={"slice": np.empty(0, np.int64)},
        model={},
    )


def write_both(folder):
    """Write an experiment under both splits, two seeds: it tells heads apart, not classes."""
    table = cohort_table(subjects=24, count=6)
    features = features_of(table)
    for kind in ("subject", "slice"):
        for seed in (0, 1):
            make_run(folder, table, features, kind=kind, seed=seed)
    return folder


def run_by_torch(folder):
    """Run a real experiment, trained by torch: frozen, both splits; return its folder."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(NAMES):
        (folder / "scans" / name).mkdir(parents=True)
        for subject in range(6):
            volume = rng.integers(0, 60, (20, 20, 20)) + 0
            volume[4:16, 4:16, 4:16] += 80 + 40 * k
            scan = nib.Nifti1Image(volume.astype(np.int16), np.diag([8, 8, 8, 1]))
            nib.save(scan, folder / "scans" / name / f"sub-{name}{subject}_T1w.nii.gz")
    config = make_config(
        data=folder / "scans",
        out=folder / "out",
        count=4,
        size=32,
        architectures=["timm/test_resnet"],
        weights="random",
        regimes=["frozen"],
        splits=["subject", "slice"],
        epochs=4,
        learning_rate=0.02,
        batch_size=7,
        drop_every=2,
        head_learning_rate=1.5,
        workers=1,
        device="cpu",
        rivals=[],
    )
    return run_experiment(config)
