"""One contract for every architecture in every regime: what trains, moves, stays and is stored."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from headscope.models.classifier import tap
from headscope.models.network import build_network
from headscope.models.regimes import REGIMES, find_regime, prepare, trained_paths
from headscope.models.state import load_pretrained, load_state
from headscope.models.zoo import TABLE, find_architecture
from headscope.training.recipe import Recipe
from headscope.training.train import train

# name, side of a slice, feature width, last stage
ARCHITECTURES = [
    ("resnet18", 32, 512, "layer4"),
    ("googlenet", 32, 1024, "inception5b"),
    ("vgg11", 32, 4096, "classifier.3"),
    ("alexnet", 64, 4096, "classifier.4"),
    ("squeezenet1_1", 32, 512, "features.12"),
    ("densenet121", 32, 1024, "features.denseblock4"),
    ("mobilenet_v2", 32, 1280, "features.18"),
    ("mobilenet_v3_small", 32, 1024, "classifier.0"),
    ("efficientnet_b0", 32, 1280, "features.8"),
    ("tf_efficientnet_lite0", 32, 1280, "conv_head"),
    ("convnext_tiny", 32, 768, "features.7"),
    ("regnet_y_400mf", 32, 440, "trunk_output.block4"),
    ("swin_t", 32, 768, "features.7"),
    ("inception_v3", 75, 2048, "Mixed_7c"),
    ("mnasnet0_5", 32, 1280, "layers.14"),
    ("shufflenet_v2_x0_5", 32, 1024, "conv5"),
    ("timm/resnetv2_18", 32, 512, "stages.3"),
    ("timm/vit_tiny_patch16_224", 224, 192, "blocks.11"),
    ("timm/mobilenetv3_small_050", 32, 1024, "conv_head"),
    ("timm/test_resnet", 32, 96, "layer4"),
    ("timm/test_vit", 160, 64, "blocks.5"),
    ("timm/test_vit2", 160, 64, "blocks.7"),
    ("timm/test_convnext", 32, 64, "stages.3"),
    ("timm/test_efficientnet", 32, 256, "conv_head"),
    ("timm/test_byobnet", 32, 256, "stages.3"),
    ("timm/test_nfnet", 32, 192, "final_conv"),
    ("timm/test_maxvit", 160, 128, "stages.3"),
    ("timm/test_mambaout", 160, 256, "head.pre_logits"),
]
WIDE = ("vgg11", "alexnet")  # three quarters of their parameters are in one hidden layer
SEVEN = [*REGIMES, "layerwise:1"]
BATCH_NORM = nn.modules.batchnorm._BatchNorm


def in_regime(network, name):
    """The same network as another regime prepares it."""
    regime = find_regime(name)
    trained = trained_paths(network.model, network.classifier, regime, network.architecture.name)
    mode = prepare(network.model, trained)
    return replace(network, regime=regime, trained=trained, training_mode=mode)


def season(model, classifier, side):
    """Make a new network like a trained one, so that a step reaches every layer.

    What starts constant (gains of 0, biases) varies, and BatchNorm's statistics are those of data.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            constant = bool((parameter == parameter.flatten()[0]).all())
            if constant and not name.startswith(classifier):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        norms = [module for module in model.modules() if isinstance(module, BATCH_NORM)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        model.train()(torch.randn(4, 3, side, side, generator=generator))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def step(network, x):
    """One step of SGD on x (B, 3, H, W)."""
    rates = [parameter for parameter in network.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(rates, lr=0.1)
    optimizer.zero_grad()
    network.training_mode()
    torch.manual_seed(0)
    cross_entropy(network.model(x), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


def differing(model, state):
    now = model.state_dict()
    return {name for name, tensor in state.items() if not torch.equal(now[name], tensor)}


def within(name, paths):
    return any(not path or f"{name}.".startswith(f"{path}.") for path in paths)


def disturb(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)


def narrowed(architecture):
    """The same network, whose first hidden layer reads one place in place of 7 × 7 (6 × 6)."""

    def build():
        with torch.device("meta"):
            model = architecture.build()
        first = next(n for n, part in enumerate(model.classifier) if isinstance(part, nn.Linear))
        channels = model.classifier[first].in_features // math.prod(model.avgpool.output_size)
        model.classifier[first] = nn.Linear(channels, model.classifier[first].out_features)
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
        return model

    return replace(architecture, build=build)


@pytest.fixture
def quick_to_build(monkeypatch):
    for name in WIDE:
        monkeypatch.setitem(TABLE, name, narrowed(find_architecture(name)))


@pytest.mark.usefixtures("quick_to_build")
@pytest.mark.parametrize(("name", "side", "width", "last"), ARCHITECTURES)
def test_every_architecture_keeps_the_contract_in_every_regime(tmp_path, name, side, width, last):
    network = build_network(name, "finetune", "random", classes=3, size=side, seed=0)
    model, classifier = network.model, network.classifier
    x = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    head = {f"{classifier}.weight", f"{classifier}.bias"}
    parameters = {path for path, _ in model.named_parameters()}
    norms = [path for path, module in model.named_modules() if isinstance(module, BATCH_NORM)]

    # the head: shape, width, and logits = features · Wᵀ + b
    weight, bias = network.head.weight, network.head.bias
    assert weight.shape == (3, width) and bias.shape == (3,)
    assert model.get_submodule(classifier) is network.head and network.stages[-1] == last
    season(model, classifier, side)
    with torch.no_grad(), tap(model.eval(), [], [classifier]) as caught:
        logits = model(x)
        assert caught[classifier].shape == (4, width)
        torch.testing.assert_close(logits, caught[classifier] @ weight.T + bias)

    start = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    stepped = set()  # regimes that train the same part take the same step
    for regime in SEVEN:
        chosen = in_regime(network, regime)
        trains = {path for path, p in model.named_parameters() if p.requires_grad}
        open_norms = [path for path in norms if within(path, chosen.trained or ("",))]
        # what is trainable
        if chosen.regime.trains == "all":
            assert trains == parameters and open_norms == norms
        elif chosen.regime.trains == "classifier":
            assert trains == head and not open_norms
        else:
            assert head < trains < parameters and chosen.trained[0] == last
            assert {path for path in parameters if within(path, [last])} <= trains
        # what a step changes, and what it must not
        if chosen.trained in stepped:
            continue
        stepped.add(chosen.trained)
        step(chosen, x)
        changed = differing(model, start)
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        assert changed - parameters == {f"{path}.{s}" for path in open_norms for s in statistics}
        assert head <= changed and changed & parameters <= trains
        weights = {path for path in trains if start[path].ndim > 1}
        assert len(changed & weights) > 0.9 * len(weights)
        load_state(model, start)
    assert len(stepped) == 3

    # stored, and loaded whole and as another run's weights
    stored = {path: tensor.contiguous() for path, tensor in start.items()}
    save_file(stored, tmp_path / "model.safetensors")
    disturb(model)
    load_state(model, load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model.eval()(x), logits)
    disturb(model)
    load_pretrained(model, network.architecture, classifier, str(tmp_path / "model.safetensors"))
    assert differing(model, start) == head


def test_a_network_that_asks_which_version_wrote_its_weights_goes_on_and_keeps_its_best(tmp_path):
    labels = np.tile([0, 1], 8)
    noise = np.random.default_rng(0).integers(0, 120, (16, 32, 32))
    pixels = (noise + 100 * labels[:, None, None]).astype(np.uint8)
    subsets = np.repeat(["train", "val", "test"], [8, 4, 4])

    def run(epochs):
        network = build_network("mnasnet0_5", "finetune", "random", classes=2, size=32, seed=0)
        return train(
            network,
            pixels,
            labels,
            subsets,
            Recipe(epochs=epochs, learning_rate=1e-5, batch_size=4, select="best"),
            seed=0,
            device=torch.device("cpu"),
            resume_path=tmp_path / "last.pt",
            cache=tmp_path / "cache",
            slices_key="key",
            title="run",
        )

    assert len(run(1).history) == 1
    assert len(run(2).history) == 2  # continues from the resume file
