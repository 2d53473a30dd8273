"""The simple rivals of an experiment's networks, written as runs like any other."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.console import console, track
from headscope.errors import InputError
from headscope.experiment.config import Config
from headscope.experiment.plan import Plan, under_subjects
from headscope.experiment.shared import (
    Shared,
    environment,
    shared_facts,
    slice_features,
    slice_predictions,
)
from headscope.files import NO_ID, read_table
from headscope.grouping import KEYS, Scans, scans_of
from headscope.metrics import run_scores, slice_units
from headscope.record import RIVAL, Run, Setting, discard_run, start_run, tidy_run, write_run
from headscope.slicing.store import SliceSet
from headscope.training.rivals import SIDE, Fitted, encode, fit_linear, fit_majority, shrink

NO_COVARIATES = (
    "The rival 'covariates' is left out: the data offer no age, sex or other column beside the "
    "labels (participants.tsv)."
)

FIT_S, SHRINK_S = 0.5, 1e-8  # of a rival; of a pixel that is shrunk
ROW_BYTES = 400  # of a slice in the record, without what is read of it


def plan_rivals(config: Config, plans: Iterable[Plan], *, described: bool) -> list[Setting]:
    """Return the rivals of each split, fold and seed of the networks that are planned.

    described: whether there are covariates; without them there is no rival of that name.
    """
    names = [name for name in config.rivals if described or name != "covariates"]
    settings = [plan.setting for plan in plans]
    splits = dict.fromkeys((s.split, s.seed, s.fold, s.folds, s.subjects) for s in settings)
    return [
        under_subjects(Setting(name, RIVAL, RIVAL, split, seed, fold, folds, "scan"), subjects)
        for split, seed, fold, folds, subjects in splits
        for name in names
    ]


def rival_cost(rival: Setting, slices: int, size: int) -> tuple[float, int]:
    """Return about how long a rival takes (s), and the bytes that it leaves (bench/rivals.py)."""
    pixels = rival.architecture == "pixels"
    seconds = FIT_S + slices * size**2 * SHRINK_S * pixels
    return seconds, slices * (ROW_BYTES + SIDE**2 * pixels)


class Material:
    """What rivals read of an experiment: covariates and small pixels, each made once."""

    def __init__(self, shared: Shared) -> None:
        """Read `participants.tsv`, where it stands; its columns beyond ids and label count."""
        self.shared = shared
        self.covariates = covariates_of(shared.config.out, shared.slices)  # (N, ·), or None
        self._small: NDArray[np.uint8] | None = None

    def settings(self, rival: Setting) -> dict[str, Any]:
        """Return what goes into run.toml."""
        covariates: dict[str, Any] = {}
        if rival.architecture == "covariates":
            features, names = self._encoded(rival)
            digest = hashlib.sha256("\n".join(names).encode() + features.tobytes()).hexdigest()
            covariates = {"covariates": names, "covariates_sha256": digest}
        return {"name": rival.name, **shared_facts(rival, self.shared), **covariates}

    def features(self, rival: Setting) -> NDArray[Any]:
        """Return what the rival reads of each slice, (N, D)."""
        if rival.architecture == "covariates":
            return self._encoded(rival)[0]
        if rival.architecture == "majority":
            return np.ones((len(self.shared.slices.table), 1), np.float32)
        if self._small is None:
            self.shared.slices.check_pixels()
            self._small = shrink(self.shared.slices.pixels)
        return self._small

    def _encoded(self, rival: Setting) -> tuple[NDArray[np.float32], list[str]]:
        """Return the covariates of each slice as numbers, and their names."""
        assert self.covariates is not None  # no such rival is planned without them
        subsets = self.shared.subsets(rival)
        first = scans_of(self.shared.slices_of(rival).table, subsets).first
        train = np.zeros(len(subsets), dtype=bool)
        train[first[subsets[first] == "train"]] = True
        return encode(self.covariates, train)


def covariates_of(experiment: Path, slices: SliceSet) -> pd.DataFrame | None:
    """Return the covariates of each slice (N, ·) from `participants.tsv`; None where it has none.

    A session that the table lacks has missing values.
    """
    path = experiment / "participants.tsv"
    if not path.is_file():
        return None
    table = read_table(path)
    columns = [name for name in table.columns if name not in KEYS]
    columns = [name for name in columns if table[name].notna().any()]
    if not columns:
        return None
    keys, described = (part[KEYS].astype(str) for part in (slices.table, table))
    described = described.assign(**{name: table[name] for name in columns})
    return keys.merge(described.drop_duplicates(KEYS), on=KEYS, how="left")[columns]


def fit_rivals(rivals: Sequence[Setting], material: Material) -> dict[str, str]:
    """Fit rivals, which takes seconds; return the reasons of those that failed, by name."""
    failures = {}
    for rival in track(rivals, "Fitting simple rivals", len(rivals)) if rivals else ():
        path = material.shared.folder(rival)
        tidy_run(path)
        try:
            fit_rival(rival, material, path)
        except (InputError, MemoryError) as error:
            discard_run(path)
            failures[rival.name] = str(error) or "Out of memory."
            console.print(f"{rival.name}: failed. {failures[rival.name]}", soft_wrap=True)
    return failures


def fit_rival(rival: Setting, material: Material, path: Path) -> Run:
    """Fit a rival on the scans of its training subset, and write its run directory."""
    slices, subsets = material.shared.slices_of(rival), material.shared.subsets(rival)
    settings = material.settings(rival)
    start_run(path, settings)
    start = time.perf_counter()
    # 1. one row per scan, on which it is fitted; then the logits of each slice
    features, scans = material.features(rival), scans_of(slices.table, subsets)
    fitted = _fit(rival, features, slices, subsets, scans)
    logits = fitted.logits(features)
    seconds = time.perf_counter() - start
    # 2. the record, as that of a network
    predictions = slice_predictions(slices, slices.labels, subsets, logits)
    history = _epoch(scans.mean(logits), slices.labels[scans.first], subsets[scans.first])
    nothing = {"slice": np.empty(0, np.int64)}
    return write_run(
        path,
        history=[history | {"seconds": seconds}],
        predictions=predictions,
        metrics=run_scores(predictions, slices.class_names, settings["aggregate"])
        | {
            "epochs": 1,
            "selected_epoch": 1,
            "strength": fitted.strength,
            "train_seconds": seconds,
            "environment": environment(material.shared.device),
        },
        head={
            "weight": fitted.weight,
            "bias": fitted.bias,
            "class_names": np.array(slices.class_names),
        },
        features=slice_features(slices, slices.labels, subsets, features, logits),
        layers=nothing,
        maps=nothing,
        model=None,
        share=True,
    )


def _fit(
    rival: Setting,
    features: NDArray[Any],
    slices: SliceSet,
    subsets: NDArray[np.str_],
    scans: Scans,
) -> Fitted:
    """Fit one of the rivals; the larger class is that of the training subjects."""
    classes, label = len(slices.class_names), slices.labels[scans.first]
    if rival.architecture == "majority":
        rows = scans.first[subsets[scans.first] == "train"]
        units = slices.table.iloc[rows][["subject_id", "label"]].astype(str)
        once = ~(units.duplicated() & (units["subject_id"] != NO_ID)).to_numpy()
        return fit_majority(slices.labels[rows[once]], classes)
    return fit_linear(
        scans.mean(features),
        label,
        subsets[scans.first],
        classes,
        one_scale=rival.architecture == "pixels",
    )


def _epoch(
    logits: NDArray[np.float32], labels: NDArray[np.int64], subset: NDArray[np.str_]
) -> dict[str, Any]:
    """Return the one row of the history: losses and accuracies over scans."""
    row: dict[str, Any] = {"epoch": 1, "phase": "fit", "learning_rate": 0.0}
    for name in ("train", "val"):
        chosen = np.flatnonzero(subset == name)
        units = slice_units(labels[chosen], logits[chosen], chosen)
        losses = -units.log_probabilities[np.arange(len(chosen)), labels[chosen]]
        row[f"{name}_loss"] = float(losses.mean()) if len(chosen) else None
        row[f"{name}_slice_accuracy"] = float(units.correct.mean()) if len(chosen) else None
    return row
