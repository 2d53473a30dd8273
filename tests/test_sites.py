"""Each site left out once, and confounders planted in a simulated cohort."""

import numpy as np
import pandas as pd
import pytest

from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.experiment.inputs import count_sites, find_scans, split_name, store_splits
from headscope.experiment.plan import plan_runs
from headscope.record.setting import Setting
from headscope.simulation.cohort import plan_cohort
from headscope.simulation.confounders import plant_confounders, shade
from headscope.splits.sites import assign_sites, check_sites, make_site_split
from tests.support.experiments import settings
from tests.support.folders import touch


def table_of(site, label=None, slices=2):
    """Slices of one subject per site named."""
    subject = [f"s{n:02d}" for n in range(len(site))]
    label = label or ["AD", "NC"] * (len(site) // 2)
    scans = pd.DataFrame({"subject_id": subject, "label": label, "site": site})
    return scans.loc[scans.index.repeat(slices)].assign(session_id="1"), scans


SITES = ["Rome"] * 4 + ["Oslo"] * 8 + ["Bonn"] * 4


def test_each_site_is_tested_once_and_its_subjects_stay_together():
    table, scans = table_of(SITES)
    site, several = assign_sites(scans["subject_id"], scans["site"])
    check_sites(scans, site)
    assert several == 0
    for number, name in enumerate(["Bonn", "Oslo", "Rome"]):
        subset = make_site_split(table, site, number, seed=3)
        assert set(table["site"][subset == "test"]) == {name}
        assert (subset == "test").sum() == (table["site"] == name).sum()
        frame = table.assign(subset=subset)
        assert frame.groupby("subject_id")["subset"].nunique().max() == 1
        assert frame.groupby("subset")["label"].nunique().min() == 2


def test_a_subject_of_two_sites_is_of_the_one_of_most_scans():
    subjects = pd.Series(["a", "a", "a", "b", "b", "c"])
    site, several = assign_sites(subjects, pd.Series(["X", "Y", "Y", "Y", "X", "X"]))
    assert dict(site) == {"a": "Y", "b": "X", "c": "X"} and several == 2


@pytest.mark.parametrize(
    ("site", "label", "sentence"),
    [
        (
            ["Rome"] * 6,
            None,
            "leaves each site out once, and there is one, Rome: use --splits subj",
        ),
        (["Rome", None] * 3, None, "3 subjects without a site cannot be tested"),
        (["A", "B"] * 3, ["AD", "NC"] * 3, "A has no subject of class NC: leave it out with --whe"),
        (["A"] * 4 + ["B"] * 2, None, "outside of A there is 1 subject of class AD"),
    ],
)
def test_what_cannot_be_split_by_site_is_refused(site, label, sentence):
    scans = table_of(site, label)[1]
    sites, _ = assign_sites(scans["subject_id"], scans["site"])
    with pytest.raises(InputError, match=sentence):
        check_sites(scans, sites)


def bids(folder, site):
    touch(folder, *(f"sub-{n:02d}/anat/sub-{n:02d}_T1w.nii.gz" for n in range(len(site))))
    rows = [f"sub-{n:02d}\t{'AN'[n % 2]}\t{name}" for n, name in enumerate(site)]
    (folder / "participants.tsv").write_text(
        "\n".join(["participant_id\tdx\tCenter", *rows]) + "\n"
    )
    return folder


def test_an_experiment_has_one_fold_per_site(tmp_path):
    data = bids(tmp_path / "data", SITES)
    config = settings(
        data, tmp_path / "out", label="dx", splits=["site", "subject"], regimes=["frozen"]
    )
    cohort = find_scans(config, plan_runs(config))
    plans = plan_runs(config, count_sites(cohort))
    folds = [(s.split, s.fold, s.folds) for s in (plan.setting for plan in plans)]
    assert sorted(folds, key=str) == [
        ("site", 0, 3), ("site", 1, 3), ("site", 2, 3), ("subject", None, None),
    ]  # fmt: skip
    assert isinstance(plans[0].setting, Setting)
    slices = table_of(SITES)[0].assign(slice_index=0, plane="axial")
    slices["subject_id"] = "sub-" + slices["subject_id"].str[1:]
    slices["label"] = slices["label"].str[0]

    class Store:
        table = slices.drop_duplicates("subject_id").reset_index(drop=True)

    of_site = [plan for plan in plans if plan.setting.split == "site"]
    made = store_splits(of_site, config, {None: Store}, cohort)
    tested = [np.flatnonzero(made[split_name(plan.setting, config)] == "test") for plan in of_site]
    assert sorted(np.concatenate(tested)) == list(range(16))
    again = store_splits(of_site, config, {None: Store}, cohort)
    assert all((made[name] == again[name]).all() for name in made)


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        (["Rome"] * 8, "'Center' is Rome for every subject"),
        (["n/a"] * 8, "has no value for 8 of 8"),
    ],
)
def test_one_site_is_refused(tmp_path, site, sentence):
    config = settings(bids(tmp_path / "data", site), tmp_path / "out", label="dx", splits=["site"])
    with pytest.raises(
        InputError, match=f"--splits site needs the site of every subject: .*{sentence}"
    ):
        find_scans(config, plan_runs(config))
    assert count_sites(find_cohort(tmp_path / "data", label="dx")) == 1


KNOBS = {"age_gap": 0.0, "age_effect": 0.0, "site_gap": 0.0, "site_bias": 0.0}


def test_planted_confounders_change_what_they_name_alone():
    plan = plan_cohort(200, 3, 0.3, 0.0)
    old = pd.DataFrame(plant_confounders(plan, 3, KNOBS | {"age_gap": 9.0, "age_effect": 2.0}))
    means = old.groupby("label")["age"].mean()
    assert means["AD"] - means["NC"] == pytest.approx(9, abs=2)
    plain = pd.DataFrame(plan)
    grown = (old["severity"] - plain["severity"])[old["severity"] > 0]
    assert np.allclose(grown, 0.2 * (old["age"] - 70)[old["severity"] > 0], atol=0.011)
    columns = ["subject_id", "session", "label", "format"]
    pd.testing.assert_frame_equal(old[columns], plain[columns])
    sites = pd.DataFrame(plant_confounders(plan, 3, KNOBS | {"site_gap": 0.6}))
    shares = (sites["site"] == "B").groupby(sites["label"]).mean()
    assert shares["AD"] - shares["NC"] == pytest.approx(0.6, abs=0.2)
    assert (sites["severity"] == plain["severity"]).all()


def test_a_bias_field_keeps_the_background_black():
    volume = np.full((3, 5, 2), 1000, dtype=np.int16)
    volume[0] = 0
    shaded = shade(volume, 0.5)
    assert (shaded[0] == 0).all() and shaded.dtype == np.int16
    assert np.allclose(np.log(shaded[1, -1] / shaded[1, 0]), 0.5, atol=0.002)
