from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from headscope.errors import InputError, RunError
from headscope.models.regimes import find_regime
from headscope.schedule import epoch_order
from headscope.training import loop
from headscope.training.features import extract_features, extract_maps, spread
from headscope.training.loader import FeatureInputs, SliceInputs, batches
from headscope.training.recipe import Recipe
from tests.support.training import CPU, network, run, small_cohort


@pytest.fixture
def cohort():
    return small_cohort()


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


def test_the_cosine_schedule_falls_from_the_rate_to_nearly_nothing():
    recipe = Recipe(epochs=4, learning_rate=0.1, schedule="cosine")
    rates = [recipe.learning_rate_of(epoch) for epoch in range(4)]
    assert rates == pytest.approx([0.1, 0.1 * (2 + 2**0.5) / 4, 0.05, 0.1 * (2 - 2**0.5) / 4])


def test_a_recipe_says_what_of_it_acts_in_a_regime():
    asked = Recipe(9, 0.1, augment_flip=True, augment_jitter=0.1, compile=True, probe_epochs=2)
    assert asked.applied(find_regime("lp-ft")) == asked
    assert asked.applied(find_regime("finetune")) == replace(asked, probe_epochs=None)
    bare = replace(asked, augment_flip=False, augment_jitter=0.0, probe_epochs=None)
    assert asked.applied(find_regime("frozen-adabn")) == bare
    whole = replace(asked, probe_epochs=None).applied(find_regime("lp-ft"))
    assert whole.probe_epochs == 9


@pytest.mark.parametrize("setting", ["schedule", "select", "precision"])
def test_a_choice_that_does_not_exist_is_named_with_the_valid_ones(setting):
    with pytest.raises(InputError, match=f"'{setting}' is 'half'; valid: "):
        Recipe(epochs=1, learning_rate=0.1, **{setting: "half"})


def test_sgd_takes_the_step_of_the_closed_form():
    """Momentum and weight decay by hand, with a faster classifier."""
    built = network("finetune")
    recipe = Recipe(epochs=1, learning_rate=0.1, head_learning_rate=10, weight_decay=0.01)
    optimizer = loop.make_optimizer(built.model, built.head, recipe)
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


def test_features_and_maps_are_what_the_network_computes(cohort):
    built = network("finetune")
    inputs = SliceInputs(cohort[0], built.architecture.mean, built.architecture.std, CPU)
    found = extract_features(built, inputs, "features")
    rows = np.arange(28, 40)
    maps = extract_maps(built, inputs, rows)
    same_pass = extract_features(built, inputs, "features", map_rows=rows).maps
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
    for arrays in (maps, same_pass):
        assert np.array_equal(arrays["slice"], rows)
        np.testing.assert_allclose(arrays["maps"], oracle, rtol=1e-4, atol=1e-5)


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


def test_the_weights_of_the_lowest_validation_loss_are_kept_where_asked(cohort, tmp_path):
    """A rate high enough for the loss to rise again; the oracle stops at the best epoch."""
    recipe = Recipe(epochs=6, learning_rate=0.5, batch_size=8, select="best")
    best = run("finetune", cohort, tmp_path / "best", recipe)
    losses = [row["val_loss"] for row in best.history]
    assert best.selected_epoch == np.argmin(losses) + 1 < 6
    short = replace(recipe, epochs=best.selected_epoch, select="final")
    oracle = run("finetune", cohort, tmp_path / "oracle", short)
    for name, array in oracle.model.items():
        assert np.array_equal(array, best.model[name]), name
    final = run("finetune", cohort, tmp_path / "final", replace(recipe, select="final"))
    assert final.selected_epoch == 6
    assert [row["val_loss"] for row in final.history] == losses
    assert not np.array_equal(final.head["weight"], best.head["weight"])


def test_bfloat16_keeps_the_weights_in_float32(cohort, tmp_path):
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=8, precision="bfloat16")
    half = run("finetune", cohort, tmp_path / "half", recipe)
    whole = run("finetune", cohort, tmp_path / "whole", replace(recipe, precision="auto"))
    assert (half.precision, whole.precision) == ("bfloat16", "float32")
    assert half.head["weight"].dtype == half.extracted.features.dtype == np.float32
    losses = [[row["train_loss"] for row in outcome.history] for outcome in (half, whole)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], abs=0.1)


