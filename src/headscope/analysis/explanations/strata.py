"""Accuracy and AUC within strata: of each sex, each third of age, each site."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headscope.analysis.explanations.covariates import Covariates
from headscope.analysis.results.pooled import Pool
from headscope.analysis.results.settings import pooled_score
from headscope.analysis.results.table import Score
from headscope.analysis.units import Array

STRATA = 3  # parts of a quantity
MOST_LEVELS = 12  # categories in which an accuracy is given, the largest first


@dataclass(frozen=True)
class Stratum:
    """Accuracy and AUC over the test subjects of one category, or third of a quantity."""

    covariate: str
    level: str
    subjects: int
    accuracy: Score
    auc: Score


def strata_of(
    name: str, pool: Pool, covariates: Covariates, class_names: Sequence[str]
) -> list[Stratum]:
    """Return accuracy and AUC in each category, or third, that has test subjects of two classes."""
    values, given = covariates.of(name, pool.ids)
    rows = []
    for level, inside in _levels(values, given):
        part = pool.restrict(inside)
        counts = np.bincount(part.labels, minlength=2)
        if (counts > 0).sum() > 1:
            scores = (pooled_score(part, f"subject_{q}", class_names) for q in ("accuracy", "auc"))
            rows.append(Stratum(name, level, int(inside.sum()), *scores))
    return rows


def _levels(values: Array, given: Array) -> list[tuple[str, Array]]:
    """Return the categories of a covariate, or its thirds, and which subjects (S,) are in each."""
    if not np.issubdtype(values.dtype, np.number):
        levels, counts = np.unique(values[given], return_counts=True)
        largest = sorted(levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS])
        return [(str(level), given & (values == level)) for level in largest]
    cuts = np.unique(np.quantile(values[given], np.arange(1, STRATA) / STRATA))
    number = np.searchsorted(cuts, values, side="left")
    thirds: list[tuple[str, Array]] = []
    for part in range(len(cuts) + 1):
        inside = given & (number == part)
        if inside.any():
            low, high = values[inside].min(), values[inside].max()
            thirds.append((f"{low:.4g} to {high:.4g}", inside))
    return thirds
