"""Passes with BatchNorm folded into the convolutions: the same features, the network untouched."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from headscope.analysis.final_layer.null import null_prediction
from headscope.models.classifier import tap
from headscope.models.regimes import state_hash
from headscope.training.batchnorm import estimate_statistics
from headscope.training.device import compile_network
from headscope.training.features import batch_of, extract_features, extract_maps
from headscope.training.folding import folded
from headscope.training.loop import extract
from headscope.training.recipe import Recipe
from tests.support.training import TINY, inputs_of, network, run, small_cohort


def left(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.fixture(scope="module")
def pixels():
    return small_cohort()[0]


@pytest.mark.parametrize("architecture", [TINY, "mobilenet_v3_small", "timm/test_efficientnet"])
def test_features_stay_the_same_to_five_digits(pixels, architecture):
    """Statistics of the slices in every BatchNorm; the oracle is the network as it is."""
    built = network("frozen", architecture=architecture)
    inputs = inputs_of(built, pixels)
    estimate_statistics(built, inputs, np.arange(20), "statistics")
    before, total = state_hash(built.model, without=()), left(built.model)
    outputs = [path for path in built.stages if path != built.classifier]
    x, of = inputs(np.arange(8)), built.classifier
    changed = folded(built.model, x[:1], outputs=outputs, of=of)
    assert changed is not built.model
    assert left(changed) <= 2 < total  # of the stem and the last stage, whose outputs are read
    caught = []
    for model in (built.model.eval(), changed):
        with torch.inference_mode(), tap(model, outputs, [of]) as activations:
            model(x)
            caught.append({path: tensor.numpy().copy() for path, tensor in activations.items()})
    for path, expected in caught[0].items():
        limit = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(caught[1][path], expected, rtol=0, atol=limit, err_msg=path)
    assert (state_hash(built.model, without=()), left(built.model)) == (before, total)
    assert not any(module._forward_hooks for module in built.model.modules())


class Branched(nn.Module):
    """A convolution whose output also goes past its BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.norm.running_var.fill_(0.25)

    def forward(self, x):
        x = self.conv(x)
        return self.fc((self.norm(x) + x).mean(dim=(2, 3)))


def test_what_folding_would_change_stays_as_it_is():
    model, x = Branched(), torch.rand(2, 3, 8, 8)
    assert folded(model, x, outputs=[], of="fc") is model
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    assert folded(plain, x, outputs=[], of="3") is plain
    read = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    assert folded(read, x, outputs=["0"], of="3") is read
    assert left(folded(read, x, outputs=["1"], of="3")) == 0


def test_features_do_not_depend_on_the_order_of_slices(pixels):
    """Bit for bit, within a batch as across batches of one size."""
    built = network("frozen")
    inputs = inputs_of(built, pixels)
    found = extract_features(built, inputs, "features").features
    options = {"outputs": [], "of": built.classifier}
    model = folded(built.model, torch.rand(1, 3, 32, 32), outputs=built.stages, of=built.classifier)
    mixed = np.random.default_rng(0).permutation(40)
    for rows, features, _ in extract(model, inputs, mixed, 20, **options):
        assert np.array_equal(features.numpy(), found[rows])
    maps = [extract_maps(built, inputs, np.arange(20)[::step].copy())["maps"] for step in (1, -1)]
    assert np.array_equal(maps[0], maps[1][::-1])


def _fig3(head):
    """r of the two class rows, and what the null says of it."""
    W, start = (head[name].astype(np.float64) for name in ("weight", "initial_weight"))
    return np.corrcoef(W)[0, 1], null_prediction(W, start.mean(axis=0), (0, 1)).r


def test_a_gpu_takes_larger_batches_and_cuda_graphs(monkeypatch):
    """Which settings torch.compile gets, and how many slices pass at once."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **how: asked.append(how) or model)
    model, (cpu, gpu) = nn.Identity(), map(torch.device, ("cpu", "cuda"))
    assert all(compile_network(model, device) is model for device in (cpu, gpu))
    assert [how["mode"] for how in asked] == ["default", "reduce-overhead"]
    assert (batch_of(cpu), batch_of(gpu)) == (32, 128)


@pytest.mark.slow
def test_bfloat16_and_compile_give_the_accuracy_and_null_of_float32(pixels, tmp_path, monkeypatch):
    """Fig. 3 of a frozen and of a fine-tuned head; eager, as building kernels costs."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: real(model, backend="eager"))
    labels = small_cohort()[1]
    recipe = Recipe(epochs=3, learning_rate=0.05, batch_size=10)
    ways = {"float32": recipe, "less": replace(recipe, precision="bfloat16", compile=True)}
    for regime in ("frozen", "finetune"):
        outcomes = {
            way: run(regime, small_cohort(), tmp_path / regime / way, recipe)
            for way, recipe in ways.items()
        }
        figures = {way: _fig3(outcome.head) for way, outcome in outcomes.items()}
        accuracies = {
            way: (outcome.logits.argmax(axis=1) == labels).mean()
            for way, outcome in outcomes.items()
        }
        assert accuracies["less"] == pytest.approx(accuracies["float32"], abs=0.06)
        assert figures["less"] == pytest.approx(figures["float32"], abs=0.02)
