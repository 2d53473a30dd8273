"""The page's first words: what was reached, whether it beats chance, what would be claimed."""

from collections.abc import Sequence
from functools import partial
from math import isnan
from typing import Final

from markupsafe import Markup

from headscope.analysis.leakage.split_gap import Gap, GapScore, clearest_gap
from headscope.analysis.results.chance import area_words
from headscope.analysis.results.comparisons import Comparison, Comparisons
from headscope.analysis.results.settings import SettingResult, choose_apart
from headscope.reporting.answer import beside_share, larger_class
from headscope.reporting.numbers import CONFIDENCE, ends_of, number, say, subject_accuracy
from headscope.supplement.prose import listed

MOST_NAMED: Final = 3  # settings that a sentence lists by name
STANDINGS: Final = {
    "above": "better than chance",
    "below": "worse than chance: labels or data deserve a second look",
    "no better": "no better than chance",
    "unknown": "which so few subjects cannot tell from chance",
}
UNTRUSTED: Final = "none of these accuracies says how the network would do on new subjects."
NAMELESS: Final = say(
    "The pictures name no subjects, so slices of one subject may be in training and in test: "
    + UNTRUSTED
)
NONE_APART: Final = say(
    "In every run here, slices of one subject are in training and in test: " + UNTRUSTED
)
UNKNOWN: Final = Markup(
    "Too little is known of these subjects to say whether it differs from chance."
)
NOT_MEASURED: Final = Markup(
    "What a split by slice, as in the paper, would have claimed was not measured: "
    "<code>--splits subject,slice</code> runs both."
)
ONLY_CONSTANTS: Final = Markup(
    "A split by slice was run too, but in every pair of runs a network predicts one class for all "
    "test slices: there is no gap to be measured."
)


def verdict(
    results: Sequence[SettingResult],
    compared: Comparisons,
    gaps: Sequence[Gap],
    crossed: bool = False,
) -> list[Markup]:
    """Return what the runs come to, in a few sentences.

    What the setting that validation chose reached on unseen subjects, beside what the larger class
    alone gives; whether that differs from chance and from its rivals; what a split by slice would
    have claimed, over all settings; and which settings predict one class for all. `crossed` says
    that heads of the test are in training under other ids.
    """
    apart = [result for result in results if result.apart]
    if not apart:
        return [NAMELESS if any(result.nameless for result in results) else NONE_APART]
    best, by, candidates = choose_apart(apart)
    sentences = [
        _reached(best, crossed) + _chosen(candidates, by),
        _standing(best) + _rivals(best, compared),
        _claimed(best, gaps),
        _constant(results, best),
    ]
    return [sentence for sentence in sentences if sentence]


def _chosen(candidates: int, by: str) -> Markup:
    """Say by what the setting was chosen, where there are several."""
    if candidates == 1:
        return Markup()
    text = " Validation is empty, so it is the first of the {1} settings that keep subjects apart."
    if by:
        text = (
            " It has the highest {} of the {} settings that keep subjects apart and ran on the "
            "same splits; the table below has them all."
        )
    return say(text, by, candidates)


def _reached(best: SettingResult, crossed: bool) -> Markup:
    """Say what the chosen setting reached, beside what the larger class alone gives."""
    percent = partial(number, run=best.key, form="percent")
    larger, shares = best.majority.class_name, best.majority
    words = larger_class(best, shares.subject_share, shares.slice_share)
    return say(
        "{over}{network} predicted the class of {subject}% of subjects{subject_interval} and of "
        "{slice}% of their slices{slice_interval} correctly; predicting {larger} for all "
        "gives {subject_share}% and {slice_share}%.{one_class}{labels}",
        over=_over(best, crossed),
        network=_name(best),
        subject=subject_accuracy(best),
        subject_interval=_interval(best, "subject_accuracy"),
        slice=percent(best.scores["slice_accuracy"].value, quantity="test_slice_accuracy"),
        slice_interval=_interval(best, "slice_accuracy"),
        larger=f"{larger}, the larger class," if larger else words,
        subject_share=percent(shares.subject_share, quantity="subject_majority"),
        slice_share=percent(shares.slice_share, quantity="slice_majority"),
        one_class=_one_class(best),
        labels=_labels(best),
    )


