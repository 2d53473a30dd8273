"""Leave one site out: each site is tested once, by networks that never saw it."""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.tables import counted
from headscope.errors import InputError
from headscope.splits.assign import complete_given

SITE: Final = "site"  # the kind of a split by site; it has subjects as units
LEAST: Final = 2  # subjects of each class outside a site, one to train on and one to validate


def assign_sites(subjects: pd.Series, sites: pd.Series) -> tuple["pd.Series[str]", int]:
    """Return the site of each subject, by its id, and how many subjects have several.

    A subject of several sites stays together: it is of the site of most of its scans, of the first
    by name among equals.
    """
    pairs = pd.DataFrame({"subject": subjects.to_numpy(), "site": sites.to_numpy()}).dropna()
    counts = pairs.value_counts().reset_index(name="scans")
    counts = counts.sort_values(["subject", "scans", "site"], ascending=[True, False, True])
    several = int(counts["subject"].duplicated(keep=False).groupby(counts["subject"]).any().sum())
    return counts.drop_duplicates("subject").set_index("subject")["site"], several


def check_sites(scans: pd.DataFrame, site: "pd.Series[str]") -> None:
    """Refuse scans (subject_id, label) of which not every site can be left out (InputError).

    site is that of each subject by its id.
    """
    table = scans[["subject_id", "label"]].drop_duplicates()
    names = table["subject_id"].map(site)
    without = int(table.loc[names.isna(), "subject_id"].nunique())
    if without:
        raise InputError(
            f"--splits site: {counted(without, 'subject')} without a site cannot be tested; leave "
            "them out with --where."
        )
    if names.nunique() < 2:
        raise InputError(
            f"--splits site leaves each site out once, and there is one, {names.iloc[0]}: use "
            "--splits subject."
        )
    present = Counter(zip(names.astype(str), table["label"].astype(str), strict=True))
    places = product(sorted(set(names.astype(str))), sorted(set(table["label"].astype(str))))
    pairs = {place: present[place] for place in places}
    for (name, label), count in pairs.items():
        if not count:
            raise InputError(
                f"--splits site tests each site once, and {name} has no subject of class {label}: "
                "leave it out with --where, or use --splits subject."
            )
    for name, label in pairs:
        rest = sum(n for (site, of), n in pairs.items() if of == label and site != name)
        if rest < LEAST:
            raise InputError(
                f"--splits site: outside of {name} there is {counted(rest, 'subject')} of class "
                f"{label}, and training and validation need {LEAST}."
            )


def make_site_split(
    table: pd.DataFrame,
    site: "pd.Series[str]",
    number: int,
    *,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
) -> NDArray[np.str_]:
    """Return the subset of each row (N,): the test is the site of this number, by name from 0.

    The rest divides in train and val as in the ratio, by subject within class.
    """
    names: NDArray[Any] = table["subject_id"].map(site).to_numpy(dtype=object)
    tested = sorted(set(names))[number]
    given = np.where(names == tested, "test", "train")
    return complete_given(table, given, ratio=ratio, seed=seed)
