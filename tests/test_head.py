"""`headscope head`: a stranger's file of weights in, the analysis of its final layer out."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import squeezenet1_1
from typer.testing import CliRunner

from headscope.analysis import analyse_head
from headscope.analysis.representation.collapse import analyse_collapse
from headscope.cli import app
from headscope.errors import InputError
from headscope.files import read_table
from headscope.models.checkpoint import read_head
from tests.support.synthetic import write_synthetic_run


def tensors(seed=0, classes=3, width=32):
    """A network's state dict in miniature: layers of each kind that could be taken for the last."""
    torch.manual_seed(seed)
    return {
        "aux.fc.weight": torch.randn(classes, width),
        "aux.fc.bias": torch.randn(classes),
        "fc.weight": torch.randn(classes, width),
        "fc.bias": torch.randn(classes),
        "layer4.conv.weight": torch.randn(64, 16, 1, 1),
        "layer4.conv.bias": torch.randn(64),
        "layer4.deep.weight": torch.randn(8, 16, 3, 3),
        "layer4.steps": torch.tensor(7),
    }


def invoke(*arguments):
    result = CliRunner().invoke(app, ["head", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exception is None, result.exception
    return result.stdout


def same(head, state, layer="fc"):
    weight = state[f"{layer}.weight"].double().flatten(1)
    assert head.layer == layer
    np.testing.assert_array_equal(head.weight, weight.numpy())
    np.testing.assert_array_equal(head.bias, state[f"{layer}.bias"].double().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_every_float_type_is_read_to_the_bit(tmp_path, dtype, suffix):
    state = {name: each.to(dtype) for name, each in tensors().items()}
    path = tmp_path / f"network{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    same(read_head(path), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": each for name, each in state.items()},
        lambda state: {"state_dict": {f"model.{name}": each for name, each in state.items()},
                       "epoch": 3, "hyper_parameters": {"lr": 0.1}, "optimizer_states": []},
        lambda state: {"state_dict": tensors(9), "state_dict_ema": state, "arch": "resnet"},
        lambda state: {"model": {f"_orig_mod.module.{n}": t for n, t in state.items()}},
        lambda state: {f"net.backbone.{name}": each for name, each in state.items()},
        lambda state: {"model_state_dict": state, "loss": 0.5},
        lambda state: {"weights": state},
    ],
    ids=["plain", "parallel", "lightning", "timm", "compiled", "nested", "tutorial", "weights"],
)  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_what_training_wraps_around_a_network_is_taken_off(tmp_path, wrap, old):
    state = tensors()
    path = tmp_path / "network.ckpt"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not old)
    same(read_head(path), state)


def test_names_that_would_clash_stay_as_they_are(tmp_path):
    state = {"fc.weight": torch.ones(2, 4), "fc.bias": torch.ones(2)}
    torch.save(state | {f"model.{name}": 2 * each for name, each in state.items()},
               tmp_path / "two.pth")  # fmt: skip
    same(read_head(tmp_path / "two.pth"), state)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["classifier.0", "classifier.3", "classifier.6"], "classifier.6"),
        (["classifier.2", "classifier.10"], "classifier.10"),
        (["head.fc", "stages.3.mlp.fc2"], "head.fc"),
        (["heads.head", "encoder.layers.encoder_layer_11.mlp.3"], "heads.head"),
        (["AuxLogits.fc", "fc"], "fc"),
        (["aux1.fc2", "aux2.fc2", "fc"], "fc"),
        (["head", "head_dist"], "head"),
    ],
)
def test_the_head_is_told_from_the_layers_before_it(tmp_path, names, chosen):
    state = {}
    for k, name in enumerate(names):
        state |= {f"{name}.weight": torch.full((4, 6), float(k)), f"{name}.bias": torch.ones(4)}
    save_file(state, tmp_path / "network.safetensors")
    head = read_head(tmp_path / "network.safetensors")
    same(head, state, chosen)
    assert head.note == ""


