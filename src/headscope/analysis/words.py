"""What figures say in words: against chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Literal

import numpy as np
from scipy import stats

from headscope.metrics import wilson

Standing = Literal["above", "below", "no better", "unknown"]
MEANINGS: dict[Standing, str] = {  # of an interval of the area under the ROC curve
    "above": "lies above the 0.5 of chance",
    "below": "lies below the 0.5 of chance: labels or data deserve a second look",
    "no better": "includes 0.5: no better than chance",
}
CHANCE = 0.5
ALPHA = 0.05


@dataclass(frozen=True)
class AgainstChance:
    """Where a subject-level figure stands against chance, and the numbers that say so.

    figure is "auc" (chance 0.5, judged by its interval) or, where that has none, "accuracy"
    (chance the share of the commonest class, judged by an exact binomial test with Wilson's
    interval); value, low, high and chance are fractions, p that test's (NaN for the area). Of more
    than two classes tested, an area is the mean of each against the rest.
    """

    standing: Standing
    figure: str
    value: float
    low: float
    high: float
    chance: float
    p: float
    subjects: int
    text: str
    classes: int = 2

    @property
    def better(self) -> bool:
        """Whether it is above chance."""
        return self.standing == "above"


def against_chance(test: Mapping[str, Any]) -> AgainstChance:
    """Say whether a test is better than chance, from its figures in `metrics.json`.

    Subjects are judged, never slices. The area under the ROC curve decides where it has an
    interval; else (all subjects right, one class called for all, one subject of a class) the
    number of subjects called rightly, against always naming the commonest class of the test.
    """
    subjects = int(test.get("subjects") or 0)
    auc = test.get("subject_auc") or {}
    low, high = (_number(auc.get(part)) for part in ("low", "high"))
    table = np.array(test.get("subject_confusion") or np.zeros((0, 0)), dtype=int)
    tested = int((table.sum(axis=1) > 0).sum()) if table.size else 0
    if not (isnan(low) or isnan(high)):
        classes = tested if len(table) > 2 else 2
        return _by_interval(_number(auc.get("value")), low, high, subjects, classes)
    if tested < 2:
        text = "Too little is known of these subjects to say whether it differs from chance."
        return AgainstChance("unknown", "accuracy", nan, nan, nan, nan, nan, subjects, text)
    return _by_count(int(np.trace(table)), int(table.sum()), int(table.sum(axis=1).max()), subjects)


def area_words(over: str, classes: int) -> str:
    """Name the area under the ROC curve over some subjects, of two classes or of more."""
    area = f"The area under the ROC curve over {over}"
    return f"{area}, the mean of {classes} classes each against the rest," if classes > 2 else area


def _by_interval(
    value: float, low: float, high: float, subjects: int, classes: int
) -> AgainstChance:
    standing: Standing = "above" if low > CHANCE else "below" if high < CHANCE else "no better"
    text = (
        f"{area_words(f'{subjects} subjects', classes)} is {value:.3f}, and its 95% "
        f"interval, {low:.3f} to {high:.3f}, {MEANINGS[standing]}."
    )
    return AgainstChance(standing, "auc", value, low, high, CHANCE, nan, subjects, text, classes)


def _by_count(right: int, count: int, commonest: int, subjects: int) -> AgainstChance:
    p = majority_p(right, count, commonest)
    low, high = wilson(right, count)
    standing: Standing = "above" if p < ALPHA else "no better"
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    meaning = "better than chance" if standing == "above" else "no better than chance"
    text = (
        f"{right} of {count} subjects are called rightly, where always naming the commonest class "
        f"gets {commonest}: {meaning} (exact binomial test, {shown})."
    )
    share = commonest / count
    return AgainstChance(standing, "accuracy", right / count, low, high, share, p, subjects, text)


def majority_p(right: int, count: int, commonest: int) -> float:
    """Return the one-sided exact p of so many right by naming the commonest class always."""
    return float(stats.binomtest(right, count, commonest / count, alternative="greater").pvalue)


def _number(value: float | None) -> float:
    return nan if value is None else float(value)
