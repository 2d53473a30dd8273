import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from headscope.errors import InputError, RunError
from headscope.models.network import build_network
from headscope.training import loop
from headscope.training.features import cached_features, extract_features, extract_maps, spread
from headscope.training.loader import FeatureInputs, SliceInputs, batches, epoch_order
from headscope.training.optim import Recipe
from headscope.training.train import train

CPU = torch.device("cpu")
TINY = "timm/test_resnet"


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 20)
    pixels = rng.integers(0, 120, (40, 32, 32)) + 100 * labels[:, None, None]
    subsets = np.repeat(["train", "val", "test"], [20, 8, 12])
    return pixels.astype(np.uint8), labels, subsets


def network(regime="finetune", seed=0):
    return build_network(TINY, regime, "random", classes=2, size=32, seed=seed)


def run(regime, cohort, folder, recipe=None, seed=0):
    pixels, labels, subsets = cohort
    recipe = recipe or Recipe(epochs=4, learning_rate=0.05, batch_size=8)
    return train(
        network(regime, seed),
        pixels,
        labels,
        subsets,
        recipe,
        seed=seed,
        device=CPU,
        checkpoint=folder / "checkpoint" / "last.pt",
        cache=folder / "cache",
        slices_key="key",
        title="run",
    )


def test_slices_are_normalised_as_torchvision_does(cohort, monkeypatch):
    pixels = cohort[0]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rows = np.array([3, 0, 7])
    grey = torch.from_numpy(pixels[rows])[:, None].expand(-1, 3, -1, -1)
    oracle = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(grey)
    resident = SliceInputs(pixels, mean, std, CPU)(rows)
    torch.testing.assert_close(resident, oracle, rtol=0, atol=1e-6)
    monkeypatch.setattr("headscope.training.loader.RESIDENT_BYTES", 0)
    mapped = SliceInputs(pixels, mean, std, CPU)
    assert mapped.resident is None
    assert torch.equal(mapped(rows), resident)


def test_batches_never_end_on_a_lone_slice():
    for rows in range(2, 200):
        sizes = [len(part) for part in batches(np.arange(rows), 32)]
        assert sum(sizes) == rows and max(sizes) <= 32 and max(sizes) - min(sizes) <= 1


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    rows = np.arange(50)
    first = epoch_order(rows, 1, 2)
    np.random.default_rng(0).random(9)
    assert np.array_equal(first, epoch_order(rows, 1, 2))
    assert sorted(first) == list(rows)
    assert not np.array_equal(first, epoch_order(rows, 1, 3))
    assert not np.array_equal(first, epoch_order(rows, 2, 2))


def test_the_step_schedule_is_the_papers():
    recipe = Recipe(epochs=30, learning_rate=0.001)
    rates = [recipe.learning_rate_of(epoch) for epoch in (0, 9, 10, 19, 20)]
    assert rates == pytest.approx([0.001, 0.001, 0.0009, 0.0009, 0.00081])


def test_sgd_takes_the_step_of_the_closed_form():
    """Momentum and weight decay by hand, with a faster classifier."""
    built = network("finetune")
    recipe = Recipe(epochs=1, learning_rate=0.1, head_learning_rate=10, weight_decay=0.01)
    optimizer = loop.sgd(built.model, built.head, recipe)
    loop.set_learning_rate(optimizer, 0.1)
    weights = [built.head.bias, built.model.conv1[0].weight]
    for tensor, rate in zip(weights, (1.0, 0.1), strict=True):
        start, velocity = tensor.detach().clone(), torch.zeros_like(tensor)
        for parameter in built.model.parameters():
            parameter.grad = None
        optimizer.state.clear()
        for _ in range(3):
            tensor.grad = torch.ones_like(tensor)
            optimizer.step()
            velocity = 0.9 * velocity + 1 + 0.01 * start
            start = start - rate * velocity
        torch.testing.assert_close(tensor.detach(), start)


def test_frozen_from_stored_features_equals_frozen_through_the_network(cohort, tmp_path):
    pixels, labels, subsets = cohort
    recipe = Recipe(epochs=5, learning_rate=0.05, batch_size=8)
    outcome = run("frozen", cohort, tmp_path, recipe)
    slow = network("frozen")
    inputs = SliceInputs(pixels, slow.architecture.mean, slow.architecture.std, CPU)
    history = loop.fit(
        slow.model,
        slow.head,
        slow.training_mode,
        inputs,
        torch.from_numpy(labels),
        np.flatnonzero(subsets == "train"),
        np.flatnonzero(subsets == "val"),
        recipe,
        seed=0,
        checkpoint=tmp_path / "slow" / "last.pt",
        title="slow",
    )
    np.testing.assert_allclose(outcome.head["weight"], slow.head.weight.detach(), atol=1e-5)
    assert history[-1]["val_loss"] == pytest.approx(outcome.history[-1]["val_loss"], abs=1e-5)
    assert outcome.certificate["identical"]


