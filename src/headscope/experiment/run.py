"""The whole path on one screen: scans → slices → splits → networks → records."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from headscope.cohort.layouts import Cohort
from headscope.console import busy
from headscope.errors import InputError, RunError
from headscope.experiment.config import Config
from headscope.experiment.inputs import (
    Subsets,
    find_scans,
    permuted_labels,
    split_name,
    store_findings,
    store_slices,
    store_splits,
)
from headscope.experiment.live import Board, RunsFailed
from headscope.experiment.plan import Plan, plan_runs
from headscope.experiment.preflight import check_networks, check_places, unfinished
from headscope.files import clear_leftovers, locked, sha256, write_json
from headscope.metrics import logit_columns, run_scores, softmax
from headscope.models.network import Network, build_network
from headscope.models.tensors import split_network
from headscope.record import (
    Run,
    check_run,
    discard_run,
    run_problem,
    start_run,
    tidy_run,
    write_failures,
    write_run,
)
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet
from headscope.training.device import NoRoomError, find_device, is_out_of_memory
from headscope.training.loader import batches
from headscope.training.loop import Watch, ignore
from headscope.training.train import train


@dataclass(frozen=True)
class Shared:
    """What all runs of an experiment share."""

    config: Config
    cohort: Cohort
    slices: SliceSet
    splits: dict[str, Subsets]
    device: torch.device

    def problem(self, plan: Plan) -> str:
        """Say why the record of a run that has ended is not whole; nothing where it is."""
        run = Run(self.folder(plan))
        problem = run_problem(run) if run.finished else ""
        return f"{run.path}: {problem}: delete that folder to train it again." if problem else ""

    def folder(self, plan: Plan) -> Path:
        """Return the directory of a run."""
        return self.config.out / "runs" / plan.name

    def subsets(self, plan: Plan) -> Subsets:
        """Return to which subset each slice (N,) belongs in a run."""
        return self.splits[split_name(plan, self.config)]

    def labels(self, plan: Plan) -> NDArray[np.int64]:
        """Return the labels (N,) that a run trains on: the true ones, or permuted by subject."""
        if plan.permutation is None:
            return self.slices.labels
        return permuted_labels(self.slices, plan.permutation, self.subsets(plan))


def run(config: Config) -> Path:
    """Run an experiment, continuing where an earlier start stopped; return its folder.

    Parameters
    ----------
    config
        Every setting; `data` and `out` are folders.

    Returns
    -------
    Path
        The folder of the experiment, `config.out`.

    Raises
    ------
    InputError
        Something in the settings or the data is wrong, or the folder holds another experiment.
    RunError
        As `RunsFailed`, after the other runs: training diverged, the memory ran out, or a frozen
        backbone changed.

    Examples
    --------
    >>> network = {"architectures": ["timm/test_resnet"], "weights": "random"}
    >>> small = {"count": 2, "size": 32, "epochs": 1, "workers": 1}
    >>> experiment = hs.run(
    ...     hs.Config(data="scans", out="second", regimes=["frozen"], **network, **small)
    ... )
    >>> len(hs.read_experiment(experiment))
    1
    """
    # 1. what will run; impossible settings are refused before any work
    plans = plan_runs(config)
    device = find_device(config.device)
    check_places(config, plans)
    # 2. the scans, and whether they can be split as asked; then the networks
    cohort = find_scans(config, plans)
    check_networks(unfinished(config, plans), config.size)
    with locked(config.out):
        clear_leftovers(config.out)
        # 3. slices and splits; a finished run must be whole, and of these settings
        slices = store_slices(cohort, config)
        splits = store_splits(plans, config, slices, cohort)
        shared = Shared(config, cohort, slices, splits, device)
        with busy("Checking records"):
            changed = {plan.name: problem for plan in plans if (problem := shared.problem(plan))}
            finished = {
                plan.name
                for plan in plans
                if plan.name not in changed and is_finished(plan, shared)
            }
        config.save(config.out / "experiment.toml")
        write_json(config.out / "environment.json", environment(device))
        # 4. what in slices and splits could flatter the accuracy
        store_findings(config, slices, cohort)
        # 5. the runs; one that fails does not stop the others
        failures = _train_all(plans, finished, changed, shared)
    # 6. the failures
    if failures:
        raise RunsFailed(config.out, failures, len(plans))
    return config.out


def is_finished(plan: Plan, shared: Shared) -> bool:
    """Whether a run has finished; InputError where its directory is of other settings."""
    return check_run(shared.folder(plan), _settings(plan, shared))


def _train_all(
    plans: list[Plan], finished: set[str], changed: Mapping[str, str], shared: Shared
) -> dict[str, str]:
    """Train every unfinished run; return the reasons of those that failed, by name.

    Those whose record has `changed` since it was written have failed.
    """
    failures: dict[str, str] = {}
    board = Board(plans)
    for number, plan in enumerate(plans):
        if plan.name in finished:
            board.lines[number].state = "already finished"
    with board.shown():
        for number, plan in enumerate(plans):
            tidy_run(shared.folder(plan))
            if plan.name in changed:
                failures[plan.name] = changed[plan.name]
                board.end(number, "failed", changed[plan.name])
                continue
            if plan.name in finished:
                board.end(number, "already finished")
                continue
            board.begin(number)
            title = board.title(number)
            try:
                train_run(plan, shared, title=title, watch=board.watch)
                board.end(number, "finished")
            except (InputError, RuntimeError, MemoryError) as error:
                reason = _reason(error, shared.folder(plan)).removeprefix(f"{title}: ")
                alike = next((name for name, said in failures.items() if said == reason), None)
                outcome = f"failed, as {alike}." if alike else f"failed. {reason}"
                board.end(number, "failed", outcome)
                failures[plan.name] = reason
    write_failures(shared.config.out, shared.config.for_record(failures))
    return failures


def _reason(error: Exception, folder: Path) -> str:
    """Return why a run failed, and remove its half record; an unforeseen error is raised.

    The record stays where an InputError is about it, or where training had left a resume file
    before the memory ran out.
    """
    if isinstance(error, InputError):
        return str(error)
    no_room = isinstance(error, NoRoomError)
    if isinstance(error, RunError) and not no_room:
        discard_run(folder)
        return str(error)
    if not (no_room or is_out_of_memory(error)):
        raise error
    if not (folder / "checkpoint").exists():
        discard_run(folder)
    if no_room:
        return str(error)
    return "Out of memory; a smaller batch_size, or ending other work, may help."


def train_run(plan: Plan, shared: Shared, *, title: str, watch: Watch = ignore) -> Run:
    """Train one network and write its run directory, continuing an interrupted training.

    `watch` gets the row of each epoch.
    """
    path, config, slices = shared.folder(plan), shared.config, shared.slices
    slices.check_pixels()
    labels, subsets = shared.labels(plan), shared.subsets(plan)
    # 1. the network as its regime wants it, and every setting that makes the run
    network = build_network(
        plan.architecture,
        plan.regime,
        plan.weights,
        classes=len(slices.class_names),
        size=slices.pixels.shape[1],
        seed=plan.seed,
        head_init=plan.head_init,
    )
    start_run(path, _settings(plan, shared) | _network_facts(network))
    # 2. training, from where an earlier start stopped
    outcome = train(
        network,
        slices.pixels,
        labels,
        subsets,
        plan.recipe,
        seed=plan.seed,
        device=shared.device,
        resume_path=path / "checkpoint" / "last.pt",
        cache=config.cache_folder,
        slices_key=slices.sha256,
        title=title,
        watch=watch,
    )
    # 3. the record, from which everything after this reads
    with busy(f"{title}: record"):
        predictions = _predictions(slices, labels, subsets, outcome.logits)
        return write_run(
            path,
            history=outcome.history,
            predictions=predictions,
            metrics=run_scores(predictions, slices.class_names, config.aggregate)
            | {
                "epochs": len(outcome.history),
                "selected_epoch": outcome.selected_epoch,
                "precision": outcome.precision,
                "train_seconds": outcome.train_seconds,
                "freeze_certificate": outcome.certificate,
                "environment": environment(shared.device),
            },
            head=outcome.head | {"class_names": np.array(slices.class_names)},
            features={
                "features": outcome.extracted.features,
                "logits": outcome.logits,
                "label": labels,
                "subject_id": slices.table["subject_id"].to_numpy(str),
                "subset": subsets,
                "slice": np.arange(len(subsets)),
            },
            layers=outcome.extracted.layers,
            maps=outcome.maps,
            model=outcome.model if config.keep_model and plan.permutation is None else None,
        )


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


def _settings(plan: Plan, shared: Shared) -> dict[str, Any]:
    """Return what goes into run.toml before the network is built."""
    config, slices, subsets = shared.config, shared.slices, shared.subsets(plan)
    train_rows = np.flatnonzero(subsets == "train")
    return {
        "name": plan.name,
        **asdict(plan.setting),
        "permutation": plan.permutation,
        **asdict(plan.recipe),
        "head_init": plan.head_init,
        "split_sha256": hashlib.sha256("\n".join(subsets.tolist()).encode()).hexdigest(),
        "steps_per_epoch": len(batches(train_rows, plan.recipe.batch_size)),
        **_weights(plan),
        "class_names": slices.class_names,
        "slices_sha256": slices.sha256,
        "slice_size": int(slices.pixels.shape[1]),
        "planes": sorted(slices.table["plane"].unique()),
        "slicing": _slicing(shared),
        "simulated": shared.cohort.simulated,
        "pseudonymised": config.pseudonym_key is not None,
        "aggregate": config.aggregate,
    }


def _weights(plan: Plan) -> dict[str, Any]:
    """Return the weights asked for; of a file its name, and its hash while it is at hand."""
    if plan.weights_file is None:
        return {"weights_setting": plan.weights if plan.needs_weights else "random"}
    path, network = split_network(plan.weights_file)
    setting = {"weights_setting": f"{path.name}:{network}" if network else path.name}
    if path.is_file():
        setting["weights_sha256"] = _hash(path, path.stat().st_mtime_ns)
    return setting


@cache
def _hash(path: Path, modified_ns: int) -> str:
    """Hash a file once for all runs."""
    return sha256(path)


def _slicing(shared: Shared) -> dict[str, Any]:
    """Return how the slices were taken, so that a new scan can be sliced the same way."""
    spec = SliceSpec.from_settings(shared.slices.settings).as_settings()
    spec.pop("size")  # the record has it as slice_size
    taken = spec | {"version": shared.slices.settings.get("version")}
    ready = [file.kind == "picture" for file in shared.cohort.files]
    of = "pictures" if all(ready) else "scans and pictures" if any(ready) else "scans"
    return {"of": of} | {name: value for name, value in taken.items() if value is not None}


def _network_facts(network: Network) -> dict[str, Any]:
    """Return what goes into run.toml once the network is built."""
    return {
        "weights": network.source.text,
        "weights_sha256": network.source.sha256,
        "classifier": network.classifier,
        "map_layer": network.map_layer,
        "tail": None if network.tail is None else list(network.tail),
        "note": network.architecture.note or None,
    }


def _predictions(
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
