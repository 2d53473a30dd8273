"""What a network does between its last feature maps and its logits, found by one pass of noise."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headscope.models.classifier import hooks
from headscope.tail import make_tail

Words = tuple[str, ...]

_SILENT = (nn.Identity, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class Pass:
    """One pass in eval mode: the modules' outputs in the order in which they ended.

    features (B, D) are the classifier's input, logits (B, K) the network's output.
    """

    ended: list[tuple[str, Tensor]]
    features: Tensor | None
    logits: Tensor

    def output(self, path: str) -> Tensor | None:
        """Return the last output of the module at `path`; None where it did not run."""
        return next((output for name, output in reversed(self.ended) if name == path), None)


@torch.inference_mode()
def watch(model: nn.Module, classifier: str, x: Tensor) -> Pass:
    """Pass x (B, 3, H, W) through the model and keep the output of each module."""
    ended: list[tuple[str, Tensor]] = []
    features: list[Tensor] = []

    def catch(path: str, arguments: tuple[Tensor, ...], output: object) -> None:
        if path == classifier:
            features.append(arguments[0])
        if isinstance(output, Tensor):
            ended.append((path, output))

    training = model.training
    try:
        with hooks(model, [path for path, _ in model.named_modules() if path], catch):
            logits = model.eval()(x)
    finally:
        model.train(training)
    return Pass(ended, features[-1] if features else None, logits)


def map_name(model: nn.Module, seen: Pass) -> str | None:
    """Return the last module to give feature maps (B, C, h, w) of more than one position.

    None where positions become tokens or channels are last, as in ViT or timm's Swin. Modules that
    act in place afterwards (DenseNet's last ReLU) have changed the maps.
    """
    for path, output in reversed(seen.ended):
        if isinstance(model.get_submodule(path), _SILENT):
            continue
        if output.ndim == 3:
            return None
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            return path if output.shape[2] == output.shape[3] else None
    return None


def find_tail(model: nn.Module, classifier: str, map_layer: str, seen: Pass) -> Words | None:
    """Return the layers from map_layer's output to the logits, as `headscope.tail` names them.

    Dropout is left out, as it is off when features are read. Steps that are no modules are guessed:
    what the layers make of the maps must equal the features that the classifier read, or there is
    no tail (None).
    """
    paths = [path for path, _ in seen.ended]
    last = len(paths) - 1 - paths[::-1].index(map_layer)
    acting = {path: model.get_submodule(path) for path in paths[last + 1 : paths.index(classifier)]}
    leaves = {
        path: module
        for path, module in acting.items()
        if not list(module.children()) and not isinstance(module, _SILENT)
    }
    words = [_word(path, module) for path, module in leaves.items()]
    if seen.features is None or None in words:
        return None
    arrays = {
        f"{path}.{name}": parameter.detach().numpy()
        for path, module in leaves.items()
        for name, parameter in module.named_parameters()
    }
    epsilons = [module.eps for module in leaves.values() if isinstance(module, nn.LayerNorm)]
    maps, features = seen.ended[last][1].numpy(), seen.features.numpy()
    for first, joint in product(((), ("relu",)), ((), ("mean",), ("flatten",))):
        tail = _without_idle((*first, *joint, *(word for word in words if word)))
        try:
            computed = make_tail(tail, arrays, *epsilons[:1])(maps)
        except ValueError:  # shapes that do not meet: the wrong guess
            continue
        if _agree(computed, features):
            return (*tail, f"linear:{classifier}")
    return None


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


def _without_idle(words: Words) -> Words:
    """Leave out what does nothing: a mean or a flattening of what has no positions any more."""
    acting: list[str] = []
    for word in words:
        if word not in ("mean", "flatten") or not {"mean", "flatten"} & set(acting):
            acting.append(word)
    return tuple(acting)


def _agree(computed: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    scale = float(np.abs(expected).max())
    return computed.shape == expected.shape and np.allclose(
        computed, expected, rtol=1e-4, atol=1e-5 * scale
    )
