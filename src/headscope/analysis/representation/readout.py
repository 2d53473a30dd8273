"""The layers between the last feature maps and the logits, as the record names them, in numpy.

`run.toml` lists them in words (`tail`), and `model.safetensors` holds their weights, so that what
the network makes of its maps can be asked anew without the network.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from headscope.errors import InputError
from headscope.record import Run

Array = NDArray[Any]
EPSILONS = (1e-6, 1e-5)  # of LayerNorm: timm's and torchvision's networks, then torch's own
KINDS = ("mean", "pool:7x7", "flatten", "relu", "conv:PATH", "linear:PATH", "layernorm:PATH")
CLOSE = 0.02  # of the largest logit: what bfloat16 may cost; wrong layers cost far more


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: 'linear' also stands for a 1×1 convolution, which acts on the channels.

    weight (K, C) and bias (K,) as stored, size of a pool's output, epsilon of a LayerNorm.
    """

    kind: str
    weight: Array | None = None
    bias: Array | None = None
    size: tuple[int, int] = (0, 0)
    epsilon: float = 0.0


@dataclass(frozen=True, eq=False)
class Tail:
    """Layers from feature maps (n, C, h, w) to logits (n, K).

    `mismatch` is how far, at most, what they give lies from the recorded logits.
    """

    layers: tuple[Layer, ...]
    mismatch: float = 0.0

    @property
    def averages(self) -> bool:
        """Whether positions are averaged before any layer tells them apart."""
        kinds = [layer.kind for layer in self.layers if layer.kind in ("mean", "pool", "flatten")]
        return bool(kinds) and kinds[0] == "mean"

    def __call__(self, maps: Array) -> Array:
        """Return the logits (n, K) of maps (n, C, h, w)."""
        for layer in self.layers:
            maps = _forward(layer, maps)
        return maps

    def local(self, maps: Array, direction: Array) -> tuple[Array, Array]:
        """Return the linear map that stands for the tail at each slice: its part and its rest.

        direction (K,) says which combination of the logits. Returned are what each position
        adds, (n, h, w), and what the biases add, (n,); together they are that combination.
        A ReLU counts with the pattern that the slice gives it, a LayerNorm with the slice's
        own variance; all else is linear.
        """
        seen = [maps]
        for layer in self.layers:
            seen.append(_forward(layer, seen[-1]))
        gradient = np.broadcast_to(direction.astype(maps.dtype), seen[-1].shape)
        rest = np.zeros(len(maps), dtype=maps.dtype)
        for layer, given in zip(reversed(self.layers), reversed(seen[:-1]), strict=True):
            rest = rest + _bias_part(layer, gradient)
            gradient = _backward(layer, given, gradient)
        return (gradient * maps).sum(axis=1), rest


def read_tail(run: Run) -> Tail:
    """Read the tail of a recorded run and its weights.

    Raises
    ------
    InputError
        The run records no tail, a layer is of no known kind, its weights are missing, or the
        tail does not turn the recorded maps into the recorded logits.
    """
    words = run.settings.get("tail")
    if not words:
        raise InputError(
            f"{run.name} records no layers between its feature maps and its logits: what it makes "
            f"of positions cannot be computed."
        )
    if "maps" not in run.maps or not len(run.maps["maps"]):
        raise InputError(f"{run.name} records no feature maps.")
    arrays = _weights(run, words)
    logits = run.features["logits"][run.maps["slice"]].astype(np.float64)
    maps = run.maps["maps"].astype(np.float32)
    normalises = any(word.startswith("layernorm:") for word in words)
    tails = []
    for epsilon in EPSILONS if normalises else EPSILONS[:1]:
        tail = make_tail(words, arrays, epsilon)
        try:
            made = tail(maps)
        except ValueError:  # shapes that do not meet
            continue
        if made.shape == logits.shape:
            tails.append(Tail(tail.layers, float(np.abs(made - logits).max())))
    best = min(tails, key=lambda tail: tail.mismatch, default=None)
    if best and best.mismatch <= max(1e-5, CLOSE * float(np.abs(logits).max())):
        return best
    raise InputError(
        f"{run.name}: its feature maps do not give its logits through {', '.join(words)}: what it "
        f"makes of positions cannot be computed."
    )


def make_tail(words: Sequence[str], arrays: dict[str, Array], epsilon: float = 1e-6) -> Tail:
    """Return the tail that `words` name, with the weights in `arrays` by their state-dict names.

    Raises
    ------
    InputError
        A word is of no known kind, or its weights are missing.
    """
    return Tail(tuple(_layer(word, arrays, epsilon) for word in words))


