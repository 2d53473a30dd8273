"""The final layer of anyone's network, found in a file of weights; nothing else of it is read.

Files: those of `headscope.models.tensors`; `.npz` with `weight` and `bias`; a run directory of
headscope. None of them is ever executed.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.models.tensors import StoredTensor, read_tensors, strip_wrappers

Array = NDArray[np.float64]
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
HEADS = ("fc", "head", "heads", "head_fc", "classifier", "last_linear", "linear", "logits",
         "output", "final", "cls")  # fmt: skip
AUXILIARY = re.compile(r"(^|\.)(aux\w*|head_dist|dist_head)\.", re.IGNORECASE)
LISTED = 12  # so many layers an error lists


@dataclass(frozen=True, eq=False)
class Head:
    """A final layer as a file holds it.

    weight (K, D); bias (K,) or None; layer is its name in the file. initial_weight and
    class_names come from headscope's own records alone. note says how the layer was chosen, where
    there was a choice.
    """

    path: Path
    layer: str
    weight: Array
    bias: Array | None
    initial_weight: Array | None = None
    class_names: tuple[str, ...] | None = None
    note: str = ""


def read_head(path: Path | str, layer: str | None = None) -> Head:
    """Read the final layer (K, D) of a file of weights, or of a run directory.

    Parameters
    ----------
    path
        A file of weights, `head.npz`, or a run directory.
    layer
        The name of the layer. Without it: of the linear layers and 1×1 convolutions, the last
        whose name is that of a head (fc, head, classifier, …), or else the last; auxiliary heads
        are left out.

    Raises
    ------
    InputError
        No such file, not readable as weights, or no such layer; the layers there are listed.

    Examples
    --------
    >>> head = hs.read_head("first/runs/timm-test_resnet-frozen-subject-seed0")
    >>> head.weight.shape, head.class_names
    ((2, 96), ('AD', 'NC'))
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    if path.is_dir():
        path = _record_of(path)
    if path.suffix == ".npz":
        return _read_record(path)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is no file of weights: headscope takes {', '.join(SUFFIXES)}, head.npz or a "
            f"run directory."
        )
    return _find(path, _without_wrappers(read_tensors(path)), layer)


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


def _find(path: Path, tensors: Mapping[str, StoredTensor], layer: str | None) -> Head:
    layers = {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in tensors.items()
        if name.endswith(".weight") and _is_linear(tensor.shape)
    }
    if not layers:
        raise InputError(f"{path} holds no linear layer: none of {len(tensors)} tensors is one.")
    biases = {name: tensors.get(f"{name}.bias") for name in layers}
    biased = [name for name, bias in biases.items() if bias and bias.shape == layers[name][:1]]
    note = ""
    if layer is None:
        candidates = [name for name in biased or layers if not AUXILIARY.search(f"{name}.")]
        layer = _last(candidates or list(layers), layers)
        if not _is_head(layer) and len(candidates) > 1:
            note = (
                f"{layer} was taken as the last of {len(candidates)} layers; --layer names another."
            )
    elif (plain := strip_wrappers(layer.removesuffix(".weight"))) in layers:
        layer = plain
    else:
        raise InputError(f"{path} has no linear layer {layer!r}; it has {_listed(layers)}.")
    K = layers[layer][0]
    if K < 2:
        raise InputError(
            f"{path}: {layer} has one row of weights; two classes or more are needed. The file "
            f"has {_listed(layers)}."
        )
    weight = _read(tensors[f"{layer}.weight"]).reshape(K, -1)  # (K, D, 1, 1) → (K, D)
    bias = _read(tensors[f"{layer}.bias"]) if layer in biased else None
    return Head(path, layer, weight, bias, note=note)


def _read(tensor: StoredTensor) -> Array:
    return tensor.read().astype(np.float64)


def _last(names: list[str], layers: Mapping[str, tuple[int, ...]]) -> str:
    """Return the last in order of natural sorting, heads by name and linear layers first."""

    def rank(name: str) -> tuple[bool, bool, list[Any]]:
        parts = [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
        return _is_head(name), len(layers[name]) == 2, parts

    return max(names, key=rank)


def _is_head(layer: str) -> bool:
    """Whether the name of a layer is that of a head."""
    return layer.split(".")[0] in HEADS


def _is_linear(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))


def _listed(layers: Mapping[str, tuple[int, ...]]) -> str:
    """List layers with their shapes, heads by name first."""
    names = sorted(layers, key=lambda name: not _is_head(name))
    shown = [f"{name} ({layers[name][0]} × {layers[name][1]})" for name in names[:LISTED]]
    return ", ".join(shown) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _without_wrappers(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Remove wrappers from the names, where they stay distinct."""
    plain = [strip_wrappers(name) for name in tensors]
    return {
        short if plain.count(short) == 1 else name: tensor
        for short, (name, tensor) in zip(plain, tensors.items(), strict=True)
    }


def _record_of(folder: Path) -> Path:
    """Return a run's head.npz; of an experiment, the error names its runs."""
    if (folder / "head.npz").is_file():
        return folder / "head.npz"
    runs = sorted(path.parent.name for path in folder.glob("runs/*/head.npz"))
    advice = f"give one of its runs: {', '.join(runs)}" if runs else "it holds no head.npz"
    raise InputError(f"{folder} is no run directory; {advice}.")


def _read_record(path: Path) -> Head:
    arrays = read_arrays(path, ("weight",))
    names = arrays.pop("class_names", None)
    numbers = {name: array.astype(np.float64) for name, array in arrays.items()}
    return Head(
        path,
        "weight",
        numbers["weight"],
        numbers.get("bias"),
        numbers.get("initial_weight"),
        None if names is None else tuple(str(name) for name in names),
    )
