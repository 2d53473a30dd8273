"""Tails, shuffles, probes and contribution maps against torch, autograd and scikit-learn."""

import numpy as np
import pytest
import torch
import torchvision
from safetensors.numpy import save_file
from sklearn.linear_model import RidgeClassifier
from torch import nn

from headscope.analysis.probes import ridge_by_gram, ridge_classes
from headscope.analysis.representation.discriminant import subject_folds
from headscope.analysis.representation.location import (
    analyse_contributions,
    analyse_flattening,
    contribution_maps,
    flatten_analysis,
    linear_probe,
    shuffle_test,
)
from headscope.analysis.representation.recorded_tail import make_tail, read_tail
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.models.classifier import tap
from headscope.models.network import build_network
from headscope.record import Run
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

NETWORKS = {  # constructor, its classifier, the layer that makes the last maps, its tail, size
    "resnet50": ("fc", "layer4", ("mean", "linear:fc"), 64),
    "googlenet": ("fc", "inception5b", ("mean", "linear:fc"), 64),
    "alexnet": (
        "classifier.6", "features",
        ("pool:6x6", "flatten", "linear:classifier.1", "relu", "linear:classifier.4", "relu",
         "linear:classifier.6"), 128,
    ),
    "vgg11": (
        "classifier.6", "features",
        ("pool:7x7", "flatten", "linear:classifier.0", "relu", "linear:classifier.3", "relu",
         "linear:classifier.6"), 64,
    ),
    "squeezenet1_1": ("classifier.1", "features", ("conv:classifier.1", "relu", "mean"), 64),
}  # fmt: skip
AVERAGING = ("resnet50", "googlenet", "squeezenet1_1")


@pytest.fixture(scope="module", params=NETWORKS)
def recorded(request, tmp_path_factory):
    """A record with the maps and logits of a torchvision network of random weights."""
    classifier, layer, words, size = NETWORKS[request.param]
    torch.manual_seed(0)
    model = build(request.param).eval()
    caught = {}
    model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: caught.update(maps=out))
    x = torch.from_numpy(textured(8, size))
    with torch.inference_mode():
        logits = model(x).numpy()
    # A network whose logits hang on biases alone would pass every test of location.
    assert (logits.std(axis=0) > 0.01).all()
    assert caught["maps"].std(dim=(2, 3)).max() > 0.01
    path = write_record(
        tmp_path_factory.mktemp(request.param), caught["maps"].numpy(), logits, words,
        {name: value.numpy() for name, value in model.state_dict().items()
         if name.startswith(("fc", "classifier"))},
    )  # fmt: skip
    return request.param, Run(path), model, classifier


def build(name):
    """Return the network with 3 classes; where it flattens, with 64 units instead of 4096."""
    if name not in ("alexnet", "vgg11"):
        extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(num_classes=3, **extra)
        for module in model.modules():  # as it comes, GoogLeNet's signal dies on its way
            if isinstance(module, nn.Conv2d) and name == "googlenet":
                nn.init.kaiming_normal_(module.weight)
        if name != "squeezenet1_1":
            nn.init.normal_(model.fc.weight, std=0.02)
        return model
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(num_classes=3)
    model.features.to_empty(device="cpu")
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            K = 3 if module.out_features == 3 else 64
            width = module.in_features if module.in_features > 4096 else 64
            model.set_submodule(path, nn.Linear(width, K))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return model


