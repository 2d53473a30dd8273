"""The findings of the leakage analysis, check by check, in words and with a level."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from headscope.analysis.leakage.permutation import PermutationTest, PermutedScore
from headscope.analysis.leakage.reidentification import Reidentification
from headscope.analysis.leakage.split_gap import Gap, Neighbours
from headscope.audit_record import Finding
from headscope.text import UNDEFINED, percent, show, signed_points

CHECKS = {
    "split": "Split",
    "gap": "Leak gap",
    "neighbour": "Nearest neighbour",
    "permuted": "Permuted labels",
    "observed": "Against permuted labels",
    "reidentification": "Re-identification",
}
APART = ("subject", "site")  # the splits that keep subjects apart
ALARM = 0.001  # false alarms to be had from all runs under such a split together
FEWEST = 20  # permutations of which the mean is judged
FEWEST_P = 19  # permutations of which the least p is 0.05


@dataclass(frozen=True)
class Centre:
    """The mean balanced slice accuracy with permuted labels over runs, and its 95% interval.

    error is the standard error by the permutations' own scatter. chance, spread and skew are
    those of the mean if nothing leaks (`no_leak`); spread is NaN where that is not on record.
    """

    mean: float
    low: float
    high: float
    error: float
    draws: int
    chance: float
    spread: float
    skew: float

    def limit(self, alarm: float) -> float:
        """Return what the mean exceeds with probability `alarm` if nothing leaks.

        By Pearson's type III with its three first cumulants: with few subjects in a class the
        score of a permutation is skewed, and a normal tail is too short by a factor of 70.
        """
        if np.isnan(self.spread):
            return self.chance + float(stats.t.isf(alarm, self.draws - 1)) * self.error
        return self.chance + float(stats.pearson3.isf(alarm, self.skew)) * self.spread


def centre(tests: Sequence[PermutationTest]) -> Centre:
    """Pool the runs of one network and split: where permuted labels lead, beside chance.

    Runs share permutations, so their scores are averaged permutation by permutation first. The
    interval is that of the mean: what is left of the permutations' own scatter.
    """
    drawn = [test.scores["slice_balanced_accuracy"].permuted for test in tests]
    mean, shared = float(np.mean([np.mean(values) for values in drawn])), min(map(len, drawn))
    error = float("nan")
    if shared > 1:
        means = np.mean([values[:shared] for values in drawn], axis=0)
        error = float(np.std(means, ddof=1)) / sqrt(shared)
    chance, spread, skew = _no_leak(tests, error)
    low, high = mean - 1.96 * error, mean + 1.96 * error
    return Centre(mean, low, high, error, sum(map(len, drawn)), chance, spread, skew)


def _no_leak(tests: Sequence[PermutationTest], error: float) -> tuple[float, float, float]:
    """Return mean, standard deviation and skewness of the mean over the runs if nothing leaks."""
    expected = [test.no_leak for test in tests if test.no_leak is not None]
    if len(expected) < len(tests):
        return 1 / tests[0].classes, float("nan"), 0.0
    variance = sum(part.variance for part in expected) / len(tests) ** 2
    # runs that share permutations depend on each other, which their scatter together shows
    spread = max(sqrt(variance), np.nan_to_num(error))
    third = sum(part.third for part in expected) / len(tests) ** 3
    skew = third / spread**3 if spread > 0 else 0.0
    return float(np.mean([part.mean for part in expected])), spread, skew


def setting_p(tests: Sequence[PermutationTest]) -> float:
    """Return the p of a setting's runs together: does their mean beat permuted labels?

    The mean of the balanced subject accuracies is compared with the same mean for each
    permutation that all runs were trained on, so that more runs do not make it harder to reach.
    Runs that share too few permutations to judge have twice the mean of their p-values, which
    holds however they depend on each other (Vovk and Wang 2020, Biometrika 107(4), 791–808).
    """
    nulls = [test.scores["subject_balanced_accuracy"] for test in tests]
    if len(tests) == 1:
        return nulls[0].p
    by_key = [
        dict(zip(test.labels, null.permuted, strict=False))
        for test, null in zip(tests, nulls, strict=True)
    ]
    shared = [key for key in by_key[0] if all(key in values for values in by_key)]
    if len(shared) < FEWEST_P:
        return min(1.0, 2 * float(np.mean([null.p for null in nulls])))
    means = [float(np.mean([values[key] for values in by_key])) for key in shared]
    return PermutedScore(float(np.mean([null.observed for null in nulls])), tuple(means)).p


def split_finding(
    name: str, split: str, shared: int, subjects: int, duplicated: int = 0, most: str = ""
) -> Finding:
    """Return how many test subjects are in training: serious under a split by subject.

    duplicated counts those of which a duplicate under another id is in training, by the audit;
    most says of which of several tests the counts are.
    """
    if shared:
        text = f"slices of {shared} of {subjects} test subjects are in training{most}"
        if split in APART:
            return _finding("split", name, "serious", f"{text}, although the split is by {split}")
        by = "the given partition" if split == "given" else "a split by slice"
        return _finding("split", name, "notice", f"{text}, as {by} has it")
    if duplicated:
        text = f"duplicates of {duplicated} of {subjects} test subjects are{most}, under other ids"
        return _finding(
            "split", name, "serious", f"no test subject's id is in training, but {text}"
        )
    return _finding("split", name, "fine", "no test subject is in training")


def gap_finding(gap: Gap) -> Finding:
    """Return what the split by slice adds, and what the intervals cover; no gap of constants."""
    name = f"{gap.architecture} {gap.variant}"
    if not gap.measurable:
        text = "no gap, as a network of each pair predicts one class for all test slices"
        return _finding("gap", name, "not checked", text)
    score = gap.scores["slice_accuracy"]
    text = (
        f"slice accuracy {_percent(np.mean(score.by_slice))} by slice, "
        f"{_percent(np.mean(score.by_subject))} by subject; gap "
        f"{points(score.gap)} points{_interval(score.low, score.high, gap.scope)}"
    )
    for key, words in (("slice_balanced_accuracy", "balanced accuracy"), ("slice_auc", "AUC")):
        beside = gap.scores[key]
        text += f", of {words} {points(beside.gap)}{_interval(beside.low, beside.high)}"
    if gap.left_out:
        text += f"; {gap.left_out} of {len(gap.constant)} seeds left out: one class for all"
    return _finding("gap", name, "notice" if score.low > 0 else "fine", text)


def neighbour_finding(results: Sequence[Neighbours]) -> Finding:
    """Return how many test slices have a slice of their subject nearest in training."""
    share = float(np.mean([result.share for result in results]))
    text = f"{_percent(share)} of test slices have a slice of the same subject nearest in training"
    same, other = (
        np.array([getattr(result, name) for result in results])
        for name in ("same_accuracy", "other_accuracy")
    )
    if np.isfinite(same).any() and np.isfinite(other).any():
        text += f"; slice accuracy {_percent(np.nanmean(same))} on those"
        text += f", {_percent(np.nanmean(other))} on the rest"
    return _finding("neighbour", _name(results[0]), "notice" if share > 0 else "fine", text)


def permuted_finding(tests: Sequence[PermutationTest], groups: int) -> Finding:
    """Return where permuted labels lead: above chance under a split by subject is a leak.

    groups are the networks so tested, over which the false alarms of `ALARM` are shared.
    """
    first, name, mean = tests[0], _name(tests[0]), centre(tests)
    text = (
        f"balanced slice accuracy with permuted labels {_percent(mean.mean)}"
        f"{_interval(mean.low, mean.high)}, chance {_percent(1 / first.classes)}, "
        f"{mean.draws} permutations"
    )
    if min(test.draws for test in tests) < FEWEST or not np.isfinite(mean.error):
        return _finding("permuted", name, "not checked", f"{text}: too few to judge")
    if mean.mean <= mean.limit(ALARM / groups) + 1e-9:
        return _finding("permuted", name, "fine", text)
    if first.split in APART:
        return _finding("permuted", name, "serious", f"{text}: something other than subjects leaks")
    return _finding("permuted", name, "notice", f"{text}: it recognises subjects, not classes")


def observed_finding(tests: Sequence[PermutationTest]) -> Finding:
    """Return whether the observed scores beat permuted labels: the mean over the runs."""
    name, p = _name(tests[0]), setting_p(tests)
    shown = f"p = {p:.3f}"
    if len(tests) > 1:
        values = [test.scores["subject_balanced_accuracy"].p for test in tests]
        shown += f" for the mean of {len(tests)} runs"
        shown += f" ({min(values):.3f} to {max(values):.3f} by run)"
    text = f"balanced subject accuracy against permuted labels, {shown}"
    if min(test.draws for test in tests) < FEWEST_P:
        return _finding("observed", name, "not checked", f"{text}: too few to judge")
    if p <= 0.05:
        return _finding("observed", name, "fine", text)
    which = "it does" if len(tests) == 1 else "the runs together do"
    return _finding("observed", name, "notice", f"{text}: {which} not beat labels without meaning")


def reidentification_finding(results: Sequence[Reidentification]) -> Finding:
    """Return how well the features tell subjects apart, beside classes."""
    first = results[0]

    def mean(name: str, part: str) -> str:
        return _percent(np.mean([getattr(getattr(result, name), part) for result in results]))

    text = (
        f"the nearest neighbour names the subject in "
        f"{mean('nearest_subject', 'accuracy')} (over {first.over}; chance "
        f"{mean('nearest_subject', 'chance')}), the class in {mean('nearest_class', 'accuracy')} "
        f"(other subjects; chance {mean('nearest_class', 'chance')})"
    )
    return _finding("reidentification", f"{first.architecture} {first.variant}", "notice", text)


def points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign: 0.166 is '+16.6'."""
    return signed_points(100 * fraction)


def _finding(kind: str, name: str, level: str, text: str) -> Finding:
    return Finding(kind, name, CHECKS[kind], level, f"{name}: {text}")


def _name(result: Neighbours | PermutationTest) -> str:
    return f"{result.architecture} {result.variant}, {result.split} split"


def _percent(fraction: float | np.floating) -> str:
    return f"{percent(float(fraction))}%" if np.isfinite(fraction) else UNDEFINED


def _interval(low: float, high: float, scope: str = "") -> str:
    if not np.isfinite([low, high]).all():
        return ""
    text = f" (95% {show(100 * low, 'points')} to {show(100 * high, 'points')}"
    return f"{text}, {scope})" if scope else f"{text})"
