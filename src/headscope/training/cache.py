"""What a frozen backbone has computed once, for every split, seed and head that asks for it.

A file stands under a key made of all that decides its content: the bytes of the backbone, its
normalisation, the slices, and what computes (device, versions, threads). A damaged file is
computed anew; two processes that write the same one write the same bytes, each whole.
"""

import hashlib
import time
import zipfile
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
from headscope.models.network import Network
from headscope.training.batchnorm import (
    STATISTICS_BATCH,
    estimate_statistics,
    set_statistics,
    statistics,
)
from headscope.training.features import EXTRACT_BATCH, LAYER_SLICES, Extracted, extract_features
from headscope.training.loader import Inputs

VERSION = 1  # counts up when the same slices and weights would give other content

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Store:
    """Where stored passes lie, which slices they are of (a hash), and what they are computed in."""

    folder: Path
    slices_key: str
    precision: str = "float32"

    def path(self, kind: str, network: Network, *parts: object) -> Path:
        """Return the file of a pass; its name carries a hash of all that decides the content."""
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
    what = (*network.stages, network.classifier, EXTRACT_BATCH, LAYER_SLICES)

    def compute() -> Arrays:
        found = extract_features(network, inputs, title, precision=store.precision)
        return {"features": found.features, "seconds": np.array(found.seconds), **found.layers}

    def fits(arrays: Arrays) -> bool:
        names = {"features", "seconds", "slice", *network.stages}
        return arrays.keys() >= names and len(arrays["features"]) == len(inputs)

    arrays = _stored(store.path("features", network, *what), compute, fits)
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
    found = _stored(path, compute, lambda arrays: arrays.keys() == names)
    seconds = float(found.pop("seconds"))
    set_statistics(network.model, found)
    return seconds


def _stored(path: Path, compute: Callable[[], Arrays], fits: Callable[[Arrays], bool]) -> Arrays:
    """Return the arrays of a file; where it is missing or damaged, compute and write them."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
        if fits(arrays):
            return arrays
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # damaged: made anew below
        pass
    arrays = compute()
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    return arrays


def _processor() -> str:
    return f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