def textured(n, size, seed=0):
    """Pictures that differ from place to place, (n, 3, size, size)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 3, 4, 4)).repeat(size // 4, axis=2).repeat(size // 4, axis=3)
    return (2 * coarse + 0.3 * rng.normal(size=(n, 3, size, size))).astype(np.float32)


def write_record(folder, maps, logits, words, weights, **settings):
    """Put maps, logits and weights into an otherwise random record, and name its tail."""
    names = ("NC", "MCI", "AD")[: logits.shape[1]]
    run = write_synthetic_run(
        folder, subjects=12, slices_each=4, width=8, epochs=1, class_names=names, **settings
    )
    features = dict(run.features)
    rows = np.flatnonzero(features["subset"] == "test")[: len(maps)]
    some = np.zeros((len(features["label"]), logits.shape[1]), np.float32)
    some[rows] = logits
    np.savez(run.path / "features.npz", **(features | {"logits": some}))
    np.savez(run.path / "maps.npz", maps=maps, slice=rows)
    save_file({name: value.copy() for name, value in weights.items()},
              run.path / "model.safetensors")  # fmt: skip
    with (run.path / "run.toml").open("a") as file:
        file.write(f"tail = {list(words)}\n")
    return reseal(run.path).path


def test_the_shuffle_changes_only_networks_that_flatten(recorded):
    name, run, _, _ = recorded
    tail = read_tail(run)
    assert tail.averages == (name in AVERAGING)
    found = flatten_analysis(
        run.maps["maps"], tail, np.arange(8) % 2, [f"s{i // 2}" for i in range(8)],
        repeats=3, probe_repeats=1, words=run.settings["tail"],
    )  # fmt: skip
    assert found.positions[0] > 1
    scale = np.abs(run.features["logits"]).max()
    for shuffle in found.shuffles:
        if name in AVERAGING:
            assert shuffle.largest_change < 1e-5 and shuffle.relative_change < 1e-5
            assert (shuffle.drop, shuffle.drop_sd) == (0, 0)
        else:
            assert shuffle.largest_change > 0.01 * scale
            assert shuffle.relative_change > 0.01
    assert [s.permutation for s in found.shuffles] == ["one for all slices", "one per slice"]


def test_positions_and_biases_add_up_to_the_logit(recorded):
    _, run, _, _ = recorded
    logits = run.features["logits"][run.maps["slice"]]
    tail = read_tail(run)
    for k in range(logits.shape[1]):
        positions, rest = contribution_maps(run.maps["maps"], tail, np.eye(3)[k])
        assert positions.shape == (8, *run.maps["maps"].shape[2:])
        total = positions.sum(axis=(1, 2)) + rest
        np.testing.assert_allclose(total, logits[:, k], atol=1e-5 * max(1, np.abs(logits).max()))


def test_contributions_are_gradient_times_input(recorded):
    name, run, model, _ = recorded
    maps = torch.from_numpy(run.maps["maps"]).requires_grad_()
    if name == "squeezenet1_1":
        out = model.classifier(maps).flatten(1)
    elif name in AVERAGING:
        out = model.fc(maps.mean(dim=(2, 3)))
    else:
        out = model.classifier(model.avgpool(maps).flatten(1))
    (out[:, 2] - out[:, 0]).sum().backward()
    expected = (maps.grad * maps).sum(dim=1).detach().numpy()
    positions, _ = contribution_maps(run.maps["maps"], read_tail(run), (-1, 0, 1))
    np.testing.assert_allclose(positions, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_averaging_heads_give_class_activation_maps():
    rng = np.random.default_rng(0)
    maps, W, b = rng.normal(size=(4, 6, 5, 3)), rng.normal(size=(2, 6)), rng.normal(size=2)
    tail = make_tail(("mean", "linear:fc"), {"fc.weight": W, "fc.bias": b})
    positions, rest = contribution_maps(maps, tail, (0, 1))
    np.testing.assert_allclose(positions, np.einsum("c,nchw->nhw", W[1], maps) / 15, atol=1e-12)
    assert rest == pytest.approx([b[1]] * 4)


@pytest.mark.parametrize("words", [("conv:fc", "relu", "mean"), ("mean", "conv:fc", "relu")])
def test_a_convolution_acts_on_channels_before_and_after_the_mean(words):
    rng = np.random.default_rng(0)
    maps, W, b = rng.normal(size=(4, 6, 5, 3)), rng.normal(size=(2, 6)), rng.normal(size=2)
    tail = make_tail(words, {"fc.weight": W[:, :, None, None], "fc.bias": b})
    if words[0] == "mean":
        logits = np.maximum(maps.mean(axis=(2, 3)) @ W.T + b, 0)
    else:
        scores = np.einsum("kc,nchw->nkhw", W, maps) + b[:, None, None]
        logits = np.maximum(scores, 0).mean(axis=(2, 3))
    np.testing.assert_allclose(tail(maps), logits, atol=1e-12)
    positions, rest = contribution_maps(maps, tail, (0, 1))
    np.testing.assert_allclose(positions.sum(axis=(1, 2)) + rest, logits[:, 1], atol=1e-12)
    assert tail.averages


def test_a_layernorm_between_is_linear_at_each_slices_own_variance():
    torch.manual_seed(0)
    norm, fc = nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    maps = torch.randn(5, 6, 3, 3)
    state = {f"norm.{k}": v.numpy() for k, v in norm.state_dict().items()}
    state |= {f"fc.{k}": v.numpy() for k, v in fc.state_dict().items()}
    tail = make_tail(("mean", "flatten", "layernorm:norm", "linear:fc"), state)
    with torch.no_grad():
        logits = fc(norm(maps.mean(dim=(2, 3)))).numpy()
    np.testing.assert_allclose(tail(maps.numpy()), logits, atol=1e-5)
    positions, rest = contribution_maps(maps.numpy(), tail, (1, 0))
    np.testing.assert_allclose(positions.sum(axis=(1, 2)) + rest, logits[:, 0], atol=1e-5)
    assert tail.averages


@pytest.mark.parametrize(("side", "out"), [(3, 7), (7, 7), (6, 6), (13, 6), (5, 2)])
def test_adaptive_pooling_is_torchs(side, out):
    maps = torch.randn(2, 3, side, side + 1, generator=torch.Generator().manual_seed(0))
    expected = nn.AdaptiveAvgPool2d(out)(maps).flatten(1).numpy()
    found = make_tail((f"pool:{out}x{out}", "flatten"), {})(maps.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def located(n_subjects, each, *, where, seed=0):
    """Maps whose class stands at a place (pooling loses it), or in the mean of a channel."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(n_subjects) % 2, each)
    maps = rng.normal(size=(len(y), 4, 4, 4)).astype(np.float32)
    if where:
        maps[:, 0, 0, 0] += 6 * y
        maps[:, 0, 3, 3] -= 6 * y
    else:
        maps[:, 1] += y[:, None, None]
    return maps, y, np.repeat([f"s{i:02d}" for i in range(n_subjects)], each)


