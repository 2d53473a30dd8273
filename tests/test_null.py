"""The null on heads that headscope's own training made: what it conserves, and what r then is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headscope.analysis import head_analysis, run_shrinkage
from headscope.record import Run, start_run, write_history
from headscope.training.loader import FeatureInputs, batches
from headscope.training.loop import Data, fit
from headscope.training.recipe import Recipe
from headscope.training.resume import ResumeFile


def train_head(folder, seed, recipes, *, rows, width, classes):
    """Train a head on random features by our own loop, phase after phase; return what is kept."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width)).astype(np.float32)  # (N, D)
    labels = torch.from_numpy(rng.integers(0, classes, rows))
    torch.manual_seed(seed)
    head = torch.nn.Linear(width, classes)
    initial = head.weight.detach().numpy().copy()
    inputs = FeatureInputs(features, torch.device("cpu"))
    train_rows, val_rows = np.arange(rows - 4), np.arange(rows - 4, rows)
    data = Data(inputs, inputs, labels, train_rows, val_rows)
    history, selected = [], 0
    for phase, recipe in recipes.items():
        found, chosen = fit(
            head, head, head.train, data, recipe, seed=seed, title=phase, phase=phase,
            resume=ResumeFile(folder / f"{phase}.pt"), after=len(history),
        )  # fmt: skip
        history, selected = history + found, len(history) + chosen
    return initial, head.weight.detach().numpy(), history, selected + 1


def as_run(folder, recipe, history, selected, rows):
    """Write what `run_shrinkage` reads of a run."""
    steps = len(batches(np.arange(rows - 4), recipe.batch_size))
    known = {name: value for name, value in vars(recipe).items() if value is not None}
    start_run(folder, known | {"steps_per_epoch": steps})
    write_history(folder, history)
    (folder / "metrics.json").write_text(f'{{"selected_epoch": {selected}}}')
    return Run(folder)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    rows=st.integers(12, 60),
    width=st.integers(5, 120),
    classes=st.integers(2, 4),
    rate=st.floats(1e-3, 0.05),
    decay=st.floats(0, 0.02),
    momentum=st.floats(0, 0.95),
    factor=st.floats(0.5, 4),
    epochs=st.integers(1, 6),
    schedule=st.sampled_from(["step", "cosine"]),
    select=st.sampled_from(["final", "best"]),
    probe=st.booleans(),
)
def test_our_own_training_keeps_the_row_sum_that_its_record_predicts(
    tmp_path_factory, seed, rows, width, classes, rate, decay, momentum, factor, epochs, schedule,
    select, probe,
):  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe(
        epochs, rate, batch_size=8, momentum=momentum, weight_decay=decay, schedule=schedule,
        drop_every=2, drop_factor=0.5, head_learning_rate=factor, select=select,
    )  # fmt: skip
    phases = {"probe": recipe, "train": recipe} if probe else {"train": recipe}
    initial, weight, history, selected = train_head(
        folder, seed, phases, rows=rows, width=width, classes=classes
    )
    run = as_run(folder / "run", recipe, history, selected, rows)
    head = head_analysis(weight, initial=initial, shrinkage=run_shrinkage(run))
    # in float32 what the sum may lose is relative to the weights that cancel in it
    assert head.row_sum_drift <= 1e-5 * np.abs(weight).sum(axis=0).max()
    for pair in head.pairs:
        assert not pair.drifted
        assert pair.r_identity == pytest.approx(pair.r, abs=1e-9)
        assert pair.r_conserved == pytest.approx(pair.r, abs=1e-4)