def _over(best: SettingResult, crossed: bool) -> Markup:
    """Say over what the scores are taken: one test, folds, seeds or both."""
    count = partial(number, run=best.key, form="count")
    subjects = count(best.subjects, quantity="test_subjects")
    unseen = (
        "subjects whose ids are not in training" if crossed else "subjects never seen in training"
    )
    if best.runs[0].setting.subjects:
        subjects += Markup(" inferred")
    if len(best.runs) == 1:
        return say("On {} {}, ", subjects, unseen)
    ways = []
    if best.folds:
        folds = count(len(best.folds), quantity="folds")
        ways.append(say("Pooled over the tests of {} folds", folds))
    if len(best.seeds) > 1:
        average = "averaged" if best.folds else "On average"
        ways.append(say("{} over {} seeds", average, count(len(best.seeds), quantity="seeds")))
    return say("{} ({} {}), ", Markup(" and ").join(ways), subjects, unseen)


def _one_class(best: SettingResult) -> Markup:
    """Say that the chosen setting predicts one class for every slice, where it does."""
    if not best.constant:
        return Markup()
    if len(best.runs) == 1:
        return say(" It predicts {} for every test slice.", *best.constant.values())
    return say(
        " In {} of its {} tests it predicts one class for every slice.",
        number(len(best.constant), best.key, "one_class_runs", "count"),
        number(len(best.runs), best.key, "runs", "count"),
    )


def _labels(best: SettingResult) -> Markup:
    """Say that some subjects bear several labels, where they do."""
    if best.subject_labels == best.subjects:
        return Markup()
    why = "The labels of some subjects change between visits"
    if best.runs[0].setting.subjects:
        why = "Some inferred subjects are in several classes"
    return say(
        f" {why}, so shares of subjects count {{}} labels of {{}} subjects.",
        number(best.subject_labels, best.key, "subject_labels", "count"),
        number(best.subjects, best.key, "test_subjects", "count"),
    )


def _standing(best: SettingResult) -> Markup:
    """Say whether the chosen setting ranks subjects better than chance.

    A ranking above chance need not make an accuracy above the larger class's share.
    """
    chance, accuracy = best.chance, best.scores["subject_accuracy"]
    if chance.standing == "unknown" and isnan(chance.value):
        return UNKNOWN
    p = say(
        "" if isnan(chance.p) else " ({}, labels permuted among subjects)",
        number(chance.p, best.key, "chance_p", "p"),
    )
    share, beside = best.majority.subject_share, ""
    above = accuracy.interval is not None and accuracy.interval[0] > share
    if chance.better and not isnan(share) and not above:
        larger = larger_class(best, share)
        beside = f" Its accuracy {beside_share(accuracy, share)} that of {larger}."
    return say(
        "{area} is {auc}{interval}, {standing}{p}.{beside}",
        area=area_words("subjects", chance.classes, chance.classes - len(best.untested)),
        auc=number(best.scores["subject_auc"].value, best.key, "test_subject_auc", "fraction"),
        interval=_interval(best, "subject_auc", "fraction"),
        standing=STANDINGS[chance.standing],
        p=p,
        beside=beside,
    )


def _rivals(best: SettingResult, compared: Comparisons) -> Markup:
    """Say from which other settings the chosen one can be told apart."""
    names = best.name, f"{best.architecture} {best.name}"
    rows = [
        row
        for row in compared.rows
        if row.split == best.split and (row.first in names or row.second in names)
    ]
    sentences = [_rival(row, names) for row in rows if row.distinguishable]
    alike = [_other(row, names) for row in rows if not row.distinguishable]
    others: Markup | str = listed(alike)
    if len(alike) > MOST_NAMED:
        count = partial(number, run=best.key, form="count")
        some = "any" if len(alike) == len(rows) else count(len(alike), quantity="rivals_alike")
        others = say("{} of the {} others", some, count(len(rows), quantity="rivals"))
    if alike:
        sentences.append(say(" By subject accuracy it cannot be told apart from {}.", others))
    return Markup().join(sentences)


def _rival(row: Comparison, names: Sequence[str]) -> Markup:
    key = f"{row.first} | {row.second} | {row.split}"
    return say(
        " By subject accuracy it is {} than {} ({} after Holm's correction).",
        "better" if (row.subject_accuracy.value > 0) == (row.first in names) else "worse",
        _other(row, names),
        number(row.subject_accuracy.p_holm, key, "subject_accuracy.p", "p"),
    )


def _other(row: Comparison, names: Sequence[str]) -> str:
    return row.second if row.first in names else row.first


def _claimed(best: SettingResult, gaps: Sequence[Gap]) -> Markup:
    """Say what slices of one subject on both sides would have claimed, of the chosen setting first.

    No gap is stated beside a network that predicts one class for all.
    """
    measurable = [gap for gap in gaps if gap.measurable]
    clearest = clearest_gap(measurable)
    if clearest is None:
        return ONLY_CONSTANTS if gaps else NOT_MEASURED
    setting = best.architecture, best.name
    same = [gap for gap in measurable if (gap.architecture, gap.variant) == setting]
    before = Markup()
    if not same and any((gap.architecture, gap.variant) == setting for gap in gaps):
        before = say(
            "Of {} no gap can be measured, as it predicts one class for all test slices under one "
            "of the splits. ",
            _name(best),
        )
    chosen = same[0] if same else clearest
    return before + _claim(chosen) + _other_gaps(chosen, measurable)


