"""What all runs of an experiment share, and what the record of any of them holds."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import headscope
from headscope.cohort.layouts import Cohort
from headscope.errors import InputError
from headscope.experiment.config import Config
from headscope.experiment.inputs import Subsets, permuted_labels, split_name
from headscope.experiment.plan import Plan
from headscope.grouping import Scans, divided, scans_of
from headscope.metrics import logit_columns, softmax
from headscope.record import Run, Setting, run_problem
from headscope.slicing.inferred import Sets, sets_of
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet, open_slices
from headscope.training.device import find_device
from headscope.training.features import map_rows_of
from headscope.training.train import Outcome


@dataclass(frozen=True)
class Shared:
    """What all runs of an experiment share.

    Without a cohort, as where slices of slices are made, `facts` hold what run.toml says of it;
    they win over the rest. Without `maps` runs record no feature maps, which a pass would cost.
    """

    config: Config
    cohort: Cohort | None
    slices: SliceSet
    sets: Sets
    splits: dict[str, Subsets]
    device: torch.device
    facts: Mapping[str, Any] = field(default_factory=dict)
    maps: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open it by its path, with what run.toml says of cohorts left here."""
        parts = (self.config, self.slices.sha256, self.splits, dict(self.facts), self.maps)
        return open_shared, parts

    def of_run(self, plan: Plan) -> "Shared":
        """Return what a run needs, with its split alone."""
        split = split_name(plan.setting, self.config)
        return replace(self, splits={split: self.splits[split]})

    def problem(self, plan: Plan | Setting) -> str:
        """Say why the record of a run that has ended is not whole; nothing where it is."""
        run = Run(self.folder(plan))
        problem = run_problem(run) if run.finished else ""
        return f"{run.path}: {problem}: delete that folder to train it again." if problem else ""

    def folder(self, plan: Plan | Setting) -> Path:
        """Return the directory of a run."""
        return self.config.out / "runs" / plan.name

    def slices_of(self, setting: Setting) -> SliceSet:
        """Return the slices under the ids of a run: those of names and tables, or inferred ones."""
        return self.sets[setting.subjects]

    def subsets(self, setting: Setting) -> Subsets:
        """Return to which subset each slice (N,) belongs in a run."""
        return self.splits[split_name(setting, self.config)]

    def map_rows(self, plan: Plan) -> NDArray[np.int64]:
        """Return the slices of which a run records the last feature maps."""
        if not self.maps:
            return np.empty(0, np.int64)
        fold, frozen = plan.setting.fold is not None, not plan.regime.trains_backbone
        return map_rows_of(self.subsets(plan.setting), fold=fold, frozen=frozen)

    def scans(self, plan: Plan) -> Scans | None:
        """Return the scans on which a run's head trains; None where it trains on slices."""
        if plan.setting.unit == "slice":
            return None
        return scans_of(self.slices_of(plan.setting).table, self.subsets(plan.setting))

    def divided_note(self, plan: Plan) -> str:
        """Say of how many scans a mean is taken within each subset, where the split divides any."""
        slices = plan.setting.unit == "slice"
        table = self.slices_of(plan.setting).table
        count = 0 if slices else divided(table, self.subsets(plan.setting))
        if not count:
            return ""
        return (
            f"{split_name(plan.setting, self.config)}: several subsets have slices of {count} "
            "scans, so a head of scans trains on the mean of those of a scan's slices that are in "
            "training."
        )

    def labels(self, plan: Plan) -> NDArray[np.int64]:
        """Return the labels (N,) that a run trains on: the true ones, or permuted by subject."""
        if plan.permutation is None:
            return self.slices.labels
        slices = self.slices_of(plan.setting)
        return permuted_labels(slices, plan.permutation, self.subsets(plan.setting))


def open_shared(
    config: Config,
    slices_sha256: str,
    splits: dict[str, Subsets],
    facts: Mapping[str, Any],
    maps: bool,
) -> Shared:
    """Return what runs share, in a process without the cohort; InputError where slices differ."""
    if not config.out.is_dir():
        raise InputError(
            f"{platform.node()} has no folder {config.out}: an experiment on several machines is "
            "in a folder that all of them share."
        )
    slices, sets = _open_sets(config.out, slices_sha256)
    return Shared(config, None, slices, sets, splits, find_device(config.device), facts, maps)


