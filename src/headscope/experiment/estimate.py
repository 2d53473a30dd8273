"""What an experiment will take, before it begins: its runs, their time and their disk.

Time is measured on one training step and one forward pass of each network on made-up slices, and
scaled; disk is counted from the shapes. Nothing is written.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from headscope.cohort.layouts import Cohort
from headscope.console import track
from headscope.experiment.config import Config
from headscope.experiment.inputs import find_scans
from headscope.experiment.plan import Plan, plan_runs
from headscope.experiment.preflight import check_networks, check_places, unfinished
from headscope.models.classifier import tap
from headscope.models.network import Network, build_network
from headscope.models.pretrained import find_published, how_to_get
from headscope.models.regimes import find_regime
from headscope.models.zoo import find_architecture
from headscope.scans.volume import ScanError
from headscope.slicing.parallel import take_file
from headscope.training.device import autocast, find_device
from headscope.training.features import EXTRACT_BATCH, LAYER_SLICES, MAP_SLICES
from headscope.training.loader import SliceInputs
from headscope.training.recipe import Recipe, sgd

CPU_BATCH = 8  # a step of more slices takes in proportion longer, but for what it takes anyhow
HEAD_STEP_S = 5e-4  # one step of a classifier alone, on stored features


class Pace(NamedTuple):
    """How long a network takes: seconds a batch, and on top of them seconds a slice."""

    batch_s: float
    slice_s: float

    def of(self, slices: float, batch_size: int) -> float:
        """Return the seconds that so many slices take, batch by batch."""
        return slices * (self.slice_s + self.batch_s / batch_size)


@dataclass(frozen=True)
class Cost:
    """What one network costs: its pace in training and forward, and the bytes it leaves."""

    train: Pace
    forward: Pace
    feature_bytes: int
    map_bytes: int
    layer_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class Estimate:
    """The plan of an experiment, a row a run, with seconds and bytes; and of its slices.

    runs: run, architecture, regime, split, seed, epochs, learning_rate, finished, seconds, bytes
    (None where a network is too large for the device). notes say which are, and which weights are
    not here.
    """

    runs: pd.DataFrame
    slices: int
    slicing_seconds: float
    slicing_bytes: int
    device: str
    notes: list[str]

    @property
    def seconds(self) -> float:
        """Time of all that does not stand yet."""
        return float(self.runs["seconds"].sum()) + self.slicing_seconds

    @property
    def bytes(self) -> int:
        """Disk of all that does not stand yet."""
        return int(self.runs["bytes"].sum()) + self.slicing_bytes


def estimate(config: Config) -> Estimate:
    """Return the plan of an experiment and what it will take; nothing is written.

    Slices, features and what each run keeps are counted; features that runs share, once. Time is
    that of this machine as it is now; runs that stand finished cost nothing.

    Raises
    ------
    InputError
        Whatever `run` refuses before it begins.
    """
    # 1. the runs and the scans, as `run` finds them
    plans = plan_runs(config)
    device = find_device(config.device)
    check_places(config, plans)
    cohort = find_scans(config, plans, write=False)
    todo = unfinished(config, plans)
    check_networks(todo, config.size, fetch=False)
    # 2. the slices: how many, and what one scan takes
    slices, slicing_seconds = _slices(config, cohort)
    # 3. each network, measured once
    finished = {plan.name for plan in plans} - {plan.name for plan in todo}
    networks = list(dict.fromkeys((plan.architecture, plan.recipe.batch_size) for plan in todo))
    costs, notes = _measure_all(
        networks, config.size, len(cohort.class_names), device, config.precision
    )
    notes += _weights_to_fetch(todo)
    # 4. the runs, each with its share
    rows = _rows(plans, finished, costs, slices, config)
    stored = (config.out / "slices" / "slices.json").is_file()
    return Estimate(
        rows,
        slices,
        0.0 if stored else slicing_seconds,
        0 if stored else slices * config.size**2,
        torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        notes,
    )


def _rows(
    plans: list[Plan],
    finished: set[str],
    costs: dict[tuple[str, int], Cost],
    slices: int,
    config: Config,
) -> pd.DataFrame:
    """Return a row a run; the pass that several share is the first one's."""
    rows, passed = [], set()
    for plan in plans:
        cost = costs.get((plan.architecture, plan.recipe.batch_size))
        taken: tuple[float | None, int | None] = (0.0, 0)
        if plan.name not in finished:
            new = plan.features_of not in passed
            passed.add(plan.features_of)
            taken = _run_cost(plan, cost, slices, config, new) if cost else (None, None)
        rows.append(
            {
                "run": plan.name,
                "architecture": plan.architecture,
                "regime": plan.regime,
                "split": plan.split,
                "seed": plan.seed,
                "epochs": plan.recipe.epochs,
                "learning_rate": plan.recipe.learning_rate,
                "finished": plan.name in finished,
                "seconds": taken[0],
                "bytes": taken[1],
            }
        )
    return pd.DataFrame(rows)


def _slices(config: Config, cohort: Cohort) -> tuple[int, float]:
    """Return how many slices the scans will give, and the seconds it takes on one process.

    Each scan is taken to give as many as the first, and to take as long.
    """
    plane = cohort.scans["plane"].iloc[0] if "plane" in cohort.scans else config.plane
    start = time.perf_counter()
    try:
        pixels, _ = take_file(cohort.root / cohort.scans["path"].iloc[0], plane, config.slice_spec)
        count = len(pixels)
    except ScanError:
        count = config.count
    seconds = (time.perf_counter() - start) * len(cohort.scans)
    return count * len(cohort.scans), seconds


