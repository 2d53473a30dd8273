"""What the backbone makes of each slice: features, stage means and last feature maps.

A frozen backbone passes each slice once. Its features are stored under a key made of the
backbone's hash, its normalisation and the slices' hash, and serve every split, seed and head that
reads them.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headscope.console import track
from headscope.files import atomic_path
from headscope.models.network import Network
from headscope.training.loader import Inputs, batches
from headscope.training.loop import extract

LAYER_SLICES = 512
MAP_SLICES = 256
EXTRACT_BATCH = 32


@dataclass(frozen=True)
class Extracted:
    """features (N, D); layers: mean activation (n, C) of each stage, rows in "slice"; seconds."""

    features: NDArray[np.float32]
    layers: dict[str, NDArray[Any]]
    seconds: float


def extract_features(network: Network, inputs: Inputs, title: str) -> Extracted:
    """Pass every slice through the network once, in eval mode."""
    start = time.perf_counter()
    everything = np.arange(len(inputs))
    kept = spread(len(inputs), LAYER_SLICES)
    features: list[Tensor] = []
    means: dict[str, list[Tensor]] = {stage: [] for stage in network.stages}
    parts = extract(
        network.model,
        inputs,
        everything,
        EXTRACT_BATCH,
        outputs=network.stages,
        of=network.classifier,
    )
    total = len(batches(everything, EXTRACT_BATCH))
    for rows, read, stages in track(parts, title, total=total):
        features.append(read.cpu())  # (B, D)
        inside = torch.from_numpy(np.isin(rows, kept))
        for stage, output in stages.items():
            means[stage].append(_channel_means(output.cpu()[inside]))
    layers = {stage: torch.cat(found).numpy() for stage, found in means.items()}
    seconds = time.perf_counter() - start
    return Extracted(torch.cat(features).numpy(), layers | {"slice": kept}, seconds)


def cached_features(
    network: Network, inputs: Inputs, key: str, folder: Path, title: str
) -> Extracted:
    """Return the features of a frozen backbone, from `folder` where they stand already.

    `key` names the slices; the backbone's own hash and its normalisation are added to it.
    """
    entry = network.architecture
    whole = f"{network.backbone_hash()} {entry.name} {entry.mean} {entry.std} {key}"
    name = hashlib.sha256(whole.encode()).hexdigest()[:16]
    path = folder / f"features-{network.architecture.name.replace('/', '-')}-{name}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        seconds, features = float(arrays.pop("seconds")), arrays.pop("features")
        return Extracted(features, arrays, seconds)
    found = extract_features(network, inputs, title)
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            features=found.features,
            seconds=np.float64(found.seconds),
            **found.layers,  # type: ignore[arg-type]
        )
    return found


def extract_maps(
    network: Network, inputs: Inputs, test_rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return the last feature maps (n, C, h, w) of up to 256 test slices, and their rows."""
    if network.map_layer is None:
        return {"slice": np.empty(0, dtype=np.int64)}
    rows = test_rows[spread(len(test_rows), MAP_SLICES)]
    parts = extract(
        network.model,
        inputs,
        rows,
        EXTRACT_BATCH,
        outputs=[network.map_layer],
        of=network.classifier,
    )
    maps = [outputs[network.map_layer].cpu() for _, _, outputs in parts]
    return {"maps": torch.cat(maps).contiguous().numpy(), "slice": rows}


def spread(total: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` of the rows 0 to total − 1, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64))


def _channel_means(output: Tensor) -> Tensor:
    """Average over positions: (n, C, h, w) → (n, C); what has no positions stays as it is."""
    return output.mean(dim=tuple(range(2, output.ndim))) if output.ndim > 2 else output
