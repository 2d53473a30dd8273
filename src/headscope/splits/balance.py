"""Whether age, sex and the like differ between the subsets of a split."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.tables import MISSING, numbers_in

_Column = tuple[str, NDArray[np.str_], NDArray[np.float64], NDArray[np.intp]]


def balance_of(
    table: pd.DataFrame, subset: NDArray[np.str_], covariates: pd.DataFrame
) -> pd.DataFrame:
    """Test whether covariates differ between the subsets of a split: columns column, test, p.

    A subject counts once, with its first value. Numbers are compared by Kruskal and Wallis 1952,
    other values by the chi-squared test of independence; a column without variation has p = 1.
    table: slices or scans with subject_id; subset: that of each (N,); covariates: subject_id and
    further columns, of which each gives a row.
    """
    rows = [(name, *p) for name, p in _tested(_columns(table, covariates), subset)]
    return pd.DataFrame(rows, columns=["column", "test", "p"])


def smallest_p(
    table: pd.DataFrame, subsets: Sequence[NDArray[np.str_]], covariates: pd.DataFrame
) -> list[float]:
    """Return the smallest p of `balance_of` for each of several splits of a table."""
    columns = _columns(table, covariates)
    return [
        float(pd.Series([p for _, (_, p) in _tested(columns, subset)], dtype=float).min())
        for subset in subsets
    ]


def _columns(table: pd.DataFrame, covariates: pd.DataFrame) -> list[_Column]:
    """Return each column's name, values by subject as text and as numbers, and rows of these."""
    ids = table["subject_id"].astype(str)
    first = pd.Series(np.arange(len(ids)), index=ids.to_numpy())
    first = first[~first.index.duplicated()]
    columns = []
    for name in [column for column in covariates.columns if column != "subject_id"]:
        present = covariates[~covariates[name].astype(str).isin(MISSING)]
        values = present.drop_duplicates("subject_id").set_index("subject_id")[name].astype(str)
        values = values[values.index.isin(first.index)]
        rows = first.loc[values.index].to_numpy()
        columns.append((name, values.to_numpy(str), numbers_in(values).to_numpy(), rows))
    return columns


def _tested(
    columns: list[_Column], subset: NDArray[np.str_]
) -> Iterator[tuple[str, tuple[str, float]]]:
    subset = np.asarray(subset, str)
    for name, values, numbers, rows in columns:
        yield name, _p_value(values, numbers, subset[rows])


def _p_value(
    values: NDArray[np.str_], numbers: NDArray[np.float64], of: NDArray[np.str_]
) -> tuple[str, float]:
    from scipy.stats import chi2_contingency, contingency, kruskal  # take 0.6 s to load

    if np.isnan(numbers).any():
        counts = contingency.crosstab(values, of).count  # pandas' takes 10 × as long
        test = "chi-squared"
        return test, float(chi2_contingency(counts).pvalue) if min(counts.shape) > 1 else 1.0
    groups = [numbers[of == name] for name in np.unique(of)]
    several = len(np.unique(numbers)) > 1 < len(groups)
    return "Kruskal-Wallis", float(kruskal(*groups).pvalue) if several else 1.0