def _weights_to_fetch(plans: list[Plan]) -> list[str]:
    """Say which published weights are not on this machine yet, and how they get there."""
    wanted = [plan for plan in plans if plan.needs_weights and plan.weights_file is None]
    notes = []
    for name in dict.fromkeys(plan.architecture for plan in wanted):
        entry = find_architecture(name)
        found = find_published(entry)
        if found is not None and found.file is None:
            notes.append(
                f"The weights of {name} are not on this machine. The run downloads them; where "
                f"there is no network, {how_to_get(entry, found)}."
            )
    return notes


def _measure_all(
    networks: list[tuple[str, int]],
    size: int,
    classes: int,
    device: torch.device,
    precision: str,
) -> tuple[dict[tuple[str, int], Cost], list[str]]:
    """Measure each network at its batch size; say which are too large for the device."""
    costs, notes = {}, []
    for architecture, batch_size in track(networks, "Measuring", len(networks)):
        network = build_network(
            architecture, "scratch", "random", classes=classes, size=size, seed=0
        )
        try:
            costs[architecture, batch_size] = _measure(network, batch_size, size, device, precision)
        except torch.OutOfMemoryError:
            notes.append(
                f"Batches of {batch_size} do not fit into {device}'s memory: {architecture}."
            )
    return costs, notes


def _measure(
    network: Network, batch_size: int, size: int, device: torch.device, precision: str
) -> Cost:
    """Time one training step and one forward pass on made-up slices, and look at the shapes."""
    count = max(2, batch_size if device.type == "cuda" else min(batch_size, CPU_BATCH))
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    network.model.to(device)
    entry = network.architecture
    inputs = SliceInputs(pixels, entry.mean, entry.std, device)
    most = np.arange(count)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    optimizer = sgd(network.model, network.head, Recipe(epochs=1, learning_rate=1e-6))

    def train_step(rows: NDArray[np.int64]) -> None:
        network.training_mode()
        optimizer.zero_grad()
        with autocast(precision, device):
            logits = network.model(inputs(rows)).float()
        nn.functional.cross_entropy(logits, labels[: len(rows)]).backward()
        optimizer.step()

    @torch.inference_mode()
    def forward(rows: NDArray[np.int64]) -> None:
        network.model.eval()
        with autocast(precision, device):
            network.model(inputs(rows))

    outputs = [*network.stages, *([network.map_layer] if network.map_layer else [])]
    with torch.inference_mode(), tap(network.model, outputs=outputs, inputs=[]) as caught:
        network.model.eval()(inputs(most[:1]))
    maps = caught[network.map_layer].numel() if network.map_layer else 0
    return Cost(
        train=_pace(train_step, most, device),
        forward=_pace(forward, most, device),
        feature_bytes=4 * network.head.in_features,
        map_bytes=4 * maps,
        layer_bytes=4 * sum(caught[stage].shape[1] for stage in network.stages),
        model_bytes=sum(tensor.nbytes for tensor in network.model.state_dict().values()),
    )


def _pace(
    work: Callable[[NDArray[np.int64]], None], rows: NDArray[np.int64], device: torch.device
) -> Pace:
    """Time `work` on all rows and on a quarter of them, at its second go each."""
    few = rows[: max(2, len(rows) // 4)]  # BatchNorm needs two
    taken = []
    for some in (few, rows):
        for _ in range(2):
            start = time.perf_counter()
            work(some)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        taken.append(seconds)
    more = len(rows) - len(few)
    slice_s = max(taken[1] - taken[0], 0) / more if more > 0 else 0.0
    slice_s = min(slice_s, taken[1] / len(rows))
    return Pace(taken[1] - slice_s * len(rows), slice_s)


def _run_cost(
    plan: Plan, cost: Cost, slices: int, config: Config, new_features: bool
) -> tuple[float, int]:
    """Return the seconds and bytes of one run; of shared features only where it makes them."""
    regime, recipe = find_regime(plan.regime), plan.recipe
    parts = [part / sum(config.ratio) for part in config.ratio]
    train, val, test = (slices * part for part in parts)
    head_s = recipe.epochs * train / recipe.batch_size * HEAD_STEP_S
    one_pass = cost.forward.of(slices, EXTRACT_BATCH)
    kept = slices * cost.feature_bytes + LAYER_SLICES * cost.layer_bytes
    if regime.trains_backbone:
        epoch_s = cost.train.of(train, recipe.batch_size) + cost.forward.of(val, recipe.batch_size)
        seconds = recipe.epochs * epoch_s + one_pass
        if regime.probe_first:
            seconds += head_s + one_pass
    else:
        seconds = head_s + cost.forward.of(min(test, MAP_SLICES), EXTRACT_BATCH)
        if new_features:
            seconds += one_pass * (1 + parts[0] * regime.restat)
            kept += slices * cost.feature_bytes
    kept += int(min(test, MAP_SLICES) * cost.map_bytes)
    if config.keep_model and plan.permutation is None:
        kept += cost.model_bytes
    return seconds, int(kept)
