"""Whether age, sex and the like differ between the subsets of a split."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.tables import MISSING, numbers_in


def balance_of(
    table: pd.DataFrame, subset: NDArray[np.str_], covariates: pd.DataFrame
) -> pd.DataFrame:
    """Test whether covariates differ between the subsets of a split: columns column, test, p.

    A subject counts once, with its first value. Numbers are compared by Kruskal and Wallis 1952,
    other values by the chi-squared test of independence; a column without variation has p = 1.
    table: slices or scans with subject_id; subset: that of each (N,); covariates: subject_id and
    further columns, of which each gives a row.
    """
    of_subject = pd.Series(subset, index=table["subject_id"].astype(str))
    of_subject = of_subject[~of_subject.index.duplicated()]
    rows = []
    for name in [column for column in covariates.columns if column != "subject_id"]:
        present = covariates[~covariates[name].astype(str).isin(MISSING)]
        values = present.drop_duplicates("subject_id").set_index("subject_id")[name].astype(str)
        values = values[values.index.isin(of_subject.index)]
        rows.append((name, *_p_value(values, of_subject.loc[values.index])))
    return pd.DataFrame(rows, columns=["column", "test", "p"])


def _p_value(values: pd.Series, subset: pd.Series) -> tuple[str, float]:
    from scipy.stats import chi2_contingency, contingency, kruskal  # take 0.6 s to load

    numbers, of = numbers_in(values), subset.to_numpy(str)
    if numbers.isna().any():
        counts = contingency.crosstab(values.to_numpy(str), of).count  # pandas' takes 10 × as long
        test = "chi-squared"
        return test, float(chi2_contingency(counts).pvalue) if min(counts.shape) > 1 else 1.0
    groups = [numbers.to_numpy()[of == name] for name in np.unique(of)]
    test = "Kruskal-Wallis"
    return test, float(kruskal(*groups).pvalue) if numbers.nunique() > 1 < len(groups) else 1.0
