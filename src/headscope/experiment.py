"""The whole path on one screen: scans → slices → splits → networks → records."""

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from headscope.cohort.dealing import make_split
from headscope.cohort.layouts import Cohort, find_cohort
from headscope.cohort.privacy import pseudonymised
from headscope.cohort.slices import SliceSet, write_slices
from headscope.cohort.splits import balance_of, check_ids, ensure_split
from headscope.config import Config, Row
from headscope.console import console
from headscope.errors import InputError
from headscope.files import locked, write_json, write_table
from headscope.metrics import run_figures, softmax
from headscope.models.network import Network, build_network
from headscope.models.regimes import find_regime
from headscope.models.zoo import find_architecture
from headscope.record import Run, start_run, write_run
from headscope.training.loader import batches
from headscope.training.optim import Recipe
from headscope.training.train import train


@dataclass(frozen=True)
class Plan:
    """One run to be: what trains on which split with which seed."""

    name: str
    architecture: str
    regime: str
    split: str
    seed: int
    recipe: Recipe
    fold: int | None = None


def run(config: Config) -> Path:
    """Run an experiment, going on where an earlier start stopped; return its folder.

    Raises
    ------
    InputError
        Something in the settings or the data is wrong, or the folder holds another experiment.
    RunError
        Training diverged, or a frozen backbone changed.
    """
    # 1. what will run: unknown names are found before any work is done
    plans = plan_runs(config)
    for plan in plans:
        find_architecture(plan.architecture)
        find_regime(plan.regime)
    if config.out.exists() and not config.out.is_dir():
        raise InputError(f"{config.out} is a file: --out names a folder.")
    if config.out.resolve() == config.data.resolve():
        raise InputError(f"{config.out} holds the data: --out names another folder.")
    for file in (config.split_file, _weights_file(config)):
        if file is not None and not file.is_file():
            raise InputError(f"{file} does not exist, or is no file.")
    device = _device(config.device)
    # 2. the scans, and whether they can be split as asked
    cohort = _find_cohort(config, plans)
    # 3. slices and runs, in a folder that is ours alone
    with locked(config.out):
        _run_all(plans, cohort, config, device)
    return config.out


def _weights_file(config: Config) -> Path | None:
    return None if config.weights in ("pretrained", "random") else Path(config.weights)


def _find_cohort(config: Config, plans: list[Plan]) -> Cohort:
    cohort = find_cohort(
        config.data,
        label=config.label,
        classes=config.classes,
        threshold=config.threshold,
        plane=config.plane,
        where=config.where,
        keep=config.balance,
        subject_pattern=config.subject_pattern,
    )
    for plan in plans:
        check_ids(cohort.scans, plan.split)
        if plan.split == "subject" and not (config.folds or config.split_file):
            make_split(cohort.scans, kind="subject", ratio=config.ratio)
    if config.pseudonymise is not None:
        cohort = pseudonymised(cohort, config.pseudonymise, config.out)
    for note in cohort.notes:
        console.print(note, soft_wrap=True)
    return cohort


def _run_all(plans: list[Plan], cohort: Cohort, config: Config, device: torch.device) -> None:
    slices = write_slices(
        cohort,
        config.out / "slices",
        plane=config.plane,
        count=config.count,
        size=config.size,
        centre=config.centre,
        spacing_mm=config.spacing_mm,
        workers=config.workers,
        strict=config.strict,
        volume=config.volume,
        analyze_orientation=config.analyze_orientation,
    )
    config.save(config.out / "experiment.toml")
    write_json(config.out / "environment.json", environment(device))
    for number, plan in enumerate(plans, start=1):
        subsets = _split(plan, config, slices, cohort)
        title = f"[{number}/{len(plans)}] {plan.name}"
        train_run(plan, slices, subsets, config, simulated=cohort.simulated, title=title)


def _split(plan: Plan, config: Config, slices: SliceSet, cohort: Cohort) -> NDArray[np.str_]:
    """Return the subset of each slice by the plan's split; say how well it is balanced."""
    by_subject = plan.split == "subject"
    balanced = bool(config.balance) and by_subject
    foreign = by_subject or "subject" not in config.splits
    part = "" if plan.fold is None else f"fold{plan.fold}of{config.folds}-"
    path = config.out / "splits" / f"{plan.split}-{part}seed{plan.seed}.tsv"
    _hold_to(path, config, plan)
    covariates = cohort.scans[["subject_id", *config.balance]]
    subsets = ensure_split(
        path,
        slices.table,
        kind=plan.split,
        ratio=config.ratio,
        seed=plan.seed,
        fold=None if plan.fold is None or config.folds is None else (plan.fold, config.folds),
        covariates=covariates if balanced else None,
        source=config.split_file if foreign else None,
    )
    if balanced:
        found = balance_of(slices.table, subsets, covariates)
        if not path.with_suffix(".balance.tsv").exists():
            write_table(path.with_suffix(".balance.tsv"), found)
            each = ", ".join(
                f"{row.column} p = {row.p:.2g} ({row.test})" for row in found.itertuples()
            )
            console.print(f"{path.stem}: between the subsets, {each}", soft_wrap=True)
    return subsets


def _hold_to(path: Path, config: Config, plan: Plan) -> None:
    """Write beside a split what makes it; refuse one that was made by other settings."""
    made_by = {
        "ratio": list(config.ratio),
        "seed": plan.seed,
        "folds": config.folds,
        "balance": list(config.balance),
        "split_file": str(config.split_file) if config.split_file else None,
    }
    beside = path.with_suffix(".json")
    if path.exists() and beside.exists():
        stored = json.loads(beside.read_text(encoding="utf-8"))
        differing = [
            f"{name} {stored.get(name)} instead of {value}"
            for name, value in made_by.items()
            if stored.get(name) != value
        ]
        if differing:
            raise InputError(
                f"{path} was made by other settings ({', '.join(differing)}): choose another --out."
            )
        return
    write_json(beside, made_by)


