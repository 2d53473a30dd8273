"""Checkpoints as projects publish them: which network is read, which layer, and what is refused."""

import argparse
import json
import os
import pickle
import re
import time
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18, squeezenet1_0, squeezenet1_1
from typer.testing import CliRunner

from headscope.analysis import head_analysis
from headscope.analysis.final_layer import rows as rows_module
from headscope.cli import app
from headscope.errors import InputError
from headscope.models.checkpoint import read_arrays, read_head
from headscope.models.network import build_network
from headscope.models.state import read_state
from headscope.models.zoo import find_architecture
from headscope.supplement.head import head_facts
from tests.support.checkpoints import network, sound_checkpoints
from tests.support.mutation import mutated
from tests.support.networks import TINY, tiny


def shifted(state, by=1.0):
    return {name: tensor + by for name, tensor in state.items()}


def below(prefix, state):
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


RAW, EMA = network(), shifted(network())
SEVERAL = {
    "timm": ({"state_dict": RAW, "state_dict_ema": EMA, "epoch": 1}, EMA, "state_dict"),
    "torchvision": ({"model": below("module", RAW), "model_ema": below("module", EMA)}, EMA,
                    "model.module"),
    "dino": ({"student": below("module.backbone", RAW),
              "teacher": below("backbone", EMA)}, EMA, "student.module.backbone"),
    "mean teacher": ({"state_dict": below("student", RAW) | below("teacher", EMA)}, EMA,
                     "state_dict.student"),
    "lightning": ({"state_dict": below("net", EMA) | below("model", RAW)}, RAW, "state_dict.net"),
    "moco": ({"state_dict": below("module.encoder_k", EMA) | below("module.encoder_q", RAW)}, RAW,
             "state_dict.module.encoder_k"),
    "folds": ({"fold0": RAW, "fold1": EMA}, RAW, "fold1"),
    "list": ({"models": [RAW, EMA]}, RAW, "models.1"),
    "beside itself": (RAW | below("model", EMA), RAW, "model"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_networks_one_is_taken_by_one_rule_and_said(tmp_path, case):
    content, expected, other = SEVERAL[case]
    torch.save(content, tmp_path / "n.pth")
    head, state = read_head(tmp_path / "n.pth"), read_state(tmp_path / "n.pth")
    np.testing.assert_array_equal(head.weight, expected["fc.weight"].double().numpy())
    taken = [tensor for name, tensor in state.items() if name.endswith("fc.weight")]
    assert len(taken) == 1 and torch.equal(taken[0], expected["fc.weight"])
    assert f"not {other}; n.pth:{other} takes that one" in head.note
    chosen = read_head(f"{tmp_path / 'n.pth'}:{other}")
    left = EMA if expected is RAW else RAW
    np.testing.assert_array_equal(chosen.weight, left["fc.weight"].double().numpy())
    assert (chosen.network, chosen.note) == (other, "")


NAMELESS = {
    "torch_ema": {"state_dict": RAW, "ema": {"shadow_params": list(EMA.values())}},
    "latent diffusion": {
        "state_dict": below("model", RAW)
        | {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in EMA.items()}
    },
}


@pytest.mark.parametrize("case", NAMELESS)
def test_averaged_weights_without_names_of_layers_are_said_not_to_be_read(tmp_path, case):
    torch.save(NAMELESS[case], tmp_path / "n.pth")
    head = read_head(tmp_path / "n.pth")
    np.testing.assert_array_equal(head.weight, RAW["fc.weight"].double().numpy())
    assert re.search(r"averaged weights besides, \S*ema\S*, which", head.note)


def test_the_averages_of_an_optimiser_are_no_network(tmp_path):
    torch.save({"model": RAW, "optimizer": {"exp_avg": EMA}}, tmp_path / "n.pth")
    head = read_head(tmp_path / "n.pth")
    np.testing.assert_array_equal(head.weight, RAW["fc.weight"].double().numpy())
    assert head.note == ""


def test_the_same_tensors_in_safetensors_give_the_same_network(tmp_path):
    save_file(below("net", EMA) | below("model", RAW), tmp_path / "n.safetensors")
    head = read_head(tmp_path / "n.safetensors")
    np.testing.assert_array_equal(head.weight, RAW["fc.weight"].double().numpy())
    assert "model was taken, not net" in head.note


def test_a_network_that_is_not_there_is_met_with_those_that_are(tmp_path):
    torch.save({"state_dict": RAW, "state_dict_ema": EMA}, tmp_path / "n.pth")
    with pytest.raises(InputError, match=r"no network 'ema'; it has state_dict, state_dict_ema"):
        read_head(f"{tmp_path / 'n.pth'}:ema")
    torch.save(RAW, tmp_path / "one.pth")
    with pytest.raises(InputError, match="it holds one network alone"):
        read_head(f"{tmp_path / 'one.pth'}:ema")


def test_head_and_weights_take_the_same_network_and_both_say_so(tmp_path):
    state = find_architecture(TINY).build().state_dict()
    averaged = {name: 2 * tensor for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "n.pth")
    built = tiny("frozen", str(tmp_path / "n.pth"))
    assert torch.equal(built.model.state_dict()["conv1.0.weight"], averaged["conv1.0.weight"])
    assert built.source.text == "n.pth:state_dict_ema"
    assert "state_dict_ema (averaged weights) was taken, not state_dict;" in built.source.note
    raw = tiny("frozen", f"{tmp_path / 'n.pth'}:state_dict")
    assert torch.equal(raw.model.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert (raw.source.text, raw.source.note) == ("n.pth:state_dict", "")
    shown = CliRunner().invoke(app, ["head", str(tmp_path / "n.pth"), "--json"]).stdout
    facts = json.loads(shown)
    assert facts["network"] == "state_dict_ema" and facts["note"] == built.source.note


def test_weights_under_which_a_network_overflows_are_named(tmp_path):
    state = find_architecture(TINY).build().state_dict()
    loud = {n: 1e30 * t if t.is_floating_point() else t for n, t in state.items()}
    torch.save({"model": state, "model_ema": loud}, tmp_path / "n.pth")
    with pytest.raises(
        InputError, match=r"weights n\.pth:model_ema gives .* not finite.* not model;"
    ):
        tiny("frozen", str(tmp_path / "n.pth"))


def test_the_state_of_an_optimiser_is_no_network(tmp_path):
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    content = {"model": below("fc", model.state_dict()), "optimizer": optimizer.state_dict(),
               "optimizers": [optimizer.state_dict()]}  # fmt: skip
    torch.save(content, tmp_path / "n.pth")
    assert set(read_state(tmp_path / "n.pth")) == {"model.fc.weight", "model.fc.bias"}


@pytest.mark.parametrize(
    "prefix",
    ["module", "network", "encoder", "backbone", "model", "_orig_mod", "model.net._orig_mod",
     "encoder_q", "base_model", "anything.at.all"],
)  # fmt: skip
def test_weights_are_found_below_any_prefix(tmp_path, prefix):
    state = find_architecture(TINY).build().state_dict()
    torch.save({"network": below(prefix, state) | {"queue": torch.ones(2)}}, tmp_path / "n.pth")
    loaded = tiny("frozen", str(tmp_path / "n.pth")).model.state_dict()
    assert torch.equal(loaded["conv1.0.weight"], state["conv1.0.weight"])


def test_the_numbered_modules_of_a_network_without_its_classifier_are_read(tmp_path):
    model = resnet18()
    trunk = nn.Sequential(*list(model.children())[:-1])  # RadImageNet's form
    torch.save(below("backbone", trunk.state_dict()), tmp_path / "n.pt")
    built = build_network("resnet18", "frozen", str(tmp_path / "n.pt"), classes=2, size=32, seed=0)
    assert torch.equal(built.model.layer4[1].conv2.weight, model.layer4[1].conv2.weight)
    with pytest.raises(InputError, match="ends in no classifier"):
        read_head(tmp_path / "n.pt")


SETTINGS = {
    "numpy's scalar": np.float64(70.2),
    "numpy's array": np.arange(3.0),
    "a generator of numpy": np.random.RandomState(0),
    "a namespace": argparse.Namespace(lr=0.1, path=Path("a"), nested=argparse.Namespace(x={1})),
    "a path": Path("data"),
    "tables": [OrderedDict(a=1), defaultdict(list, a=[2])],
    "a device": torch.device("cpu"),
    "a size and a type": [torch.Size([2]), torch.float16, slice(1), complex(1, 2), {1, 2}],
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", SETTINGS)
def test_plain_settings_beside_the_weights_are_passed_over(tmp_path, case, old):
    torch.save({"state_dict": RAW, "x": SETTINGS[case]}, tmp_path / "n.pth",
               _use_new_zipfile_serialization=not old)  # fmt: skip
    head = read_head(tmp_path / "n.pth")
    np.testing.assert_array_equal(head.weight, RAW["fc.weight"].double().numpy())


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call", [(os.system, "touch ran"), (eval, "1"), (exec, "x = 1"), (getattr, str, "upper"),
             (Path.touch, Path("ran")), (pickle.loads, b""), (np.load, "ran")]
)  # fmt: skip
def test_what_would_run_is_named_and_does_not(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": RAW, "args": argparse.Namespace(x=Runs(*call))}, "n.pth")
    with pytest.raises(InputError, match=r"beside tensors \(.*\), and reading them would run code"):
        read_head("n.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["n.pth"]


def test_a_file_may_have_any_suffix(tmp_path):
    save_file(RAW, tmp_path / "n.bin")
    torch.save(RAW, tmp_path / "n.safetensors")
    torch.save(RAW, tmp_path / "n")
    torch.save(RAW, tmp_path / "n.model", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "n.npz", weight=RAW["fc.weight"].numpy())
    (tmp_path / "n.npz").rename(tmp_path / "n.pth")
    for path in tmp_path.iterdir():
        assert read_head(path).weight.shape == (3, 8), path


def without(model, *layers):
    return {n: t for n, t in model.state_dict().items() if not n.startswith(layers)}


def transformer(width=12):
    """A transformer without its head: linear layers alone, of which each is a hidden one."""
    layer = nn.TransformerEncoderLayer(width, 2, 48, batch_first=True)
    state = below("blocks", nn.TransformerEncoder(layer, 2).state_dict())
    return state | {"norm.weight": torch.ones(width)}


TRUNKS = {
    "resnet18": lambda: without(resnet18(), "fc."),
    "squeezenet1_1": lambda: without(squeezenet1_1(), "classifier."),
    "squeezenet1_0": lambda: without(squeezenet1_0(), "classifier."),
    "mobilenet": lambda: without(mobilenet_v3_small(), "classifier."),
    "transformer": transformer,
    "vgg, cut after its hidden layers": lambda: {
        "features.0.weight": torch.ones(8, 3, 3, 3),
        "classifier.0.weight": torch.ones(16, 32),
        "classifier.3.weight": torch.ones(16, 16),
    },
    "auxiliary heads alone": lambda: {
        "conv.weight": torch.ones(8, 3, 3, 3),
        "AuxLogits.fc.weight": torch.ones(5, 8),
    },
    "dino": lambda: {
        "head.mlp.0.weight": torch.ones(16, 12),
        "head.mlp.2.weight": torch.ones(6, 16),
        "head.last_layer.weight_v": torch.ones(20, 6),
    },
}


@pytest.mark.parametrize("case", TRUNKS)
def test_a_network_without_a_classifier_is_not_analysed(tmp_path, case):
    torch.save(TRUNKS[case](), tmp_path / "trunk.pth")
    with pytest.raises(InputError, match=r"ends in no classifier.* --layer names a layer: "):
        read_head(tmp_path / "trunk.pth")


def test_a_layer_of_a_trunk_may_be_named(tmp_path):
    torch.save(TRUNKS["resnet18"](), tmp_path / "trunk.pth")
    head = read_head(tmp_path / "trunk.pth", "layer4.0.downsample.0")
    assert head.weight.shape == (512, 256)


@pytest.mark.parametrize("name", ["conv10", "readout", "top"])
def test_a_last_convolution_of_another_name_is_a_head_and_says_so(tmp_path, name):
    model = nn.Sequential()
    for title, layer in (("conv1", nn.Conv2d(3, 16, 3)), ("squeeze", nn.Conv2d(16, 8, 1)),
                         ("expand", nn.Conv2d(8, 32, 3)), (name, nn.Conv2d(32, 4, 1))):  # fmt: skip
        model.add_module(title, layer)
    torch.save(model.state_dict(), tmp_path / "n.pth")
    head = read_head(tmp_path / "n.pth")
    assert (head.layer, head.weight.shape) == (name, (4, 32)) and "was taken as" in head.note


def odd(fc):
    return {**RAW, "fc.weight": fc}


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3, 8), 0.1, 0, torch.qint8)


def itself():
    content = []
    content.append(content)
    return {"state_dict": {"a": 1}, "x": content}


def sparse_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are in beta
        return torch.eye(3, 8).to_sparse_csr()


ODD = {
    "quantised": (lambda: odd(quantised()), "fc.weight is quantised"),
    "sparse": (lambda: odd(torch.eye(3, 8).to_sparse()), "fc.weight is sparse"),
    "sparse rows": (lambda: odd(sparse_rows()), "fc.weight is sparse"),
    "meta": (lambda: odd(torch.ones(3, 8, device="meta")), r"is empty \(on the device 'meta'\)"),
    "complex": (lambda: odd(torch.ones(3, 8, dtype=torch.complex64)), "fc.weight is complex"),
    "8 GB": (lambda: odd(torch.ones(1).expand(1000, 2_000_000)), "2,000,000,000 numbers are cl"),
    "NaN": (lambda: odd(torch.full((3, 8), torch.nan)), "not finite"),
    "float8": (lambda: odd(torch.ones(3, 8).to(torch.float8_e5m2)), "of the type float8_e5m2"),
    "itself": (itself, "holds no state dict"),
    "a model": (lambda: nn.Linear(2, 3), r"would run code. Save model.state_dict\(\) instead"),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", ODD)
def test_odd_tensors_are_named(tmp_path, case, old):
    make, reason = ODD[case]
    torch.save(make(), tmp_path / "n.pth", _use_new_zipfile_serialization=not old)
    for read in (read_head, read_state):
        with pytest.raises(InputError, match=rf"n\.pth.*{reason}"):
            read(tmp_path / "n.pth")


def test_only_what_is_needed_must_be_sound(tmp_path):
    torch.save({**RAW, "conv.weight": torch.ones(3, device="meta")}, tmp_path / "n.pth")
    assert read_head(tmp_path / "n.pth").weight.shape == (3, 8)


OTHER_FILES = {
    "a web page": (b"<!DOCTYPE html><html>404", "a web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1" + bytes(99), "ONNX"),
    "numpy": (b"\x93NUMPY" + bytes(99), r"\.npy"),
    "packed": (b"\x1f\x8b\x08" + bytes(99), "compressed"),
    "an index": (b'{"weight_map": {}}', "index"),
    "nothing": (b"", "empty"),
    "zeros": (bytes(5000), "another kind of file"),
    "MATLAB": (b"MATLAB 5.0 MAT-file" + bytes(99), "MATLAB"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5"])
@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_kinds_of_file_are_named(tmp_path, case, suffix):
    content, reason = OTHER_FILES[case]
    (tmp_path / f"n{suffix}").write_bytes(content)
    general = "safetensors" if case in ("nothing", "zeros") else reason
    for read in (read_head, read_state):
        with pytest.raises(InputError, match=rf"n{re.escape(suffix)}.*{general}"):
            read(tmp_path / f"n{suffix}")


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    reasons = {
        "pipe.pth": "a pipe",
        "loop.pth": "symbolic",
        "x" * 300: "name too long",
        ".": "is no run directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason):
            read_head(tmp_path / name)
    for name in ("pipe.pth", "loop.pth", "a\0b", "."):
        with pytest.raises(InputError):
            tiny("frozen", str(tmp_path / name))


def test_torchscript_and_other_archives_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"m/{name}", b"\x80\x02N.")
    with zipfile.ZipFile(tmp_path / "keras.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(InputError, match="is a TorchScript program"):
        read_head(tmp_path / "script.pt")
    with pytest.raises(InputError, match="a zip archive, and none of torch's"):
        read_head(tmp_path / "keras.keras")


def test_archives_that_expand_without_measure_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("headscope.models.checkpoint.LARGE", 10_000)
    monkeypatch.setattr("headscope.models.torchfile.LARGE", 10_000)
    np.savez_compressed(tmp_path / "n.npz", weight=np.zeros((2, 100_000)))
    with pytest.raises(InputError, match=r"would expand to 1,600,\d+ bytes"):
        read_head(tmp_path / "n.npz")
    torch.save(odd(torch.zeros(3, 100_000)), tmp_path / "n.pth")
    whole = zipfile.ZipFile(tmp_path / "n.pth")
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    with pytest.raises(InputError, match=r"would expand to 1,200,000 bytes"):
        read_head(tmp_path / "packed.pth")


ARRAYS = {
    "text": ({"weight": np.array([["a", "b"], ["c", "d"]])}, "holds str.* no real numbers"),
    "complex": ({"weight": np.ones((2, 3), complex)}, "no real numbers"),
    "objects": ({"weight": np.array([{}, None])}, "no readable .npz"),
    "a row": ({"weight": np.ones(3)}, r"weight has shape \(3,\)"),
    "one class": ({"weight": np.ones((1, 3))}, "K of 2 or more"),
    "NaN": ({"weight": np.full((2, 3), np.nan)}, "not finite"),
    "huge": ({"weight": np.full((2, 3), 1e200)}, r"is 1e\+200, which no float32 holds"),
    "another bias": ({"weight": np.ones((2, 3)), "bias": np.ones(3)}, "bias has shape"),
    "another start": ({"weight": np.ones((2, 3)), "initial_weight": np.ones(3)}, "initial_weight"),
    "other names": ({"weight": np.ones((2, 3)), "class_names": np.array(["a"])}, "class_names has"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_head_are_named(tmp_path, case):
    arrays, reason = ARRAYS[case]
    np.savez(tmp_path / "head.npz", **arrays)
    with pytest.raises(InputError, match=rf"head\.npz.*{reason}"):
        read_head(tmp_path / "head.npz")


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth", "old.pt"])
def test_damaged_checkpoints_are_read_as_written_or_refused(tmp_path, suffix):
    """bench/damage.py gives thousands to the commands."""
    whole, rng = sound_checkpoints(tmp_path)[suffix], np.random.default_rng(13)
    expected = read_head(tmp_path / f"whole.{suffix}").weight
    outcomes = Counter()
    for number in range(150):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(mutated(whole, rng))
        for read in (read_head, read_state):
            try:
                result = read(path)
            except InputError as error:
                outcomes["refused"] += 1
                assert path.name in str(error) and "\n" not in str(error) and len(str(error)) < 1000
                continue
            outcomes["read"] += 1
            if read is read_head and suffix in ("npz", "pth"):  # which have checksums
                np.testing.assert_array_equal(result.weight, expected)
    assert outcomes.total() == 300 and outcomes["refused"] > 100


def test_a_packed_array_of_features_that_is_damaged_is_named(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.ones((30, 40)))
    whole = bytearray((tmp_path / "f.npz").read_bytes())
    whole[2000] ^= 1
    (tmp_path / "f.npz").write_bytes(whole)
    with pytest.raises(InputError, match=r"f\.npz is no readable .npz of plain arrays"):
        read_arrays(tmp_path / "f.npz", ("features",))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_time_follows_the_number_of_tensors(tmp_path, suffix):
    """Twenty thousand: what grew with their square took 4 s, and now takes a third of one."""
    names = below("module", {f"layer{k}.scale": torch.zeros(1) for k in range(20_000)})
    path, state = tmp_path / f"n.{suffix}", names | below("module", RAW)
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    start = time.process_time()
    assert read_head(path).layer == "fc"
    assert time.process_time() - start < 4


def test_many_classes_are_analysed_in_blocks_and_say_of_which(monkeypatch):
    weight = np.random.default_rng(0).normal(size=(90, 12))
    initial = np.random.default_rng(1).normal(size=(90, 12))
    whole = head_analysis(weight, initial=initial)
    monkeypatch.setattr(rows_module, "MOST_ROWS", 30)
    monkeypatch.setattr("headscope.analysis.final_layer.layer.MOST_SAMPLED", 30)
    monkeypatch.setattr("headscope.analysis.final_layer.null.BLOCK", 7)
    monkeypatch.setattr(rows_module, "BLOCK", 7)
    some = head_analysis(weight, initial=initial)
    assert some.geometry.cosines.shape == (30, 30)
    np.testing.assert_allclose(some.geometry.cosines, whole.geometry.cosines[::3, ::3])
    for name in ("norm_variation", "simplex_distance"):
        assert getattr(some.geometry, name) == pytest.approx(getattr(whole.geometry, name))
    assert some.geometry.cosine_deviation == pytest.approx(whole.geometry.cosine_deviation, rel=0.2)
    assert some.rows[3] == whole.rows[3] and np.isnan(some.rows[4].ks)
    assert some.rows[4].kurtosis == pytest.approx(whole.rows[4].kurtosis)
    assert some.displacement_ratio == pytest.approx(whole.displacement_ratio)
    assert some.pairs[0].r_null == pytest.approx(whole.pairs[0].r_null)
    assert "Of 90 classes, 30 at even distances have their angles taken and are" in repr(some)
    assert len(head_facts(some)["rows"]) == 90
