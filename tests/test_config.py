import dataclasses
import os
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headscope.errors import InputError
from headscope.experiment.config import (
    ROW_SETTINGS,
    SETTINGS,
    Config,
    make_config,
    parse_change,
    read_config,
)
from headscope.experiment.inputs import find_scans
from headscope.experiment.plan import plan_runs
from headscope.training.recipe import Recipe
from tests.support.experiments import write_cohort


def test_settings_survive_toml(tmp_path, monkeypatch):
    config = make_config(
        data="scans",
        out="experiment",
        weights="w.safetensors",
        classes={"AD": ["Demented"], "NC": ["Nondemented"]},
        rows=[{"regime": "scratch", "name": "scratch-50", "epochs": 50}],
        seeds=[0, 1],
    )
    monkeypatch.chdir(tmp_path)
    config.save(Path("experiment") / "experiment.toml")
    monkeypatch.chdir("experiment")  # read again from elsewhere, it names the same places
    again = read_config(Path("experiment.toml"), {})
    for name in ("data", "out", "weights"):
        assert Path(getattr(again, name)).resolve() == tmp_path / getattr(config, name)
    places = ("data", "out", "weights")
    assert again.model_dump(exclude=places) == config.model_dump(exclude=places)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"rows": [{"regime": "frozen", "rate": 1}]}, "Valid settings: regime, name"),
        ({"size": 3}, "The setting 'size' is 3"),
        ({"plane": "oblique"}, "axial"),
        ({"splits": ["scan"]}, "The 1st of 'splits' is 'scan': input should be 'subject', 'slice'"),
        ({"ratio": [1, 0, 1]}, "The 2nd of 'ratio' is 0: input should be greater"),
        ({"batch_size": True}, "The setting 'batch_size' is True: should be a number."),
        ({"seeds": [0, False]}, "The 2nd of 'seeds' is False: should be a number."),
        ({"threshold": True}, "The setting 'threshold' is True: should be a number."),
        ({"regimes": []}, "needs at least one value"),
        ({"learning_rate": -1}, "greater than 0"),
        ({"folds": 3, "balance": ["Age"]}, "Folds and balance exclude each other"),
        ({"rows": [{"regime": "frozen", "name": "../../evil"}]}, "Row 1 (../../evil): The setting"),
        ({"rows": [{"regime": "frozen"}, {"regime": "scratch", "epochs": 0}]}, "Row 2 (scratch):"),
        ({"rows": [{"regime": "frozen", "batchsize": 3}]}, "did you mean 'batch_size'?"),
        ({"rows": [{"epochs": 3}]}, "Row 1: The setting 'regime' is missing."),
        ({"rows": ["frozen"]}, "Row 1: The setting 'rows' is 'frozen'"),
        ({"rows": [{"regime": "frozen", "precision": "float32"}]}, "Unknown setting 'precision'"),
        ({"rows": {"regime": "frozen"}}, "Write a heading [[rows]] for each row, and below it"),
        ({"classes": {"AD": "x"}}, 'Write classes = {AD = ["Demented", "Converted"], NC = ['),
        ({"classes": ["AD", "NC"]}, "should be a table. Write classes = {AD"),
        ({"regimes": "frozen"}, 'should be a list. Write regimes = ["frozen"].'),
        ({"seeds": 3}, "Write seeds = [3]."),
        ({"rows": [{"regime": "frozen", "splits": "subject"}]}, 'Write splits = ["subject"].'),
        ({"recipe": {"epochs": 3}}, "The settings of a training have no table: give each by its"),
        ({"rows": [{"regime": "frozen", "recipe": {"epochs": 3}}]}, "have no table: give each by"),
    ],
)
def test_a_bad_setting_is_named_with_the_valid_ones(settings, part):
    with pytest.raises(InputError) as caught:
        make_config(data="scans", **settings)
    assert part in str(caught.value)


def test_data_is_needed():
    with pytest.raises(InputError, match="'data' is missing"):
        make_config()