@pytest.mark.parametrize("where", [True, False])
def test_the_probe_finds_what_pooling_loses(where):
    maps, y, people = located(20, 4, where=where)
    found = flatten_analysis(maps, make_tail(("mean",), {}), y, people, repeats=2)
    pooled, unpooled = found.probes
    assert (pooled.width, unpooled.width) == (4, 64)
    assert unpooled.mean > 0.85
    assert pooled.mean < 0.65 if where else pooled.mean > 0.85
    assert "20 subjects" in found.notes[-1]
    assert "unpooled maps" in repr(found)


@pytest.mark.parametrize("D", [7, 64])
def test_the_probe_is_scikit_learns_ridge_on_the_features_themselves(D, monkeypatch):
    maps, y, people = located(10, 3, where=True, seed=3)
    X = maps.reshape(30, -1)[:, :D]
    monkeypatch.setattr("headscope.analysis.representation.location.PENALTIES", (0.1,))
    found = linear_probe(X, y, people, repeats=2, seed=5)
    X = X - X.mean(axis=0)
    X = X / np.sqrt((X**2).sum(axis=1).mean())
    for repeat in range(2):
        fold = subject_folds(people, y, 5, seed=5 + repeat)
        right = np.zeros(30, dtype=bool)
        for part in np.unique(fold):
            out = fold == part
            assert not set(people[out]) & set(people[~out])
            model = RidgeClassifier(alpha=0.1 * (~out).sum()).fit(X[~out], y[~out])
            right[out] = model.predict(X[out]) == y[out]
        assert found.slice_accuracy[repeat] == right.mean()


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("width", [3, 50])
def test_a_ridge_by_its_gram_matrix_is_scikit_learns(classes, width):
    rng = np.random.default_rng(classes)
    y = np.arange(60) % classes
    X = rng.normal(size=(60, width)) + 0.5 * y[:, None] * (np.arange(width) == 0) + 3
    train = rng.random(60) < 0.7
    penalties = np.array([0.01, 1.0, 100.0])
    predicted = ridge_by_gram(X @ X.T, y, train, penalties)
    for penalty, row in zip(penalties, predicted, strict=True):
        assert np.array_equal(row, ridge_classes(X[train], y[train], X, penalty))


def test_a_ridge_of_points_that_do_not_vary_predicts_the_commonest_class():
    y = np.array([1, 1, 0, 2])
    predicted = ridge_by_gram(np.full((4, 4), 3.7), y, np.ones(4, bool), np.array([1e-3]))
    assert predicted.tolist() == [[1, 1, 1, 1]]