def test_stored_features_are_those_of_the_pass_and_are_not_made_twice(cohort, tmp_path):
    built = network("frozen")
    inputs = SliceInputs(cohort[0], built.architecture.mean, built.architecture.std, CPU)
    fresh = extract_features(built, inputs, "features")
    first = cached_features(built, inputs, "key", tmp_path, "features")
    again = cached_features(built, inputs, "key", tmp_path, "features")
    assert np.array_equal(fresh.features, first.features)
    assert np.array_equal(first.features, again.features) and first.seconds == again.seconds
    assert set(first.layers) == set(again.layers) == {*built.stages, "slice"}
    other = build_network(TINY, "frozen", "random", classes=2, size=32, seed=9)
    cached_features(other, inputs, "key", tmp_path, "features")
    cached_features(built, inputs, "other slices", tmp_path, "features")
    assert len(list(tmp_path.iterdir())) == 3


def test_features_and_maps_are_what_the_network_computes(cohort):
    built = network("finetune")
    inputs = SliceInputs(cohort[0], built.architecture.mean, built.architecture.std, CPU)
    found = extract_features(built, inputs, "features")
    maps = extract_maps(built, inputs, np.arange(28, 40))
    built.model.eval()
    with torch.inference_mode():
        x = inputs(np.arange(40))
        logits = built.model(x)
        stem = built.model.conv1(x).mean(dim=(2, 3))
        last = built.model.forward_features(x)
    read = torch.from_numpy(found.features) @ built.head.weight.T + built.head.bias
    torch.testing.assert_close(read, logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(found.layers["conv1"]), stem, rtol=1e-4, atol=1e-5)
    oracle = last[torch.from_numpy(maps["slice"])].numpy()
    np.testing.assert_allclose(maps["maps"], oracle, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regime", ["frozen", "finetune"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_ends_bit_identical(cohort, tmp_path, monkeypatch, regime, stop_after):
    undisturbed = run(regime, cohort, tmp_path / "one")
    saved = loop._save
    epochs = []

    def stop(*args):
        saved(*args)
        epochs.append(1)
        if len(epochs) == stop_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(regime, cohort, tmp_path / "two")
    resumed = run(regime, cohort, tmp_path / "two")
    assert len(epochs) == 4  # no epoch was trained twice
    for name, array in undisturbed.model.items():
        assert np.array_equal(array, resumed.model[name]), name
    assert np.array_equal(undisturbed.logits, resumed.logits)
    losses = [[row["train_loss"] for row in r.history] for r in (undisturbed, resumed)]
    assert losses[0] == losses[1]


def test_training_learns_and_leaves_the_callers_random_numbers_alone(cohort, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    outcome = run("finetune", cohort, tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert outcome.history[-1]["train_slice_accuracy"] > 0.9
    assert not outcome.certificate["identical"]
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3, 4]
    assert outcome.train_seconds == pytest.approx(sum(r["seconds"] for r in outcome.history))


def test_a_loss_that_is_not_finite_stops_with_a_sentence(cohort, tmp_path):
    with pytest.raises(RunError, match=r"no longer finite in epoch \d+; a learning rate below"):
        run("finetune", cohort, tmp_path, Recipe(epochs=9, learning_rate=1e30, batch_size=8))


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("kind", ["code", "text", "other network"])
def test_a_foreign_checkpoint_is_refused(cohort, tmp_path, kind):
    path = tmp_path / "checkpoint" / "last.pt"
    path.parent.mkdir()
    if kind == "code":
        torch.save({"model": Payload(str(tmp_path / "ran"))}, path)
    elif kind == "text":
        path.write_text("hello")
    else:
        torch.save({"model": {"a": torch.zeros(1)}, "optimizer": {}, "history": []}, path)
    with pytest.raises(InputError, match=r"last\.pt is no checkpoint of this run"):
        run("finetune", cohort, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_feature_inputs_and_spread():
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(FeatureInputs(features, CPU)(np.array([4, 1])), features[[4, 1]])
    assert np.array_equal(spread(3, 10), [0, 1, 2])
    assert len(spread(1000, 256)) == 256 and spread(1000, 256)[-1] == 999
