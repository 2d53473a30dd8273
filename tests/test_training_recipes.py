"""More ways to train: each by its closed form, trained again from its record, and its null."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from headscope.analysis import analyse_head, analyse_pair, head_analysis, run_shrinkage
from headscope.analysis.final_layer.layer import null_obstacle
from headscope.analysis.retrain import head_recipe, train_heads
from headscope.figures import plot_weights
from headscope.record import Run, start_run, write_history
from headscope.reporting.chapters.method import curves_chapter
from headscope.reporting.chapters.weights import weights_chapter
from headscope.reporting.forced import forced
from headscope.reporting.scatters import weight_panels
from headscope.schedule import balanced_weights, epoch_order
from headscope.training.loader import FeatureInputs, batches
from headscope.training.loop import Data, fit
from headscope.training.recipe import Recipe, make_optimizer
from headscope.training.resume import ResumeFile
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run
from tests.support.training import CPU

NEW = {
    "plain": {},
    "class weights": {"class_weights": "balanced"},
    "label smoothing": {"label_smoothing": 0.2},
    "both": {"class_weights": "balanced", "label_smoothing": 0.1, "select": "best"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.05, "learning_rate": 0.01},
    "weighted": {"sampling": "weighted"},
    "patience": {"patience": 2, "learning_rate": 0.5, "epochs": 12},
    "all": {
        "optimizer": "adamw", "class_weights": "balanced", "label_smoothing": 0.1, "patience": 1,
        "sampling": "weighted", "select": "best", "learning_rate": 0.05, "epochs": 12,
    },
}  # fmt: skip


def data_of(seed, rows, width, classes):
    """Return random features with labels of unequal classes, one in three for validation."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width)).astype(np.float32)
    labels = np.minimum(rng.integers(0, 2 * classes, rows), classes - 1)
    labels[: 2 * classes] = np.tile(np.arange(classes), 2)
    train = np.flatnonzero(np.arange(rows) % 3)
    return features, labels, train, np.setdiff1d(np.arange(rows), train)


def record_of(folder, recipe, seed=0, rows=48, width=9, classes=3):
    """Train a head by our own loop, and write of its record what analyses of the head read."""
    features, labels, train, val = data_of(seed, rows, width, classes)
    torch.manual_seed(seed)
    head = torch.nn.Linear(width, classes)
    initial = {f"initial_{name}": tensor.detach().numpy().copy()
               for name, tensor in head.named_parameters()}  # fmt: skip
    inputs = FeatureInputs(features, CPU)
    history, selected = fit(
        head, head, head.train, Data(inputs, inputs, torch.from_numpy(labels), train, val), recipe,
        seed=seed, title="head", resume=ResumeFile(folder / "last.pt"),
    )  # fmt: skip
    facts = {"seed": seed, "steps_per_epoch": len(batches(train, recipe.batch_size))}
    start_run(folder, vars(recipe) | facts | {"regime": "frozen", "name": folder.name})
    write_history(folder, history)
    (folder / "metrics.json").write_text(f'{{"selected_epoch": {selected + 1}}}')
    final = {name: tensor.detach().numpy() for name, tensor in head.named_parameters()}
    names = np.array([f"class {k}" for k in range(classes)])
    np.savez(folder / "head.npz", **final, **initial, class_names=names)
    return Run(folder)


@pytest.mark.parametrize("name", NEW)
def test_a_head_trained_again_is_the_recorded_one(tmp_path, name):
    recipe = replace(Recipe(epochs=5, learning_rate=0.1, batch_size=8), **NEW[name])
    run = record_of(tmp_path / "run", recipe)
    features, labels, train, val = data_of(0, 48, 9, 3)
    other = np.random.default_rng(1).permutation(labels)  # which shares nothing but the passes
    weight, bias = train_heads(
        features, np.column_stack([other, labels]), train, head_recipe(run), val
    )
    assert np.abs(run.head["weight"] - run.head["initial_weight"]).max() > 0.01
    np.testing.assert_allclose(weight[1], run.head["weight"], atol=1e-5)
    np.testing.assert_allclose(bias[1], run.head["bias"], atol=1e-5)
    if recipe.patience:
        assert len(run.history) < recipe.epochs
        losses = run.history["val_loss"]
        assert len(losses) - 1 - losses.to_numpy().argmin() == recipe.patience


def test_adamw_takes_the_step_of_the_closed_form():
    """Loshchilov & Hutter 2019, algorithm 2, with decay apart from the gradient."""
    head = torch.nn.Linear(1, 1, bias=False)
    recipe = Recipe(learning_rate=0.1, optimizer="adamw", weight_decay=0.01, momentum=0.8)
    optimizer = make_optimizer(head, head, recipe)
    w, m, v = head.weight.item(), 0.0, 0.0
    for step in range(1, 4):
        head.weight.grad = torch.full((1, 1), float(step))
        optimizer.step()
        m, v = 0.8 * m + 0.2 * step, 0.999 * v + 0.001 * step**2
        w -= 0.1 * (0.01 * w + m / (1 - 0.8**step) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8))
    assert head.weight.item() == pytest.approx(w, rel=1e-6)


def test_class_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 3], [5, 2, 9])
    weights = balanced_weights(labels, 4)
    oracle = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(weights[[0, 1, 3]], oracle)
    assert weights[2] == 0