def test_an_unknown_name_is_taken_as_the_last_and_says_so(tmp_path):
    state = {}
    for name in ("a.proj", "b.proj"):
        state |= {f"{name}.weight": torch.ones(4, 6), f"{name}.bias": torch.ones(4)}
    torch.save(state, tmp_path / "network.pth")
    assert "b.proj was taken as the last of 2 layers" in read_head(tmp_path / "network.pth").note
    assert "--layer names another" in invoke(tmp_path / "network.pth")


def test_squeezenets_convolution_is_a_head(tmp_path):
    model = squeezenet1_1(num_classes=5)
    torch.save(model.state_dict(), tmp_path / "squeezenet.pth")
    head = read_head(tmp_path / "squeezenet.pth")
    same(head, model.state_dict(), "classifier.1")
    assert head.weight.shape == (5, 512)


def test_a_layer_may_be_named_and_a_wrong_name_lists_them(tmp_path):
    state = tensors()
    torch.save({f"module.{name}": each for name, each in state.items()}, tmp_path / "n.pth")
    for name in ("aux.fc", "module.aux.fc", "aux.fc.weight"):
        same(read_head(tmp_path / "n.pth", name), state, "aux.fc")
    with pytest.raises(InputError, match=r"no linear layer 'head'; it has fc \(3 × 32\), aux\.fc"):
        read_head(tmp_path / "n.pth", "head")


def test_a_layer_without_bias_is_read_too(tmp_path):
    save_file({"fc.weight": torch.ones(2, 3)}, tmp_path / "n.safetensors")
    assert read_head(tmp_path / "n.safetensors").bias is None


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": torch.ones(2, 3), "x": Evil()}, "evil.pth",
               _use_new_zipfile_serialization=not old)  # fmt: skip
    Path("plain.pt").write_bytes(pickle.dumps(Evil()))
    np.savez("evil.npz", weight=np.array([Evil()], dtype=object))
    Path("evil").unlink(missing_ok=True)
    for name, reason in (("evil.pth", "would run code"), ("plain.pt", "read"), ("evil.npz", "npz")):
        with pytest.raises(InputError, match=reason):
            read_head(name)
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.pth", b"", "cannot be read as weights"),
        ("n.pth", b"PK\x03\x04 cut off", "cannot be read as weights"),
        ("n.safetensors", b"\xff" * 64, "no readable safetensors"),
        ("n.npz", b"nothing", "no readable .npz"),
        ("n.h5", b"", r"no file of weights: headscope takes \.safetensors"),
        ("missing.pth", None, "does not exist"),
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_head(tmp_path / name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"conv.weight": torch.ones(2, 3, 3, 3)}, "holds no linear layer"),
        ({"fc.weight": torch.ones(1, 3), "fc.bias": torch.ones(1)}, "fc has one row"),
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_states_without_a_head_are_named(tmp_path, state, message):
    torch.save(state, tmp_path / "n.pth")
    with pytest.raises(InputError, match=message):
        read_head(tmp_path / "n.pth")


def test_a_checkpoint_that_holds_itself_is_named(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "n.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        read_head(tmp_path / "n.pth")


@pytest.fixture
def files(tmp_path):
    before, after = tensors(0), tensors(1)
    save_file(before, tmp_path / "before.safetensors")
    torch.save({"state_dict": after}, tmp_path / "after.pth")
    return tmp_path


def test_the_command_prints_names_and_meaning(files):
    shown = invoke(files / "after.pth", "--classes", "NC,MCI,AD")
    assert "layer fc" in shown and "NC · MCI" in shown and "correlate by" in shown
    assert "takes the row sum as observed" in shown


def test_json_equals_the_analysis_and_out_holds_it_all(files):
    out = files / "out"
    arguments = ["--initial", files / "before.safetensors", "--pairs", "0-1,2-1", "--out", out]
    facts = json.loads(invoke(files / "after.pth", *arguments, "--json"))
    before, after = tensors(0)["fc.weight"].double(), tensors(1)["fc.weight"].double()
    assert [pair["pair"] for pair in facts["pairs"]] == [[0, 1], [2, 1]]
    expected = np.corrcoef(after.numpy())[2, 1]
    assert facts["pairs"][1]["r"] == pytest.approx(expected, rel=1e-12)
    start, total = before.sum(0), after.sum(0)
    factor = min(1, max(0, float(total @ start / (start @ start))))  # weight decay is not known
    assert facts["pairs"][0]["shrinkage"] == pytest.approx(factor, rel=1e-9)
    drift = float((total - factor * start).abs().max())
    assert facts["row_sum_drift"] == pytest.approx(drift, rel=1e-12)
    assert facts["pairs"][0]["null_source"] == "initial head"
    assert json.loads((out / "head.json").read_text()) == facts
    table = read_table(out / "pairs.tsv")
    assert table["r"].tolist() == [pair["r"] for pair in facts["pairs"]]
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"rows.png", "weights-0-1.png", "weights-2-1.png", "before-after-0-1.png",
                        "before-after-2-1.png"}  # fmt: skip
    assert {path.stem for path in out.glob("*.svg")} == {Path(name).stem for name in pictures}
    for name in pictures:
        with Image.open(out / name) as picture:
            assert picture.size[0] > 300