def test_paths_in_a_file_are_taken_from_its_folder(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('data = "scans"\nout = "result"\nweights = "w.safetensors"\nepochs = 2\n')
    config = read_config(path, {"epochs": 3})
    assert (config.data, config.out) == (tmp_path / "scans", tmp_path / "result")
    assert config.weights == str(tmp_path / "w.safetensors")
    assert config.recipe.epochs == 3


def test_a_file_that_is_no_toml_is_named(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("data = [")
    with pytest.raises(InputError, match=r"a\.toml cannot be read as TOML"):
        read_config(path, {})


def test_changes_are_toml_or_text():
    assert parse_change("epochs=3") == ("epochs", 3)
    assert parse_change("regimes=frozen,finetune") == ("regimes", ["frozen", "finetune"])
    assert parse_change("regimes=frozen") == ("regimes", ["frozen"])
    assert parse_change("seeds=[0, 1]") == ("seeds", [0, 1])
    assert parse_change("seeds=7") == ("seeds", [7])
    assert parse_change("weights=a=b") == ("weights", "a=b")
    assert parse_change(r"subject_pattern=sub-(\d{1,3})") == ("subject_pattern", r"sub-(\d{1,3})")
    with pytest.raises(InputError, match="key=value"):
        parse_change("epochs")


@given(st.sets(st.sampled_from(["subject", "slice"]), min_size=1), st.integers(1, 3))
def test_the_plan_is_the_whole_grid(splits, seeds):
    config = Config(data="d", splits=tuple(splits), seeds=tuple(range(seeds)))
    plans = plan_runs(config)
    assert len(plans) == 3 * len(splits) * seeds
    assert len({plan.name for plan in plans}) == len(plans)


def test_rows_take_what_they_leave_out_from_the_experiment():
    rows = [
        {"regime": "frozen", "splits": ["subject", "slice"]},
        {"regime": "scratch", "epochs": 5},
        {"regime": "scratch", "name": "scratch-long", "epochs": 9},
    ]
    plans = plan_runs(make_config(data="d", rows=rows, epochs=2, architectures=["resnet18"]))
    assert [plan.name for plan in plans] == [
        "resnet18-frozen-subject-seed0",
        "resnet18-frozen-slice-seed0",
        "resnet18-scratch-subject-seed0",
        "resnet18-scratch-long-subject-seed0",
    ]
    assert [plan.recipe.epochs for plan in plans] == [2, 2, 5, 9]


def test_a_saved_row_holds_its_own_settings_alone(tmp_path):
    rows = [{"regime": "frozen"}, {"regime": "scratch", "epochs": 5, "weight_decay": 1e-4}]
    config = make_config(data="d", rows=rows, epochs=2, batch_size=4)
    config.save(tmp_path / "a.toml")
    saved = tomllib.loads((tmp_path / "a.toml").read_text())
    assert saved["rows"] == [{"regime": "frozen"}, {"regime": "scratch", "epochs": 5}]
    assert (saved["epochs"], saved["batch_size"], "recipe" in saved) == (2, 4, False)
    plans = plan_runs(read_config(tmp_path / "a.toml", {}))
    assert [(plan.recipe.epochs, plan.recipe.batch_size) for plan in plans] == [(2, 4), (5, 4)]


def test_rows_of_a_file_are_not_silently_kept(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('data = "scans"\n[[rows]]\nregime = "frozen"\n')
    with pytest.raises(InputError, match="has rows that name what trains"):
        read_config(path, {"regimes": ["scratch"]})


def test_two_rows_of_one_name_are_refused():
    rows = [{"regime": "scratch", "epochs": 5}, {"regime": "scratch", "epochs": 9}]
    with pytest.raises(InputError, match="scratch-subject-seed0: give one of them a name"):
        plan_runs(make_config(data="d", rows=rows))


def test_a_row_may_set_whatever_a_recipe_holds_and_the_command_line_wins(tmp_path):
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert fields <= set(SETTINGS)
    assert fields - {"precision", "compile"} <= set(ROW_SETTINGS)
    path = tmp_path / "a.toml"
    path.write_text(
        'data = "scans"\n[[rows]]\nregime = "frozen"\nepochs = 5\nbatch_size = 4\n'
        'weights = "mine.pth"\n[[rows]]\nregime = "scratch"\nweight_decay = 0\n'
    )
    one, two = plan_runs(read_config(path, {"size": 64}))
    assert (one.recipe.epochs, one.recipe.batch_size) == (5, 4)
    assert (two.recipe.epochs, two.recipe.batch_size) == (20, 32)
    assert (one.recipe.weight_decay, two.recipe.weight_decay) == (1e-4, 0)
    assert (one.weights, two.weights) == (str(tmp_path / "mine.pth"), "pretrained")
    assert two.needs_weights is False
    both = plan_runs(read_config(path, {"epochs": 1, "splits": ["subject", "slice"]}))
    assert [plan.recipe.epochs for plan in both] == [1, 1, 1, 1]
    assert [plan.recipe.batch_size for plan in both] == [4, 4, 32, 32]


def test_weights_of_a_row_survive_toml_too(tmp_path):
    rows = [{"regime": "frozen", "weights": str(tmp_path / "w.pth")}]
    config = make_config(data=tmp_path / "scans", cache=tmp_path / "cache", rows=rows)
    config.save(tmp_path / "out" / "experiment.toml")
    again = read_config(tmp_path / "out" / "experiment.toml", {})
    assert Path(again.rows[0].weights).resolve() == tmp_path / "w.pth"
    assert again.cache_folder.resolve() == tmp_path / "cache"


def test_runs_that_share_features_follow_one_another():
    config = Config(data="d", regimes=("finetune", "frozen"), seeds=(0, 1), architectures=("a1",))
    config = config.model_copy(update={"architectures": ("resnet18", "alexnet")})
    names = [plan.name for plan in plan_runs(config)]
    assert names == [
        "resnet18-finetune-subject-seed0",
        "alexnet-finetune-subject-seed0",
        "resnet18-frozen-subject-seed0",
        "resnet18-frozen-subject-seed1",
        "alexnet-frozen-subject-seed0",
        "alexnet-frozen-subject-seed1",
        "resnet18-finetune-subject-seed1",
        "alexnet-finetune-subject-seed1",
    ]
    drawn = plan_runs(config.model_copy(update={"weights": "random"}))  # each seed draws its own
    assert len({plan.features_of for plan in drawn}) == 5


def test_permuted_labels_are_for_what_trains():
    config = Config(data="d", regimes=("frozen", "finetune"), permutations=2)
    assert [(plan.name.split("-", 1)[1], plan.permutation) for plan in plan_runs(config)] == [
        ("frozen-subject-seed0", None),
        ("finetune-subject-seed0", None),
        ("finetune-subject-seed0-permuted1", 1),
        ("finetune-subject-seed0-permuted2", 2),
    ]


HUGE = 10**30


@pytest.mark.parametrize(
    "setting",
    [
        *({"epochs": HUGE}, {"batch_size": HUGE}, {"drop_every": HUGE}, {"count": 10**6}),
        *({"seeds": [0, HUGE]}, {"seeds": [-1]}, {"ratio": [1, 1, HUGE]}, {"volume": HUGE}),
        *({"learning_rate": 1e300}, {"learning_rate": float("nan")}, {"weight_decay": 1e300}),
        *({"head_learning_rate": float("inf")}, {"threshold": float("nan")}),
        {"permutations": 10**9},
        {"rows": [{"regime": "frozen"}, {"regime": "scratch", "learning_rate": 1e300}]},
    ],
)
def test_numbers_that_no_training_takes_are_refused(setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))}|Row 2") as caught:
        make_config(data="d", **setting)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "grid", [{"permutations": 100_000}, {"folds": 10**9}, {"seeds": [*range(40_000)]}]
)
def test_a_grid_that_would_never_end_is_refused_at_once(grid):
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"make [\d,]+ runs, and an experiment holds at most"):
        plan_runs(make_config(data="d", architectures=["resnet18"], **grid))
    assert time.monotonic() - begin < 10
    frozen = make_config(data="d", regimes=["frozen"], permutations=100_000)
    assert len(plan_runs(frozen)) == 1  # frozen runs are permuted without training


