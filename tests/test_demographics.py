"""Covariates come from a cohort's tables and sidecars, by names of columns, and stay with runs."""

import json

import numpy as np
import pandas as pd
import pytest

from headscope.auditing.inspect import inspect_data
from headscope.cohort.demographics import describe_subjects
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.errors import InputError
from headscope.experiment.inputs import _store_participants
from headscope.files import read_table
from tests.support.experiments import settings, write_cohort
from tests.support.folders import texts, touch


@pytest.mark.parametrize(
    ("columns", "age", "sex"),
    [
        ({"Age": ["71", "80,5"], "M/F": ["F", "M"]}, [71, 80.5], ["F", "M"]),
        ({"age": ["n/a", "old"], "sex": ["female", "Male"]}, [np.nan, np.nan], ["F", "M"]),
        ({"gender": ["n/a", "divers"]}, None, [np.nan, "divers"]),
        ({"cage": ["1", "2"], "sexton": ["x", "y"]}, None, None),
    ],
)
def test_columns_are_found_by_their_names(columns, age, sex):
    paths = {"path": ["a", "b"], "subject_id": ["a", "b"]}
    described = describe_subjects(pd.DataFrame(paths | columns))
    for name, expected in (("age", age), ("sex", sex)):
        assert (name in described) == (expected is not None)
        if expected is not None:
            pd.testing.assert_series_equal(
                described[name], pd.Series(expected, name=name), check_dtype=False
            )


@pytest.fixture
def cohort(tmp_path):
    data = write_cohort(tmp_path / "data", subjects=3)
    rows = [f"{name},{age},{sex}" for name, age, sex in
            (("AD0", 70, "F"), ("AD1", 93, "M"), ("AD2", "", "F"), ("NC0", 61, "M"))]  # fmt: skip
    table = "\n".join(
        ["scan_of,dx,age,sex", *(row.replace(",", f",{row[:2]},", 1) for row in rows)]
    )
    (data / "participants.csv").write_text(table.replace("scan_of", "subject") + "\n")
    return data


def test_a_run_keeps_age_and_sex_of_each_session(cohort, tmp_path):
    found = find_cohort(cohort, label="dx")
    _store_participants(found, settings(cohort, tmp_path / "out"))
    table = read_table(tmp_path / "out" / "participants.tsv")
    assert sorted(table["age"].dropna()) == [61, 70, 93]
    assert sorted(table["sex"]) == ["F", "F", "M", "M"]
    assert set(table.columns) == {"subject_id", "session_id", "label", "age", "sex"}


def test_pseudonyms_hide_ages_that_could_name_a_subject(cohort, tmp_path, capsys):
    key = tmp_path / "study.key"
    found = pseudonymise_cohort(find_cohort(cohort, label="dx"), key, tmp_path / "out")
    _store_participants(found, settings(cohort, tmp_path / "out", pseudonym_key=key))
    table = read_table(tmp_path / "out" / "participants.tsv")
    assert table["age"].max() == 90 and not table["subject_id"].str.contains("AD|NC").any()
    assert "Ages above 89 are recorded as 90." in capsys.readouterr().err


def test_a_cohort_without_either_has_no_file(tmp_path):
    data = write_cohort(tmp_path / "data", subjects=3)
    _store_participants(find_cohort(data), settings(data, tmp_path / "out"))
    assert not (tmp_path / "out" / "participants.tsv").exists()


SUBJECTS = 8


