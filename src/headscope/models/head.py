"""Find, replace and read the final linear layer, and tap the layers before it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from headscope.errors import InputError


def find_classifier(model: nn.Module, name: str) -> str:
    """Return the path of the final linear layer: the last one, whose output is the logits.

    `name` is the architecture's, for the error.

    Raises
    ------
    InputError
        The network does not end in a linear layer.
    """
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or not _ends_with(model, linear[-1]):
        raise InputError(
            f"{name} does not end in a linear layer, so headscope cannot replace its classifier; "
            f"choose an architecture with a fully connected final layer."
        )
    return linear[-1]


def replace_classifier(model: nn.Module, path: str, classes: int, seed: int) -> nn.Linear:
    """Put a new final layer of `classes` outputs at `path` and return it.

    Glorot-uniform weights and zero bias, as the paper's tool initialises them.
    """
    old = model.get_submodule(path)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes)
    generator = torch.Generator().manual_seed(seed)
    bound = math.sqrt(6 / (old.in_features + classes))
    with torch.no_grad():
        new.weight.uniform_(-bound, bound, generator=generator)
        new.bias.zero_()
    model.set_submodule(path, new)
    return new


def map_name(model: nn.Module, example: Tensor) -> str | None:
    """Return the last module to output feature maps (B, C, h, w) of more than one position."""
    last = None
    for path, output in _outputs(model, example):
        if path and output.ndim == 4 and output.shape[-1] * output.shape[-2] > 1:
            last = path
    return last


@contextmanager
def tap(model: nn.Module, outputs: list[str], inputs: list[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a table that each forward pass fills with modules' outputs and inputs, by path."""
    caught: dict[str, Tensor] = {}

    def catch(path: str, module: nn.Module, read_input: bool) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, given: tuple[Tensor, ...], returned: Tensor) -> None:
            caught[path] = given[0] if read_input else returned

        return module.register_forward_hook(hook)

    handles = [catch(path, model.get_submodule(path), False) for path in outputs]
    handles += [catch(path, model.get_submodule(path), True) for path in inputs]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _ends_with(model: nn.Module, path: str) -> bool:
    """Whether the layer at `path` is the last to act: its output is the network's."""
    following = list(model.named_modules())
    start = [name for name, _ in following].index(path) + 1
    harmless = (nn.Identity, nn.Dropout)
    return all(isinstance(module, harmless) for _, module in following[start:])


@torch.inference_mode()
def _outputs(model: nn.Module, example: Tensor) -> list[tuple[str, Tensor]]:
    """Every module's output in the order in which they end, for one pass in eval mode."""
    ended: list[tuple[str, Tensor]] = []
    training = model.training
    handles = [
        module.register_forward_hook(
            lambda _m, _i, output, path=path: (
                ended.append((path, output)) if isinstance(output, Tensor) else None
            )
        )
        for path, module in model.named_modules()
    ]
    try:
        model.eval()
        model(example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return ended
