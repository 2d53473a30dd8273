"""Passes of a frozen backbone, stored for every split, seed and head that needs them.

The key of a file holds all that decides its content: the bytes of the backbone, its normalisation,
the slices, and what computes (device, versions, threads). The file holds the SHA-256 of its arrays
and of its name, measured seconds aside: one that is damaged, changed or of another name is computed
again. Two processes that write the same file write the same bytes, each of them whole.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from numpy.typing import NDArray

from headscope.files import atomic_path
from headscope.manifest import DAMAGE, cache_hash
from headscope.models.network import Network
from headscope.training.batchnorm import (
    STATISTICS_BATCH,
    estimate_statistics,
    set_statistics,
    statistics,
)
from headscope.training.features import LAYER_SLICES, Extracted, batch_of, extract_features
from headscope.training.loader import Inputs

VERSION = 2  # counts up when the same slices and weights would give other content

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Store:
    """The folder of stored passes, the hash of their slices, and how the passes are computed."""

    folder: Path
    slices_key: str
    precision: str = "float32"
    compiled: bool = False

    def path(self, kind: str, network: Network, *parts: object) -> Path:
        """Return the file of a pass; its name holds a hash of all that decides the content."""
        entry = network.architecture
        device = next(network.model.parameters()).device
        whole = [
            VERSION,
            network.backbone_hash(),
            entry.name,
            entry.mean,
            entry.std,
            self.slices_key,
            self.precision,
            self.compiled,
            *parts,
            torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            torch.get_float32_matmul_precision(),
            torch.__version__,
            torchvision.__version__,
            timm.__version__,
        ]
        name = hashlib.sha256("\n".join(map(str, whole)).encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{entry.name.replace('/', '-')}-{name}.npz"


def cached_features(network: Network, inputs: Inputs, store: Store, title: str) -> Extracted:
    """Return the features of a frozen backbone, stored or computed.

    The seconds are those of the pass that computed them.
    """
    names = {"features", "seconds", "slice", *network.stages}

    def compute() -> Arrays:
        how = {"precision": store.precision, "compiled": store.compiled}
        made = extract_features(network, inputs, title, **how)
        return {"features": made.features, "seconds": np.array(made.seconds), **made.layers}

    def fits(arrays: Arrays) -> bool:
        features, shape = arrays["features"], (len(inputs), network.head.in_features)
        return arrays.keys() >= names and (features.shape, features.dtype) == (shape, np.float32)

    batch = batch_of(network.head.weight.device)
    parts = (*network.stages, network.classifier, batch, LAYER_SLICES)
    arrays = _stored(store.path("features", network, *parts), compute, fits)
    features, seconds = arrays.pop("features"), float(arrays.pop("seconds"))
    return Extracted(features, arrays, seconds)


def cached_statistics(
    network: Network, inputs: Inputs, rows: NDArray[np.int64], store: Store, title: str
) -> float:
    """Give the BatchNorm layers the statistics of slices `rows`, stored or estimated.

    Returns the seconds of the pass that estimated them.
    """
    which = hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()

    def compute() -> Arrays:
        start = time.perf_counter()
        estimate_statistics(network, inputs, rows, title, precision=store.precision)
        seconds = np.array(time.perf_counter() - start)
        return {"seconds": seconds, **statistics(network.model)}

    names = {"seconds", *statistics(network.model)}
    path = store.path("batchnorm", network, which, STATISTICS_BATCH)
    arrays = _stored(path, compute, lambda arrays: arrays.keys() == names)
    seconds = float(arrays.pop("seconds"))
    set_statistics(network.model, arrays)
    return seconds


def _stored(path: Path, compute: Callable[[], Arrays], fits: Callable[[Arrays], bool]) -> Arrays:
    """Return the arrays of a file; where it is missing or damaged, compute and write them."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if str(arrays.pop("sha256")) == cache_hash(path, arrays) and fits(arrays):
            return arrays
    except DAMAGE:  # missing, damaged, or without a hash
        pass
    arrays = compute()
    with atomic_path(path) as temporary:
        digest = np.array(cache_hash(path, arrays))
        np.savez(temporary, **arrays, sha256=digest)  # type: ignore[arg-type]
    return arrays


def _processor() -> str:
    return f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
