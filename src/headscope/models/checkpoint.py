"""The final layer of anyone's network, found in a file of weights; nothing else of it is read.

Files: those of `headscope.models.tensors`; `.npz` with `weight` and `bias`; a run directory of
headscope. None of them is ever executed.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.models.tensors import (
    UNREADABLE,
    StoredTensor,
    check_file,
    file_kind,
    printable,
    read_weights,
    split_network,
    strip_wrappers,
)

Array = NDArray[np.float64]
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
HEADS = ("fc", "head", "heads", "head_fc", "classifier", "last_linear", "linear", "logits",
         "output", "final", "cls")  # fmt: skip
# layers that end a branch or a block of the network and are not its classifier
BRANCHES = re.compile(
    r"(^|\.)(aux\w*|head_dist|dist_head|decoder\w*|proj\w*_head|projector|predictor|pre_\w+"
    r"|conv_head|final_conv|last_conv|attn\w*|qkv|mlp|blocks?|stages?|stem\w*)\.",
    re.IGNORECASE,
)
LISTED = 12  # so many layers an error lists
LARGE = 2**28  # bytes beyond which an .npz may not expand twentyfold


@dataclass(frozen=True, eq=False)
class Head:
    """A final layer as a file holds it.

    weight (K, D); bias (K,) or None; layer is its name in the file. initial_weight and
    class_names come from headscope's own records alone. network is its network's place in the
    file, '' where the file holds one. note says how network and layer were chosen, where there was
    a choice.
    """

    path: Path
    layer: str
    weight: Array
    bias: Array | None
    initial_weight: Array | None = None
    class_names: tuple[str, ...] | None = None
    network: str = ""
    note: str = ""


def read_head(path: Path | str, layer: str | None = None) -> Head:
    """Read the final layer (K, D) of a file of weights, or of a run directory.

    Parameters
    ----------
    path
        A file of weights, `head.npz`, or a run directory. FILE:NETWORK names one of several
        networks in a file, as in `last.pth.tar:state_dict`; without it averaged weights (EMA, SWA,
        a teacher) come first, and then the first by name.
    layer
        The name of the layer. Without it: of the linear layers and 1×1 convolutions, the last
        whose name is that of a head (fc, head, classifier, …), or else the last that no other
        layer reads from; auxiliary heads are left out, and a network that ends in no such layer
        is refused.

    Raises
    ------
    InputError
        No such file, not readable as weights, no final layer or none of that name (the layers
        there are listed), or values that are not finite.

    Examples
    --------
    >>> head = hs.read_head("first/runs/timm-test_resnet-frozen-subject-seed0")
    >>> head.weight.shape, head.class_names
    ((2, 96), ('AD', 'NC'))
    """
    path, network = split_network(path)
    check_file(path, or_folder=True)
    if path.is_dir():
        path = _record_of(path)
    if path.suffix == ".npz" or (kind := file_kind(path)) == "npz":
        return _read_record(path)
    if kind == "unknown" and path.suffix not in SUFFIXES:
        raise InputError(
            f"{path} is no file of weights: headscope takes {', '.join(SUFFIXES)}, head.npz or a "
            f"run directory."
        )
    weights = read_weights(path, network)
    head = _find(path, {weights.plain[name]: t for name, t in weights.tensors.items()}, layer)
    return replace(
        head, network=weights.network, note=" ".join(filter(None, (weights.note, head.note)))
    )


def read_arrays(path: Path, needed: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read an .npz of plain arrays, some of which it must hold; InputError if it does not."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [(info.file_size, info.compress_size) for info in archive.infolist()]
        if sum(size for size, _ in sizes) > max(LARGE, 20 * sum(packed for _, packed in sizes)):
            raise ValueError(f"it would expand to {sum(size for size, _ in sizes):,} bytes")
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
    except UNREADABLE as error:
        reason = "damaged" if "pickle" in str(error) else printable(str(error)) or "damaged"
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
    biased = {name for name, bias in biases.items() if bias and bias.shape == layers[name][:1]}
    note = ""
    if layer is None:
        candidates = _final_layers(layers, biased, tensors)
        if not candidates:
            raise InputError(
                f"{path} ends in no classifier: of its layers each is read by another, is "
                f"repeated, or is a convolution inside the network, so it may be a trunk. --layer "
                f"names a layer: {_listed(layers)}."
            )
        layer = _last(candidates, layers)
        if not _is_head(layer) and len(layers) > 1:
            note = f"{layer} was taken as the last of {len(layers)} layers; --layer names another."
    elif (plain := strip_wrappers(layer.removesuffix(".weight"))) in layers:
        layer = plain
    elif layer.removesuffix(".weight") in layers:
        layer = layer.removesuffix(".weight")
    else:
        raise InputError(f"{path} has no linear layer {layer!r}; it has {_listed(layers)}.")
    K = layers[layer][0]
    if K < 2:
        raise InputError(
            f"{path}: {layer} has one row of weights; two classes or more are needed. The file "
            f"has {_listed(layers)}."
        )
    weight = _numbers(path, layer, tensors[f"{layer}.weight"].read()).reshape(K, -1)  # (K, D)
    bias = _numbers(path, layer, tensors[f"{layer}.bias"].read()) if layer in biased else None
    return Head(path, layer, weight, bias, note=note)


def _final_layers(
    layers: Mapping[str, tuple[int, ...]], biased: set[str], tensors: Mapping[str, StoredTensor]
) -> list[str]:
    """Return the layers that can be the final one.

    Those with the name of a head; of others those whose K outputs no layer reads and that are not
    one of several alike (as in the blocks of a transformer). Square layers are none, as hidden
    ones are left where a classifier was cut off, nor are convolutions without a bias.
    """
    plain = {
        name: shape
        for name, shape in layers.items()
        if not BRANCHES.search(f"{name}.")
        and not shape[0] == shape[1] > LISTED
        and (len(shape) == 2 or name in biased)
    }
    # a convolution of a picture reads 1 or 3 channels, whatever the classes
    reads = [
        (name, tensor.shape[1])
        for name, tensor in tensors.items()
        if len(tensor.shape) > 1 and not (tensor.shape[1] <= 3 and len(tensor.shape) > 2)
    ]
    named = {name for name in plain if _is_head(name)}
    inside = {(name.split(".")[0], width) for name, width in reads}
    heads = [name for name in named if (name.split(".")[0], plain[name][0]) not in inside]
    if heads:
        return [name for name in heads if name in biased] or heads
    widths = {width for _, width in reads}
    alike = Counter((re.sub(r"\d+", "#", name), shape) for name, shape in layers.items())
    final = [
        name
        for name, shape in plain.items()
        if shape[0] not in widths and alike[re.sub(r"\d+", "#", name), shape] == 1
    ]
    return [name for name in final if name in biased] or final


def _numbers(path: Path, layer: str, values: NDArray[Any]) -> Array:
    """Return numbers of a layer as float64; InputError where they are none, or not finite."""
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: {layer} holds {values.dtype.name} and no real numbers.")
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {layer} holds values that are not finite.")
    numbers = values.astype(np.float64)
    largest = max(float(numbers.max(initial=0)), -float(numbers.min(initial=0)))
    if largest and not 1e-45 <= largest < 3.5e38:
        raise InputError(
            f"{path}: the largest weight of {layer} is {largest:.3g}, which no float32 holds."
        )
    return numbers


def _last(names: Sequence[str], layers: Mapping[str, tuple[int, ...]]) -> str:
    """Return the last in order of natural sorting, linear layers before convolutions."""

    def rank(name: str) -> tuple[bool, list[Any]]:
        parts = [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
        return len(layers[name]) == 2, parts

    return max(names, key=rank)


def _is_head(layer: str) -> bool:
    """Whether the name of a layer is that of a head."""
    return layer.split(".")[0] in HEADS


def _is_linear(shape: tuple[int, ...]) -> bool:
    return min(shape, default=0) > 0 and (
        len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
    )


def _listed(layers: Mapping[str, tuple[int, ...]]) -> str:
    """List layers with their shapes, heads by name first."""
    names = sorted(layers, key=lambda name: not _is_head(name))
    shown = [f"{name} ({layers[name][0]} × {layers[name][1]})" for name in names[:LISTED]]
    return ", ".join(shown) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _record_of(folder: Path) -> Path:
    """Return a run's head.npz; of an experiment, the error names its runs."""
    if (folder / "head.npz").is_file():
        return folder / "head.npz"
    runs = sorted(path.parent.name for path in folder.glob("runs/*/head.npz"))
    advice = f"give one of its runs: {', '.join(runs)}" if runs else "it holds no head.npz"
    raise InputError(f"{folder} is no run directory; {advice}.")


def _read_record(path: Path) -> Head:
    arrays = read_arrays(path, ("weight",))
    names = arrays.get("class_names")
    numbers = {
        name: _numbers(path, name, arrays[name])
        for name in ("weight", "bias", "initial_weight")
        if name in arrays
    }
    shape = numbers["weight"].shape
    if len(shape) != 2 or shape[0] < 2 or not shape[1]:
        raise InputError(f"{path}: weight has shape {shape}; (K, D) with K of 2 or more is needed.")
    expected = {"bias": shape[:1], "initial_weight": shape}
    for name, wanted in expected.items():
        if name in numbers and numbers[name].shape != wanted:
            raise InputError(
                f"{path}: {name} has shape {numbers[name].shape}; weight {shape} needs {wanted}."
            )
    if names is not None and names.shape != shape[:1]:
        raise InputError(f"{path}: class_names has shape {names.shape} for {shape[0]} classes.")
    return Head(
        path,
        "weight",
        numbers["weight"],
        numbers.get("bias"),
        numbers.get("initial_weight"),
        None if names is None else tuple(str(name) for name in names),
    )
