"""A network ready to train: architecture, weights, new classifier, regime."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from headscope.errors import InputError
from headscope.manifest import reason_of
from headscope.models.classifier import (
    find_classifier,
    find_head_init,
    no_classifier,
    replace_classifier,
)
from headscope.models.readout import Pass, Words, find_tail, map_name, watch
from headscope.models.regimes import Regime, find_regime, prepare, state_hash, trained_paths
from headscope.models.stages import stage_members
from headscope.models.state import Source, draw_moments, load_pretrained
from headscope.models.zoo import Architecture, find_architecture


@dataclass(frozen=True)
class Network:
    """A model with the names of the parts that headscope reads.

    classifier is the path of the final linear layer and head that layer; stages are the paths whose
    mean activations are recorded; map_layer is the path of the last feature maps (None: there are
    none) and tail the layers from these to the logits (`headscope.tail`; None: no words for
    them); trained are the paths of what trains (None: everything); training_mode() puts each part
    into the mode in which it trains.
    """

    architecture: Architecture
    regime: Regime
    model: nn.Module
    classifier: str
    head: nn.Linear
    stages: list[str]
    map_layer: str | None
    tail: Words | None
    trained: tuple[str, ...] | None
    source: Source
    training_mode: Callable[[], object]

    def backbone_hash(self) -> str:
        """Return the SHA-256 over everything outside the classifier."""
        return state_hash(self.model, without=(self.classifier,))

    def frozen_hash(self) -> str | None:
        """Return the SHA-256 over all that the regime may not change; None where all trains.

        Of frozen-adabn it certifies the backbone with the statistics of the training slices.
        """
        return None if self.trained is None else state_hash(self.model, without=self.trained)


def build_network(
    architecture: Architecture | str,
    regime: Regime | str,
    weights: str,
    *,
    classes: int,
    size: int,
    seed: int,
    head_init: str = "glorot",
) -> Network:
    """Build a network for slices of `size` pixels; everything random in it comes from `seed`.

    Parameters
    ----------
    architecture, regime
        Each by its name, or as `find_architecture` and `find_regime` return it.
    weights
        "pretrained", "random" or a file; the regime `scratch` always starts from random weights,
        and so does every regime with "random".
    classes
        K, the number of outputs of the new classifier.
    size
        The side of the slices in pixels.
    seed
        Seed of everything random in the network.
    head_init
        How the classifier starts: glorot, pytorch, zero or normal:SD (`find_head_init`).

    Raises
    ------
    InputError
        Unknown names, weights that do not fit, or slices too small for the network.
    """
    if isinstance(architecture, str):
        architecture = find_architecture(architecture)
    if isinstance(regime, str):
        regime = find_regime(regime)
    initialise = find_head_init(head_init)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # 1. the architecture and what it starts from
        model = architecture.build()
        classifier = find_classifier(model, architecture.name)
        source = _start(model, architecture, regime, classifier, weights)
        # 2. a classifier of our classes, and the layers before it
        classifier = replace_classifier(model, classifier, classes)
    head = model.get_submodule(classifier)
    assert isinstance(head, nn.Linear)
    seen = _watch(architecture, model, classifier, size, source)
    initialise(head, seed)
    map_layer = map_name(model, seen)
    # 3. what the regime lets train
    trained = trained_paths(model, classifier, regime, architecture.name)
    return Network(
        architecture=architecture,
        regime=regime,
        model=model.to(memory_format=torch.channels_last),
        classifier=classifier,
        head=head,
        stages=[name for name in stage_members(model, classifier) if seen.output(name) is not None],
        map_layer=map_layer,
        tail=find_tail(model, classifier, map_layer, seen) if map_layer else None,
        trained=trained,
        source=source,
        training_mode=prepare(model, trained),
    )


def _start(
    model: nn.Module, architecture: Architecture, regime: Regime, classifier: str, weights: str
) -> Source:
    """Fill the new model with the weights that the regime starts from; return their source."""
    if not regime.pretrained or weights == "random":
        return Source("random")
    new_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    source = load_pretrained(model, architecture, classifier, weights)
    if regime.start == "moments":
        return draw_moments(model, source, new_buffers)
    return source


def _watch(
    architecture: Architecture, model: nn.Module, classifier: str, size: int, source: Source
) -> Pass:
    """Run the model on noise; raise InputError where it does not take such slices.

    The last pass is at least at the size that the network was made for, so that its last maps have
    several positions and pooled ones have one.
    """
    noise = torch.Generator().manual_seed(0)
    sides = sorted({size, max(size, architecture.size)})
    try:
        for side in sides:
            seen = watch(model, classifier, torch.randn(1, 3, side, side, generator=noise))
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{architecture.name} does not take slices of {size} × {size} pixels "
            f"({reason_of(error)}); try --size {architecture.size}."
        ) from None
    if not torch.isfinite(seen.logits).all():
        raise InputError(
            f"{architecture.name} with the weights {source.text} gives values that are not finite: "
            f"they are no trained network's. {source.note}".rstrip()
        )
    output = seen.output(classifier)
    if output is None or output.ndim != 2 or not torch.equal(output, seen.logits):
        raise InputError(no_classifier(architecture.name))
    return seen