def test_a_shuffle_is_a_permutation_for_all_or_for_each():
    maps = np.zeros((6, 1, 2, 2), np.float32)
    maps[:, 0, 0, 0] = 1
    weight = np.array([[0.0, 1, 2, 3], [0, 0, 0, 0]])
    tail = make_tail(("flatten", "linear:fc"), {"fc.weight": weight})
    seen = []

    class Spy:
        averages = False

        def __call__(self, x):
            seen.append(x.reshape(6, 4).argmax(axis=1))
            assert (x.sum(axis=(1, 2, 3)) == 1).all()
            return tail(x)

    same, each = shuffle_test(maps, Spy(), np.ones(6, int), repeats=20, seed=1)
    assert all(len(set(places)) == 1 for places in seen[1:21])
    assert len({places[0] for places in seen[1:21]}) > 1
    assert any(len(set(places)) > 1 for places in seen[21:])
    assert same.largest_change == each.largest_change == 3
    # Of four places one leaves the logits equal, and equal logits mean class 0.
    assert same.slice_accuracy.max() == 0 and same.drop == 0


def test_the_change_of_logits_is_in_units_of_their_spread():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3000, 1, 2, 2)).astype(np.float32)
    weight = np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])  # one of four places decides
    tail = make_tail(("flatten", "linear:fc"), {"fc.weight": weight})
    _, each = shuffle_test(maps, tail, np.zeros(3000, int), repeats=4)
    # 3 of 4 slices read an unrelated place instead: 2 σ² of change each.
    assert each.relative_change == pytest.approx(np.sqrt(0.75 * 2), rel=0.03)
    still = shuffle_test(np.ones((4, 1, 2, 2)), tail, np.zeros(4, int))
    assert np.isnan([s.relative_change for s in still]).all()
    assert np.isnan(shuffle_test(maps, tail, np.zeros(3000, int), repeats=1)[0].drop_sd)


def test_what_the_probe_cannot_tell_is_undefined():
    maps, y, people = located(6, 2, where=True)
    tail = make_tail(("mean",), {})
    for labels, ids in (
        (np.zeros(12, int), people),
        (y, np.full(12, NO_ID)),
        (y, np.where(y == 0, "a", people)),
    ):
        found = flatten_analysis(maps, tail, labels, ids, repeats=2)
        assert np.isnan([p.mean for p in found.probes]).all()
        assert "undefined" in found.notes[-1]
    alone = flatten_analysis(maps[:, :, :1, :1], tail, y, people, repeats=1)
    assert "nothing to shuffle" in alone.notes[0]
    assert [s.largest_change for s in alone.shuffles] == [0, 0]


def test_run_reads_its_record(recorded):
    name, run, _, _ = recorded
    found = analyse_flattening(run, repeats=2, probe_repeats=1)
    label = run.features["label"][run.maps["slice"]]
    logits = run.features["logits"][run.maps["slice"]]
    assert found.slice_accuracy == pytest.approx((logits.argmax(axis=1) == label).mean())
    assert (found.title, found.averages) == (run.name, name in AVERAGING)
    positions, rest, rows = analyse_contributions(run, (0, 1))
    margin = logits[:, 1] - logits[:, 0]
    total = positions.sum(axis=(1, 2)) + rest
    np.testing.assert_allclose(total, margin, atol=1e-5 * max(1, np.abs(logits).max()))
    assert (rows == run.maps["slice"]).all()
    with pytest.raises(InputError, match="names no two of 3 classes"):
        analyse_contributions(run, (0, 3))


def small_record(folder, words=("mean", "linear:fc"), *, change=0.0, weights=None, **settings):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    W = rng.normal(size=(2, 3)).astype(np.float32)
    logits = maps.mean(axis=(2, 3)) @ W.T + change
    weights = weights or {"fc.weight": W}
    return Run(write_record(folder, maps, logits, words, weights, **settings))


def test_logits_of_a_network_that_ran_in_fewer_bits_are_near_enough(tmp_path):
    rough = small_record(tmp_path / "rough", change=0.005)
    assert read_tail(rough).mismatch == pytest.approx(0.005, rel=1e-3)
    assert "bfloat16" in analyse_flattening(rough, repeats=1, probe_repeats=1).notes[0]
    exact = analyse_flattening(small_record(tmp_path / "exact"), repeats=1, probe_repeats=1)
    assert not any("bfloat16" in note for note in exact.notes)


