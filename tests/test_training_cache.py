import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from headscope.errors import RunError
from headscope.manifest import content_hash, keep
from headscope.models.network import build_network
from headscope.training import batchnorm, cache, loop
from headscope.training.cache import FEATURES, LAYERS, Store, cached_features
from headscope.training.features import extract_features
from headscope.training.recipe import Recipe
from headscope.training.resume import ResumeFile
from tests.support.training import TINY, data_of, inputs_of, network, run, small_cohort

RECIPE = Recipe(epochs=5, learning_rate=0.05, batch_size=8)


@pytest.fixture
def cohort():
    return small_cohort()


@pytest.fixture
def passes(monkeypatch):
    """Count the passes of all slices through a backbone."""
    counted = []

    def count(*args, **options):
        counted.append(args)
        return extract_features(*args, **options)

    monkeypatch.setattr(cache, "extract_features", count)
    return counted


@pytest.mark.parametrize("architecture", [TINY, "mobilenet_v3_small"])
def test_frozen_through_the_cache_equals_frozen_through_the_network(cohort, tmp_path, architecture):
    """The same final head to 1e-5 and the same predictions, with BatchNorm and dropout inside."""
    fast, slow = (network("frozen", architecture=architecture) for _ in range(2))
    data = data_of(slow, cohort)
    for built in (fast, slow):  # random weights with statistics to match learn something
        batchnorm.estimate_statistics(built, data.inputs, data.train_rows, "statistics")
    outcome = run("frozen", cohort, tmp_path, RECIPE, built=fast)
    kinds = {type(module) for module in slow.model.modules()}
    assert torch.nn.BatchNorm2d in {base for kind in kinds for base in kind.mro()}
    assert architecture == TINY or torch.nn.Dropout in kinds
    history, _ = loop.fit(
        slow.model,
        slow.head,
        slow.training_mode,
        data,
        RECIPE,
        seed=0,
        resume=ResumeFile(tmp_path / "slow" / "last.pt"),
        title="slow",
    )
    assert np.abs(outcome.head["weight"] - outcome.head["initial_weight"]).max() > 0.01
    np.testing.assert_allclose(outcome.head["weight"], slow.head.weight.detach(), atol=1e-5)
    np.testing.assert_allclose(outcome.head["bias"], slow.head.bias.detach(), atol=1e-5)
    slow.model.eval()
    with torch.inference_mode():
        logits = slow.model(data.inputs(np.arange(40))).numpy()
    assert np.array_equal(outcome.logits.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(outcome.logits, logits, rtol=1e-4, atol=1e-4)
    for row, oracle in zip(outcome.history, history, strict=True):
        assert row["val_loss"] == pytest.approx(oracle["val_loss"], abs=1e-5)
    assert outcome.certificate["identical"]


def test_stored_features_are_those_of_the_pass_bit_for_bit(cohort, tmp_path):
    built = network("frozen")
    inputs = inputs_of(built, cohort[0])
    fresh = extract_features(built, inputs, "features")
    first = cached_features(built, inputs, Store(tmp_path, "key"), "features")
    again = cached_features(built, inputs, Store(tmp_path, "key"), "features")
    assert fresh.features.tobytes() == first.features.tobytes() == again.features.tobytes()
    assert first.seconds == again.seconds
    assert set(first.layers) == set(again.layers) == {*built.stages, "slice"}
    for stage in built.stages:
        assert np.array_equal(fresh.layers[stage], again.layers[stage])


def test_one_pass_serves_every_seed_split_and_head(cohort, tmp_path, passes):
    pixels, labels, subsets = cohort
    built = network("frozen")
    outcomes = [
        run(
            "frozen",
            (pixels, labels, np.roll(subsets, 4 * seed)),
            tmp_path / str(seed),
            recipe,
            seed=seed,
            built=built,
            cache=tmp_path / "cache",
        )
        for seed, recipe in ((0, RECIPE), (1, replace(RECIPE, head_learning_rate=3.0)))
    ]
    assert len(passes) == 1
    assert outcomes[0].extracted.seconds == outcomes[1].extracted.seconds
    # one entry of features; of the maps one for each choice of test slices
    names = [path.name.split("-")[0] for path in (tmp_path / "cache").glob("*.json")]
    assert sorted(names) == ["features", "maps", "maps"]


def test_other_weights_slices_and_precisions_have_features_of_their_own(cohort, tmp_path, passes):
    built, other = network("frozen"), network("frozen", seed=9)
    inputs = inputs_of(built, cohort[0])
    cached_features(built, inputs, Store(tmp_path, "key"), "features")
    cached_features(other, inputs, Store(tmp_path, "key"), "features")
    cached_features(built, inputs, Store(tmp_path, "other slices"), "features")
    cached_features(built, inputs, Store(tmp_path, "key", "bfloat16"), "features")
    shifted = replace(built, architecture=replace(built.architecture, mean=(0.0, 0.0, 0.0)))
    cached_features(shifted, inputs, Store(tmp_path, "key"), "features")
    assert len(passes) == len(list(tmp_path.glob("*.json"))) == 5


@pytest.mark.parametrize("part", ["entry", "features", "layers"])
@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "pickle", "others", "gone"])
def test_a_damaged_file_is_computed_anew(cohort, tmp_path, passes, part, damage):
    built = network("frozen")
    inputs = inputs_of(built, cohort[0])
    fresh = cached_features(built, inputs, Store(tmp_path, "key"), "features")
    (entry,) = tmp_path.glob("*.json")
    files = {"entry": entry, "features": fresh.files[FEATURES], "layers": fresh.files[LAYERS]}
    path = files[part]
    whole = path.read_bytes()
    path.unlink()  # as what is mapped must not be cut
    if damage == "others":
        np.savez(path.with_suffix(".npz"), features=fresh.features[:3], seconds=0.0)
    elif damage == "pickle":
        path.write_bytes(pickle.dumps({}))
    elif damage != "gone":
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        damaged = {"empty": b"", "cut": whole[:middle], "flipped": flipped, "text": b"hello"}
        path.write_bytes(damaged[damage])
    again = cached_features(built, inputs, Store(tmp_path, "key"), "features")
    assert np.array_equal(again.features, fresh.features) and len(passes) == 2
    assert path.read_bytes() == whole or part == "entry"  # but for the seconds
    cached_features(built, inputs, Store(tmp_path, "key"), "features")
    assert len(passes) == 2