def test_more_folds_than_subjects_are_refused_before_anything_is_sliced(tmp_path):
    data = write_cohort(tmp_path / "scans", subjects=3)
    for folds in (100, 2_000):
        config = make_config(data=data, folds=folds, regimes=["frozen"], splits=["subject"])
        with pytest.raises(InputError, match=f"{folds} folds by subject need at least {folds}"):
            find_scans(config, plan_runs(config))


def test_pseudonymised_settings_hold_no_path_and_no_condition(tmp_path):
    home = tmp_path / "home" / "jane"
    config = make_config(
        data=home / "scans",
        out=home / "out",
        cache=home / "cache",
        weights=str(home / "w.safetensors"),
        pseudonym_key=home / "key",
        where="subject_id != sub-007",
        rows=[{"regime": "frozen", "weights": str(home / "row.safetensors")}],
    )
    (home / "out").mkdir(parents=True)
    config.save(home / "out" / "experiment.toml")
    text = (home / "out" / "experiment.toml").read_text()
    assert not any(part in text for part in ("jane", "..", "safetensors", "sub-007", str(home)))
    assert text.startswith("# Ids are pseudonyms: without where, data")
    again = read_config(home / "out" / "experiment.toml", {"data": home / "scans"})
    assert again.recipe == config.recipe


def test_settings_with_a_name_that_is_no_text_are_written_and_read(tmp_path):
    config = make_config(data=tmp_path / os.fsdecode(b"b\xe9"))
    config.save(tmp_path / "x.toml")
    assert read_config(tmp_path / "x.toml", {}).data == tmp_path / r"b\xe9"
