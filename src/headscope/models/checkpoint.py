"""The final layer of anyone's network: found in a file of weights, and nothing else read of it.

Files: `.safetensors`; torch's `.pth`, `.pt`, `.ckpt`, `.bin` (plain, Lightning's, timm's); `.npz`
with `weight` and `bias`; a run directory of headscope. None of them is ever executed.
"""

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from headscope.errors import InputError

Array = NDArray[np.float64]
TORCH = (".pth", ".pt", ".ckpt", ".bin", ".tar")
# what training wraps around a network, by name of the tensors and by level of the file
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
LEVELS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net")
HEADS = ("fc", "head", "heads", "head_fc", "classifier", "last_linear", "linear", "logits",
         "output", "final", "cls")  # fmt: skip
BESIDE = re.compile(r"(^|\.)(aux\w*|head_dist|dist_head)\.", re.IGNORECASE)
BIT = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "F64": np.float64}


@dataclass(frozen=True, eq=False)
class Head:
    """A final layer as a file holds it.

    weight (K, D); bias (K,) or None; layer is its name in the file. initial_weight and
    class_names are known of headscope's own records. note says how the layer was chosen, where
    there was a choice.
    """

    path: Path
    layer: str
    weight: Array
    bias: Array | None
    initial_weight: Array | None = None
    class_names: tuple[str, ...] | None = None
    note: str = ""


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a file: its shape, and how to read it."""

    shape: tuple[int, ...]
    read: Callable[[], Array]


def read_head(path: Path | str, layer: str | None = None) -> Head:
    """Read the final layer (K, D) of a file of weights, or of a run directory.

    It is the one named `layer` or, of the linear layers and 1×1 convolutions, the last whose
    name says that it is a head (fc, head, classifier, …), or else the last; auxiliary heads are
    left out.

    Raises
    ------
    InputError
        No such file, not readable as weights, no such layer; the layers there are listed.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_dir():
        path = _record_of(path)
    if path.suffix == ".npz":
        return _read_arrays(path)
    if path.suffix == ".safetensors":
        tensors = _safetensors(path)
    elif path.suffix in TORCH:
        tensors = _torch(path)
    else:
        raise InputError(
            f"{path} is no file of weights: headscope takes .safetensors, {', '.join(TORCH)}, "
            f"head.npz or a run directory."
        )
    return _find(path, _plain(tensors), layer)


def _find(path: Path, tensors: Mapping[str, _Tensor], layer: str | None) -> Head:
    layers = {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in tensors.items()
        if name.endswith(".weight") and _is_linear(tensor.shape)
    }
    if not layers:
        raise InputError(f"{path} holds no linear layer: none of {len(tensors)} tensors is one.")
    biased = [name for name in layers if _fits(tensors.get(f"{name}.bias"), layers[name])]
    note = ""
    if layer is None:
        candidates = [name for name in biased or layers if not BESIDE.search(f"{name}.")]
        layer = _last(candidates or list(layers), layers)
        if not _is_named(layer) and len(candidates) > 1:
            note = (
                f"{layer} was taken as the last of {len(candidates)} layers; --layer names another."
            )
    elif _stripped(layer.removesuffix(".weight")) in layers:
        layer = _stripped(layer.removesuffix(".weight"))
    else:
        raise InputError(f"{path} has no linear layer {layer!r}; it has {_listed(layers)}.")
    K = layers[layer][0]
    if K < 2:
        raise InputError(
            f"{path}: {layer} has one row of weights; two classes or more are needed. The file "
            f"has {_listed(layers)}."
        )
    weight = tensors[f"{layer}.weight"].read().reshape(K, -1)  # (K, D, 1, 1) → (K, D)
    bias = tensors[f"{layer}.bias"].read() if layer in biased else None
    return Head(path, layer, weight, bias, note=note)


