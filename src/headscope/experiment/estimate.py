"""What an experiment will take, before it begins: its runs, their time and their disk.

Time is measured on one training step and one forward pass of each network on made-up slices, and
scaled; disk is counted from the shapes. Nothing is written.
"""

import time
import timeit
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from headscope.cohort.layouts import Cohort
from headscope.console import track
from headscope.experiment.config import Config
from headscope.experiment.inputs import count_sites, find_scans
from headscope.experiment.plan import Plan, plan_runs
from headscope.experiment.preflight import check_networks, check_places, choose_runs, unfinished
from headscope.experiment.rivals import plan_rivals, rival_cost
from headscope.metrics.precision import Precisions, precisions
from headscope.models.classifier import tap
from headscope.models.network import build_network
from headscope.models.pretrained import find_published, how_to_get
from headscope.record import Run, Setting, wants_more
from headscope.scans.volume import ScanError
from headscope.slicing.parallel import take_file
from headscope.splits.sites import SITE
from headscope.training.device import autocast, find_device, precision_of
from headscope.training.features import LAYER_SLICES, MAP_SLICES, batch_of
from headscope.training.loader import SliceInputs
from headscope.training.recipe import Recipe, make_optimizer

CPU_BATCH = 8  # slices of a measured step: on a CPU, more take longer in proportion
Network = tuple[str, int, Literal["sgd", "adamw"]]  # its name, its batches, its optimiser
HEAD_STEP_S = 5e-4  # one step of a classifier alone, on stored features
GAIN = 1.25  # of bfloat16 over float32 on a CPU: less is not worth a note


