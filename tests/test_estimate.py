"""The plan of an experiment: what it says, and that it writes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headscope.errors import InputError, RunError
from headscope.experiment import estimate as estimate_module
from headscope.experiment.config import find_config, make_config, read_config
from headscope.experiment.estimate import estimate
from headscope.experiment.plan import plan_runs
from headscope.experiment.run import run
from headscope.models.network import build_network
from headscope.record import find_runs
from tests.support.commands import headscope_here
from tests.support.experiments import fail, settings, write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "scans")


def test_the_paper_is_twelve_rows():
    plans = plan_runs(read_config(find_config(Path("paper.toml")), {"data": "scans"}))
    rows = [
        (plan.architecture.name, plan.regime.name, plan.recipe.epochs, plan.recipe.learning_rate)
        for plan in plans
    ]
    assert rows == [  # Table 2 of the paper
        ("resnet101", "frozen", 20, 0.001),
        ("resnet101", "finetune", 20, 0.001),
        ("resnet101", "scratch", 20, 0.001),
        ("resnet101", "scratch", 50, 0.001),
        ("googlenet", "frozen", 30, 0.001),
        ("googlenet", "finetune", 30, 0.001),
        ("googlenet", "scratch", 30, 0.001),
        ("googlenet", "scratch", 60, 0.001),
        ("vgg19", "frozen", 30, 0.0001),
        ("vgg19", "finetune", 30, 0.0001),
        ("vgg19", "scratch", 30, 0.0001),
        ("vgg19", "scratch", 60, 0.0001),
    ]
    assert {plan.setting.split for plan in plans} == {"subject"}
    both = read_config(
        find_config(Path("paper.toml")), {"data": "s", "splits": ["subject", "slice"]}
    )
    assert len(plan_runs(both)) == 24


def test_ones_own_paper_toml_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = find_config(Path("paper.toml"))
    assert packaged.parent.name == "experiment"
    (tmp_path / "paper.toml").write_text('data = "scans"\n')
    assert str(find_config(Path("paper.toml"))) == "paper.toml"


def test_the_plan_writes_nothing_and_counts_what_is_shared_once(data, tmp_path):
    key = tmp_path / "study.key"
    config = settings(data, tmp_path / "out", seeds=[0, 1], pseudonym_key=key, weights="pretrained")
    found = estimate(config)
    assert not config.out.exists() and not key.exists()
    runs = found.runs.set_index("run")
    assert len(runs) == 12 and not runs["finished"].any()
    assert found.slices == 4 * 12 and found.slicing_bytes == 48 * 32**2
    network = build_network("timm/test_resnet", "scratch", "random", classes=2, size=32, seed=0)
    features = 4 * 48 * network.head.in_features
    frozen = runs[runs["regime"] == "frozen"].sort_values("bytes")["bytes"]
    assert (frozen.iloc[:3] == frozen.iloc[0]).all()  # four runs, one pass
    model = sum(tensor.nbytes for tensor in network.model.state_dict().values())
    assert frozen.iloc[3] - frozen.iloc[0] > features + model  # and the means of stages
    lean = estimate(config.model_copy(update={"keep_model": False})).runs
    stores = (found.runs["regime"] != "frozen") | (found.runs["bytes"] == frozen.iloc[3])
    assert (found.runs["bytes"] - lean["bytes"] == model * stores).all()
    longer = estimate(config.model_copy(update={"recipe": replace(config.recipe, epochs=200)})).runs
    trained = found.runs["regime"] == "finetune"
    assert (longer["seconds"][trained] > 10 * found.runs["seconds"][trained]).all()


def test_what_stands_costs_nothing(data, tmp_path, monkeypatch):
    config = settings(data, tmp_path / "out", splits=["subject"], regimes=["frozen"], epochs=1)
    run(config)
    again = estimate(config)
    assert again.runs["finished"].all()
    assert (again.seconds, again.bytes) == (0, 0)
    more = estimate(config.model_copy(update={"regimes": ("frozen", "scratch")}))
    assert more.runs["finished"].tolist() == [True, False]
    assert (more.runs["seconds"] > 0).tolist() == [False, True]
    # what a finished run stored is there for the next head
    both = estimate(config.model_copy(update={"splits": ("subject", "slice")})).runs
    backbone = find_runs(config.out).runs[0].place("backbone.safetensors").stat().st_size
    assert both["finished"].tolist() == [True, False] and both["bytes"].sum() < backbone / 2
    # a finished run that continues to more epochs costs those alone
    seconds = []
    for epochs in (10_001, 20_001):
        config = settings(data, config.out, splits=["subject"], regimes=["frozen"], epochs=epochs)
        monkeypatch.setattr(estimate_module, "HEAD_STEP_S", 1.0)
        monkeypatch.setattr(estimate_module, "_second_try", lambda work, device: 0.0)
        seconds.append(estimate(config).seconds)
    assert seconds[1] == pytest.approx(2 * seconds[0])


def test_what_is_measured_is_what_will_run(data, tmp_path, monkeypatch):
    asked = []
    real = estimate_module.autocast
    monkeypatch.setattr(estimate_module, "autocast", lambda *of: asked.append(of[0]) or real(*of))
    changes = {"splits": ["subject"], "regimes": ["finetune"], "batch_size": 1}
    found = estimate(settings(data, tmp_path / "out", precision="bfloat16", **changes))
    assert set(asked) == {"bfloat16"}
    assert found.runs["seconds"].item() > 0  # BatchNorm cannot be measured on a lone slice


@pytest.mark.parametrize(
    ("in_bfloat16", "regime", "asked", "notes"),
    [
        (0.4, "finetune", "auto", 1),
        (0.9, "finetune", "auto", 0),  # hardly faster
        (4.0, "finetune", "auto", 0),  # a processor without it
        (0.4, "frozen", "auto", 0),  # nothing but the head trains
        (0.4, "finetune", "float32", 0),  # asked for
    ],
)
def test_a_processor_that_is_faster_in_bfloat16_is_said(
    data, tmp_path, monkeypatch, in_bfloat16, regime, asked, notes
):
    tried = []
    real = estimate_module.autocast
    monkeypatch.setattr(estimate_module, "autocast", lambda *of: tried.append(of[0]) or real(*of))

    def second_try(work, device):
        work()
        return in_bfloat16 if tried[-1] == "bfloat16" else 1.0

    monkeypatch.setattr(estimate_module, "_second_try", second_try)
    changes = {"splits": ["subject"], "regimes": [regime], "precision": asked}
    found = estimate(settings(data, tmp_path / "out", **changes))
    assert found.notes == notes * [
        "In bfloat16 this processor trains timm/test_resnet 2.5 times as fast as in float32, the "
        "default on a CPU: --set precision=bfloat16."
    ]
    # the training step, which is the longer one, only where the pass is faster
    passes = {0.4: 2, 0.9: 1, 4.0: 1}[in_bfloat16] if asked == "auto" else 0
    assert tried.count("bfloat16") == passes
    assert found.runs["seconds"].item() > 0


def test_a_network_too_large_for_the_device_is_said(data, tmp_path, monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(estimate_module, "_measure", measure)
    found = estimate(settings(data, tmp_path / "out", batch_size=512, regimes=["finetune"]))
    assert found.notes == ["Batches of 512 do not fit into cpu's memory: timm/test_resnet."]
    assert found.runs["seconds"].isna().all()


def test_weights_that_are_to_be_fetched_are_named(data, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    changes = {"architectures": ["squeezenet1_1"], "regimes": ["frozen"], "splits": ["subject"]}
    found = estimate(settings(data, tmp_path / "out", weights="pretrained", **changes))
    (fetch,) = found.notes
    assert "The weights of squeezenet1_1 are not on this machine" in fetch
    assert "https://" in fetch and str(tmp_path / "torch") in fetch


def test_the_command_prints_the_plan(data, tmp_path, monkeypatch, capsys):
    rows = "".join(
        f'[[rows]]\nregime = "{regime}"\nepochs = 7\n' for regime in ("frozen", "scratch")
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(
        f'architectures = ["timm/test_resnet"]\nweights = "random"\ncount = 2\n{rows}'
    )
    options = ["--data", data, "--size", 32, "--out", tmp_path / "out", "--dry-run"]
    done = headscope_here(monkeypatch, capsys, "run", "grid.toml", *options)
    assert done.returncode == 0, done.stderr
    assert "timm-test_resnet-scratch-subject-seed0" in done.stdout
    assert "4 of 4 runs to do on 24 slices" in done.stdout  # with two simple rivals
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.toml"]
    name = "timm-test_resnet-frozen-subject-seed0"
    done = headscope_here(monkeypatch, capsys, "run", "grid.toml", *options, "--only", name)
    assert "3 of 3 runs to do" in done.stdout and name in done.stdout
    assert "scratch" not in done.stdout  # the plan was that of all runs
    places = ["--data", data, "--only", "nothing"]
    for listing in ("--list", "--json", "--dry-run"):
        done = headscope_here(monkeypatch, capsys, "run", "grid.toml", *places, listing)
        assert done.returncode == 2 and "There is no run 'nothing'" in done.stderr
    without = headscope_here(monkeypatch, capsys, "run", "grid.toml")
    assert without.returncode == 2 and "'data' is missing" in without.stderr
    twice = headscope_here(monkeypatch, capsys, "run", data, "--data", data)
    assert twice.returncode == 2 and "named twice" in twice.stderr


def test_a_failed_run_is_shown_at_the_end_with_exit_code_1(
    data, tmp_path, monkeypatch, undrawn, capsys
):
    arguments = ["run", data, "--architectures", "timm/test_resnet", "--weights", "random"]
    arguments += ["--regimes", "frozen,scratch", "--size", 32, "--count", 2, "--epochs", 1]
    monkeypatch.chdir(tmp_path)
    fail(monkeypatch, "scratch", RunError("The loss is no longer finite in epoch 1."))
    done = headscope_here(monkeypatch, capsys, *arguments, "--workers", 1)
    assert done.returncode == 1
    assert "Report:" in done.stdout and "timm/test_resnet" in done.stdout
    assert done.stderr.count("The loss is no longer finite in epoch 1.") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("1 of 4 runs failed: timm-test_resnet-scratch-subject-seed0. The same")


def test_settings_that_cannot_be_are_refused_as_by_run(data, tmp_path):
    with pytest.raises(InputError, match="holds the data"):
        estimate(make_config(data=data, out=data))
    options = {"data": data, "out": tmp_path / "out", "count": 4}
    with pytest.raises(InputError, match="resnet50_v1 has no weights to download: give a file"):
        estimate(make_config(**options, architectures=["resnet50_v1"], regimes=["frozen"]))
    with pytest.raises(InputError, match="alexnet does not take slices of 32"):
        estimate(make_config(**options, architectures=["alexnet"], size=32, weights="random"))
