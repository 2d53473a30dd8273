from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from headscope.errors import InputError
from headscope.training import resume as resume_module
from headscope.training import train as training
from headscope.training.recipe import Recipe
from headscope.training.resume import Progress, ResumeFile
from tests.support.training import CPU, network, run, small_cohort

RECIPE = Recipe(epochs=4, learning_rate=0.05, batch_size=8)


@pytest.fixture
def cohort():
    return small_cohort()


@pytest.fixture
def always(monkeypatch):
    """Let writing take all the time it wants."""
    monkeypatch.setattr(resume_module, "SHARE", float("inf"))


def same(one, other):
    """Whether two outcomes are bit-identical, but for the seconds."""
    assert one.model.keys() == other.model.keys()
    for name, array in one.model.items():
        assert array.tobytes() == other.model[name].tobytes(), name
    assert one.logits.tobytes() == other.logits.tobytes()
    rows = [[row | {"seconds": 0} for row in outcome.history] for outcome in (one, other)]
    assert rows[0] == rows[1]
    assert one.selected_epoch == other.selected_epoch


def interrupted(monkeypatch, after, *args, **options):
    """Run, but stop once `after` resume files are written; return the steps of those written."""
    saved, written = ResumeFile.save, []

    def stop(self, model, optimizer, progress):
        saved(self, model, optimizer, progress)
        written.append((len(progress.history), progress.step))
        if len(written) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResumeFile, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run(*args, **options)
    return written


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return, for a regime, its run that nothing interrupts, trained once."""
    recipe = replace(RECIPE, select="best", probe_epochs=1, epochs=3)

    @cache
    def trained(regime):
        return run(regime, small_cohort(), tmp_path_factory.mktemp("undisturbed"), recipe), recipe

    return trained


@pytest.mark.parametrize("regime", ["frozen", "frozen-adabn", "finetune", "lp-ft", "layerwise:1"])
@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_run_interrupted_within_an_epoch_ends_bit_identical(
    cohort, tmp_path, monkeypatch, always, undisturbed, regime, stop_after
):
    whole, recipe = undisturbed(regime)
    options = {"resume_every_s": 0.0}
    arguments = (regime, cohort, tmp_path, recipe)
    written = interrupted(monkeypatch, stop_after, *arguments, **options)
    # three steps an epoch, so the first, fourth and seventh of them are written within one
    assert written[-1][1] == 1
    again = interrupted(monkeypatch, 1, *arguments, **options)
    assert again[0][1] == 2  # no step is taken twice
    same(whole, run(*arguments, **options))


def test_dropout_and_augmentation_go_on_where_they_were(cohort, tmp_path, monkeypatch, always):
    recipe = replace(
        RECIPE, augment_flip=True, augment_rotate_deg=10.0, augment_jitter=0.2, epochs=2
    )

    def built():
        return network("finetune", architecture="mobilenet_v3_small")

    undisturbed = run("finetune", cohort, tmp_path / "one", recipe, built=built())
    arguments = ("finetune", cohort, tmp_path / "two", recipe)
    written = interrupted(monkeypatch, 2, *arguments, built=built(), resume_every_s=0.0)
    assert written[-1] == (0, 2)
    same(undisturbed, run(*arguments, built=built()))
    plain = run("finetune", cohort, tmp_path / "plain", replace(RECIPE, epochs=1), built=built())
    assert plain.history[0]["train_loss"] != undisturbed.history[0]["train_loss"]


def test_a_run_interrupted_between_the_parts_of_lp_ft_ends_bit_identical(
    cohort, tmp_path, monkeypatch, always
):
    recipe = replace(RECIPE, probe_epochs=2, epochs=2)
    undisturbed = run("lp-ft", cohort, tmp_path / "one", recipe)
    assert [row["phase"] for row in undisturbed.history] == ["probe"] * 2 + ["train"] * 2
    assert [row["epoch"] for row in undisturbed.history] == [1, 2, 3, 4]
    assert undisturbed.selected_epoch == 4
    arguments = ("lp-ft", cohort, tmp_path / "two", recipe)
    assert interrupted(monkeypatch, 2, *arguments)[-1] == (2, 0)  # the probe's last epoch
    same(undisturbed, run(*arguments))


def test_lp_ft_starts_from_the_probed_classifier(cohort, tmp_path, monkeypatch):
    """Its first part is the frozen run of as many epochs, its second moves the backbone too."""
    starts, fit = [], training.fit

    def noted(model, head, *args, **options):
        starts.append((options["phase"], head.weight.detach().clone().numpy()))
        return fit(model, head, *args, **options)

    monkeypatch.setattr(training, "fit", noted)
    outcome = run("lp-ft", cohort, tmp_path / "lp-ft", replace(RECIPE, probe_epochs=3, epochs=1))
    frozen = run("frozen", cohort, tmp_path / "frozen", replace(RECIPE, epochs=3))
    assert [phase for phase, _ in starts] == ["probe", "train", "train"]
    assert np.array_equal(starts[1][1], frozen.head["weight"])
    for row, oracle in zip(outcome.history[:3], frozen.history, strict=True):
        assert row["val_loss"] == oracle["val_loss"]
    assert not outcome.certificate["identical"] and frozen.certificate["identical"]


def test_layerwise_certifies_what_does_not_train(cohort, tmp_path):
    built = network("layerwise:1")
    before = {name: tensor.clone() for name, tensor in built.model.state_dict().items()}
    outcome = run("layerwise:1", cohort, tmp_path, built=built)
    assert outcome.certificate["identical"]
    assert outcome.certificate["covers"] == "the stages that do not train"
    moved = {n for n, tensor in outcome.model.items() if not np.array_equal(tensor, before[n])}
    assert moved and all(name.startswith(built.trained) for name in moved)
    assert any(not name.startswith(built.classifier) for name in moved)


def test_a_long_write_is_not_made_after_every_epoch(tmp_path, monkeypatch):
    """Twenty times as long as a write takes, and `every_s` within an epoch."""
    clock = [0.0]
    monkeypatch.setattr(resume_module.time, "perf_counter", lambda: clock[0])
    kept = ResumeFile(tmp_path / "last.pt", every_s=300.0)
    assert kept.due(within_epoch=False) and not kept.due(within_epoch=True)
    monkeypatch.setattr(resume_module.torch, "save", lambda *_: clock.__setitem__(0, clock[0] + 2))
    layer = torch.nn.Linear(1, 1)
    kept.save(layer, torch.optim.SGD(layer.parameters()), Progress.start(CPU))
    for seconds, epoch, step in ((39, False, False), (1, True, False), (260, True, True)):
        clock[0] += seconds
        assert (kept.due(within_epoch=False), kept.due(within_epoch=True)) == (epoch, step)


def test_the_last_epoch_is_always_kept(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(resume_module, "SHARE", 1e-9)
    run("finetune", cohort, tmp_path)
    state = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert len(state["progress"]["history"]) == 4


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("kind", ["code", "text", "other network", "other content"])
def test_a_foreign_resume_file_is_refused(cohort, tmp_path, kind):
    path = tmp_path / "checkpoint" / "last.pt"
    path.parent.mkdir()
    if kind == "code":
        torch.save({"model": Payload(str(tmp_path / "ran"))}, path)
    elif kind == "text":
        path.write_text("hello")
    elif kind == "other content":
        torch.save(torch.zeros(3), path)
    else:
        torch.save({"model": {"a": torch.zeros(1)}, "optimizer": {}, "history": []}, path)
    with pytest.raises(InputError, match=r"last\.pt is no resume file of this run"):
        run("finetune", cohort, tmp_path)
    assert not (tmp_path / "ran").exists()
