import json

import pytest
from typer.testing import CliRunner

import headscope as hs
from headscope.cli import app
from headscope.errors import InputError
from headscope.models.listing import list_models
from headscope.models.network import build_network
from headscope.models.zoo import TABLE, find_architecture


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """Empty caches, and no way to a network."""

    def refuse(*args, **options):
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("name", TABLE)
def test_the_table_says_of_each_network_what_it_is(name):
    entry = find_architecture(name)
    model = entry.build()
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    layer = model.get_submodule(entry.classifier)
    assert layer.in_features == entry.features and layer.out_features == 1000


def test_what_the_libraries_say_holds_for_others_too():
    network = build_network("timm/test_convnext", "scratch", "random", classes=2, size=32, seed=0)
    assert network.architecture.classifier == network.classifier == "head.fc"
    assert network.architecture.licence == "apache-2.0"
    entry = find_architecture("squeezenet1_1")
    assert sum(p.numel() for p in entry.build().parameters()) == entry.parameters


def test_a_listing_says_what_is_here_and_how_to_get_the_rest(nothing_here):
    found = {each.architecture.name: each for each in hs.list_models()}
    assert list(found) == list(TABLE)
    lite0 = found["tf_efficientnet_lite0"]
    assert lite0.file is not None and lite0.file.is_file() and not lite0.get
    assert "--weights" in found["resnet50_v1"].get
    resnet = found["resnet101"]
    assert resnet.file is None
    assert resnet.get.startswith("fetch https://download.pytorch.org/models/resnet101-")
    place = resnet.get.rsplit(" ", 1)[1]
    assert place.startswith(str(nothing_here))
    # what it tells the user to do makes it find the file
    file = nothing_here / "hub" / "checkpoints" / place.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    [again] = [each for each in list_models("resnet101") if each.architecture.name == "resnet101"]
    assert again.file == file


def test_a_timm_file_put_where_the_listing_says_is_found(nothing_here):
    def listed():
        [found] = list_models("timm/test_resnet")
        return found

    place = nothing_here / listed().get.split(" save it as ")[1]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert listed().file == place


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("googlenet", ["googlenet"]),
        ("timm/test_vit?", ["timm/test_vit2", "timm/test_vit3", "timm/test_vit4"]),
        ("mnasnet", ["mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"]),
    ],
)
def test_patterns_find_names(pattern, names):
    assert [each.architecture.name for each in list_models(pattern)][: len(names)] == names


def test_every_name_there_is_can_be_listed():
    found = list_models("*")
    assert len(found) > 1000
    assert all(each.architecture.licence for each in found)


def test_a_pattern_without_a_match_is_one_sentence():
    with pytest.raises(InputError, match="No architecture matches 'resnet-101'"):
        list_models("resnet-101")


def test_the_command_prints_a_table_or_json():
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0
    for part in ("tf_efficientnet_lite0", "on this machine", "4.7 M", "Apache-2.0", "fetch https"):
        assert part in shown.stdout
    parsed = json.loads(CliRunner().invoke(app, ["models", "alexnet", "--json"]).stdout)
    assert parsed[0]["features"] == 4096 and parsed[0]["file"] is None