@dataclass(frozen=True)
class Cost:
    """What one network costs: seconds per slice in training and forward, bytes that it leaves.

    bfloat16_gain: how many times as fast bfloat16 trains where "auto" means float32, if measured.
    """

    train_s: float
    forward_s: float
    feature_bytes: int
    map_bytes: int
    layer_bytes: int
    model_bytes: int
    bfloat16_gain: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The plan of an experiment, one row per run, with seconds and bytes; and of its slices.

    runs: run, the fields of its `Setting`, epochs, learning_rate, finished, seconds, bytes (the
    last two are None where a network is too large for the device). notes name such networks, those
    that bfloat16 would train faster, and the weights that are not on this machine. tested says
    what the test of so many subjects could tell, where subjects are kept apart.
    """

    runs: pd.DataFrame
    slices: int
    slicing_seconds: float
    slicing_bytes: int
    device: str
    notes: list[str]
    tested: Precisions | None = None

    @property
    def seconds(self) -> float:
        """Time of all that is still to do."""
        return float(self.runs["seconds"].sum()) + self.slicing_seconds

    @property
    def bytes(self) -> int:
        """Disk of all that is still to do."""
        return int(self.runs["bytes"].sum()) + self.slicing_bytes


def estimate(config: Config, only: Iterable[str] | None = None) -> Estimate:
    """Return the plan of an experiment and what it will take; nothing is written.

    Slices, features and what each run keeps are counted; features that runs share, once. Time is
    that of this machine as it is now; finished runs cost nothing. With `only` the networks are
    those of these names, as in `run`.
    """
    # 1. the runs and the scans, as `run` finds them
    plans = plan_runs(config)
    device = find_device(config.device)
    check_places(config, plans)
    cohort = find_scans(config, plans, write=False)
    plans = plan_runs(config, count_sites(cohort))
    chosen = choose_runs(plans, only)
    todo = unfinished(config, chosen)
    check_networks(todo, config.size, fetch=False)
    # 2. the slices: how many, and the time that one scan takes
    slices, slicing_seconds = _slices(config, cohort)
    stored = (config.out / "slices" / "slices.json").is_file()
    # 3. each network, measured once
    costs, notes = {}, []
    networks = dict.fromkeys(map(_measured, todo))
    for network in track(networks, "Measuring", len(networks)):
        name, batch_size, optimizer = network
        try:
            costs[network] = _measure(
                name, batch_size, optimizer, config, len(cohort.class_names), device
            )
        except torch.OutOfMemoryError:
            notes.append(f"Batches of {batch_size} do not fit into {device}'s memory: {name}.")
    # 4. the runs, each with its share
    stored_by = [plan for plan in plans if Run(config.out / "runs" / plan.name).finished]
    passed = {plan.features_of for plan in stored_by}
    rows = _rows(chosen, {plan.name for plan in todo}, costs, slices, config, passed)
    rivals = plan_rivals(config, plans, described=len(cohort.described.columns) > 1)
    beside = _rival_rows(rivals, unfinished(config, rivals), slices, config)
    patient = []
    if any(plan.recipe.patience is not None for plan in todo):
        patient.append("Runs with patience may end before their last epoch.")
    return Estimate(
        pd.concat([beside, rows], ignore_index=True) if rivals else rows,
        slices,
        0.0 if stored else slicing_seconds,
        0 if stored else slices * config.size**2,
        torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        [*notes, *_faster_in_bfloat16(todo, costs), *_weights_to_fetch(todo), *patient],
        _tested(plans, config, cohort),
    )


def _tested(plans: list[Plan], config: Config, cohort: Cohort) -> Precisions | None:
    """Return what a test could tell: of a share of the subjects, or of all in folds."""
    apart = [plan.setting for plan in plans if plan.setting.split in ("subject", SITE)]
    if not apart:
        return None
    share = 1.0 if apart[0].fold is not None else config.ratio[2] / sum(config.ratio)
    subjects = cohort.scans.groupby("label")["subject_id"].nunique()
    return precisions([round(share * subjects.get(name, 0)) for name in cohort.class_names])


def _slices(config: Config, cohort: Cohort) -> tuple[int, float]:
    """Return how many slices the scans will give, and the seconds it takes on one process.

    Each scan is assumed to give as many as the first, and to take as long.
    """
    file, count = cohort.files[0], config.count
    start = time.perf_counter()
    with suppress(ScanError):  # the run reports it
        count = len(take_file(file, file.plane or config.plane, config.slice_spec)[0])
    seconds = time.perf_counter() - start
    return count * len(cohort.scans), seconds * len(cohort.scans)


def _faster_in_bfloat16(plans: list[Plan], costs: dict[Network, Cost]) -> list[str]:
    """Name the networks that bfloat16 trains faster on this processor, and how to ask for it."""
    trained = {_measured(plan) for plan in plans if plan.regime.trains_backbone}
    gains = {
        network[0]: cost.bfloat16_gain
        for network, cost in costs.items()
        if network in trained and cost.bfloat16_gain is not None and cost.bfloat16_gain >= GAIN
    }
    if not gains:
        return []
    times = ", ".join(f"{name} {gain:.1f} times" for name, gain in gains.items())
    return [
        f"In bfloat16 this processor trains {times} as fast as in float32, the default on a CPU: "
        "--set precision=bfloat16."
    ]


def _weights_to_fetch(plans: list[Plan]) -> list[str]:
    """Name the published weights that are not on this machine yet, and how to get them."""
    wanted = [plan for plan in plans if plan.needs_weights and plan.weights_file is None]
    notes = []
    for name, entry in {plan.architecture.name: plan.architecture for plan in wanted}.items():
        weights = find_published(entry)
        if weights is not None and weights.file is None:
            notes.append(
                f"The weights of {name} are not on this machine. The run downloads them; where "
                f"there is no network, {how_to_get(entry, weights)}."
            )
    return notes


def _measured(plan: Plan) -> Network:
    """Return what is measured once for all plans that share it."""
    return plan.architecture.name, plan.recipe.batch_size, plan.recipe.optimizer


def _measure(
    name: str,
    batch_size: int,
    optimizer_name: Literal["sgd", "adamw"],
    config: Config,
    classes: int,
    device: torch.device,
) -> Cost:
    """Time one training step and one forward pass on made-up slices, and look at the shapes."""
    network = build_network(name, "scratch", "random", classes=classes, size=config.size, seed=0)
    network.model.to(device)
    entry, cuda = network.architecture, device.type == "cuda"
    most = max(2, batch_size if cuda else min(batch_size, CPU_BATCH))  # BatchNorm needs two
    shape = (max(most, batch_of(device)) if cuda else most, config.size, config.size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    inputs = SliceInputs(pixels, entry.mean, entry.std, device)
    labels = torch.zeros(most, dtype=torch.int64, device=device)
    recipe = Recipe(epochs=1, learning_rate=1e-6, optimizer=optimizer_name)
    optimizer = make_optimizer(network.model, network.head, recipe)

    def train_step(precision: str) -> None:
        network.training_mode()
        optimizer.zero_grad()
        with autocast(precision, device):
            logits = network.model(inputs(np.arange(most))).float()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    @torch.inference_mode()
    def forward(precision: str) -> None:
        network.model.eval()
        with autocast(precision, device):
            network.model(inputs(np.arange(len(pixels))))

    outputs = [*network.stages, *([network.map_layer] if network.map_layer else [])]
    with torch.inference_mode(), tap(network.model, outputs=outputs, inputs=[]) as caught:
        network.model.eval()(inputs(np.arange(1)))
    precision = config.recipe.precision
    train_s = _second_try(partial(train_step, precision), device)
    forward_s = _second_try(partial(forward, precision), device)
    gain = None
    if precision == "auto" and precision_of(precision, device) == "float32":
        gain = _bfloat16_gain([(forward, forward_s), (train_step, train_s)], device)
    return Cost(
        train_s=train_s / most,
        forward_s=forward_s / len(pixels),
        feature_bytes=4 * network.head.in_features,
        map_bytes=4 * caught[network.map_layer].numel() if network.map_layer else 0,
        layer_bytes=4 * sum(caught[stage].shape[1] for stage in network.stages),
        model_bytes=sum(tensor.nbytes for tensor in network.model.state_dict().values()),
        bfloat16_gain=gain,
    )


def _bfloat16_gain(works: list[tuple[Callable[[str], None], float]], device: torch.device) -> float:
    """Return how many times as fast the last of the works is in bfloat16 as in float32.

    Each comes with its seconds in float32, the shortest first: a processor without bfloat16 is slow
    in it, and then the rest is left out.
    """
    gain = 1.0
    for work, seconds in works:
        in_bfloat16 = _second_try(partial(work, "bfloat16"), device)
        gain = seconds / in_bfloat16 if in_bfloat16 > 0 else 1.0
        if gain < GAIN:
            break
    return gain


def _second_try(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that `work` takes once everything is allocated."""

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return timeit.repeat(whole, number=1, repeat=2)[1]


