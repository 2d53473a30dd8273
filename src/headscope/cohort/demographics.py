"""Age and sex of the subjects, where the table of a cohort has them."""

from typing import Final

import pandas as pd

from headscope.cohort.tables import MISSING, numbers_in

AGES: Final = ("age", "age_years", "age_at_scan", "age_at_visit", "age_at_entry")
SEXES: Final = ("sex", "gender", "m/f", "f/m", "ptgender")
WORDS: Final = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}


def describe_subjects(scans: pd.DataFrame) -> pd.DataFrame:
    """Return age (years) and sex of each scan's subject by its path, as a table has them.

    A column is taken by its name (age, sex, gender, M/F). Ages that are no numbers are missing;
    values of sex other than words for female and male stay as they are.
    """
    columns = {name.casefold(): name for name in reversed(list(map(str, scans.columns)))}
    age = next((columns[name] for name in AGES if name in columns), None)
    sex = next((columns[name] for name in SEXES if name in columns), None)
    described = scans[["path"]].copy()
    if age is not None:
        described["age"] = numbers_in(scans[age].mask(scans[age].isin(MISSING)))
    if sex is not None:
        values = scans[sex].astype(str)
        words = values.str.casefold().map(WORDS)
        described["sex"] = words.fillna(values).mask(values.isin(MISSING))
    return described