def test_records_that_cannot_be_computed_say_why(tmp_path):
    assert read_tail(small_record(tmp_path / "good")).averages
    for number, (given, message) in enumerate(
        [
            ({"change": 0.1}, "do not give its logits through mean, linear:fc"),
            ({"words": ("flatten", "linear:fc")}, "do not give its logits through flatten"),
            ({"words": ("mean",)}, "do not give its logits through mean"),
            ({"words": ("mean", "swish")}, "unknown layer 'swish'; valid: mean, pool:7x7"),
            ({"words": ("mean", "linear:head")}, r"holds no head\.weight"),
            ({"words": ("conv:fc", "mean"), "weights": {"fc.weight": np.zeros((2, 3, 3, 3))}},
             "no linear layer or 1×1 convolution"),
            ({"words": ()}, "records no layers between"),
        ]
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_tail(small_record(tmp_path / str(number), **given))
    run = small_record(tmp_path / "damaged")
    (run.path / "model.safetensors").write_bytes(b"nothing")
    run = reseal(run.path)
    with pytest.raises(InputError, match="is damaged"):
        read_tail(run)
    run = small_record(tmp_path / "without maps")
    np.savez(run.path / "maps.npz", slice=np.empty(0, int))
    run = reseal(run.path)
    with pytest.raises(InputError, match="records no feature maps"):
        read_tail(run)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tail: contribution_maps(np.zeros((2, 3, 4)), tail, (1, 0)), r"maps has shape"),
        (lambda tail: contribution_maps(np.zeros((2, 3, 1, 1)), tail, (1, 0)), "3 logits need"),
        (
            lambda tail: flatten_analysis(np.full((2, 3, 1, 1), np.nan), tail, [0, 1], ["a", "b"]),
            "not finite",
        ),
        (
            lambda tail: flatten_analysis(np.zeros((2, 3, 1, 1)), tail, [0], ["a", "b"]),
            r"labels has shape \(1,\)",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(make_tail(("mean",), {}))


def test_what_acts_on_channels_alone_leaves_an_averaging_head_one():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 5, 3, 3))
    arrays = {"n.weight": rng.normal(size=5), "n.bias": rng.normal(size=5),
              "fc.weight": rng.normal(size=(2, 5))}  # fmt: skip
    tail = make_tail(("layernorm:n", "relu", "mean", "linear:fc"), arrays)
    assert tail.averages
    for shuffle in shuffle_test(maps, tail, np.zeros(6, int)):
        assert shuffle.largest_change < 1e-12
    positions, rest = contribution_maps(maps, tail, (1, 0))
    np.testing.assert_allclose(positions.sum(axis=(1, 2)) + rest, tail(maps)[:, 0], atol=1e-12)


@pytest.mark.parametrize(
    "name", ["timm/test_resnet", "timm/test_convnext", "timm/test_efficientnet", "squeezenet1_1"]
)
def test_the_layers_that_a_network_names_are_read_back(name, tmp_path):
    network = build_network(name, "scratch", "random", classes=3, size=64, seed=0)
    with torch.inference_mode(), tap(network.model, [network.map_layer], []) as caught:
        logits = network.model.eval()(torch.from_numpy(textured(8, 64))).numpy()
    maps = caught[network.map_layer].numpy()
    state = {path: value.numpy() for path, value in network.model.state_dict().items()}
    run = Run(write_record(tmp_path, maps, logits, network.tail, state))
    limit = 1e-5 * max(1, np.abs(logits).max())
    np.testing.assert_allclose(read_tail(run)(maps), logits, atol=limit)
    for shuffle in analyse_flattening(run, repeats=2, probe_repeats=1).shuffles:
        assert shuffle.largest_change < 1e-5


def test_an_averaging_head_needs_no_stored_network(tmp_path):
    """`keep_model=false` leaves out model.safetensors; head.npz holds the only layer there is."""
    maps = np.random.default_rng(1).normal(size=(4, 3, 2, 2)).astype(np.float32)
    weight = np.random.default_rng(2).normal(size=(2, 3)).astype(np.float32)
    bias = np.array([0.3, -0.2], np.float32)
    words = ("mean", "linear:classifier")
    stored = {"classifier.weight": weight, "classifier.bias": bias}
    path = write_record(tmp_path, maps, maps.mean(axis=(2, 3)) @ weight.T + bias, words, stored)
    np.savez(path / "head.npz", **(Run(path).head | {"weight": weight, "bias": bias}))
    reseal(path)
    expected, _ = contribution_maps(maps, read_tail(Run(path)), np.array([1, -1]))
    (path / "model.safetensors").unlink()
    reseal(path)
    positions, _ = contribution_maps(maps, read_tail(Run(path)), np.array([1, -1]))
    np.testing.assert_array_equal(positions, expected)
    hidden = ["flatten", "linear:fc6", "relu", "linear:classifier"]
    toml = (path / "run.toml").read_text().replace(f"tail = {list(words)}", f"tail = {hidden}")
    (path / "run.toml").write_text(toml)
    reseal(path)
    with pytest.raises(InputError, match=r"without the network's weights .* are not on record"):
        read_tail(Run(path))