def _rows(
    plans: list[Plan],
    todo: set[str],
    costs: dict[Network, Cost],
    slices: int,
    config: Config,
    passed: set[tuple[str, ...] | None],
) -> pd.DataFrame:
    """Return one row per run; a pass that several share is the first one's, unless it is stored.

    passed: what features are stored, as `Plan.features_of`.
    """
    rows, passed = [], set(passed)
    for plan in plans:
        taken: tuple[float | None, int | None] = (0.0, 0)
        if plan.name in todo:
            cost = costs.get(_measured(plan))
            new = plan.features_of not in passed
            passed.add(plan.features_of)
            run = Run(config.out / "runs" / plan.name)
            done = run.epochs if wants_more(run, plan.recipe.epochs) else 0
            epochs = plan.recipe.epochs - done
            taken = _run_cost(plan, epochs, cost, slices, config, new) if cost else (None, None)
        recipe = {"epochs": plan.recipe.epochs, "learning_rate": plan.recipe.learning_rate}
        facts = {"finished": plan.name not in todo, "seconds": taken[0], "bytes": taken[1]}
        rows.append({"run": plan.name} | asdict(plan.setting) | recipe | facts)
    return pd.DataFrame(rows)


def _rival_rows(
    rivals: list[Setting], todo: list[Setting], slices: int, config: Config
) -> pd.DataFrame:
    """Return one row per simple rival; they have no epochs."""
    rows = []
    for rival in rivals:
        seconds, size = rival_cost(rival, slices, config.size) if rival in todo else (0.0, 0)
        facts = {"finished": rival not in todo, "seconds": seconds, "bytes": size}
        recipe = {"epochs": 0, "learning_rate": 0.0}
        rows.append({"run": rival.name} | asdict(rival) | recipe | facts)
    return pd.DataFrame(rows)


def _run_cost(
    plan: Plan, epochs: int, cost: Cost, slices: int, config: Config, new_features: bool
) -> tuple[float, int]:
    """Return the seconds and bytes of one run; of what frozen runs share only where it makes it."""
    regime, recipe = plan.regime, plan.recipe
    train, val, test = (slices * part / sum(config.ratio) for part in config.ratio)
    head_s = epochs * train / recipe.batch_size * HEAD_STEP_S
    one_pass = slices * cost.forward_s
    keeps = config.keep_model and plan.permutation is None
    folds = plan.setting.folds or 1
    shared = slices * cost.feature_bytes + min(slices, LAYER_SLICES) * cost.layer_bytes
    shared += keeps * cost.model_bytes
    maps = int(min(test, MAP_SLICES / folds) * cost.map_bytes)
    size = shared + maps
    if regime.trains_backbone:
        seconds = epochs * (train * cost.train_s + val * cost.forward_s) + one_pass
        if regime.probe_first:
            seconds += head_s + one_pass
    else:
        seconds = head_s
        if new_features or folds == 1:  # a pass of test slices, or of those of all folds
            seconds += min(test, MAP_SLICES) * cost.forward_s
        if new_features:
            seconds += one_pass * (1 + train / slices * regime.restat)
            size = shared + maps * folds
        else:
            size = maps * (folds == 1)
    if config.keep_state and regime.trains_backbone:  # weights, their moments, and the best
        copies = (3 if recipe.optimizer == "adamw" else 2) + (recipe.select == "best")
        size += copies * cost.model_bytes
    return seconds, int(size)
