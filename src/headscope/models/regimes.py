"""What a regime may change, and the proof that nothing else did (docs/science.md, section 8)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from headscope.errors import InputError


@dataclass(frozen=True)
class Regime:
    """What trains: the backbone or only the classifier, from pretrained weights or from scratch."""

    name: str
    pretrained: bool
    trains_backbone: bool


REGIMES = {
    "frozen": Regime("frozen", pretrained=True, trains_backbone=False),
    "finetune": Regime("finetune", pretrained=True, trains_backbone=True),
    "scratch": Regime("scratch", pretrained=False, trains_backbone=True),
}


def find_regime(name: str) -> Regime:
    """Return the regime called `name`; InputError lists the valid ones."""
    if name not in REGIMES:
        raise InputError(f"Unknown regime {name!r}; valid regimes: {', '.join(REGIMES)}.")
    return REGIMES[name]


def prepare(model: nn.Module, classifier: str, regime: Regime) -> Callable[[], object]:
    """Set what may train; return the function that puts the network into its training mode.

    A frozen backbone stays in eval mode, so that its BatchNorm statistics do not move and
    dropout is off: its features are a function of the slice alone.
    """
    head = model.get_submodule(classifier)
    for parameter in model.parameters():
        parameter.requires_grad_(regime.trains_backbone)
    for parameter in head.parameters():
        parameter.requires_grad_(True)

    def training_mode() -> None:
        model.train(regime.trains_backbone)
        head.train()

    return training_mode


def backbone_hash(model: nn.Module, classifier: str) -> str:
    """Return the SHA-256 over every parameter and buffer outside the classifier.

    Names, types, shapes and bytes all count; equal hashes certify a frozen backbone.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(f"{classifier}."):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(array.numpy())
    return digest.hexdigest()
