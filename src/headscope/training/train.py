"""One network, trained as its regime says, with everything the record keeps of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headscope.errors import RunError
from headscope.models.network import Network
from headscope.training.features import (
    Extracted,
    cached_features,
    extract_features,
    extract_maps,
)
from headscope.training.loader import FeatureInputs, SliceInputs
from headscope.training.loop import History, fit
from headscope.training.optim import Recipe


@dataclass(frozen=True)
class Outcome:
    """What training leaves: history, arrays for the record, seconds, freeze certificate."""

    history: History
    head: dict[str, NDArray[np.float32]]
    extracted: Extracted
    logits: NDArray[np.float32]
    maps: dict[str, NDArray[Any]]
    model: dict[str, NDArray[Any]]
    train_seconds: float
    certificate: dict[str, Any]


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
) -> Outcome:
    """Train `network` on slices (N, H, W) whose subsets are given by name, (N,).

    A frozen network passes each slice through its backbone once and trains its classifier on
    the features, which lie in `cache` under `slices_key`. `checkpoint` is where an interrupted
    run goes on from.

    Raises
    ------
    RunError
        The loss is no longer finite, or a frozen backbone changed.
    """
    network.model.to(device)
    train_rows, val_rows, test_rows = (
        np.flatnonzero(subsets == name) for name in ("train", "val", "test")
    )
    inputs = SliceInputs(pixels, network.architecture.mean, network.architecture.std, device)
    targets = torch.from_numpy(labels).to(device)
    before, initial = network.backbone_hash(), _head(network, "initial_")
    frozen = not network.regime.trains_backbone
    options: dict[str, Any] = {"seed": seed, "checkpoint": checkpoint, "title": title}
    rows = (targets, train_rows, val_rows, recipe)
    if frozen:
        extracted = cached_features(network, inputs, slices_key, cache, f"{title}: features")
        features = FeatureInputs(extracted.features, device)
        history = fit(network.head, network.head, network.head.train, features, *rows, **options)
    else:
        history = fit(network.model, network.head, network.training_mode, inputs, *rows, **options)
        extracted = extract_features(network, inputs, f"{title}: features")
    after = network.backbone_hash()
    if frozen and before != after:
        raise RunError(f"{title}: the frozen backbone changed during training.")
    seconds = sum(row["seconds"] for row in history)
    return Outcome(
        history,
        _head(network) | initial,
        extracted,
        _logits(network, extracted.features),
        extract_maps(network, inputs, test_rows),
        {name: _array(tensor) for name, tensor in network.model.state_dict().items()},
        train_seconds=seconds + (extracted.seconds if frozen else 0.0),
        certificate={"before": before, "after": after, "identical": before == after},
    )


def _head(network: Network, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Copy the classifier's weight (K, D) and bias (K,)."""
    return {
        f"{prefix}weight": _array(network.head.weight),
        f"{prefix}bias": _array(network.head.bias),
    }


@torch.inference_mode()
def _logits(network: Network, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits (N, K) of features (N, D)."""
    return _array(network.head(torch.from_numpy(features).to(network.head.weight.device)))


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().contiguous().numpy().copy()
