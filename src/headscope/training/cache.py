"""Passes of a frozen backbone, stored for every split, seed and head that needs them.

The key of a file holds all that decides its content: the bytes of the backbone, its normalisation,
the slices, and what computes (device, versions, threads). The file holds the SHA-256 of its arrays
and of its name, measured seconds aside: one that is damaged, changed or of another name is computed
again. Features, stage means and maps are in the store that records share (`headscope.manifest`);
the file holds their hashes. Of several processes one computes it, and the others wait.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from headscope.files import atomic_path, claimed, write_json
from headscope.manifest import DAMAGE, STORE, cache_hash, file_hash, index_hash, keep
from headscope.models.network import Network
from headscope.training.batchnorm import (
    STATISTICS_BATCH,
    estimate_statistics,
    set_statistics,
    statistics,
)
from headscope.training.features import (
    LAYER_SLICES,
    Extracted,
    batch_of,
    extract_features,
    extract_maps,
)
from headscope.training.loader import Inputs

VERSION = 2  # counts up when the same slices and weights would give other content

FEATURES, LAYERS, MAPS = "features.npy", "layers.npz", "maps.npz"  # as a record names them

Arrays = dict[str, NDArray[Any]]
Part = Any  # an array, or arrays by name
Parts = dict[str, Part]
T = TypeVar("T")


@dataclass(frozen=True)
class Store:
    """The folder of stored passes, the hash of their slices, and how the passes are computed.

    shared: the store of the arrays that records share, by default one in the folder.
    """

    folder: Path
    slices_key: str
    precision: str = "float32"
    shared: Path | None = None
    compiled: bool = False

    @property
    def how(self) -> dict[str, Any]:
        """How a pass is computed, as its function takes it."""
        return {"precision": self.precision, "compiled": self.compiled}

    @property
    def files(self) -> Path:
        """The store of the arrays that records share."""
        return self.shared or self.folder / STORE

    def file(self, name: str, digest: str) -> Path:
        """Return where the store has a file of a hash, which records have under a name."""
        return self.files / f"{digest}{Path(name).suffix}"

    def path(self, kind: str, network: Network, *parts: object) -> Path:
        """Return the file of a pass; its name holds a hash of all that decides the content."""
        import torchvision  # takes seconds to load

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
            version("timm"),
        ]
        name = hashlib.sha256("\n".join(map(str, whole)).encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{entry.name.replace('/', '-')}-{name}.npz"


def cached_features(network: Network, inputs: Inputs, store: Store, title: str) -> Extracted:
    """Return the features of a frozen backbone, stored or computed.

    The seconds are those of the pass that computed them.
    """

    def compute() -> tuple[Parts, float]:
        made = extract_features(network, inputs, title, **store.how)
        return {FEATURES: made.features, LAYERS: made.layers}, made.seconds

    def fits(parts: Parts) -> bool:
        features, shape = parts[FEATURES], (len(inputs), network.head.in_features)
        sound = isinstance(features, np.ndarray) and features.dtype == np.float32
        return sound and features.shape == shape and {*parts[LAYERS]} == {"slice", *network.stages}

    batch = batch_of(network.head.weight.device)
    of = (*network.stages, network.classifier, batch, LAYER_SLICES)
    parts, seconds, files = _shared(store, store.path("features", network, *of), compute, fits)
    return Extracted(parts[FEATURES], parts[LAYERS], seconds, files=files)


def with_maps(
    extracted: Extracted, network: Network, inputs: Inputs, rows: NDArray[np.int64], store: Store
) -> Extracted:
    """Return features with the last feature maps of slices `rows`, stored or computed."""

    def compute() -> tuple[Parts, float]:
        return {MAPS: extract_maps(network, inputs, rows, **store.how)}, 0.0

    which = hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()
    batch = batch_of(network.head.weight.device)
    path = store.path("maps", network, which, network.map_layer, batch)
    parts, _, files = _shared(store, path, compute, lambda parts: "slice" in parts[MAPS])
    return replace(extracted, maps=parts[MAPS], files={**extracted.files, **files})


def cached_statistics(
    network: Network, inputs: Inputs, rows: NDArray[np.int64], store: Store, title: str
) -> float:
    """Give the BatchNorm layers the statistics of slices `rows`, stored or estimated.

    Returns the seconds of the pass that estimated them.
    """
    which = hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()

    def make() -> Arrays:
        start = time.perf_counter()
        estimate_statistics(network, inputs, rows, title, precision=store.precision)
        seconds = np.array(time.perf_counter() - start)
        arrays = {"seconds": seconds, **statistics(network.model)}
        with atomic_path(path) as temporary:
            digest = np.array(cache_hash(path, arrays))
            np.savez(temporary, **arrays, sha256=digest)  # type: ignore[arg-type]
        return arrays

    names = {"seconds", *statistics(network.model)}
    path = store.path("batchnorm", network, which, STATISTICS_BATCH)
    arrays = _stored(path, lambda: _whole(path, names), make)
    seconds = float(arrays.pop("seconds"))
    set_statistics(network.model, arrays)
    return seconds


def _shared(
    store: Store,
    path: Path,
    compute: Callable[[], tuple[Parts, float]],
    fits: Callable[[Parts], bool],
) -> tuple[Parts, float, Mapping[str, Path]]:
    """Return what a pass computed, its seconds, and its files in the store.

    The entry of the cache names them by their hashes. Where it or one of them is missing or has
    changed, they are computed and written.
    """
    path = path.with_suffix(".json")

    def make() -> tuple[Parts, float, Mapping[str, Path]]:
        parts, seconds = compute()
        entries = {n: keep(store.files, n, partial(_save, part=part)) for n, part in parts.items()}
        digests = {name: str(entry["sha256"]) for name, entry in entries.items()}
        digest = index_hash(path, digests)
        write_json(path, {"seconds": seconds, "files": digests, "sha256": digest})
        return parts, seconds, {name: store.file(name, hash_) for name, hash_ in digests.items()}

    return _stored(path, lambda: _entry(store, path, fits), make)


def _entry(
    store: Store, path: Path, fits: Callable[[Parts], bool]
) -> tuple[Parts, float, Mapping[str, Path]] | None:
    """Return what an entry of the cache names; None where it is missing, damaged or of another."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        files = {name: store.file(name, digest) for name, digest in entry["files"].items()}
        sound = entry["sha256"] == index_hash(path, entry["files"])
        if sound and all(file_hash(file) == file.stem for file in files.values()):
            parts = {name: _read(file) for name, file in files.items()}
            if fits(parts):
                return parts, float(entry["seconds"]), files
    except DAMAGE:
        pass
    return None


def _stored(path: Path, read: Callable[[], T | None], make: Callable[[], T]) -> T:
    """Return what is stored, or make it; one process at a time does, the others then read it."""
    result = read()
    if result is not None:
        return result
    lock = path.with_name(f".{path.name}.lock")
    with claimed(lock, wait=True):
        try:
            result = read()
            return make() if result is None else result
        finally:
            lock.unlink(missing_ok=True)


def _save(path: Path, part: Part) -> None:
    if isinstance(part, np.ndarray):
        np.save(path, part)
    else:
        np.savez(path, **part)


def _read(path: Path) -> Part:
    """Read an array, of which memory holds what is used, or the arrays of an NPZ file."""
    if path.suffix == ".npy":
        # private, since torch asks for what may be written
        return np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def _whole(path: Path, names: set[str]) -> Arrays | None:
    """Return the arrays of a file; None where it is missing, damaged, or without a hash."""
    try:
        arrays: Arrays = _read(path)
        if str(arrays.pop("sha256")) == cache_hash(path, arrays) and arrays.keys() == names:
            return arrays
    except DAMAGE:
        pass
    return None


def _processor() -> str:
    return f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"
