"""What stands between the last feature maps and the logits, in words, and checked in numbers."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, layer_norm, linear

Tail = tuple[str, ...]

_SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class Pass:
    """One pass in eval mode: the modules' outputs in the order in which they ended.

    features is what the classifier read, logits what the network gave.
    """

    ended: list[tuple[str, Tensor]]
    features: Tensor | None
    logits: Tensor

    def output(self, path: str) -> Tensor | None:
        """Return what the module at `path` gave last; None where it did not act."""
        return next((output for name, output in reversed(self.ended) if name == path), None)


@torch.inference_mode()
def watch(model: nn.Module, classifier: str, x: Tensor) -> Pass:
    """Pass x (B, 3, H, W) through the model and keep what each module gives."""
    ended: list[tuple[str, Tensor]] = []
    features: list[Tensor] = []

    def keep(path: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
            if path == classifier:
                features.append(given[0])
            if isinstance(output, Tensor):
                ended.append((path, output))

        return model.get_submodule(path).register_forward_hook(hook)

    handles = [keep(path) for path, _ in model.named_modules() if path]
    training = model.training
    try:
        logits = model.eval()(x)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return Pass(ended, features[-1] if features else None, logits)


def gives_logits(classifier: str, seen: Pass) -> bool:
    """Whether the classifier's output (B, K) is the network's: nothing changes it afterwards."""
    output = seen.output(classifier)
    return output is not None and output.ndim == 2 and torch.equal(output, seen.logits)


def map_name(model: nn.Module, seen: Pass) -> str | None:
    """Return the last module to give feature maps (B, C, h, w) of more than one position.

    None where positions go on as tokens or channels stand last, as in ViT or timm's Swin. What acts
    in place afterwards (DenseNet's last ReLU) shows in the maps.
    """
    for path, output in reversed(seen.ended):
        if isinstance(model.get_submodule(path), _SILENT):
            continue
        if output.ndim == 3:
            return None
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            return path if output.shape[2] == output.shape[3] else None
    return None


@torch.inference_mode()
def find_tail(model: nn.Module, classifier: str, map_layer: str, seen: Pass) -> Tail | None:
    """Return the layers from map_layer's output to the logits, in words.

    The words: mean (over positions), pool:7x7 (adaptive average), flatten, relu, linear:PATH,
    conv:PATH (1×1), layernorm:PATH; dropout is left out, as it is off when features are read.
    Steps that are no modules are guessed; what the words make of the maps must equal the features
    that the classifier read, or there is no tail to tell (None).
    """
    paths = [path for path, _ in seen.ended]
    last = len(paths) - 1 - paths[::-1].index(map_layer)
    acting = paths[last + 1 : paths.index(classifier)]
    modules = [(path, model.get_submodule(path)) for path in acting]
    leaves = [(path, module) for path, module in modules if not list(module.children())]
    words = [_word(path, module) for path, module in leaves if not isinstance(module, _SILENT)]
    maps = seen.ended[last][1]
    if seen.features is None or None in words:
        return None
    for first, joint in product(((), ("relu",)), ((), ("mean",), ("flatten",))):
        tail = _without_idle((*first, *joint, *(word for word in words if word)))
        try:
            found = apply_tail(model, tail, maps)
        except RuntimeError:  # shapes that do not meet: the wrong guess
            continue
        if _agree(found, seen.features):
            return (*tail, f"linear:{classifier}")
    return None


@torch.inference_mode()
def apply_tail(model: nn.Module, tail: Tail, maps: Tensor) -> Tensor:
    """Return what the words of `tail` make of feature maps (B, C, h, w)."""
    x = maps
    for word in tail:
        kind, _, rest = word.partition(":")
        if kind == "mean":
            x = x.mean(dim=(2, 3))  # (B, C)
        elif kind == "pool":
            height, width = (int(side) for side in rest.split("x"))
            x = adaptive_avg_pool2d(x, (height, width))
        elif kind == "flatten":
            x = x.flatten(1)  # (B, C · h · w)
        elif kind == "relu":
            x = x.relu()
        else:
            x = _layer(model.get_submodule(rest), x)
    return x


def _layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer, 1×1 convolution or LayerNorm to x (B, D)."""
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.LayerNorm)
    if isinstance(layer, nn.LayerNorm):
        return layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
    return linear(x, layer.weight.flatten(1), layer.bias)


def _word(path: str, module: nn.Module) -> str | None:
    """Return the word of one module; None where there is none."""
    match module:
        case nn.Linear():
            return f"linear:{path}"
        case nn.Conv2d(kernel_size=(1, 1), groups=1):
            return f"conv:{path}"
        case nn.LayerNorm():
            return f"layernorm:{path}"
        case nn.ReLU():
            return "relu"
        case nn.Flatten():
            return "flatten"
        case nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)):
            return "mean"
        case nn.AdaptiveAvgPool2d(output_size=(int(height), int(width))):
            return f"pool:{height}x{width}"
    # timm does not export the class of its average pooling
    return "mean" if type(module).__name__ == "FastAdaptiveAvgPool" else None


def _without_idle(words: Tail) -> Tail:
    """Leave out what does nothing: a mean or a flattening of what has no positions any more."""
    kept: list[str] = []
    for word in words:
        idle = word in ("mean", "flatten") and ("mean" in kept or "flatten" in kept)
        kept += [] if idle else [word]
    return tuple(kept)


def _agree(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=1e-4, atol=1e-5 * scale
    )
