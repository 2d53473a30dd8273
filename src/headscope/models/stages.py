"""The stages of a network: the steps in which layers are compared and trained one by one.

A stage is a child that holds parameters: ResNet's layer1 to layer4, GoogLeNet's inceptions, VGG's
convolutions and hidden linear layers, the blocks or stages of timm's networks. The modules after it
that have no weights but a normalisation's (activations, dropout, normalisation) belong to it.
"""

from collections.abc import Iterator

from torch import nn

# sequences that hold a network's stages; ResNet's layer1 is one stage, though a sequence as well
_SEQUENCES = (
    *("features", "blocks", "stages", "layers", "levels", "encoder"),
    *("body", "dense_stages", "transformers", "trunk_output"),
)


def stage_names(model: nn.Module, classifier: str) -> list[str]:
    """Return the paths of the stages, in the order in which the model declares them."""
    return list(stage_members(model, classifier))


def stage_members(model: nn.Module, classifier: str) -> dict[str, list[str]]:
    """Return for each stage, by path, the paths of the modules that belong to it.

    The classifier belongs to none, nor do parameters that the model itself holds, such as
    position embeddings.
    """
    members: dict[str, list[str]] = {}
    for path, module in _parts(model, classifier):
        if _transforms(module):
            members[path] = [path]
        elif members:
            members[next(reversed(members))].append(path)
    return members


def _parts(model: nn.Module, classifier: str, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield children by path; a sequence of stages, or what holds the classifier, is split up."""
    for name, child in model.named_children():
        path = f"{prefix}{name}"
        if path == classifier:
            continue
        inside = next(child.children(), None) is not None
        if f"{classifier}.".startswith(f"{path}.") or (name in _SEQUENCES and inside):
            yield from _parts(child, classifier, f"{path}.")
        else:
            yield path, child


def _transforms(module: nn.Module) -> bool:
    """Whether a module holds weights beside those of a normalisation.

    Libraries have normalisations of their own, which share no class, only a part of their names.
    """
    return any(
        next(part.parameters(recurse=False), None) is not None
        for part in module.modules()
        if "Norm" not in type(part).__name__
    )
