"""What a backbone computes of each slice: features, stage means and last feature maps."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headscope.console import track
from headscope.errors import RunError
from headscope.models.network import Network
from headscope.training.device import steady_memory
from headscope.training.folding import folded
from headscope.training.loader import Inputs, batches
from headscope.training.loop import extract

LAYER_SLICES = 512
MAP_SLICES = 256
EXTRACT_BATCH, GPU_BATCH = 32, 128

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Extracted:
    """The result of one pass.

    features (N, D); layers: mean activation (n, C) of each stage, and their rows in "slice";
    seconds of the pass; maps as of `extract_maps`, where they were asked for. files: which of
    these a store holds, by the name that a record has for them.
    """

    features: NDArray[np.float32]
    layers: Arrays
    seconds: float
    maps: Arrays = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


def extract_features(
    network: Network,
    inputs: Inputs,
    title: str,
    *,
    precision: str = "float32",
    compiled: bool = False,
    map_rows: NDArray[np.int64] | None = None,
) -> Extracted:
    """Pass every slice through the network once, in eval mode, BatchNorm folded away.

    compiled: by torch.compile. map_rows: the rows whose last feature maps are returned from the
    same pass.

    Raises
    ------
    RunError
        The features of a slice are no finite numbers.
    """
    start = time.perf_counter()
    everything, layer_rows = np.arange(len(inputs)), spread(len(inputs), LAYER_SLICES)
    map_layer = network.map_layer if map_rows is not None and len(map_rows) else None
    outputs = list(dict.fromkeys([*network.stages, *([map_layer] if map_layer else [])]))
    features: list[Tensor] = []
    means: dict[str, list[Tensor]] = {stage: [] for stage in network.stages}
    maps: list[Tensor] = []
    parts = _pass(network, inputs, everything, outputs, precision, compiled)
    total = len(batches(everything, batch_of(network.head.weight.device)))
    with steady_memory(network.head.weight.device):
        for rows, read, activations in track(parts, f"{title}: features", total=total):
            features.append(_finite(read.cpu(), network, title))  # (B, D)
            for stage in network.stages:
                part = _rows_of(activations[stage], rows, layer_rows)
                means[stage].append(_channel_means(part).cpu())
            if map_layer and map_rows is not None:
                maps.append(_rows_of(activations[map_layer], rows, map_rows).cpu())
    layers = {stage: torch.cat(parts).numpy() for stage, parts in means.items()}
    seconds = time.perf_counter() - start
    return Extracted(
        torch.cat(features).numpy(),
        layers | {"slice": layer_rows},
        seconds,
        _map_arrays(maps, map_rows),
    )


def _finite(features: Tensor, network: Network, title: str) -> Tensor:
    """Return features; RunError where a backbone computes NaN, of which nothing can be learned."""
    if torch.isfinite(features).all():
        return features
    raise RunError(
        f"{title}: {network.architecture.name} computes features that are no finite numbers. Its "
        f"weights ({network.source.text}) hold NaN or are far too large."
    )


def extract_maps(
    network: Network,
    inputs: Inputs,
    rows: NDArray[np.int64],
    *,
    precision: str = "float32",
    compiled: bool = False,
) -> Arrays:
    """Return the last feature maps (n, C, h, w) of slices `rows`, and those rows in "slice"."""
    if network.map_layer is None or not len(rows):
        return _map_arrays([], rows)
    parts = _pass(network, inputs, rows, [network.map_layer], precision, compiled)
    with steady_memory(network.head.weight.device):
        maps = [outputs[network.map_layer].cpu() for _, _, outputs in parts]
    return _map_arrays(maps, rows)


def map_rows_of(
    subsets: NDArray[np.str_], *, fold: bool = False, frozen: bool = False
) -> NDArray[np.int64]:
    """Return up to 256 test slices, evenly spread: those whose maps are recorded.

    The folds of a cross-validation have as many between them: of each it is the test slices among
    one choice of all slices; of a frozen network all of that choice, which its folds share.
    """
    if not fold:
        test = np.flatnonzero(subsets == "test")
        return test[spread(len(test), MAP_SLICES)]
    rows = spread(len(subsets), MAP_SLICES)
    return rows if frozen else rows[subsets[rows] == "test"]


def spread(total: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the rows 0 to total − 1, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64))


def batch_of(device: torch.device) -> int:
    """Return how many slices pass through a network at once: more where starting kernels costs."""
    return EXTRACT_BATCH if device.type == "cpu" else GPU_BATCH


def _pass(
    network: Network,
    inputs: Inputs,
    rows: NDArray[np.int64],
    outputs: list[str],
    precision: str,
    compiled: bool,
) -> Iterator[tuple[NDArray[np.int64], Tensor, dict[str, Tensor]]]:
    """Yield the rows, features and outputs of each batch, as `extract` does."""
    of, device = network.classifier, network.head.weight.device
    side = inputs(rows[:1]).shape[-1]
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    with steady_memory(device):
        model = folded(network.model, noise, outputs=outputs, of=of)
    return extract(
        model,
        inputs,
        rows,
        batch_of(device),
        outputs=outputs,
        of=of,
        precision=precision,
        compiled=compiled,
    )


def _rows_of(output: Tensor, rows: NDArray[np.int64], wanted: NDArray[np.int64]) -> Tensor:
    """Return the part of a batch's output that belongs to the rows `wanted`."""
    inside = np.isin(rows, wanted)
    return output if inside.all() else output[torch.from_numpy(inside).to(output.device)]


def _map_arrays(maps: list[Tensor], rows: NDArray[np.int64] | None) -> Arrays:
    if not maps or rows is None:
        return {"slice": np.empty(0, dtype=np.int64)}
    return {"maps": torch.cat(maps).contiguous().numpy(), "slice": rows}


def _channel_means(output: Tensor) -> Tensor:
    """Average over positions: (n, C, h, w) → (n, C); an output without positions stays as it is."""
    return output.mean(dim=tuple(range(2, output.ndim))) if output.ndim > 2 else output