def with_columns(folder, **columns):
    """A cohort of two classes whose participants have further columns."""
    names = [f"sub-{n}/anat/sub-{n}_T1w" for n in range(SUBJECTS)]
    touch(folder, *(f"{name}.nii.gz" for name in names))
    table = pd.DataFrame({"participant_id": [f"sub-{n}" for n in range(SUBJECTS)]} | columns)
    table.assign(dx=["AD", "NC"] * (SUBJECTS // 2)).to_csv(
        folder / "participants.tsv", sep="\t", index=False
    )
    return folder


@pytest.fixture
def several(tmp_path):
    data = with_columns(
        tmp_path / "data",
        Age=range(60, 68),
        Education=[8, 12, 9, 16, 11, 20, 13, 10],
        SITE_ID=["Rome", "Rome", "Oslo", "Oslo"] * 2,
        Hand="R",
        MMSE=["n/a"] * 4 + [28, 29, 30, 27],
        Initials=list("abcdefgh"),
        Seen=[f"2019-0{n + 1}-11" for n in range(SUBJECTS)],
        Record=range(100_000, 100_000 + SUBJECTS),
        Code=[f"x-sub-{n}" for n in range(SUBJECTS)],
    )
    (data / "T1w.json").write_text(json.dumps({"Manufacturer": "SIEMENS Healthineers"}))
    for n in range(4):
        file = data / f"sub-{n}/anat/sub-{n}_T1w.json"
        file.write_text(json.dumps({"MagneticFieldStrength": 2.89, "Manufacturer": "GE MEDICAL"}))
    (data / "sub-4/anat/sub-4_T1w.json").write_text('{"MagneticFieldStrength": 1.494')  # no JSON
    for n in (5, 6, 7):
        file = data / f"sub-{n}/anat/sub-{n}_T1w.json"
        file.write_text(json.dumps({"MagneticFieldStrength": 1.494, "InstitutionName": "A"}))
    return data


def test_inspect_offers_what_could_be_a_covariate(several):
    rows = inspect_data(several, label="dx").covariates
    with pytest.raises(InputError, match="--covariates names no column 'nonsense'"):
        inspect_data(several, label="dx", covariates=["nonsense"])
    assert dict(zip(rows["covariate"], rows["values"], strict=True)) == {
        "age": "60 to 67",
        "site": "Oslo, Rome",
        "manufacturer": "GE, Siemens",
        "field_strength": "1.5, 3",
        "Education": "8 to 20",
    }
    assert rows.set_index("covariate").loc["field_strength", "subjects_without"] == 1


def test_recognised_covariates_stay_with_the_runs(several, tmp_path):
    _store_participants(find_cohort(several, label="dx"), settings(several, tmp_path / "out"))
    table = read_table(tmp_path / "out" / "participants.tsv")
    assert list(table["manufacturer"]) == ["GE"] * 4 + ["Siemens"] * 4
    np.testing.assert_equal(table["field_strength"].to_numpy(), [3.0] * 4 + [np.nan] + [1.5] * 3)
    assert list(table.columns[3:]) == ["age", "site", "manufacturer", "field_strength"]


def test_named_covariates_stay_beside_age_and_sex(several, tmp_path):
    cohort = find_cohort(several, label="dx", covariates=["education", "SITE"])
    config = settings(several, tmp_path / "out", pseudonym_key=tmp_path / "key")
    _store_participants(cohort, config)
    table = read_table(tmp_path / "out" / "participants.tsv")
    assert list(table.columns[3:]) == ["age", "Education", "site"]
    assert list(table["site"]) == ["site 2", "site 2", "site 1", "site 1"] * 2  # no hospital's name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Weight", r"--covariates names no column 'Weight' of .*: there are Age, Educ"),
        ("Hand", r"--covariates Hand: 'Hand' is R for every subject, so it can explain nothing"),
        ("MMSE", r"'MMSE' has no value for 4 of 8 subjects: a covariate needs one"),
        ("Initials", r"'Initials' has 8 values in 8 subjects: it names subjects or"),
        ("Record", r"'Record' has 8 values in 8 subjects: it names subjects"),
        ("Code", r"'Code' has 8 values in 8 subjects: it names subjects"),
        ("Seen", r"'Seen' holds dates, which can name a subject and are no covariate"),
        ("dx", r"--covariates names no column 'dx'"),
    ],
)  # fmt: skip
def test_what_is_no_covariate_is_refused(several, name, sentence):
    with pytest.raises(InputError, match=sentence):
        find_cohort(several, label="dx", covariates=["Age", name])


def test_the_column_of_the_classes_is_no_covariate(several):
    cohort = find_cohort(several, label="SITE_ID")
    assert "site" not in cohort.described and "age" in cohort.described
    assert not any("covariate" in text for text in texts(cohort))


def test_pictures_without_ids_have_no_covariates(tmp_path):
    data = touch(tmp_path / "data", *(f"{name}/{n}.png" for name in ("AD", "NC") for n in range(4)))
    cohort = find_cohort(data)
    assert list(cohort.described.columns) == ["path"] and cohort.covariates == []
