"""One network, trained as its regime says, with everything that its record holds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headscope.errors import RunError
from headscope.grouping import Scans
from headscope.models.network import Network
from headscope.training.augmentation import augmentation_of
from headscope.training.cache import Store, cached_features, cached_statistics, with_maps
from headscope.training.device import find_batch_size, precision_of
from headscope.training.features import Extracted, extract_features, map_rows_of
from headscope.training.loader import FeatureInputs, SliceInputs
from headscope.training.loop import Data, Watch, fit, ignore, train_epoch
from headscope.training.recipe import Recipe, make_optimizer
from headscope.training.resume import EVERY_S, History, Progress, ResumeFile

ONE_VALUE = "Expected more than 1 value per channel"  # of PyTorch's ValueError


@dataclass(frozen=True)
class Outcome:
    """The result of a training: history, arrays for the record, seconds, freeze certificate.

    selected_epoch is the row of the history (from 1) whose weights were kept; precision is that of
    the forward passes.
    """

    history: History
    selected_epoch: int
    head: dict[str, NDArray[np.float32]]
    extracted: Extracted
    logits: NDArray[np.float32]
    model: dict[str, NDArray[Any]]
    train_seconds: float
    certificate: dict[str, Any]
    precision: str


def train(
    network: Network,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    subsets: NDArray[np.str_],
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    resume_path: Path,
    cache: Path,
    slices_key: str,
    title: str,
    shared: Path | None = None,
    scans: Scans | None = None,
    map_rows: NDArray[np.int64] | None = None,
    resume_every_s: float = EVERY_S,
    watch: Watch = ignore,
) -> Outcome:
    """Train a network on slices, as its regime and the recipe say.

    A frozen network passes each slice through its backbone once and trains its classifier on the
    stored features.

    Parameters
    ----------
    network
        The network with its regime.
    pixels, labels, subsets
        Slices (N, H, W), their labels (N,) in 0 to K − 1, and "train", "val" or "test" (N,).
    recipe
        How it is trained.
    seed, device
        Seed of the order of slices and of the random numbers of each step; where it trains.
    resume_path, resume_every_s
        The file from which an interrupted training continues, and the seconds between writes of it
        within an epoch.
    cache, slices_key, shared
        The folder of stored features, the key of the slices in it, and the store of the arrays that
        records share, by default one in that folder.
    title
        The text beside the progress bar.
    scans
        The scans on the mean of whose features the classifier trains, one example each; None: it
        trains on slices. Of a frozen network alone.
    map_rows
        The slices whose last feature maps are computed, by default some of the test slices.
    watch
        What is called with the row of each epoch when it has ended.

    Raises
    ------
    RunError
        The loss is no longer finite, a batch does not fit into the device's memory or is too small
        for BatchNorm, or something that the regime freezes has changed.
    """
    regime, precision = network.regime, precision_of(recipe.precision, device)
    network.model.to(device)
    inputs = SliceInputs(pixels, network.architecture.mean, network.architecture.std, device)
    data = Data(inputs, inputs, _on(device, labels), *_rows_of(subsets))
    store = Store(cache, slices_key, precision, shared, recipe.compile)
    fit_part = partial(
        _fit, network, seed=seed, title=title, path=resume_path, every_s=resume_every_s, watch=watch
    )
    history: History = []
    # 1. what the regime changes before anything trains, and what must not change from here on
    restat, rows = regime.restat, data.train_rows
    seconds = cached_statistics(network, inputs, rows, store, title) if restat else 0.0
    before, initial = _certified_hash(network), _head(network, "initial_")
    # 2. the classifier alone, on stored features: a frozen run, or the first part of lp-ft
    if regime.probe_first or not regime.trains_backbone:
        extracted = cached_features(network, inputs, store, title)
        seconds += extracted.seconds
        examples = _feature_data(data, extracted.features, subsets, scans, device)
        history, selected = fit_part(examples, recipe, "probe" if regime.probe_first else "train")
    # 3. the backbone too
    if regime.trains_backbone:
        changed = replace(data, training_inputs=inputs.augmented(augmentation_of(recipe)))
        epochs, last = fit_part(changed, recipe, "train", after=len(history))
        history, selected = history + epochs, len(history) + last
    # 4. what the network computes of every slice, and whether what was frozen is still the same
    mapped = map_rows_of(subsets) if map_rows is None else map_rows
    if regime.trains_backbone:
        extracted = extract_features(network, inputs, title, map_rows=mapped, **store.how)
    else:
        extracted = with_maps(extracted, network, inputs, mapped, store)
    return Outcome(
        history,
        selected + 1,
        _head(network) | initial,
        extracted,
        _logits(network, extracted.features),
        {name: _array(tensor) for name, tensor in network.model.state_dict().items()},
        train_seconds=seconds + sum(row["seconds"] for row in history),
        certificate=_certificate(network, before, title),
        precision=store.precision,
    )


def _feature_data(
    data: Data,
    features: NDArray[np.float32],
    subsets: NDArray[np.str_],
    scans: Scans | None,
    device: torch.device,
) -> Data:
    """Return the data of a classifier that trains alone: features of slices, or means of scans."""
    if scans is None:
        inputs = FeatureInputs(features, device)
        return replace(data, inputs=inputs, training_inputs=inputs)
    inputs, subset = FeatureInputs(scans.mean(features), device), subsets[scans.first]
    return Data(inputs, inputs, data.labels_of(scans.first), *_rows_of(subset))


def _rows_of(subsets: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(subsets == "train"), np.flatnonzero(subsets == "val")


def _fit(
    network: Network,
    data: Data,
    recipe: Recipe,
    phase: str,
    *,
    seed: int,
    title: str,
    path: Path,
    every_s: float,
    after: int = 0,
    watch: Watch,
) -> tuple[History, int]:
    """Train the classifier alone or all that the regime trains; turn torch's errors into advice.

    A probe has a resume file of its own, beside that of the phase after it.
    """
    probing = phase == "probe"
    model, training_mode = network.model, network.training_mode
    if probing or not network.regime.trains_backbone:
        model, training_mode = network.head, network.head.train
        recipe = recipe.for_head(recipe.probe_epochs if probing else None)
    try:
        return fit(
            model,
            network.head,
            training_mode,
            data,
            recipe,
            seed=seed,
            resume=ResumeFile(path.with_name("probe.pt") if probing else path, every_s),
            title=f"{title}: probe" if probing else title,
            phase=phase,
            after=after,
            watch=watch,
        )
    except torch.OutOfMemoryError:
        pass  # advised below, where the error no longer holds on to the batch
    except ValueError as error:
        if ONE_VALUE not in str(error):
            raise
        raise RunError(
            f"BatchNorm has no variance to take from a batch of one slice, as batches of "
            f"{recipe.batch_size} leave it: set batch_size to 3 or more."
        ) from None
    size = _largest_batch(model, network.head, training_mode, data, recipe)
    advice = (
        f"{size} do (tried on one step): set batch_size to that or less."
        if size
        else "nor do 2: take smaller slices or another architecture."
    )
    place = f"the memory of {data.labels.device}"
    raise RunError(f"Batches of {recipe.batch_size} do not fit into {place}; {advice}")


def _largest_batch(
    model: nn.Module,
    head: nn.Module,
    training_mode: Callable[[], object],
    data: Data,
    recipe: Recipe,
) -> int | None:
    """Return a batch size of which one step fits into the memory; None where two do not."""

    def step(size: int) -> None:
        smaller = replace(recipe, batch_size=size)
        optimizer, order = make_optimizer(model, head, smaller), data.train_rows[:size]
        progress = Progress.start(data.labels.device)
        training_mode()
        list(train_epoch(model, data, order, optimizer, smaller, [0], progress))

    return find_batch_size(step, min(recipe.batch_size, len(data.train_rows)))


def _certified_hash(network: Network) -> str:
    """Return the hash of what the regime freezes, or of the backbone where nothing is frozen."""
    return network.frozen_hash() or network.backbone_hash()


def _certificate(network: Network, before: str, title: str) -> dict[str, Any]:
    """Return both hashes and what they cover; RunError where what the regime freezes changed.

    They are of everything outside the modules at the paths `without`.
    """
    after = _certified_hash(network)
    if network.trained is not None and before != after:
        raise RunError(
            f"{title}: what the regime {network.regime.name} freezes changed during training."
        )
    backbone = network.trained is None or not network.regime.trains_backbone
    return {
        "covers": "everything outside the classifier"
        if backbone
        else "the stages that do not train",
        "without": list(network.trained or (network.classifier,)),
        "before": before,
        "after": after,
        "identical": before == after,
    }


def _head(network: Network, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Copy the classifier's weight (K, D) and bias (K,)."""
    return {
        f"{prefix}weight": _array(network.head.weight),
        f"{prefix}bias": _array(network.head.bias),
    }


@torch.inference_mode()
def _logits(network: Network, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits (N, K) of features (N, D)."""
    return _array(network.head(_on(network.head.weight.device, features)))


def _on(device: torch.device, array: NDArray[Any]) -> torch.Tensor:
    """Copy an array to the device, into memory aligned as torch's own, so that sums are equal."""
    return torch.from_numpy(array).clone().to(device)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy().copy()
