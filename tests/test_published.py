"""Published weights: from the caches, downloaded, damaged, hostile."""

import re
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from headscope.errors import InputError
from headscope.files import sha256
from headscope.models.network import build_network
from headscope.models.state import load_pretrained
from headscope.models.zoo import find_architecture
from tests.support.networks import TINY, Payload, tiny


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No network, and empty caches in tmp_path."""

    def refuse(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("headscope.models.pretrained.getproxies", dict)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("resnet18", ["download.pytorch.org/models/resnet18-f37072fd.pth", "hub/checkpoints/"]),
        (TINY, ["huggingface.co/timm/test_resnet.r160_in1k/resolve/main/", "HF_HOME"]),
    ],
)
def test_weights_that_cannot_be_downloaded_say_what_to_fetch(nowhere, name, parts):
    with pytest.raises(InputError) as caught:
        build_network(name, "frozen", "pretrained", classes=2, size=32, seed=0)
    for part in [f"The weights of {name}", "--weights", str(nowhere), *parts]:
        assert part in str(caught.value)


def test_weights_in_the_caches_need_no_network(nowhere, monkeypatch):
    donor = find_architecture(TINY).build().state_dict()
    repository = nowhere / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(donor, repository / "snapshots" / "abc" / "model.safetensors")
    network = tiny("frozen", "pretrained")
    assert torch.equal(network.model.conv1[0].weight, donor["conv1.0.weight"])
    assert network.source.text == "timm timm/test_resnet.r160_in1k" and network.source.sha256

    donor = find_architecture("squeezenet1_1").build().state_dict()
    in_torch_cache(nowhere, monkeypatch, donor)
    network = build_network("squeezenet1_1", "frozen", "pretrained", classes=2, size=32, seed=0)
    assert torch.equal(network.model.features[0].weight, donor["features.0.weight"])
    assert network.source.text == "torchvision squeezenet1_1 IMAGENET1K_V1"
    assert len(network.source.sha256 or "") == 64


def in_torch_cache(nowhere, monkeypatch, state):
    """Save a state dict as SqueezeNet's published file, named by its hash; return its path."""
    folder = nowhere / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, nowhere / "w.pth")
    path = folder / f"squeezenet1_1-{sha256(nowhere / 'w.pth')[:8]}.pth"
    published = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    moved = replace(published.value, url=f"https://example.org/{path.name}")
    monkeypatch.setattr(published, "_value_", moved)
    return (nowhere / "w.pth").rename(path)


@pytest.mark.parametrize("damage", ["code", "empty", "text", "truncated"])
def test_a_cached_file_is_trusted_no_more_than_any_other(nowhere, monkeypatch, damage):
    state = {"features.0.weight": Payload(str(nowhere / "ran"))} if damage == "code" else {}
    path = in_torch_cache(nowhere, monkeypatch, state | {"a": torch.zeros(4)})
    cached = nowhere / "hub" / "models--timm--test_resnet.r160_in1k" / "snapshots" / "main"
    cached.mkdir(parents=True)
    other = cached / ("pytorch_model.bin" if damage == "code" else "model.safetensors")
    whole = path.read_bytes()
    bad = {"code": whole, "empty": b"", "text": b"hello", "truncated": whole[:-5]}[damage]
    path.write_bytes(bad)
    other.write_bytes(bad)
    for name, file in (("squeezenet1_1", path), (TINY, other)):
        with pytest.raises(InputError, match=f"{re.escape(str(file))} cannot be read as"):
            build_network(name, "frozen", "pretrained", classes=2, size=32, seed=0)
    assert not (nowhere / "ran").exists()


@pytest.mark.parametrize("right", [True, False])
def test_a_download_is_held_to_the_hash_in_its_name(nowhere, monkeypatch, right):
    donor = find_architecture("squeezenet1_1").build().state_dict()
    path = in_torch_cache(nowhere, monkeypatch, donor)
    there = path.rename(nowhere / path.name)
    if not right:
        there.write_bytes(there.read_bytes() + b"!")
    published = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setattr(published, "_value_", replace(published.value, url=there.as_uri()))
    monkeypatch.setattr("headscope.models.pretrained._reachable", lambda url: True)
    arguments = ("squeezenet1_1", "frozen", "pretrained")
    if right:
        network = build_network(*arguments, classes=2, size=32, seed=0)
        assert torch.equal(network.model.features[0].weight, donor["features.0.weight"])
    else:
        with pytest.raises(InputError, match=r"could not be downloaded \(invalid hash value"):
            build_network(*arguments, classes=2, size=32, seed=0)
    assert path.exists() == right


def test_densenets_published_file_has_names_of_old(tmp_path):
    """torchvision renames them as it loads them, by the pattern that is the oracle here."""
    model = find_architecture("densenet121").build()
    state = model.state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", n): t for n, t in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    save_file(old, tmp_path / "w.safetensors")
    other = find_architecture("densenet121")
    loaded = other.build()
    load_pretrained(loaded, other, "classifier", str(tmp_path / "w.safetensors"))
    for name, tensor in loaded.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(tensor, state[name]), name
