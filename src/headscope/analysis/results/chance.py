"""Whether a setting ranks unseen subjects better than chance, in numbers and in words."""

from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

import numpy as np

from headscope.analysis.results.pooled import Pool, least_p, permutation_p

Standing = Literal["above", "below", "no better", "unknown"]
CHANCE = 0.5
ALPHA = 0.05


@dataclass(frozen=True)
class AgainstChance:
    """The AUC over subjects against the 0.5 of chance.

    value is the area with its 95% interval low, high (NaN where the bootstrap cannot tell); p is
    two-sided, from labels permuted among subjects (`permutation_p`), NaN where a subject has
    several labels: then the interval decides. standing is "above" or "below" at p ≤ 0.05, and
    "unknown" where no arrangement of so few labels reaches that (`least_p`). Of more than two
    classes the area is the mean of each against the rest.
    """

    standing: Standing
    value: float
    low: float
    high: float
    p: float
    subjects: int
    classes: int

    @property
    def better(self) -> bool:
        """Whether it is above chance."""
        return self.standing == "above"


def against_chance(pool: Pool, low: float = nan, high: float = nan) -> AgainstChance:
    """Test whether subjects are ranked better than chance: one test over all folds and seeds.

    low and high are the interval of the AUC, which decides where labels cannot be permuted.
    Source: docs/science.md, section 20.
    """
    subjects = len(pool.ids) if pool.named else 0
    value = nan
    if pool.named:
        value = float(pool.score("subject_auc", np.ones((1, len(pool.ids))))[:, 0].mean())
    above, below = permutation_p(pool) if not isnan(value) else (nan, nan)
    p = min(1.0, 2 * min(above, below)) if not isnan(above) else nan
    standing: Standing = "unknown"
    if not isnan(p) and least_p(pool) <= ALPHA:
        standing = "no better" if p > ALPHA else "above" if value > CHANCE else "below"
    elif isnan(p) and not (isnan(low) or isnan(high)):
        standing = "above" if low > CHANCE else "below" if high < CHANCE else "no better"
    return AgainstChance(standing, value, low, high, p, subjects, pool.class_count)


def area_words(over: str, classes: int, tested: int | None = None) -> str:
    """Name the area under the ROC curve over some subjects, of two classes or of more.

    `tested` counts the classes that have subjects in the test, where that is not all.
    """
    area = f"The area under the ROC curve over {over}"
    if classes == 2:
        return area
    of = classes if tested in (None, classes) else f"{tested} of {classes}"
    return f"{area}, the mean of {of} classes each against the rest,"