def test_a_run_directory_keeps_its_own_null(tmp_path):
    run = write_synthetic_run(tmp_path, width=48, epochs=3, weight_decay=0.02)
    facts = json.loads(invoke(run.path, "--json"))
    pair = analyse_head(run).pairs[0]
    assert facts["pairs"][0]["r_null"] == pair.r_null
    assert facts["pairs"][0]["shrinkage"] == pair.shrinkage < 0.999
    assert facts["class_names"] == run.class_names
    assert json.loads(invoke(run.path / "head.npz", "--json")) == facts
    with pytest.raises(InputError, match=f"give one of its runs: {run.name}"):
        invoke(tmp_path)


def test_features_of_a_run_are_analysed_beside_its_head(tmp_path):
    run = write_synthetic_run(tmp_path, width=16, epochs=2)
    features = run.path / "features.npz"
    facts = json.loads(invoke(run.path, "--features", features, "--json"))
    assert {each["class_name"] for each in facts["carriers"]} == set(run.class_names)
    assert facts["features"]["subset"] == "test"
    nc1 = analyse_collapse(run, "test").nc1
    assert facts["collapse"]["nc1"] == pytest.approx(nc1, rel=1e-9)
    shown = invoke(run.path, "--features", features)
    assert "Features that carry the logits" in shown
    with pytest.raises(InputError, match="lacks features, label, subject_id; it has bias"):
        invoke(run.path, "--features", run.path / "head.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "0:1"], "--pairs takes class rows as in 0-1,3-7, not '0:1'"),
        (["--pairs", ","], "names no pair"),
        (["--pairs", "0-9"], "names no two of 3 classes, 0 to 2"),
        (["--classes", "NC,AD"], "2 class names were given for 3 rows"),
        (["--initial", "nowhere.pth"], "nowhere.pth does not exist"),
    ],
)
def test_wrong_options_are_named(files, arguments, message):
    with pytest.raises(InputError, match=message):
        invoke(files / "after.pth", *arguments)


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".npz", ".safetensors"])
@pytest.mark.parametrize("text", ["hello this is text\n", "a,b\n1,2\n", ""])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, suffix, text):
    path = tmp_path / f"text{suffix}"
    path.write_text(text)
    with pytest.raises(InputError, match=f"text{suffix}") as caught:
        invoke(path)
    assert "unsafely" not in str(caught.value)


def test_a_wrong_layer_names_the_likely_ones(tmp_path):
    deep = {f"layer{n}.conv.weight": torch.randn(4, 8, 1, 1) for n in range(20)}
    save_file(tensors() | deep, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"it has .*\bfc \(3 × 32\).* and \d+ more\."):
        invoke(tmp_path / "net.safetensors", "--layer", "nosuch")


def test_a_safetensors_head_is_read_without_torch():
    modules = "models.checkpoint", "analysis.final_layer.layer", "supplement.head"
    code = "import sys, " + ", ".join(f"headscope.{name}" for name in modules)

    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False
    )
    assert done.returncode == 0
