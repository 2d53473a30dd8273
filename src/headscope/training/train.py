"""One network, trained as its regime says, with everything the record keeps of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from headscope.errors import RunError
from headscope.models.network import Network
from headscope.training.augmentation import augmentation_of
from headscope.training.cache import Store, cached_features, cached_statistics
from headscope.training.device import batch_size_that_fits, precision_of
from headscope.training.features import (
    Extracted,
    extract_features,
    extract_maps,
    map_rows_of,
)
from headscope.training.loader import FeatureInputs, SliceInputs
from headscope.training.loop import Data, fit, train_epoch
from headscope.training.recipe import Recipe, sgd
from headscope.training.resume import EVERY_S, Checkpoint, History, Progress

LONE = "Expected more than 1 value per channel"  # PyTorch's words for it, in a ValueError


@dataclass(frozen=True)
class Outcome:
    """What training leaves: history, arrays for the record, seconds, freeze certificate.

    selected_epoch is the row of the history (from 1) whose weights were kept; precision is what
    the forward passes were computed in.
    """

    history: History
    selected_epoch: int
    head: dict[str, NDArray[np.float32]]
    extracted: Extracted
    logits: NDArray[np.float32]
    maps: dict[str, NDArray[Any]]
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
    checkpoint: Path,
    cache: Path,
    slices_key: str,
    title: str,
    checkpoint_every_s: float = EVERY_S,
) -> Outcome:
    """Train `network` on slices (N, H, W) whose subsets are given by name, (N,).

    A frozen network passes each slice through its backbone once and trains its classifier on
    the features, which lie in `cache` under `slices_key`. `checkpoint` is where an interrupted
    run goes on from; within an epoch it is written every `checkpoint_every_s` seconds.

    Raises
    ------
    RunError
        The loss is no longer finite, a batch does not fit into the device's memory or is too small
        for BatchNorm, or what the regime freezes changed.
    """
    network.model.to(device)
    regime, entry = network.regime, network.architecture
    inputs, targets = SliceInputs(pixels, entry.mean, entry.std, device), _on(device, labels)
    rows = {name: np.flatnonzero(subsets == name) for name in ("train", "val", "test")}
    store = Store(cache, slices_key, precision_of(recipe.precision, device))
    fitting: dict[str, Any] = {
        "seed": seed,
        "checkpoint": checkpoint,
        "every_s": checkpoint_every_s,
    }
    history: History = []
    selected, seconds = 0, 0.0
    # 1. what the regime changes before anything trains, and what it must not change from here on
    if regime.restat:
        seconds += cached_statistics(network, inputs, rows["train"], store, title)
    before, initial = _certified_hash(network), _head(network, "initial_")
    # 2. the classifier alone, on stored features: a frozen run, or the first part of lp-ft
    if regime.probe_first or not regime.trains_backbone:
        extracted = cached_features(network, inputs, store, title)
        seconds += extracted.seconds
        features = FeatureInputs(extracted.features, device)
        data = Data(features, features, targets, rows["train"], rows["val"])
        history, selected = _fit_classifier(network, data, recipe, title=title, **fitting)
    # 3. the backbone too
    if regime.trains_backbone:
        changed = inputs.augmented(augmentation_of(recipe))
        data = Data(inputs, changed, targets, rows["train"], rows["val"])
        history, selected = _fit_network(network, data, recipe, history, title=title, **fitting)
    certificate = _certificate(network, before, title)
    # 4. what the network makes of every slice
    map_rows = map_rows_of(rows["test"])
    if regime.trains_backbone:
        extracted = extract_features(
            network, inputs, title, precision=store.precision, map_rows=map_rows
        )
    else:
        maps = extract_maps(network, inputs, map_rows, precision=store.precision)
        extracted = replace(extracted, maps=maps)
    return Outcome(
        history,
        selected + 1,
        _head(network) | initial,
        extracted,
        _logits(network, extracted.features),
        extracted.maps,
        {name: _array(tensor) for name, tensor in network.model.state_dict().items()},
        train_seconds=seconds + sum(row["seconds"] for row in history),
        certificate=certificate,
        precision=store.precision,
    )


def _fit_classifier(
    network: Network,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path,
    every_s: float,
    title: str,
) -> tuple[History, int]:
    """Train the classifier alone; the checkpoint of a probe stands beside that of what follows."""
    head, probing = network.head, network.regime.probe_first
    return _fit(
        head,
        head,
        head.train,
        data,
        recipe.for_head(recipe.probe_epochs if probing else None),
        seed=seed,
        checkpoint=Checkpoint(checkpoint.with_name("probe.pt") if probing else checkpoint, every_s),
        title=f"{title}: probe" if probing else title,
        phase="probe" if probing else "train",
    )


def _fit_network(
    network: Network,
    data: Data,
    recipe: Recipe,
    history: History,
    *,
    seed: int,
    checkpoint: Path,
    every_s: float,
    title: str,
) -> tuple[History, int]:
    """Train all that the regime lets train, after the epochs of `history`."""
    rows, selected = _fit(
        network.model,
        network.head,
        network.training_mode,
        data,
        recipe,
        seed=seed,
        checkpoint=Checkpoint(checkpoint, every_s),
        title=title,
        phase="train",
        after=len(history),
    )
    return history + rows, len(history) + selected


def _fit(
    model: nn.Module,
    head: nn.Module,
    training_mode: Callable[[], object],
    data: Data,
    recipe: Recipe,
    **options: Any,
) -> tuple[History, int]:
    """Train; where a batch is too large for the memory or too small for BatchNorm, say so."""
    try:
        return fit(model, head, training_mode, data, recipe, **options)
    except torch.OutOfMemoryError:
        pass  # tried below, where the error no longer holds on to the batch
    except ValueError as error:
        if LONE not in str(error):
            raise
        raise RunError(
            f"BatchNorm has no variance to take from a batch of one slice, as batches of "
            f"{recipe.batch_size} leave it: set batch_size to 3 or more."
        ) from None

    def one_step(size: int) -> None:
        some = replace(recipe, batch_size=size)
        optimizer, order = sgd(model, head, some), data.train_rows[:size]
        training_mode()
        list(
            train_epoch(
                model, data, order, optimizer, some, [0], Progress.start(data.labels.device)
            )
        )

    size = batch_size_that_fits(one_step, min(recipe.batch_size, len(data.train_rows)))
    advice = (
        f"{size} do (tried on one step): set batch_size to that or less."
        if size
        else "nor do 2: take smaller slices or another architecture."
    )
    place = f"the memory of {data.labels.device}"
    raise RunError(f"Batches of {recipe.batch_size} do not fit into {place}; {advice}")


def _certified_hash(network: Network) -> str:
    """Return the hash of what the regime freezes, or of the backbone where nothing is frozen."""
    return network.frozen_hash() or network.backbone_hash()


def _certificate(network: Network, before: str, title: str) -> dict[str, Any]:
    """Return what stands in the record: both hashes, and what they are over.

    Raises
    ------
    RunError
        What the regime freezes has changed.
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
    """Copy an array to the device, into memory aligned as torch's own: so sums come out alike."""
    return torch.from_numpy(array).clone().to(device)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy().copy()