def train_run(
    plan: Plan,
    slices: SliceSet,
    subsets: NDArray[np.str_],
    config: Config,
    *,
    simulated: bool,
    title: str,
) -> Run:
    """Train one network and write its run directory; a finished run is left as it is.

    subsets (N,) says to which subset each slice belongs.
    """
    path = config.out / "runs" / plan.name
    # 1. the network as its regime wants it, and every setting that makes the run
    network = build_network(
        plan.architecture,
        plan.regime,
        config.weights,
        classes=len(slices.class_names),
        size=slices.pixels.shape[1],
        seed=plan.seed,
    )
    settings = _settings(plan, network, slices, subsets, simulated)
    device = _device(config.device)
    if start_run(path, settings):
        console.print(f"{title}: stands already")
        return Run(path)
    # 2. training, as far as an earlier start has not come
    outcome = train(
        network,
        slices.pixels,
        slices.labels,
        subsets,
        plan.recipe,
        seed=plan.seed,
        device=device,
        checkpoint=path / "checkpoint" / "last.pt",
        cache=config.out / "cache",
        slices_key=slices.sha256,
        title=title,
    )
    # 3. the record, from which everything after this reads
    predictions = _predictions(slices, subsets, softmax(outcome.logits))
    return write_run(
        path,
        history=outcome.history,
        predictions=predictions,
        metrics=run_figures(predictions, slices.class_names)
        | {
            "epochs": len(outcome.history),
            "train_seconds": outcome.train_seconds,
            "freeze_certificate": outcome.certificate,
            "environment": environment(device),
        },
        head=outcome.head | {"class_names": np.array(slices.class_names)},
        features={
            "features": outcome.extracted.features,
            "logits": outcome.logits,
            "label": slices.labels,
            "subject_id": slices.table["subject_id"].to_numpy(str),
            "subset": subsets,
            "slice": np.arange(len(subsets)),
        },
        layers=outcome.extracted.layers,
        maps=outcome.maps,
        model=outcome.model,
    )


def plan_runs(config: Config) -> list[Plan]:
    """Return every run of the grid: rows × architectures × splits × folds × seeds."""
    rows = config.rows or tuple(Row(regime=regime) for regime in config.regimes)
    plans = [
        _plan(config, row, architecture, split, seed, fold)
        for seed in config.seeds
        for fold in (range(config.folds) if config.folds else [None])
        for row in rows
        for architecture in ([row.architecture] if row.architecture else config.architectures)
        for split in (row.splits or config.splits)
    ]
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Two rows make the run {twice[0]}: give one of them a name of its own.")
    return plans


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions of what computed the numbers; nothing about the machine's owner."""
    packages = ("headscope", "torch", "torchvision", "timm", "numpy", "scikit-learn", "nibabel")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _plan(
    config: Config, row: Row, architecture: str, split: str, seed: int, fold: int | None
) -> Plan:
    name = row.name or row.regime
    part = "" if fold is None else f"-fold{fold}of{config.folds}"
    recipe = Recipe(
        epochs=row.epochs or config.epochs,
        learning_rate=row.learning_rate or config.learning_rate,
        batch_size=config.batch_size,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        drop_every=config.drop_every,
        drop_factor=config.drop_factor,
        head_learning_rate=config.head_learning_rate,
    )
    folder = f"{architecture.replace('/', '-')}-{name}{part}-{split}-seed{seed}"
    return Plan(folder, architecture, row.regime, split, seed, recipe, fold)


def _settings(
    plan: Plan, network: Network, slices: SliceSet, subsets: NDArray[np.str_], simulated: bool
) -> dict[str, Any]:
    """Return what goes into run.toml: all that decides the run's numbers."""
    return {
        "name": plan.name,
        "architecture": plan.architecture,
        "regime": plan.regime,
        "split": plan.split,
        "seed": plan.seed,
        "fold": plan.fold,
        **asdict(plan.recipe),
        "split_sha256": hashlib.sha256("\n".join(subsets.tolist()).encode()).hexdigest(),
        "steps_per_epoch": len(batches(np.flatnonzero(subsets == "train"), plan.recipe.batch_size)),
        "weights": network.source.text,
        "weights_sha256": network.source.sha256,
        "classifier": network.classifier,
        "map_layer": network.map_layer,
        "note": network.architecture.note or None,
        "class_names": slices.class_names,
        "slices_sha256": slices.sha256,
        "slice_size": int(slices.pixels.shape[1]),
        "planes": sorted(slices.table["plane"].unique()),
        "simulated": simulated,
    }


def _predictions(
    slices: SliceSet, subsets: NDArray[np.str_], probabilities: NDArray[np.float64]
) -> pd.DataFrame:
    """Return predictions.tsv: ids, label, prediction and one probability a class, by slice."""
    columns = ["subject_id", "session_id", "plane", "slice_index", "label"]
    table = slices.table[columns].copy()
    table.insert(0, "subset", subsets)
    table["predicted"] = np.array(slices.class_names)[probabilities.argmax(axis=1)]
    for k, name in enumerate(slices.class_names):
        table[f"probability_{name}"] = probabilities[:, k]
    return table


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("The device 'cuda' is not available; valid here: auto, cpu.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
