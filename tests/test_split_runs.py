"""Folds, balanced splits and split files, from settings to records."""

import pandas as pd
import pytest

from headscope.analysis.results.table import results_table
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.errors import InputError
from headscope.experiment.config import make_config
from headscope.experiment.inputs import find_scans
from headscope.experiment.plan import plan_runs
from headscope.experiment.preflight import check_places
from headscope.experiment.run import run
from headscope.record import read_experiment
from headscope.splits.files import LeakageError
from tests.support.experiments import settings, write_cohort
from tests.support.folders import touch
from tests.support.synthetic import write_synthetic_run

pytestmark = pytest.mark.usefixtures("few_trees")

QUICK = {"regimes": ["frozen"], "splits": ["subject"], "epochs": 1, "count": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders, and a table of the same scans with age and sex."""
    folder = write_cohort(tmp_path_factory.mktemp("data") / "scans")
    scans = sorted(folder.rglob("*.nii.gz"))
    pd.DataFrame(
        {
            "path": [path.relative_to(folder).as_posix() for path in scans],
            "subject_id": [path.name.split("_")[0] for path in scans],
            "label": [path.parent.name for path in scans],
            "Age": [60 + number % 7 for number in range(len(scans))],
            "M/F": ["MF"[number % 2] for number in range(len(scans))],
        }
    ).to_csv(folder / "scans.tsv", sep="\t", index=False)
    return folder


def test_folds_test_every_subject_once(data, tmp_path):
    out = run(settings(data, tmp_path / "out", folds=3, **QUICK))
    runs = read_experiment(out)
    assert [record.name for record in runs] == [
        f"timm-test_resnet-frozen-fold{n}of3-subject-seed0" for n in range(3)
    ]
    tested = [
        subject
        for record in runs
        for subject in record.predictions.query("subset == 'test'")["subject_id"].unique()
    ]
    assert sorted(tested) == sorted(pd.read_csv(data / "scans.tsv", sep="\t")["subject_id"])
    assert (out / "splits" / "subject-fold0of3-seed0.tsv").is_file()
    assert results_table(runs)["name"].tolist() == ["frozen"] * 3
    assert results_table(runs)["fold"].tolist() == [f"{n} of 3" for n in range(3)]


def test_balance_is_shown_and_stored(data, tmp_path, undrawn, capsys):
    out = run(settings(data, tmp_path / "out", balance=["Age", "M/F"], where="Age < 67", **QUICK))
    stored = pd.read_csv(out / "splits" / "subject-seed0.balance.tsv", sep="\t")
    assert stored["column"].tolist() == ["Age", "M/F"]
    assert stored["p"].between(0, 1).all()
    assert "between the subsets, Age p = " in capsys.readouterr().err
    with pytest.raises(InputError, match="no column 'Sex'"):
        run(settings(data, tmp_path / "other", balance=["Sex"], **QUICK))


def test_a_split_file_is_followed(data, tmp_path):
    ids = pd.read_csv(data / "scans.tsv", sep="\t")["subject_id"]
    mine = pd.DataFrame({"subject_id": ids, "subset": ["train", "val", "test"] * 4})
    mine.to_csv(tmp_path / "mine.tsv", sep="\t", index=False)
    out = run(settings(data, tmp_path / "out", split_file=tmp_path / "mine.tsv", **QUICK))
    stored = pd.read_csv(out / "splits" / "subject-seed0.tsv", sep="\t")
    pd.testing.assert_frame_equal(
        stored, mine.sort_values("subject_id", ignore_index=True), check_dtype=False
    )


def test_ways_to_split_exclude_each_other(data, tmp_path):
    with pytest.raises(InputError, match="Folds and balance exclude each other"):
        settings(data, tmp_path, folds=3, balance=["Age"])
    plans = plan_runs(settings(data, tmp_path, folds=2, seeds=[0, 1], splits=["subject"]))
    assert len({plan.name for plan in plans}) == 12


def test_a_faulty_split_file_is_refused_before_a_scan_is_read(tmp_path, capsys):
    """The scans are empty files: nothing but their names is looked at."""
    touch(tmp_path / "scans", *(f"{label}/sub-{label}{n}.nii" for label in "AB" for n in range(5)))
    subsets = dict(enumerate(("train", "train", "test", "val", "val")))
    rows = [f"sub-{label}{n},{subset}" for label in "AB" for n, subset in subsets.items()]
    (tmp_path / "mine.csv").write_text("\n".join(["subject_id,subset", *rows, "x9,test"]))
    places = {"data": tmp_path / "scans", "out": tmp_path / "out"}
    config = make_config(**places, split_file=tmp_path / "mine.csv")
    plans = plan_runs(config)
    assert len(find_scans(config, plans, write=False).scans) == 10
    assert "mine.csv x9 is not among the scans." in "".join(capsys.readouterr()).replace("\n", " ")
    (tmp_path / "mine.csv").write_text("\n".join(["subject_id,subset", *rows, "sub-A0,test"]))
    with pytest.raises(LeakageError, match="sub-A0 is in two subsets"):
        find_scans(config, plans, write=False)


def test_a_dry_run_holds_a_split_file_against_pseudonyms(tmp_path, capsys):
    """It checked none where ids are pseudonyms, so that the run itself was the first to refuse."""
    touch(tmp_path / "scans", *(f"{label}/sub-{label}{n}.nii" for label in "AB" for n in range(5)))
    key, mine = tmp_path / "study.key", tmp_path / "mine.csv"
    places = {"data": tmp_path / "scans", "out": tmp_path / "out"}
    config = make_config(**places, split_file=mine, pseudonym_key=key)
    plans = plan_runs(config)
    subsets = ("train", "train", "test", "val", "val") * 2

    def write_split(ids):
        rows = [f"{name},{subset}" for name, subset in zip(ids, subsets, strict=True)]
        mine.write_text("\n".join(["subject_id,subset", *rows]))

    write_split([f"sub-{label}{n}" for label in "AB" for n in range(5)])
    with pytest.raises(InputError, match="made for other data: it names sub-A0, sub-A1"):
        find_scans(config, plans, write=False)
    assert not key.exists()  # nothing was written
    key.write_bytes(b"0123456789abcdef")
    scans = pseudonymise_cohort(find_cohort(places["data"]), key, places["out"]).scans
    write_split(scans.sort_values("path")["subject_id"])
    hidden = find_scans(config, plans, write=False)
    assert hidden.scans["subject_id"].str.fullmatch("sub-[0-9a-f]{12}").all()
    assert "sub-A0" not in "".join(capsys.readouterr())


def test_pictures_that_headscope_wrote_are_met_with_their_table(tmp_path):
    touch(tmp_path, *(f"{label}/{number}.png" for label in "AB" for number in range(3)))
    config = make_config(data=tmp_path, out=tmp_path / "out")
    with pytest.raises(InputError, match="with --subjects inferred, or use --splits slice"):
        find_scans(config, plan_runs(config), write=False)
    (tmp_path / "pictures.tsv").touch()
    with pytest.raises(InputError, match=f"their table with --subjects {tmp_path}/pictures.tsv"):
        find_scans(config, plan_runs(config), write=False)


def test_other_folds_beside_those_of_an_experiment_are_refused(tmp_path):
    """They were one row of the table, in which subjects of both counted twice."""
    write_synthetic_run(tmp_path / "out", width=8, epochs=1, architecture="timm/test_resnet")
    places = {"data": tmp_path, "out": tmp_path / "out", "weights": "random"}
    places |= {"architectures": ["timm/test_resnet"], "regimes": ["frozen"]}
    config = make_config(**places, folds=3)
    with pytest.raises(
        InputError, match=r"into train, val and test\. Beside 3 folds some subjects"
    ):
        check_places(config, plan_runs(config))
    for config in (make_config(**places), make_config(**places, folds=3, splits=["slice"])):
        check_places(config, plan_runs(config))
