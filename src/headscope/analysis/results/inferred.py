"""Settings whose subjects are inferred from pixels, by a strict and by a loose threshold.

With too few links slices of one subject may train and test, with too many subjects become fewer:
both estimate the accuracy on subjects that were never seen. It need not lie between the two; both
intervals together are what to quote (docs/inferred.md).
Source: docs/science.md, section 14.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from headscope.analysis.results.settings import SettingResult
from headscope.analysis.results.table import INFERRED
from headscope.text import percent


@dataclass(frozen=True, eq=False)
class Bracket:
    """One setting under both partitions; `variant` is its name without theirs."""

    architecture: str
    variant: str
    strict: SettingResult
    loose: SettingResult

    @property
    def ordered(self) -> tuple[SettingResult, SettingResult]:
        """The two, that of the lower subject accuracy first."""
        first, second = sorted(
            (self.strict, self.loose), key=lambda result: result.scores["subject_accuracy"].value
        )
        return first, second

    @property
    def ends(self) -> tuple[float, float] | None:
        """The lowest and the highest end of their 95% intervals; None where one has none."""
        intervals = [side.scores["subject_accuracy"].interval for side in (self.strict, self.loose)]
        if intervals[0] is None or intervals[1] is None:
            return None
        return min(intervals[0][0], intervals[1][0]), max(intervals[0][1], intervals[1][1])

    @property
    def interval(self) -> str:
        """Say from where to where both of their 95% intervals reach; nothing where one has none."""
        if self.ends is None:
            return ""
        return f" (95% intervals together {' to '.join(map(percent, self.ends))})"

    @property
    def sentence(self) -> str:
        """Say by which two accuracies the honest one is estimated."""
        low, high = (percent(result.scores["subject_accuracy"].value) for result in self.ordered)
        return (
            f"{self.architecture} {self.variant}: the honest accuracy is estimated at {low}% "
            f"and {high}% of subjects{self.interval}, {INFERRED}."
        )


def brackets(results: Iterable[SettingResult]) -> list[Bracket]:
    """Return the settings that keep subjects apart and ran under both partitions."""
    sides: dict[tuple[str, str, str], dict[str, SettingResult]] = {}
    for result in results:
        subjects = result.runs[0].setting.subjects
        if subjects is not None and result.apart:
            name = result.name.removesuffix(f"-{subjects}")
            key = result.architecture, name, result.split
            sides.setdefault(key, {})[subjects.rpartition("-")[2]] = result
    return [
        Bracket(architecture, variant, both["strict"], both["loose"])
        for (architecture, variant, _), both in sides.items()
        if {"strict", "loose"} <= both.keys()
    ]
