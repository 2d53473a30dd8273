"""A network ready to train: architecture, weights, new classifier, regime."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from headscope.errors import InputError
from headscope.models.head import find_classifier, map_name, replace_classifier, stage_names
from headscope.models.regimes import Regime, backbone_hash, find_regime, prepare
from headscope.models.weights import Source, load_pretrained
from headscope.models.zoo import Architecture, find_architecture


@dataclass(frozen=True)
class Network:
    """A model with the names of the parts that headscope reads.

    classifier is the path of the final linear layer and head that layer; stages are the paths
    whose mean activations are kept, map_layer that of the last feature maps (None: there are
    none); training_mode() puts each part into the mode in which it trains.
    """

    architecture: Architecture
    regime: Regime
    model: nn.Module
    classifier: str
    head: nn.Linear
    stages: list[str]
    map_layer: str | None
    source: Source
    training_mode: Callable[[], object]

    def backbone_hash(self) -> str:
        """Return the SHA-256 over everything outside the classifier."""
        return backbone_hash(self.model, self.classifier)


def build_network(
    architecture: str, regime: str, weights: str, *, classes: int, size: int, seed: int
) -> Network:
    """Build a network for slices of `size` pixels; everything random in it comes from `seed`.

    weights: "pretrained", "random" or a file; the regime `scratch` is random whatever it says.

    Raises
    ------
    InputError
        Unknown names, weights that do not fit, or slices too small for the network.
    """
    entry, chosen = find_architecture(architecture), find_regime(regime)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = entry.build()
        classifier = find_classifier(model, architecture)
        source = Source("random")
        if chosen.pretrained and weights != "random":
            source = load_pretrained(model, entry, classifier, weights)
        head = replace_classifier(model, classifier, classes, seed)
    _check_size(architecture, model, size)
    # at the size it was made for, so that the last maps have positions and pooled ones have not
    map_layer = map_name(model, torch.zeros(1, 3, max(size, entry.size), max(size, entry.size)))
    training_mode = prepare(model, classifier, chosen)
    model = model.to(memory_format=torch.channels_last)
    stages = stage_names(model, classifier)
    return Network(entry, chosen, model, classifier, head, stages, map_layer, source, training_mode)


def _check_size(name: str, model: nn.Module, size: int) -> None:
    """Raise InputError where the network cannot take slices of `size` pixels."""
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{name} does not take slices of {size} × {size} pixels ({reason}); try --size 224."
        ) from None