def test_a_compiled_network_trains_the_networks_own_weights(cohort, tmp_path, monkeypatch):
    """What torch.compile returns is called instead of the model; eager here, as building costs."""
    compiled = []

    def eager(model, *, mode, dynamic):
        compiled.append(model)
        return real(model, backend="eager", dynamic=dynamic)

    real = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=10)
    plain = run("finetune", cohort, tmp_path / "plain", recipe)
    built = network("finetune")
    outcome = run(
        "finetune", cohort, tmp_path / "compiled", replace(recipe, compile=True), built=built
    )
    assert compiled[0] is built.model
    assert outcome.history[-1]["train_loss"] == pytest.approx(
        plain.history[-1]["train_loss"], rel=1e-4
    )
    np.testing.assert_allclose(
        outcome.extracted.features, plain.extracted.features, rtol=1e-3, atol=1e-3
    )
    compiled.clear()
    ways = [replace(recipe, compile=way) for way in (False, True)]
    frozen, again = (run("frozen", cohort, tmp_path / "frozen", way) for way in ways)
    assert len(compiled) == 2  # the pass and that of the maps; a classifier alone is not compiled
    np.testing.assert_allclose(
        again.extracted.features, frozen.extracted.features, rtol=1e-5, atol=1e-5
    )
    assert len(list((tmp_path / "frozen" / "cache").glob("features-*.json"))) == 2
    assert again.certificate == frozen.certificate and again.certificate["identical"]


def test_a_batch_that_does_not_fit_is_answered_with_one_that_does(cohort, tmp_path, monkeypatch):
    """A network that runs out of memory above 5 slices, as a device would."""
    built = network("finetune")
    forward = built.model.forward
    sizes = []

    def limited(x):
        sizes.append(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("no room")
        return forward(x)

    monkeypatch.setattr(built.model, "forward", limited)
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=20)
    with pytest.raises(RunError, match=r"20 do not fit .* cpu; 5 do \(tried on one step\)"):
        run("finetune", cohort, tmp_path, recipe, built=built)
    assert sizes == [20, 10, 5]
    monkeypatch.setattr(built.model, "forward", lambda x: limited(x.repeat(6, 1, 1, 1)))
    with pytest.raises(RunError, match="nor do 2: take smaller slices"):
        run("finetune", cohort, tmp_path, recipe, built=built)


def test_a_loss_that_is_not_finite_stops_with_a_sentence(cohort, tmp_path):
    with pytest.raises(RunError, match=r"no longer finite in epoch \d+; a learning rate below"):
        run("finetune", cohort, tmp_path, Recipe(epochs=9, learning_rate=1e30, batch_size=8))


def test_an_epoch_that_diverges_is_numbered_as_in_the_history(cohort, tmp_path):
    """The second part of lp-ft: a backbone of a rate that its classifier does not share."""
    recipe = Recipe(
        epochs=4, learning_rate=1e30, head_learning_rate=1e-31, batch_size=8, probe_epochs=5
    )
    with pytest.raises(RunError, match=r"no longer finite in epoch [6-9]; "):
        run("lp-ft", cohort, tmp_path, recipe)


def test_batches_of_one_slice_are_no_matter_for_a_traceback(cohort, tmp_path):
    """BatchNorm over 1 × 1 positions has no variance; where it does not train, all is well."""
    recipe = Recipe(epochs=1, learning_rate=0.05, batch_size=1)
    with pytest.raises(RunError, match=r"batches of 1 leave it: set batch_size to 3 or more"):
        run("finetune", cohort, tmp_path / "tuned", recipe)
    assert len(run("frozen", cohort, tmp_path / "frozen", recipe).history) == 1


def test_feature_inputs_and_spread():
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(FeatureInputs(features, CPU)(np.array([4, 1])), features[[4, 1]])
    assert np.array_equal(spread(3, 10), [0, 1, 2])
    assert len(spread(1000, 256)) == 256 and spread(1000, 256)[-1] == 999