@lru_cache(maxsize=2)
def _open_sets(out: Path, slices_sha256: str) -> tuple[SliceSet, Sets]:
    """Open the slices of an experiment once for all runs of a process."""
    slices = open_slices(out / "slices")
    if slices.sha256 != slices_sha256:
        raise InputError(f"{slices.path} holds other slices than those that are to be trained on.")
    return slices, sets_of(out, slices)


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions of what computed the numbers; nothing about the machine's owner."""
    packages = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "nibabel")
    # of an editable install, the metadata may be of an earlier version than the code
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "packages": {"headscope": headscope.__version__} | versions,
    }


def shared_facts(setting: Setting, shared: Shared) -> dict[str, Any]:
    """Return what run.toml holds of any run: which it is, and of which slices and split.

    A head of scans is linear, so that the mean of a scan's slice logits is the logit of the mean on
    which it trained: such runs are aggregated by "logits".
    """
    slices, subsets = shared.slices, shared.splits[split_name(setting, shared.config)]
    return {
        **asdict(setting),
        "split_sha256": hashlib.sha256("\n".join(subsets.tolist()).encode()).hexdigest(),
        "class_names": slices.class_names,
        "slices_sha256": slices.sha256,
        "slice_size": int(slices.pixels.shape[1]),
        "planes": sorted(slices.table["plane"].unique()),
        **({} if shared.cohort is None else _cohort_facts(shared.slices, shared.cohort)),
        "pseudonymised": shared.config.pseudonym_key is not None,
        "limit": shared.config.limit,
        "aggregate": "logits" if setting.unit == "scan" else shared.config.aggregate,
        **shared.facts,
    }


def _cohort_facts(slices: SliceSet, cohort: Cohort) -> dict[str, Any]:
    """Return how the slices were taken, so that a new scan can be sliced the same way."""
    spec = SliceSpec.from_settings(slices.settings).as_settings()
    spec.pop("size")  # the record has it as slice_size
    taken = spec | {"version": slices.settings.get("version")}
    ready = [file.kind == "picture" for file in cohort.files]
    of = "pictures" if all(ready) else "scans and pictures" if any(ready) else "scans"
    slicing = {"of": of} | {name: value for name, value in taken.items() if value is not None}
    return {"slicing": slicing, "simulated": cohort.simulated}


def stored_network(outcome: Outcome, plan: Plan, config: Config, classifier: str) -> dict[str, Any]:
    """Return what the record keeps of the network, and what of it other runs have too."""
    keeps = config.keep_model and plan.permutation is None
    if plan.regime.trains_backbone:
        return {"model": outcome.model if keeps else None}
    head = f"{classifier}."
    backbone = {name: part for name, part in outcome.model.items() if not name.startswith(head)}
    return {
        "model": None,
        "backbone": backbone if keeps else None,
        "share": True,
        "ready": outcome.extracted.files,
    }


def slice_features(
    slices: SliceSet,
    labels: NDArray[np.int64],
    subsets: Subsets,
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> dict[str, NDArray[Any]]:
    """Return features.npy and features.npz: by slice what the final layer reads and gives."""
    return {
        "features": features,
        "logits": logits,
        "label": labels,
        "subject_id": slices.table["subject_id"].to_numpy(str),
        "subset": subsets,
        "slice": np.arange(len(subsets)),
    }


def slice_predictions(
    slices: SliceSet,
    labels: NDArray[np.int64],
    subsets: Subsets,
    logits: NDArray[np.float32],
) -> pd.DataFrame:
    """Return predictions.tsv: by slice its scan, ids, label, prediction, probabilities, logits.

    Logits rank slices; a probability that is rounded to 1 no longer can.
    """
    names, probabilities = np.array(slices.class_names), softmax(logits)  # (K,), (N, K)
    table = slices.table[["scan", "subject_id", "session_id", "plane", "slice_index"]].copy()
    table["label"] = names[labels]
    table.insert(0, "subset", subsets)
    table["predicted"] = names[logits.argmax(axis=1)]
    for k, name in enumerate(slices.class_names):
        table[f"probability_{name}"] = probabilities[:, k]
    for column, values in zip(logit_columns(slices.class_names), logits.T, strict=True):
        table[column] = values
    return table
