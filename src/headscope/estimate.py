"""What an experiment will take, before it begins: its runs, their time and their disk.

Time is measured on one training step and one forward pass of each network on made-up slices, and
scaled; disk is counted from the shapes. Nothing is written.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from headscope.cohort.layouts import Cohort
from headscope.cohort.pictures import is_picture
from headscope.cohort.slices import take_file
from headscope.config import Config
from headscope.console import track
from headscope.errors import InputError
from headscope.experiment import check_places, find_device
from headscope.inputs import find_scans
from headscope.models.head import tap
from headscope.models.network import Network, build_network
from headscope.models.regimes import find_regime
from headscope.plan import Plan, plan_runs
from headscope.record import Run
from headscope.training.features import LAYER_SLICES, MAP_SLICES
from headscope.training.loader import SliceInputs
from headscope.training.optim import Recipe, sgd

CPU_BATCH = 8  # on a CPU the time of a step is in proportion to its slices
HEAD_STEP_S = 5e-4  # one step of a classifier alone, on stored features


@dataclass(frozen=True)
class Cost:
    """What one network costs: seconds a slice in training and forward, bytes it leaves."""

    train_s: float
    forward_s: float
    feature_bytes: int
    map_bytes: int
    layer_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class Estimate:
    """The plan of an experiment, a row a run, with seconds and bytes; and of its slices.

    runs: run, architecture, regime, split, seed, epochs, learning_rate, finished, seconds, bytes
    (None where a network cannot be built; `notes` say why).
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
    # 2. the slices: how many, and what one scan takes
    slices, slicing_seconds = _slices(config, cohort)
    # 3. each network, measured once
    finished = {plan.name for plan in plans if Run(config.out / "runs" / plan.name).finished}
    todo = [plan for plan in plans if plan.name not in finished]
    networks = list(dict.fromkeys((plan.architecture, plan.recipe.batch_size) for plan in todo))
    costs, notes = _measure_all(networks, config.size, len(cohort.class_names), device)
    # 4. the runs, each with its share
    rows, seen = [], set[tuple[str, ...]]()
    for plan in plans:
        cost = costs.get((plan.architecture, plan.recipe.batch_size))
        taken: tuple[float | None, int | None] = (0.0, 0)
        if plan.name not in finished:
            new = plan.features_of is not None and plan.features_of not in seen
            seen |= {plan.features_of} if plan.features_of else set()
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
    stored = (config.out / "slices" / "slices.json").is_file()
    return Estimate(
        pd.DataFrame(rows),
        slices,
        0.0 if stored else slicing_seconds,
        0 if stored else slices * config.size**2,
        torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        notes,
    )


def _slices(config: Config, cohort: Cohort) -> tuple[int, float]:
    """Return how many slices the scans will give, and the seconds it takes on one process."""
    paths = cohort.scans["path"]
    planes = 3 if config.plane == "all" and "plane" not in cohort.scans else 1
    slices = sum(1 if is_picture(path) else config.count * planes for path in paths)
    start = time.perf_counter()
    plane = cohort.scans["plane"].iloc[0] if "plane" in cohort.scans else config.plane
    names = ("count", "size", "centre", "spacing_mm", "volume", "analyze_orientation")
    options = {name: getattr(config, name) for name in names}
    take_file(cohort.root / paths.iloc[0], plane, options)
    return slices, (time.perf_counter() - start) * len(paths)


def _measure_all(
    networks: list[tuple[str, int]], size: int, classes: int, device: torch.device
) -> tuple[dict[tuple[str, int], Cost], list[str]]:
    """Measure each network at its batch size; say of which cannot be built why."""
    costs, notes = {}, []
    for architecture, batch_size in track(networks, "Measuring", len(networks)):
        try:
            network = build_network(
                architecture, "scratch", "random", classes=classes, size=size, seed=0
            )
        except InputError as error:
            notes.append(str(error))
            continue
        costs[architecture, batch_size] = _measure(network, batch_size, size, device)
    return costs, notes


def _measure(network: Network, batch_size: int, size: int, device: torch.device) -> Cost:
    """Time one training step and one forward pass on made-up slices, and look at the shapes."""
    count = batch_size if device.type == "cuda" else min(batch_size, CPU_BATCH)
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    network.model.to(device)
    entry = network.architecture
    inputs = SliceInputs(pixels, entry.mean, entry.std, device)
    rows = np.arange(count)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    optimizer = sgd(network.model, network.head, Recipe(epochs=1, learning_rate=1e-6))

    def train_step() -> None:
        network.training_mode()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network.model(inputs(rows)), labels).backward()
        optimizer.step()

    @torch.inference_mode()
    def forward() -> None:
        network.model.eval()
        network.model(inputs(rows))

    outputs = [*network.stages, *([network.map_layer] if network.map_layer else [])]
    with torch.inference_mode(), tap(network.model, outputs=outputs, inputs=[]) as caught:
        network.model.eval()(inputs(rows[:1]))
    maps = caught[network.map_layer].numel() if network.map_layer else 0
    return Cost(
        train_s=_seconds(train_step, device) / count,
        forward_s=_seconds(forward, device) / count,
        feature_bytes=4 * network.head.in_features,
        map_bytes=4 * maps,
        layer_bytes=4 * sum(caught[stage].shape[1] for stage in network.stages),
        model_bytes=sum(tensor.nbytes for tensor in network.model.state_dict().values()),
    )


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Time `work` at its second go, or at its first where that takes long enough."""
    taken = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        if taken > 2:
            break
    return taken


def _run_cost(
    plan: Plan, cost: Cost, slices: int, config: Config, new_features: bool
) -> tuple[float, int]:
    """Return the seconds and bytes of one run; of shared features only where it makes them."""
    regime, recipe = find_regime(plan.regime), plan.recipe
    parts = [part / sum(config.ratio) for part in config.ratio]
    train, val, test = (slices * part for part in parts)
    head_steps = train / recipe.batch_size * HEAD_STEP_S
    seconds, kept = 0.0, slices * cost.feature_bytes + LAYER_SLICES * cost.layer_bytes
    if not regime.trains_backbone:
        seconds += recipe.epochs * head_steps + min(test, MAP_SLICES) * cost.forward_s
        if new_features:
            seconds += slices * cost.forward_s + (train * cost.forward_s if regime.restat else 0)
            kept += slices * cost.feature_bytes
    else:
        seconds += recipe.epochs * (train * cost.train_s + val * cost.forward_s)
        seconds += slices * cost.forward_s
        if regime.probe_first:
            seconds += slices * cost.forward_s + recipe.epochs * head_steps
    kept += int(min(test, MAP_SLICES) * cost.map_bytes)
    if config.keep_model and plan.permutation is None:
        kept += cost.model_bytes
    return seconds, int(kept)
