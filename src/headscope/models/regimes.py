"""What a regime trains, and the proof that nothing else changed (docs/models.md).

The regimes are frozen, frozen-adabn (Li et al. 2016), finetune, scratch, scratch-meanvar (Raghu et
al. 2019), lp-ft (Kumar et al. 2022) and layerwise:N (Tajbakhsh et al. 2016).
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from headscope.errors import InputError
from headscope.models.stages import stage_members


@dataclass(frozen=True)
class Regime:
    """Where a network starts and what of it trains.

    start: "pretrained" weights, "random" ones, or "moments" (random ones with each tensor's
    pretrained mean and variance). trains: the "classifier" alone, the last `stages` "stages" and
    the classifier, or "all". restat: BatchNorm statistics are estimated once on the training
    slices before anything trains. probe_first: the classifier trains alone before the rest does.
    """

    name: str
    start: Literal["pretrained", "random", "moments"]
    trains: Literal["classifier", "stages", "all"]
    stages: int | None = None
    restat: bool = False
    probe_first: bool = False

    @property
    def pretrained(self) -> bool:
        """Whether the start needs pretrained weights."""
        return self.start != "random"

    @property
    def trains_backbone(self) -> bool:
        """Whether anything beside the classifier trains."""
        return self.trains != "classifier"


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("frozen", "pretrained", "classifier"),
        Regime("frozen-adabn", "pretrained", "classifier", restat=True),
        Regime("finetune", "pretrained", "all"),
        Regime("scratch", "random", "all"),
        Regime("scratch-meanvar", "moments", "all"),
        Regime("lp-ft", "pretrained", "all", probe_first=True),
    )
}
RENAMED = {"frozen-bn": "frozen-adabn", "scratch-moments": "scratch-meanvar"}  # as in the record


def find_regime(name: str) -> Regime:
    """Return a regime; 'layerwise:2' trains the last two stages; InputError where there is none."""
    if name in REGIMES:
        return REGIMES[name]
    if name in RENAMED:
        raise InputError(f"The regime {name!r} is now named {RENAMED[name]!r}.")
    count = re.fullmatch(r"layerwise:([1-9][0-9]*)", name)
    if count:
        return Regime(name, "pretrained", "stages", stages=int(count[1]))
    valid = ", ".join([*REGIMES, "layerwise:N"])
    raise InputError(
        f"Unknown regime {name!r}; valid regimes: {valid} (N last stages train, from 1)."
    )


def trained_paths(
    model: nn.Module, classifier: str, regime: Regime, name: str
) -> tuple[str, ...] | None:
    """Return the paths of the modules that train, the classifier's last; None where all do.

    `name` is the architecture's, for the error.
    """
    if regime.trains == "all":
        return None
    if regime.stages is None:
        return (classifier,)
    members = stage_members(model, classifier)
    if regime.stages > len(members):
        raise InputError(
            f"The regime {regime.name} trains more stages than {name} has: N "
            f"goes from 1 to {len(members)} ({', '.join(members)})."
        )
    if regime.stages == len(members):
        return None
    last = list(members.values())[-regime.stages :]
    return (*(path for paths in last for path in paths), classifier)


def prepare(model: nn.Module, trained: tuple[str, ...] | None) -> Callable[[], object]:
    """Let the modules at the paths `trained` train (None: all of them), and nothing else.

    Returns the function that puts the network into its training mode. What does not train stays
    in eval mode: its BatchNorm statistics do not change and its dropout is off.
    """
    modules = [model] if trained is None else [model.get_submodule(path) for path in trained]
    model.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)

    def training_mode() -> None:
        model.eval()
        for module in modules:
            module.train()

    return training_mode


def state_hash(model: nn.Module, without: tuple[str, ...]) -> str:
    """Return the SHA-256 over every parameter and buffer outside the modules at some paths.

    Names, types, shapes and bytes count; equal hashes certify that nothing of it changed. Buffers
    that a network does not store are left out: they are computed from its shape, no regime trains
    them, and some networks (Swin's attention masks) recompute them for slices of another size.
    """
    digest = hashlib.sha256()
    skipped = tuple(f"{path}." for path in without)
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(skipped):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        array = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(array.numpy())
    return digest.hexdigest()
