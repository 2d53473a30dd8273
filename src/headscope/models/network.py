"""A network ready to train: architecture, weights, new classifier, regime."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from headscope.errors import InputError
from headscope.models.head import find_classifier, map_name, replace_classifier
from headscope.models.regimes import Regime, find_regime, prepare, state_hash, trained_paths
from headscope.models.stages import stage_names
from headscope.models.weights import Source, draw_moments, load_pretrained
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
    tail: tuple[str, ...] | None
    trained: tuple[str, ...] | None
    source: Source
    training_mode: Callable[[], object]

    def backbone_hash(self) -> str:
        """Return the SHA-256 over everything outside the classifier."""
        return state_hash(self.model, without=(self.classifier,))

    def frozen_hash(self) -> str | None:
        """Return the SHA-256 over all that the regime may not change; None where all trains.

        Of frozen-bn it certifies what stands after BatchNorm's statistics were estimated anew.
        """
        return None if self.trained is None else state_hash(self.model, without=self.trained)


def build_network(
    architecture: str,
    regime: str,
    weights: str,
    *,
    classes: int,
    size: int,
    seed: int,
    head_init: str = "glorot",
) -> Network:
    """Build a network for slices of `size` pixels; everything random in it comes from `seed`.

    weights: "pretrained", "random" or a file; the regime `scratch` is random whatever it says,
    and with "random" so is every other.

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
            new_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
            source = load_pretrained(model, entry, classifier, weights)
            if chosen.start == "moments":
                source = draw_moments(model, source, new_buffers)
        head = replace_classifier(model, classifier, classes, seed)
    _check_size(architecture, model, size)
    # at the size it was made for, so that the last maps have positions and pooled ones have not
    map_layer = map_name(model, torch.zeros(1, 3, max(size, entry.size), max(size, entry.size)))
    trained = trained_paths(model, classifier, chosen)
    model = model.to(memory_format=torch.channels_last)
    return Network(
        entry,
        chosen,
        model,
        classifier,
        head,
        stage_names(model, classifier),
        map_layer,
        None,
        trained,
        source,
        prepare(model, trained),
    )


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
