"""What the leakage analysis comes to, check by check, in words and with a level."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from headscope.analysis.leakage.permutation import Null, PermutationTest
from headscope.analysis.leakage.reidentification import Identity
from headscope.analysis.leakage.split_gap import Gap, Neighbours

LEVELS = ("serious", "notice", "fine", "not checked")
ALARM = 0.001  # false alarms to be had from all runs under a split by subject together
FEWEST = 20  # permutations of which the mean is judged
FEWEST_P = 19  # permutations of which the least p is 0.05


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: level is "serious", "notice", "fine" or "not checked"."""

    check: str
    level: str
    text: str


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
    return Null(float(np.mean([null.observed for null in nulls])), tuple(means)).p


def split_finding(
    name: str, split: str, shared: int, subjects: int, duplicated: int = 0
) -> Finding:
    """Say how many test subjects also trained: serious under a split that claims otherwise.

    duplicated counts those of whom a duplicate under another id trained, by the audit.
    """
    if not shared and duplicated:
        text = f"duplicates of {duplicated} of {subjects} test subjects are, under other ids"
        return Finding(
            "Split", "serious", f"{name}: no test subject's id is in training, but {text}"
        )
    if not shared:
        return Finding("Split", "fine", f"{name}: no test subject stands in training")
    text = f"{name}: slices of {shared} of {subjects} test subjects stand in training"
    if split == "subject":
        return Finding("Split", "serious", f"{text}, although the split is by subject")
    return Finding("Split", "notice", f"{text}, as a split by slice has it")


def gap_finding(gap: Gap) -> Finding:
    """Say what the split by slice adds, and of what the intervals speak; no gap of constants."""
    name = f"{gap.architecture} {gap.variant}"
    if not gap.measurable:
        text = f"{name}: no gap, as a network of each pair predicts one class for all test slices"
        return Finding("Leak gap", "not checked", text)
    score = gap.scores["slice_accuracy"]
    text = (
        f"{name}: slice accuracy {_percent(np.mean(score.by_slice))} "
        f"by slice, {_percent(np.mean(score.by_subject))} by subject; gap "
        f"{points(score.gap)} points{_interval(score.low, score.high, gap.scope)}"
    )
    for key, words in (("slice_balanced_accuracy", "balanced accuracy"), ("slice_auc", "AUC")):
        beside = gap.scores[key]
        text += f", of {words} {points(beside.gap)}{_interval(beside.low, beside.high)}"
    if gap.left_out:
        text += f"; {gap.left_out} of {len(gap.constant)} seeds left out: one class for all"
    return Finding("Leak gap", "notice" if score.low > 0 else "fine", text)


def neighbour_finding(found: Sequence[Neighbours]) -> Finding:
    """Say how many test slices have their own subject for nearest in training."""
    share = float(np.mean([each.share for each in found]))
    first = found[0]
    text = (
        f"{first.architecture} {first.variant}, {first.split} split: {_percent(share)} of test "
        f"slices have a slice of the same subject for nearest in training"
    )
    same, other = (
        np.array([getattr(each, name) for each in found])
        for name in ("same_accuracy", "other_accuracy")
    )
    if np.isfinite(same).any() and np.isfinite(other).any():
        text += f"; slice accuracy {_percent(np.nanmean(same))} on those"
        text += f", {_percent(np.nanmean(other))} on the rest"
    return Finding("Nearest neighbour", "notice" if share > 0 else "fine", text)


def permuted_finding(tests: Sequence[PermutationTest], groups: int) -> Finding:
    """Say where permuted labels lead: above chance under a split by subject is a leak.

    groups are the networks so tested, over which the false alarms of `ALARM` are shared.
    """
    first, found = tests[0], centre(tests)
    chance = 1 / first.classes
    name = f"{first.architecture} {first.variant}, {first.split} split"
    text = (
        f"{name}: balanced slice accuracy with permuted labels {_percent(found.mean)}"
        f"{_interval(found.low, found.high)}, chance {_percent(chance)}, "
        f"{found.draws} permutations"
    )
    if min(test.draws for test in tests) < FEWEST or not np.isfinite(found.error):
        return Finding("Permuted labels", "not checked", f"{text}: too few to judge")
    limit = found.limit(ALARM / groups) + 1e-9
    if found.mean <= limit:
        return Finding("Permuted labels", "fine", text)
    if first.split == "subject":
        return Finding("Permuted labels", "serious", f"{text}: something else than subjects leaks")
    return Finding("Permuted labels", "notice", f"{text}: it knows heads, not classes")


def observed_finding(tests: Sequence[PermutationTest]) -> Finding:
    """Say whether what was observed beats permuted labels: the mean over the runs (`setting_p`)."""
    first, p = tests[0], setting_p(tests)
    shown = f"p = {p:.3f}"
    if len(tests) > 1:
        values = [test.scores["subject_balanced_accuracy"].p for test in tests]
        shown += f" for the mean of {len(tests)} runs"
        shown += f" ({min(values):.3f} to {max(values):.3f} by run)"
    text = (
        f"{first.architecture} {first.variant}, {first.split} split: balanced subject accuracy "
        f"against permuted labels, {shown}"
    )
    if min(test.draws for test in tests) < FEWEST_P:
        return Finding("Against permuted labels", "not checked", f"{text}: too few to judge")
    if p <= 0.05:
        return Finding("Against permuted labels", "fine", text)
    which = "it does" if len(tests) == 1 else "the runs together do"
    text += f": {which} not beat labels that say nothing"
    return Finding("Against permuted labels", "notice", text)


def identity_finding(found: Sequence[Identity]) -> Finding:
    """Say how well the features tell people apart, beside classes."""
    first = found[0]

    def mean(name: str, part: str) -> str:
        return _percent(np.mean([getattr(getattr(each, name), part) for each in found]))

    text = (
        f"{first.architecture} {first.variant}: nearest neighbour names the subject in "
        f"{mean('nearest_subject', 'accuracy')} (over {first.over}; chance "
        f"{mean('nearest_subject', 'chance')}), the class in {mean('nearest_class', 'accuracy')} "
        f"(other subjects; chance {mean('nearest_class', 'chance')})"
    )
    return Finding("Identity", "notice", text)


def points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign: 0.166 is '+16.6'."""
    return f"{100 * fraction:+.1f}".replace("-", "−") if np.isfinite(fraction) else "undefined"


def _percent(fraction: float | np.floating) -> str:
    return f"{100 * fraction:.1f}%" if np.isfinite(fraction) else "undefined"


def _interval(low: float, high: float, scope: str = "") -> str:
    if not np.isfinite([low, high]).all():
        return ""
    text = f" (95% {100 * low:.1f} to {100 * high:.1f}".replace("-", "−")
    return f"{text}, {scope})" if scope else f"{text})"