def test_writers_of_the_same_file_do_not_clash(tmp_path):
    store, array, computed = Store(tmp_path, "key"), np.arange(6.0), []

    def compute():
        computed.append(1)
        return {"features.npy": array}, 1.5

    def write(_):
        return cache._shared(store, tmp_path / "features", compute, lambda parts: len(parts) == 1)

    with ThreadPoolExecutor(8) as pool:
        for parts, seconds, files in pool.map(write, range(64)):
            assert np.array_equal(parts["features.npy"], array) and seconds == 1.5
            assert files["features.npy"].is_file()
    assert len(computed) == 1
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {tmp_path / "features.json", files["features.npy"]}


def test_frozen_adabn_estimates_its_statistics_on_the_training_slices(cohort, tmp_path):
    """The oracle: the first BatchNorm's mean and variance over the batches of training slices."""
    built = network("frozen-adabn")
    pixels, _, subsets = cohort
    pretrained = network("frozen-adabn").backbone_hash()
    outcome = run("frozen-adabn", cohort, tmp_path, RECIPE, built=built)
    assert outcome.certificate["identical"] and outcome.certificate["before"] != pretrained
    assert outcome.certificate["before"] == built.backbone_hash()
    x = inputs_of(built, pixels)(np.flatnonzero(subsets == "train"))
    convolution, normalisation = built.model.conv1[0], built.model.conv1[1]
    with torch.inference_mode():
        seen = convolution(x)
    torch.testing.assert_close(normalisation.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(normalisation.running_var, seen.var(dim=(0, 2, 3)))
    assert normalisation.momentum == 0.1  # as it was
    again = run("frozen-adabn", cohort, tmp_path / "other", RECIPE)
    assert np.array_equal(again.head["weight"], outcome.head["weight"])
    names = {p.name.split("-")[0] for p in (tmp_path / "cache").iterdir() if p.is_file()}
    assert names == {"batchnorm", "features", "maps"}


def test_stored_statistics_are_put_back_bit_for_bit(cohort, tmp_path, monkeypatch):
    first = run("frozen-adabn", cohort, tmp_path / "one", RECIPE, cache=tmp_path)
    monkeypatch.setattr(cache, "estimate_statistics", None)  # not called again
    again = run("frozen-adabn", cohort, tmp_path / "two", RECIPE, seed=0, cache=tmp_path)
    assert again.certificate["before"] == first.certificate["before"]
    assert again.extracted.features.tobytes() == first.extracted.features.tobytes()


def test_the_mean_of_several_batches_counts_each_alike(cohort, monkeypatch):
    monkeypatch.setattr(batchnorm, "STATISTICS_BATCH", 7)
    built = network("frozen-adabn")
    inputs = inputs_of(built, cohort[0])
    batchnorm.estimate_statistics(built, inputs, np.arange(19, -1, -1), "statistics")
    parts = [np.arange(0, 7), np.arange(7, 14), np.arange(14, 20)]
    with torch.inference_mode():
        means = [built.model.conv1[0](inputs(part)).mean(dim=(0, 2, 3)) for part in parts]
    oracle = torch.stack(means).mean(dim=0)
    torch.testing.assert_close(built.model.conv1[1].running_mean, oracle)


def test_a_network_without_batchnorm_is_left_as_it_is(tmp_path):
    built = build_network("timm/test_vit", "frozen-adabn", "random", classes=2, size=160, seed=0)
    pixels = np.zeros((4, 160, 160), dtype=np.uint8)
    before = built.backbone_hash()
    store = Store(tmp_path, "key")
    cache.cached_statistics(built, inputs_of(built, pixels), np.arange(4), store, "statistics")
    assert built.backbone_hash() == before


@pytest.mark.parametrize("wrong", ["width", "type", "rows", "values", "no hash", "name"])
def test_an_entry_that_is_not_what_was_computed_is_computed_again(cohort, tmp_path, passes, wrong):
    built, store = network("frozen"), Store(tmp_path, "key")
    inputs = inputs_of(built, cohort[0])
    fresh = cached_features(built, inputs, store, "features").features
    (path,) = tmp_path.glob("*.json")
    entry = json.loads(path.read_text())
    features = {
        "width": fresh[:, :-1],
        "type": fresh.astype(np.float64),
        "rows": fresh[:-1],
        "values": fresh[::-1],
    }.get(wrong, fresh)
    named = keep(store.files, FEATURES, lambda place: np.save(place, features))["sha256"]
    known = dict(entry["files"])
    entry["files"][FEATURES] = named
    if wrong != "values":  # as another program would write it, but for the values
        known = entry["files"]
    entry["sha256"] = content_hash(["other.json" if wrong == "name" else path.name, known])
    if wrong == "no hash":
        entry.pop("sha256")
    path.write_text(json.dumps(entry))
    again = cached_features(built, inputs, store, "features")
    assert np.array_equal(again.features, fresh) and len(passes) == 2


def test_features_of_nan_are_refused(cohort, tmp_path):
    built = network("frozen")
    with torch.no_grad():
        next(built.model.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match=r"features that are no finite numbers\. Its weights"):
        cached_features(built, inputs_of(built, cohort[0]), Store(tmp_path, "key"), "features")
    assert not list(tmp_path.iterdir())
