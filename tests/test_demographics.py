"""Age and sex come from a cohort's table, by the names of its columns, and stay with the runs."""

import numpy as np
import pandas as pd
import pytest

from headscope.cohort.demographics import describe_subjects
from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.experiment.inputs import _store_participants
from headscope.files import read_table
from tests.support.experiments import settings, write_cohort


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
    described = describe_subjects(pd.DataFrame({"path": ["a", "b"]} | columns))
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
