"""The layers between the last feature maps and the logits, as the record names them, in numpy.

`run.toml` names them (`tail`), and `model.safetensors` holds their weights. Training checks with
this code that they give the network's logits, and analysis computes logits of changed maps with
it, without the network.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError

Array = NDArray[Any]
KINDS = ("mean", "pool:7x7", "flatten", "relu", "conv:PATH", "linear:PATH", "layernorm:PATH")


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

    mismatch is the largest distance of the logits that they give from the recorded ones.
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
        """Split a combination of the logits of each slice into its positions and its biases.

        direction (K,) is the combination. Returns the contribution of each position, (n, h, w), and
        that of the biases, (n,), whose sum is the combination. The tail is taken as the linear map
        that it is near the slice: ReLUs with the pattern of the slice, LayerNorms with its
        variance.
        """
        activations = [maps]
        for layer in self.layers:
            activations.append(_forward(layer, activations[-1]))
        gradient = np.broadcast_to(direction.astype(maps.dtype), activations[-1].shape)
        rest = np.zeros(len(maps), dtype=maps.dtype)
        for layer, x in zip(reversed(self.layers), reversed(activations[:-1]), strict=True):
            rest = rest + _bias_part(layer, gradient)
            gradient = _backward(layer, x, gradient)
        return (gradient * maps).sum(axis=1), rest


def make_tail(words: Sequence[str], arrays: dict[str, Array], epsilon: float = 1e-6) -> Tail:
    """Return the tail of `words` (`KINDS`) and their weights; InputError where one is unknown."""
    return Tail(tuple(_layer(word, arrays, epsilon) for word in words))


def _layer(word: str, arrays: dict[str, Array], epsilon: float) -> Layer:
    kind, _, value = word.partition(":")
    if word in ("mean", "flatten", "relu"):
        return Layer(kind)
    if kind == "pool" and (size := re.fullmatch(r"(\d+)x(\d+)", value)):
        return Layer(kind, size=(int(size[1]), int(size[2])))
    if kind not in ("conv", "linear", "layernorm") or not value:
        raise InputError(f"tail: unknown layer {word!r}; valid: {', '.join(KINDS)}.")
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


def _backward(layer: Layer, x: Array, gradient: Array) -> Array:
    """Return the gradient of a layer's input x, from that of its output."""
    weight = layer.weight
    if layer.kind == "mean":
        positions = x.shape[2] * x.shape[3]
        return np.broadcast_to(gradient[:, :, np.newaxis, np.newaxis] / positions, x.shape)
    if layer.kind == "pool":
        rows, columns = _pooling(x.shape[2], layer.size[0]), _pooling(x.shape[3], layer.size[1])
        return np.einsum("ncij,ih,jw->nchw", gradient, rows, columns, optimize=True)
    if layer.kind == "flatten":
        return gradient.reshape(x.shape)
    if layer.kind == "relu":
        return gradient * (x > 0)
    if layer.kind == "layernorm":
        scaled = _affine(gradient, weight, None) / _normal(x, layer.epsilon)[1]
        return scaled - scaled.mean(axis=1, keepdims=True)
    assert weight is not None
    return _on_channels(weight.T, gradient)


def _bias_part(layer: Layer, gradient: Array) -> Array:
    """Return the contribution of a layer's bias, (n,), from the gradient of its output."""
    if layer.bias is None:
        return np.zeros(len(gradient), dtype=gradient.dtype)
    per_channel = gradient.reshape(*gradient.shape[:2], -1).sum(axis=2)  # (n, C)
    return per_channel @ layer.bias


def _on_channels(weight: Array, x: Array) -> Array:
    """Apply a matrix (K, C) to the channels of x (n, C) or (n, C, h, w)."""
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