def test_weighted_sampling_draws_each_class_alike_by_seed_and_epoch_alone():
    rows, classes = np.arange(100, 1100), np.repeat([0, 1], [900, 100])
    order = epoch_order(rows, 3, 7, classes)
    assert np.array_equal(order, epoch_order(rows, 3, 7, classes))
    assert not np.array_equal(order, epoch_order(rows, 3, 8, classes))
    assert len(order) == 1000 and abs(classes[order - 100].mean() - 0.5) < 4 * 0.5 / 1000**0.5
    assert len(np.unique(order)) < 1000


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    classes=st.integers(2, 4),
    rows=st.integers(18, 60),
    width=st.integers(5, 80),
    rate=st.floats(1e-3, 0.05),
    decay=st.floats(0, 0.1),
    momentum=st.floats(0, 0.95),
    class_weights=st.sampled_from(["none", "balanced"]),
    smoothing=st.floats(0, 0.5),
    sampling=st.sampled_from(["shuffle", "weighted"]),
    schedule=st.sampled_from(["step", "cosine"]),
    select=st.sampled_from(["final", "best"]),
)
def test_the_row_sum_is_conserved_or_the_null_is_withheld(
    tmp_path_factory, seed, optimizer, classes, rows, width, rate, decay, momentum, class_weights,
    smoothing, sampling, schedule, select,
):  # fmt: skip
    recipe = Recipe(
        4, rate, batch_size=8, optimizer=optimizer, momentum=momentum, weight_decay=decay,
        class_weights=class_weights, label_smoothing=smoothing, sampling=sampling, drop_every=2,
        schedule=schedule, select=select, patience=3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("run") / "run"
    run = record_of(folder, recipe, seed, rows, width, classes)
    weight, initial = run.head["weight"], run.head["initial_weight"]
    withheld = optimizer == "adamw" and classes > 2
    assert bool(null_obstacle(run)) == withheld
    head = head_analysis(
        weight, initial=initial, shrinkage=run_shrinkage(run), no_null=null_obstacle(run)
    )
    if withheld:
        assert "AdamW does not conserve" in head.meaning
        assert np.isnan([head.row_sum_drift, head.pairs[0].r_null, head.pairs[0].residual]).all()
        assert not any(pair.departs for pair in head.pairs)
        return
    assert head.row_sum_drift <= 1e-5 * np.abs(weight).sum(axis=0).max()
    for pair in head.pairs:
        assert not pair.drifted and abs(pair.r_conserved - pair.r) < 1e-4


def test_adamw_of_three_classes_does_not_conserve_the_row_sum(tmp_path):
    """So that what is withheld would have been wrong."""
    recipe = replace(Recipe(epochs=5, learning_rate=0.01), **NEW["adamw"])
    run = record_of(tmp_path / "run", recipe)
    weight, initial = run.head["weight"], run.head["initial_weight"]
    kept = run_shrinkage(run) * initial.sum(axis=0)
    assert np.abs(weight.sum(axis=0) - kept).max() > 1e-3


def test_page_and_figure_say_why_there_is_no_null(tmp_path):
    written = write_synthetic_run(tmp_path, class_names=("A", "B", "C"), width=24, slices_each=2)
    with (written.path / "run.toml").open("a") as file:
        file.write('optimizer = "adamw"\n')
    run = reseal(written.path)
    head = analyse_head(run)
    assert "No null is given: training by AdamW" in head.meaning
    blocks = weights_chapter([run], {run.name: head}).blocks
    reason = head.pairs[0].no_null
    assert any(reason in getattr(block, "sentences", ()) for block in blocks)
    assert "No null is given" in forced({run.name: head.pairs})
    plot_weights(analyse_pair(run))
    assert ", no null; moved" in str(weight_panels([run], {run.name: head}).rows[0][1][0].below)


@pytest.mark.parametrize(
    ("related", "withheld", "words"),
    [
        ([True], 0, "the only pair of rows that is judged, drawn in Fig, correlates otherwise"),
        ([False], 1, "judged, drawn in Fig, does not correlate otherwise"),
        ([True, False, False], 0, "1 of 3 pairs of rows, drawn in Fig, correlates otherwise"),
        ([False] * 3, 2, "0 of 3 pairs of rows, drawn in Fig, correlate otherwise"),
    ],
)
def test_pairs_of_rows_are_counted_in_words(related, withheld, words, monkeypatch):
    monkeypatch.setattr("headscope.reporting.forced.refer", lambda name: "Fig")
    same = {
        "r": 0.1, "residual": 0.0, "no_null": "", "departs": False, "class_count": 3,
        "pair": (0, 1), "class_names": ("A", "B"), "r_learned": 0.2, "r_unrelated": 0.0,
        "r_unrelated_low": -0.1, "r_unrelated_high": 0.1, "related_p": 0.2,
    }  # fmt: skip
    pairs = [SimpleNamespace(**same, related=one, withheld="") for one in related]
    pairs += [SimpleNamespace(**same, related=False, withheld="No heads.")] * withheld
    text = re.sub("<[^>]+>", "", forced({"run": pairs}))
    assert words in text
    assert ("the only" in text) == (len(related) == 1)
    assert ("for 1 other pair. No heads." in text) == (withheld == 1)
    assert ("for 2 other pairs. No heads." in text) == (withheld == 2)


def test_curves_of_a_head_on_scans_are_said_to_be_over_scans(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, slices_each=2, epochs=1)
    assert not any("over scans" in text for text in curves_chapter([run]).blocks[0].sentences)
    settings = (run.path / "run.toml").read_text(encoding="utf-8")
    (run.path / "run.toml").write_text(settings + 'unit = "scan"\n', encoding="utf-8")
    (words, *_) = curves_chapter([reseal(run.path)]).blocks
    assert words.sentences[-1].startswith("Of frozen all is over scans")