def _claim(gap: Gap) -> Markup:
    """Say what one setting would have claimed, and what it reaches with subjects apart."""
    score = gap.scores["slice_accuracy"]
    points = partial(number, run=_gap_key(gap), form="points")
    claim, honest = (
        points(100 * sum(values) / len(values), quantity=f"{way}.slice_accuracy")
        for way, values in (("by_slice", score.by_slice), ("by_subject", score.by_subject))
    )
    return say(
        "With slices of one subject on both sides of the split, as in the paper, {network} would "
        "have claimed {claim}% of slices, where it reaches {honest}% on unseen subjects: {kind} "
        "of {gap}.",
        network=f"{gap.architecture} ({gap.variant})",
        claim=claim,
        honest=honest,
        kind=_kind(score),
        gap=_gap_points(gap),
    )


def _gap_points(gap: Gap) -> Markup:
    """Return a gap in points with its interval and what that speaks of, or that there is none."""
    score, place = gap.scores["slice_accuracy"], (_gap_key(gap), "gap.slice_accuracy", "points")
    value = number(100 * score.gap, *place)
    if isnan(score.low) or isnan(score.high):
        return say("{} points, whose interval cannot be told", value)
    low, high = ends_of((100 * score.low, 100 * score.high), *place)
    return say("{} points ({} interval {} to {}, {})", value, CONFIDENCE, low, high, gap.scope)


def _other_gaps(chosen: Gap, measurable: Sequence[Gap]) -> Markup:
    """Say how many of all settings show a gap, and name the clearest where it is another."""
    if len(measurable) == 1:
        return Markup()
    leaking = [gap for gap in measurable if gap.scores["slice_accuracy"].low > 0]
    clearest, most = clearest_gap(leaking), Markup()
    if clearest is not None and clearest is not chosen:
        name = f"{clearest.architecture} ({clearest.variant})"
        most = say(", most clearly {}: {}", name, _gap_points(clearest))
    return say(
        " Of the {} settings measured under both splits, {} {} a leakage gap{}.",
        number(len(measurable), "all", "gaps", "count"),
        number(len(leaking), "all", "leaking_gaps", "count") if leaking else "none",
        "shows" if len(leaking) < 2 else "show",
        most,
    )


def _gap_key(gap: Gap) -> str:
    return f"{gap.architecture}-{gap.variant}"


def _kind(score: GapScore) -> str:
    """Name a gap by what its interval supports."""
    if score.low > 0:
        return "a leakage gap"
    if score.gap <= 0:
        return "no gap, but a difference" if score.gap < 0 else "no gap, a difference"
    return "a difference" if isnan(score.low) else "a difference, not told from none,"


def _constant(results: Sequence[SettingResult], best: SettingResult) -> Markup:
    """Name the settings that predict one class for all slices of a test, the chosen one aside."""
    constant = [result for result in results if result.constant and result is not best]
    if not constant:
        return Markup()
    names = [f"{_name(result)}, {result.split} split" for result in constant]
    subject = "All {} other settings predict"
    if len(constant) == 1:
        subject = "Another setting predicts"
    elif len(constant) < len(results) - 1:
        subject = "{} of the {} other settings predict"
    return say(
        "{} one class for every slice of a test: {}{}. {} accuracy there is that class's share.",
        say(
            subject,
            number(len(constant), "all", "one_class_settings", "count"),
            number(len(results) - 1, "all", "other_settings", "count"),
        ),
        "; ".join(names[:MOST_NAMED]),
        f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "",
        "Its" if len(constant) == 1 else "Their",
    )


def _name(result: SettingResult) -> str:
    return f"{result.architecture} ({result.name})"


def _interval(result: SettingResult, name: str, form: str = "percent") -> Markup:
    """Return a score's interval in words; say that there is none where draws cannot tell."""
    score = result.scores[name]
    if score.interval is None:
        return Markup() if isnan(score.value) else Markup(" (no interval can be given)")
    way, title = ("_wilson", "Wilson’s ") if isnan(score.low) else ("", "")
    ends = ends_of(score.interval, result.key, f"test_{name}{way}", form)
    return say(" ({}{} interval {} to {})", title, CONFIDENCE, *ends)
