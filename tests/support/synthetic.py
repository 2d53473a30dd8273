"""Run directories made up of random numbers that agree with one another, for tests without scans.

Features are drawn (subject effect, class effect, noise), and a linear head is trained on them by
our own SGD with momentum and weight decay; logits, predictions, metrics and history follow from
it, so that whatever a report says of such a run can be recomputed.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from headscope.metrics import logit_columns, run_scores, softmax
from headscope.record import SUBSETS, Run, start_run, write_run


def write_experiment(folder: Path, runs=None, **shared) -> Path:
    """Write several runs into `folder`/runs; the default is the demo's four."""
    for settings in runs or (
        {"regime": "frozen"},
        {"regime": "finetune", "signal": 4.0, "epochs": 12},
        {"regime": "scratch", "signal": 2.0, "epochs": 16},
        {"regime": "frozen", "split": "slice"},
    ):
        write_synthetic_run(folder, **(shared | settings))
    return folder


def write_synthetic_run(
    experiment: Path,
    *,
    architecture="tf_efficientnet_lite0",
    regime="frozen",
    split="subject",
    seed=0,
    fold=None,
    name=None,
    class_names=("NC", "AD"),
    subject_prefix="sub-",
    subjects=30,
    slices_each=12,
    width=256,
    signal=2.6,
    epochs=8,
    learning_rate=0.002,
    weight_decay=1e-4,
    momentum=0.9,
    head_learning_rate=1.0,
    simulated=True,
    record_initial=True,
    same_split=False,
) -> Run:
    """Draw features, train a head on them and write the whole run through `record`."""
    rng = np.random.default_rng([seed, len(regime), len(architecture), subjects])
    K = len(class_names)
    subject = np.repeat(np.arange(subjects), slices_each)  # (N,)
    label = subject % K
    features = (
        rng.normal(0, 0.6, (subjects, width))[subject]
        + signal * rng.normal(0, 1 / np.sqrt(width), (K, width))[label]
        + rng.normal(0, 1.6, (len(subject), width))
    ).astype(np.float32)  # (N, D)
    dealer = np.random.default_rng(seed) if same_split else rng
    subset = _subsets(dealer, subject, label, split, fold)

    batch = 32
    rates = [learning_rate * 0.9 ** (epoch // 10) for epoch in range(epochs)]
    bound = 1 / np.sqrt(width)
    weight = initial = rng.uniform(-bound, bound, (K, width)).astype(np.float32)
    bias = initial_bias = np.zeros(K, dtype=np.float32)
    train = np.flatnonzero(subset == "train")
    velocity, bias_velocity, history = np.zeros_like(weight), np.zeros_like(bias), []
    for epoch, rate in enumerate(rates, start=1):
        order = rng.permutation(train)
        for rows in np.split(order, range(batch, len(order), batch)):
            error = softmax(features[rows] @ weight.T + bias).astype(np.float32)
            error[np.arange(len(rows)), label[rows]] -= 1
            gradient = error.T @ features[rows] / len(rows) + weight_decay * weight
            velocity = momentum * velocity + gradient
            bias_velocity = momentum * bias_velocity + error.mean(axis=0) + weight_decay * bias
            step = rate * head_learning_rate
            weight, bias = weight - step * velocity, bias - step * bias_velocity
        history.append(_history_row(epoch, rate, features @ weight.T + bias, label, subset))

    logits = (features @ weight.T + bias).astype(np.float32)  # (N, K)
    folder = architecture.replace("/", "-")
    part = "-fold{}of{}".format(*fold) if fold else ""
    path = experiment / "runs" / f"{folder}-{name or regime}{part}-{split}-seed{seed}"
    settings = {
        "name": path.name,
        "architecture": architecture,
        "variant": name or regime,
        "regime": regime,
        "split": split,
        "seed": seed,
        "fold": fold[0] if fold else None,
        "folds": fold[1] if fold else None,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "head_learning_rate": head_learning_rate,
        "steps_per_epoch": int(np.ceil(len(train) / batch)),
        "class_names": list(class_names),
        "weights": "random numbers",
        "slice_size": 128,
        "planes": ["axial"],
        "simulated": simulated,
        "classifier": "classifier",
    }
    start_run(path, settings)
    ids = np.array([f"{subject_prefix}{number:03d}" for number in subject])
    predictions = _predictions(ids, label, subset, logits, class_names, slices_each)
    head = {"weight": weight, "bias": bias, "class_names": np.array(class_names)}
    if record_initial:
        head |= {"initial_weight": initial, "initial_bias": initial_bias}
    return write_run(
        path,
        history=history,
        predictions=predictions,
        metrics=_metrics(regime, epochs, predictions, class_names),
        head=head,
        features={
            "features": features,
            "logits": logits,
            "label": label,
            "subject_id": ids,
            "subset": subset,
            "slice": np.arange(len(label)),
        },
        layers={"classifier": features[:16], "slice": np.arange(16)},
        maps={"maps": np.zeros((2, 4, 3, 3), np.float32), "slice": np.arange(2)},
        model={"classifier.weight": weight, "classifier.bias": bias},
    )


def _subsets(rng, subject, label, split, fold):
    """Assign 50, 20 and 30% of each class's subjects, or of all slices, to the subsets.

    Fold (k, n) tests the k-th nth of them and trains on half of the rest or more.
    """
    unit = np.arange(len(subject)) if split == "slice" else subject
    names = {}
    for k in np.unique(label):
        units = rng.permutation(np.unique(unit[label == k]))
        cuts = [round(0.5 * len(units)), round(0.7 * len(units))]
        if fold:
            size = len(units) // fold[1]
            units = np.roll(units, fold[0] * size)
            cuts = [len(units) - 2 * size, len(units) - size]
        for name, part in zip(SUBSETS, np.split(units, cuts), strict=True):
            names |= dict.fromkeys(part.tolist(), name)
    return np.array([names[u] for u in unit.tolist()])


def logs(probabilities):
    """Return logarithms of probabilities, as logits that give just these; log 0 is −inf."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def _history_row(epoch, rate, logits, label, subset):
    row = {"epoch": epoch, "learning_rate": rate}
    likelihood = softmax(logits)[np.arange(len(label)), label]
    for name in ("train", "val"):
        inside = subset == name
        row[f"{name}_loss"] = float(-np.log(likelihood[inside] + 1e-12).mean())
        row[f"{name}_slice_accuracy"] = float(
            (logits[inside].argmax(axis=1) == label[inside]).mean()
        )
    return row | {"seconds": 7.5}


def _predictions(ids, label, subset, logits, class_names, slices_each):
    probabilities = softmax(logits)
    table = pd.DataFrame(
        {
            "subset": subset,
            "subject_id": ids,
            "session_id": "ses-1",
            "plane": "axial",
            "slice_index": np.tile(np.arange(slices_each), len(ids) // slices_each),
            "label": np.array(class_names)[label],
            "predicted": np.array(class_names)[logits.argmax(axis=1)],
        }
    )
    for k, name in enumerate(class_names):
        table[f"probability_{name}"] = probabilities[:, k]
    for k, column in enumerate(logit_columns(class_names)):
        table[column] = logits[:, k].astype(np.float32)
    return table


def _metrics(regime, epochs, predictions, class_names):
    digest = f"{len(predictions):064x}"
    return {
        **run_scores(predictions, list(class_names)),
        "epochs": epochs,
        "train_seconds": 7.5 * epochs,
        "freeze_certificate": {
            "before": digest,
            "after": digest if regime == "frozen" else digest[::-1],
            "identical": regime == "frozen",
        },
    }
