"""Encoders as users bring them: names of MAE, DINO and RadImageNet, and cohorts that they saw."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from headscope.errors import InputError
from headscope.experiment.pretraining import overlaps
from headscope.models.network import build_network
from headscope.models.sources import published_data, trained_on
from headscope.models.zoo import find_architecture

VIT = "timm/test_vit"
DECODER = {
    "mask_token": torch.zeros(1, 1, 4),
    "decoder_pos_embed": torch.zeros(1, 5, 4),
    "decoder_embed.weight": torch.zeros(4, 64),
    "decoder_blocks.0.norm1.weight": torch.zeros(4),
    "decoder_pred.bias": torch.zeros(8),
}
DINO_HEAD = {"head.mlp.0.weight": torch.zeros(8, 64), "head.last_layer.weight_g": torch.ones(5, 1)}


def below(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def trunk():
    """Return the tensors of a small ViT without its classifier, as MAE and DINO publish it."""
    torch.manual_seed(3)
    model = find_architecture(VIT).build()
    return {n: t for n, t in model.state_dict().items() if not n.startswith("head.")}


def forms(trunk):
    other = {name: tensor + 1 for name, tensor in trunk.items()}
    return {
        "mae": {"model": trunk | DECODER, "epoch": 800},
        "mae, encoder": {"state_dict": below("encoder", trunk) | below("decoder", DECODER)},
        "dino": {
            "student": below("module.backbone", other) | below("module", DINO_HEAD),
            "teacher": below("backbone", trunk) | DINO_HEAD,
            "epoch": 100,
            "dino_loss": {"center": torch.zeros(1, 5)},
        },
        "dino, in one table": below("teacher.backbone", trunk) | below("student.backbone", other),
        "dinov2": {"teacher": below("backbone", trunk | {"mask_token": torch.zeros(1, 64)})},
    }


@pytest.mark.parametrize("form", forms({}))
def test_names_of_self_supervised_encoders_are_mapped_one_to_one(trunk, tmp_path, form):
    torch.save(forms(trunk)[form], tmp_path / "encoder.pth")
    network = build_network(
        VIT, "frozen", str(tmp_path / "encoder.pth"), classes=2, size=32, seed=0
    )
    state = network.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in trunk.items())
    if form.startswith("dino") and form != "dinov2":
        assert "teacher" in network.source.text and "student" in network.source.note


def test_the_numbered_children_of_radimagenet_are_mapped_one_to_one(tmp_path):
    model = find_architecture("resnet18").build()
    numbered = nn.Sequential(*list(model.children())[:-1])
    torch.save(below("backbone", numbered.state_dict()), tmp_path / "ResNet.pt")
    weights = str(tmp_path / "ResNet.pt")
    network = build_network("resnet18", "frozen", weights, classes=2, size=64, seed=0)
    state = network.model.state_dict()
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items() if n[:2] != "fc")


def test_what_does_not_fit_is_listed_by_path(trunk, tmp_path):
    strange = {"pos_embed": torch.zeros(1, 9, 64), "strange.weight": torch.zeros(2)}
    rest = {name: tensor for name, tensor in trunk.items() if name != "norm.bias"}
    torch.save({"model": rest | DECODER | strange}, tmp_path / "mae.pth")
    with pytest.raises(InputError) as caught:
        build_network(VIT, "frozen", str(tmp_path / "mae.pth"), classes=2, size=32, seed=0)
    for part in (
        "lacks norm.bias;",
        "it has besides strange.weight;",
        "it has pos_embed (1, 9, 64) instead of (1, 101, 64)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("resnet101", "ImageNet-1k"),
        ("timm/vit_small_patch14_dinov2.lvd142m", "LVD-142M (photographs)"),
        ("timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "ImageNet-1k, ImageNet-21k"),
        ("timm/test_resnet", "ImageNet-1k"),
    ],
)
def test_what_published_weights_were_trained_on_is_said(name, data):
    assert published_data(find_architecture(name)) == data


@pytest.mark.parametrize(
    ("layout", "folder", "given", "said"),
    [
        ("OASIS-2", "scans", ["ADNI", "OASIS-3"], "OASIS-3 (as the setting pretraining_cohorts "
         "says), and the data are OASIS-2 (by their layout)"),
        ("BIDS", "ADNI_bids", ["adni1"], "the data are ADNI (by the name of their folder)"),
        ("BIDS", "scans", ["UK Biobank"], ""),
        ("BIDS", "scans", [], ""),
        ("OASIS-2", "scans", ["our own cohort"], ""),
    ],
)  # fmt: skip
def test_a_cohort_that_the_encoder_saw_is_known_by_its_study(tmp_path, layout, folder, given, said):
    cohort = SimpleNamespace(layout=layout, root=tmp_path / folder, scans=pd.DataFrame())
    known = trained_on(find_architecture("resnet50"), "encoder.pth", given)
    sentences = overlaps(known, cohort)
    assert said in sentences[0] if said else not sentences


def test_a_data_set_names_itself(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "Cam-CAN, release 7"}')
    cohort = SimpleNamespace(layout="BIDS", root=tmp_path, scans=pd.DataFrame())
    known = trained_on(find_architecture("resnet50"), "encoder.pth", ["CamCAN"])
    assert "Cam-CAN, release 7 (by dataset_description.json)" in overlaps(known, cohort)[0]