def _last(names: list[str], layers: Mapping[str, tuple[int, ...]]) -> str:
    """Return the last in order of natural sorting, heads by name and linear layers first."""

    def rank(name: str) -> tuple[bool, bool, list[Any]]:
        parts = [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
        return _is_named(name), len(layers[name]) == 2, parts

    return max(names, key=rank)


def _is_named(layer: str) -> bool:
    return layer.split(".")[0] in HEADS


def _is_linear(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))


def _fits(bias: _Tensor | None, shape: tuple[int, ...]) -> bool:
    return bias is not None and bias.shape == shape[:1]


def _listed(layers: Mapping[str, tuple[int, ...]], most: int = 12) -> str:
    """List layers with their shapes; where there are many, those called like a final one first."""
    names = sorted(layers, key=lambda name: not _is_named(name))
    shown = [f"{name} ({layers[name][0]} × {layers[name][1]})" for name in names]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + rest


def _plain(tensors: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Take what training wraps around a network off the names, where they stay distinct."""
    short = {name: _stripped(name) for name in tensors}
    taken = list(short.values())
    return {
        short[name] if taken.count(short[name]) == 1 else name: tensor
        for name, tensor in tensors.items()
    }


def _stripped(name: str) -> str:
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return _stripped(name.removeprefix(prefix))
    return name


def _safetensors(path: Path) -> dict[str, _Tensor]:
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and the length
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file ({error}).") from None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: _Tensor(
            tuple(header[name]["shape"]), partial(_read, path, name, header[name], 8 + length)
        )
        for name in names
    }


def _read(path: Path, name: str, known: Mapping[str, Any], start: int) -> Array:
    if known["dtype"] not in BIT:
        raise InputError(
            f"{path}: {name} is stored as {known['dtype']}; {', '.join(BIT)} can be read."
        )
    first, end = known["data_offsets"]
    dtype = np.dtype(BIT[known["dtype"]]).newbyteorder("<")
    raw = np.fromfile(path, dtype, (end - first) // dtype.itemsize, offset=start + first)
    if known["dtype"] == "BF16":  # the upper half of a float32
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float64).reshape(known["shape"])


def _torch(path: Path) -> dict[str, _Tensor]:
    from headscope.models.pickles import read_pickle, tensors_of, to_numpy

    found = read_pickle(path)
    level = next((key for key in LEVELS if _holds(found, key)), None)
    while level is not None:
        found = found[level]
        level = next((key for key in LEVELS if _holds(found, key)), None)
    tensors = tensors_of(found) if isinstance(found, Mapping) else {}
    if not tensors:
        raise InputError(f"{path} holds no state dict (a table of named tensors).")
    return {
        name: _Tensor(tuple(tensor.shape), partial(to_numpy, tensor))
        for name, tensor in tensors.items()
    }


def _holds(found: Any, key: str) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get(key), Mapping) and bool(found[key])


def _record_of(folder: Path) -> Path:
    """Return a run's head.npz; an experiment names its runs."""
    if (folder / "head.npz").is_file():
        return folder / "head.npz"
    runs = sorted(path.parent.name for path in folder.glob("runs/*/head.npz"))
    known = f"give one of its runs: {', '.join(runs)}" if runs else "it holds no head.npz"
    raise InputError(f"{folder} is no run directory; {known}.")


def _read_arrays(path: Path) -> Head:
    arrays = read_arrays(path, ("weight",))
    named = arrays.get("class_names")
    known = {name: arrays[name].astype(np.float64) for name in arrays if name != "class_names"}
    return Head(
        path,
        "weight",
        known["weight"],
        known.get("bias"),
        known.get("initial_weight"),
        None if named is None else tuple(str(name) for name in named),
    )


def read_arrays(path: Path, needed: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read an .npz of plain arrays, some of which it must hold; InputError if it does not."""
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = "damaged" if "pickle" in str(error) else str(error)
        raise InputError(f"{path} is no readable .npz of plain arrays ({reason}).") from None
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'nothing'}."
        )
    return arrays