def _weights(run: Run, words: Sequence[str]) -> dict[str, Array]:
    path = run.path / "model.safetensors"
    paths = [word.partition(":")[2] for word in words if not word.startswith("pool:")]
    wanted = [f"{path}.{part}" for path in paths if path for part in ("weight", "bias")]
    if not path.is_file():
        raise InputError(f"{path} does not exist: {run.path} is no finished run.")
    try:
        with safe_open(path, framework="numpy") as stored:
            known = set(stored.keys())
            return {name: stored.get_tensor(name) for name in wanted if name in known}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}).") from None


def _layer(word: str, arrays: dict[str, Array], epsilon: float) -> Layer:
    kind, _, value = word.partition(":")
    if word in ("mean", "flatten", "relu"):
        return Layer(kind)
    if kind == "pool" and (size := re.fullmatch(r"(\d+)x(\d+)", value)):
        return Layer(kind, size=(int(size[1]), int(size[2])))
    if kind not in ("conv", "linear", "layernorm") or not value:
        raise InputError(f"tail: {word!r} is none of {', '.join(KINDS)}.")
    weight, bias = arrays.get(f"{value}.weight"), arrays.get(f"{value}.bias")
    if weight is None and kind != "layernorm":
        raise InputError(f"tail: model.safetensors holds no {value}.weight.")
    if kind == "layernorm" or weight is None:
        return Layer(kind, weight, bias, epsilon=epsilon)
    if weight.ndim not in (2, 4) or weight.shape[2:] not in ((), (1, 1)):
        raise InputError(
            f"tail: {value} is no linear layer or 1×1 convolution, its weight is {weight.shape}."
        )
    return Layer("linear", weight.reshape(weight.shape[:2]), bias)


def _forward(layer: Layer, x: Array) -> Array:
    weight, bias = layer.weight, layer.bias
    if layer.kind == "mean":
        return x.mean(axis=(2, 3))  # (n, C)
    if layer.kind == "pool":
        rows, columns = _pooling(x.shape[2], layer.size[0]), _pooling(x.shape[3], layer.size[1])
        return np.einsum("nchw,ih,jw->ncij", x, rows, columns, optimize=True).astype(x.dtype)
    if layer.kind == "flatten":
        return x.reshape(len(x), -1)  # (n, C·h·w)
    if layer.kind == "relu":
        return np.maximum(x, 0)
    if layer.kind == "layernorm":
        return _affine(_normal(x, layer.epsilon)[0], weight, bias)
    assert weight is not None
    return _affine(_on_channels(weight, x), None, bias)


def _backward(layer: Layer, given: Array, gradient: Array) -> Array:
    """Return the gradient of a layer's input, from that of its output."""
    weight = layer.weight
    if layer.kind == "mean":
        positions = given.shape[2] * given.shape[3]
        return np.broadcast_to(gradient[:, :, np.newaxis, np.newaxis] / positions, given.shape)
    if layer.kind == "pool":
        rows = _pooling(given.shape[2], layer.size[0])
        columns = _pooling(given.shape[3], layer.size[1])
        return np.einsum("ncij,ih,jw->nchw", gradient, rows, columns, optimize=True)
    if layer.kind == "flatten":
        return gradient.reshape(given.shape)
    if layer.kind == "relu":
        return gradient * (given > 0)
    if layer.kind == "layernorm":
        scaled = _affine(gradient, weight, None) / _normal(given, layer.epsilon)[1]
        return scaled - scaled.mean(axis=1, keepdims=True)
    assert weight is not None
    return _on_channels(weight.T, gradient)


def _bias_part(layer: Layer, gradient: Array) -> Array:
    """Return what a layer's bias adds, (n,), from the gradient of its output."""
    if layer.bias is None:
        return np.zeros(len(gradient), dtype=gradient.dtype)
    per_channel = gradient.reshape(*gradient.shape[:2], -1).sum(axis=2)  # (n, C)
    return per_channel @ layer.bias


def _on_channels(weight: Array, x: Array) -> Array:
    """Return what a matrix (K, C) makes of the channels of x (n, C) or (n, C, h, w)."""
    if x.ndim == 2:
        return x @ weight.T
    return np.einsum("kc,nchw->nkhw", weight, x, optimize=True)


def _pooling(size: int, out: int) -> Array:
    """Return the matrix (out, size) of torch's adaptive average pooling along one axis."""
    matrix = np.zeros((out, size), dtype=np.float32)
    for i in range(out):
        start, end = i * size // out, ceil((i + 1) * size / out)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def _normal(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Return x over channels (axis 1) with mean 0 and variance 1, and the deviation."""
    rest = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt((rest**2).mean(axis=1, keepdims=True) + epsilon)
    return rest / deviation, deviation


def _affine(x: Array, weight: Array | None, bias: Array | None) -> Array:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)
