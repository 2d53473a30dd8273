"""Find, replace and initialise the final linear layer, and tap the layers before it."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from headscope.errors import InputError

HEAD_INITS = ("glorot", "pytorch", "zero", "normal:SD")

# modules that may follow the classifier before the logits; after a 1×1 convolution, _POOLING too
_HARMLESS = (nn.Identity, nn.Dropout)
_POOLING = (nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten)


def find_classifier(model: nn.Module, name: str) -> str:
    """Return the path of the final layer: the last linear one, or a 1×1 convolution.

    `name` is the architecture's, for the error. Whether the layer's output is the logits is
    checked when the network runs (`headscope.models.readout`).
    """
    modules = list(model.named_modules())
    layers = [path for path, module in modules if _is_linear(module)]
    if layers:
        last = model.get_submodule(layers[-1])
        after = modules[[path for path, _ in modules].index(layers[-1]) + 1 :]
        harmless = _HARMLESS + _POOLING if isinstance(last, nn.Conv2d) else (*_HARMLESS, nn.Flatten)
        # a second layer for the same classes, whose logits are averaged in, as in distilled DeiT
        twins = [path for path in layers if _outputs(model.get_submodule(path)) == _outputs(last)]
        if len(twins) == 1 and all(isinstance(module, harmless) for _, module in after):
            return layers[-1]
    raise InputError(no_classifier(name))


def no_classifier(name: str) -> str:
    """Say that an architecture's classifier cannot be replaced."""
    return (
        f"{name} ends neither in one linear layer nor in a 1×1 convolution, so headscope cannot "
        f"replace its classifier; choose an architecture with a fully connected final layer."
    )


def replace_classifier(model: nn.Module, path: str, classes: int) -> str:
    """Replace the layer at `path` by a new linear layer of `classes` outputs; return its path.

    A 1×1 convolution becomes the average over positions and a linear layer, so that
    logits = features · Wᵀ + b holds. Average and 1×1 convolution commute; SqueezeNet's ReLU between
    them, which would cut logits off at 0, is removed.
    """
    old = model.get_submodule(path)
    if isinstance(old, nn.Conv2d):
        new = nn.Linear(old.in_channels, classes)
        parts = (nn.AdaptiveAvgPool2d(1), nn.Flatten(1), new, nn.Unflatten(1, (classes, 1, 1)))
        modules = [name for name, _ in model.named_modules()]
        for name in modules[modules.index(path) + 1 :]:
            if isinstance(model.get_submodule(name), nn.ReLU):
                model.set_submodule(name, nn.Identity())
        model.set_submodule(path, nn.Sequential(*parts))
        path = f"{path}.2"
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, classes)
        model.set_submodule(path, new)
    return path


def find_head_init(name: str) -> Callable[[nn.Linear, int], None]:
    """Return the function that initialises a classifier from a seed, by the name of a method.

    glorot: uniform with the variance 2 / (D + K) of Glorot and Bengio 2010, zero bias, as in the
    paper's tool; pytorch: the default of nn.Linear, uniform within ±1 / √D, bias too; zero: zeros;
    normal:SD: normal with mean 0 and that standard deviation, zero bias.
    """
    spread = re.fullmatch(r"normal:([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)", name)
    if name not in ("glorot", "pytorch", "zero") and not (spread and float(spread[1]) > 0):
        raise InputError(
            f"Unknown initialisation of the classifier {name!r}; valid: {', '.join(HEAD_INITS)} "
            f"(SD a standard deviation, as in normal:0.01)."
        )

    @torch.no_grad()
    def initialise(head: nn.Linear, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        width = head.in_features
        bound = math.sqrt(6 / (width + head.out_features)) if name == "glorot" else width**-0.5
        nn.init.zeros_(head.bias)
        if name == "zero":
            nn.init.zeros_(head.weight)
        elif spread:
            head.weight.normal_(0, float(spread[1]), generator=generator)
        else:
            head.weight.uniform_(-bound, bound, generator=generator)
        if name == "pytorch":
            head.bias.uniform_(-bound, bound, generator=generator)

    return initialise


@contextmanager
def tap(model: nn.Module, outputs: list[str], inputs: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that each forward pass fills with modules' outputs and inputs, by path."""
    caught: dict[str, Tensor] = {}

    def catch(path: str, arguments: tuple[Tensor, ...], output: Any) -> None:
        caught[path] = arguments[0] if path in inputs else output

    with hooks(model, [*outputs, *inputs], catch):
        yield caught


@contextmanager
def hooks(
    model: nn.Module, paths: Iterable[str], catch: Callable[[str, tuple[Tensor, ...], Any], None]
) -> Iterator[None]:
    """Call `catch(path, arguments, output)` whenever the module at one of some paths has run."""

    def add(path: str) -> torch.utils.hooks.RemovableHandle:
        module = model.get_submodule(path)
        return module.register_forward_hook(
            lambda _, arguments, output: catch(path, arguments, output)
        )

    handles = [add(path) for path in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _outputs(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer.weight.shape[0]
