"""The page's first words: what was reached, whether it beats chance, what would be claimed."""

from collections.abc import Sequence
from math import isnan

from markupsafe import Markup

from headscope.analysis.leakage.split_gap import Gap, GapScore, clearest_gap
from headscope.analysis.results.chance import area_words
from headscope.analysis.results.comparisons import Comparison, Comparisons
from headscope.analysis.results.settings import SettingResult, choose
from headscope.reporting.numbers import number

MOST_NAMED = 3  # settings that a sentence lists by name
STANDINGS = {
    "above": "better than chance",
    "below": "worse than chance: labels or data deserve a second look",
    "no better": "no better than chance",
    "unknown": "which so few subjects cannot tell from chance",
}


def verdict(
    results: Sequence[SettingResult], compared: Comparisons, gaps: Sequence[Gap]
) -> list[Markup]:
    """Return what the runs come to, in a few sentences.

    What the setting that validation chose reached on unseen subjects, beside what the larger class
    alone gives; whether that differs from chance and from its rivals; what a split by slice would
    have claimed, over all settings; and which settings predict one class for all.
    """
    apart = [result for result in results if result.apart]
    if not apart:
        nameless = any(result.nameless for result in results)
        return [NOBODY_KNOWS if nameless else NONE_APART]
    candidates = _comparable(apart)
    best, by = choose(candidates)
    reached = _reached(best) + _chosen(candidates, by)
    standing = _standing(best) + _rivals(best, compared)
    constant = _constant(results, best)
    return [reached, standing, _claimed(best, gaps), *([constant] if constant else [])]


def _comparable(apart: Sequence[SettingResult]) -> list[SettingResult]:
    """Return the settings that ran on the same seeds and folds, of as many as there are."""
    most = max(apart, key=lambda result: len(result.fits)).fits
    return [result for result in apart if result.fits == most]


def _chosen(candidates: Sequence[SettingResult], by: str) -> Markup:
    if len(candidates) == 1:
        return Markup()
    if not by:
        return Markup(
            " Validation is empty, so it is the first of the {} settings that keep subjects apart."
        ).format(len(candidates))
    return Markup(
        " It has the highest {} of the {} settings that keep subjects apart and ran on the same "
        "splits; the table below has them all."
    ).format(by, len(candidates))


def _reached(best: SettingResult) -> Markup:
    """Say what the chosen setting reached, beside what the larger class alone gives."""
    return Markup(
        "{over}{network} predicted the class of {subject}% of subjects{subject_interval} and of "
        "{slice}% of their slices{slice_interval} correctly; predicting {larger} for all "
        "gives {subject_share}% and {slice_share}%.{one_class}{labels}"
    ).format(
        over=_over(best),
        network=_name(best),
        subject=_percent(best, "subject_accuracy"),
        subject_interval=_interval(best, "subject_accuracy"),
        slice=_percent(best, "slice_accuracy"),
        slice_interval=_interval(best, "slice_accuracy"),
        larger=_larger(best),
        subject_share=_share(best, "subject"),
        slice_share=_share(best, "slice"),
        one_class=_one_class(best),
        labels=_labels(best),
    )


def _larger(best: SettingResult) -> Markup:
    name = best.majority.class_name
    return Markup("{}, the larger class,").format(name) if name else Markup("any one class")


def _over(best: SettingResult) -> Markup:
    """Say over what the scores are taken: one test, folds, seeds or both."""
    count = number(best.subjects, best.key, "test_subjects", "count")
    if len(best.runs) == 1:
        return Markup("On {} subjects never seen in training, ").format(count)
    tested = Markup(" ({} subjects never seen in training), ").format(count)
    folds = Markup()
    if best.folds:
        folds = Markup("Pooled over the tests of {} folds").format(
            number(len(best.folds), best.key, "folds", "count")
        )
    if len(best.seeds) == 1:
        return folds + tested
    seeds = number(len(best.seeds), best.key, "seeds", "count")
    if folds:
        return folds + Markup(" and averaged over {} seeds").format(seeds) + tested
    return Markup("On average over {} seeds").format(seeds) + tested


def _one_class(best: SettingResult) -> Markup:
    """Say that the chosen setting predicts one class for every slice, where it does."""
    if not best.constant:
        return Markup()
    if len(best.runs) == 1:
        return Markup(" It predicts {} for every test slice.").format(*best.constant.values())
    return Markup(" In {} of its {} tests it predicts one class for every slice.").format(
        number(len(best.constant), best.key, "one_class_runs", "count"),
        number(len(best.runs), best.key, "runs", "count"),
    )


def _labels(best: SettingResult) -> Markup:
    """Say that some subjects bear several labels, where they do."""
    if best.subject_labels == best.subjects:
        return Markup()
    return Markup(
        " The labels of some subjects change between visits, so shares of subjects count {} labels "
        "of {} subjects."
    ).format(
        number(best.subject_labels, best.key, "subject_labels", "count"),
        number(best.subjects, best.key, "test_subjects", "count"),
    )


def _standing(best: SettingResult) -> Markup:
    """Say whether the chosen setting ranks subjects better than chance."""
    chance = best.chance
    if chance.standing == "unknown" and isnan(chance.value):
        return TOO_LITTLE
    p = Markup()
    if not isnan(chance.p):
        p = Markup(" ({}, labels permuted among subjects)").format(
            number(chance.p, best.key, "chance_p", "p")
        )
    return Markup("{area} is {auc}{interval}, {words}{p}.{beside}").format(
        area=area_words("subjects", chance.classes),
        auc=number(best.scores["subject_auc"].value, best.key, "test_subject_auc", "fraction"),
        interval=_interval(best, "subject_auc", "fraction"),
        words=STANDINGS[chance.standing],
        p=p,
        beside=_beside_majority(best),
    )


def _beside_majority(best: SettingResult) -> Markup:
    """Say that a ranking above chance need not make an accuracy above the larger class's share."""
    accuracy = best.scores["subject_accuracy"]
    share = best.majority.subject_share
    if not best.chance.better or isnan(share):
        return Markup()
    if accuracy.interval and accuracy.interval[0] > share:
        return Markup()
    return Markup(" Its accuracy is not shown to lie above that of the larger class.")


def _rivals(best: SettingResult, compared: Comparisons) -> Markup:
    """Say from which other settings the chosen one can be told apart."""
    names = best.name, f"{best.architecture} {best.name}"
    rows = [
        row
        for row in compared.rows
        if row.split == best.split and (row.first in names or row.second in names)
    ]
    if not rows:
        return Markup()
    told = [row for row in rows if row.distinguishable]
    others = [_other(row, names) for row in rows if not row.distinguishable]
    sentences = [
        Markup(" By subject accuracy it is {} than {} ({} after Holm's correction).").format(
            "better" if (row.subject_accuracy.value > 0) == (row.first in names) else "worse",
            _other(row, names),
            number(row.subject_accuracy.p_holm, f"{row.first} | {row.second} | {row.split}",
                   "subject_accuracy.p", "p"),
        )
        for row in told
    ]  # fmt: skip
    if len(others) > MOST_NAMED:
        setting = best.key
        every = (
            "any"
            if len(others) == len(rows)
            else number(len(others), setting, "rivals_alike", "count")
        )
        sentences.append(
            Markup(" By subject accuracy it cannot be told apart from {} of the {} others.").format(
                every, number(len(rows), setting, "rivals", "count")
            )
        )
    elif others:
        text = " and ".join([", ".join(others[:-1]), others[-1]] if len(others) > 1 else others)
        sentences.append(
            Markup(" By subject accuracy it cannot be told apart from {}.").format(text)
        )
    return Markup().join(sentences)


def _other(row: Comparison, names: Sequence[str]) -> str:
    return row.second if row.first in names else row.first


def _claimed(best: SettingResult, gaps: Sequence[Gap]) -> Markup:
    """Say what slices of one subject on both sides would have claimed, of the chosen setting first.

    No gap is told beside a network that predicts one class for all.
    """
    measurable = [gap for gap in gaps if gap.measurable]
    clearest = clearest_gap(measurable)
    if clearest is None:
        return ONLY_CONSTANTS if gaps else NOT_MEASURED
    setting = best.architecture, best.name
    same = [gap for gap in measurable if (gap.architecture, gap.variant) == setting]
    tried = any((gap.architecture, gap.variant) == setting for gap in gaps)
    chosen = same[0] if same else clearest
    before = Markup() if same or not tried else CONSTANT_PAIR.format(_name(best))
    return before + _claim(chosen) + _other_gaps(chosen, measurable)


def _claim(gap: Gap) -> Markup:
    """Say what one setting would have claimed, and what it reaches with subjects apart."""
    figure = gap.scores["slice_accuracy"]
    claim, honest = (
        100 * sum(values) / len(values) for values in (figure.by_slice, figure.by_subject)
    )
    run = _gap_key(gap)
    return Markup(
        "With slices of one subject on both sides of the split, as in the paper, {network} would "
        "have claimed {claim}% of slices, where it reaches {honest}% on unseen subjects: {words} "
        "of {gap} points{interval}."
    ).format(
        network=f"{gap.architecture} ({gap.variant})",
        claim=number(claim, run, "by_slice.slice_accuracy", "points"),
        honest=number(honest, run, "by_subject.slice_accuracy", "points"),
        words=_kind(figure),
        gap=number(100 * figure.gap, run, "gap.slice_accuracy", "points"),
        interval=_gap_interval(gap),
    )


def _gap_interval(gap: Gap) -> Markup:
    """Return the interval of a gap and of what it speaks, or that there is none."""
    figure, run = gap.scores["slice_accuracy"], _gap_key(gap)
    if isnan(figure.low) or isnan(figure.high):
        return Markup(", whose interval cannot be told")
    return Markup(" (95% interval {} to {}, {})").format(
        number(100 * figure.low, run, "gap.slice_accuracy_low", "points"),
        number(100 * figure.high, run, "gap.slice_accuracy_high", "points"),
        gap.scope,
    )


def _other_gaps(chosen: Gap, measurable: Sequence[Gap]) -> Markup:
    """Say how many of all settings show a gap, and name the clearest where it is another."""
    if len(measurable) == 1:
        return Markup()
    leaking = [gap for gap in measurable if gap.scores["slice_accuracy"].low > 0]
    text = Markup(" Of the {} settings measured under both splits, {} a leakage gap").format(
        number(len(measurable), "all", "gaps", "count"),
        Markup("{} {}").format(
            number(len(leaking), "all", "leaking_gaps", "count") if leaking else "none",
            "shows" if len(leaking) < 2 else "show",
        ),
    )
    clearest = clearest_gap(leaking)
    if clearest is None or clearest is chosen:
        return text + Markup(".")
    return text + Markup(", most clearly {}: {} points{}.").format(
        f"{clearest.architecture} ({clearest.variant})",
        number(100 * clearest.scores["slice_accuracy"].gap, _gap_key(clearest),
               "gap.slice_accuracy", "points"),
        _gap_interval(clearest),
    )  # fmt: skip


def _gap_key(gap: Gap) -> str:
    return f"{gap.architecture}-{gap.variant}"


def _kind(figure: GapScore) -> str:
    """Name a gap by what its interval carries."""
    if figure.low > 0:
        return "a leakage gap"
    if figure.gap <= 0:
        return "no gap, but a difference" if figure.gap < 0 else "no gap, a difference"
    return "a difference" if isnan(figure.low) else "a difference, not told from none,"


def _constant(results: Sequence[SettingResult], best: SettingResult) -> Markup:
    """Name the settings that predict one class for all slices of a test, the chosen one aside."""
    constant = [result for result in results if result.constant and result is not best]
    if not constant:
        return Markup()
    names = [f"{_name(result)}, {result.split} split" for result in constant]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    others = len(results) - 1
    count = number(len(constant), "all", "one_class_settings", "count")
    of_all = Markup("All {} other settings predict").format(count)
    if len(constant) == 1:
        of_all = Markup("Another setting predicts")
    elif len(constant) < others:
        of_all = Markup("{} of the {} other settings predict").format(
            count, number(others, "all", "other_settings", "count")
        )
    return Markup(
        "{of_all} one class for every slice of a test: {names}{more}. {their} accuracy is that "
        "class's share."
    ).format(
        of_all=of_all,
        names="; ".join(names[:MOST_NAMED]),
        more=more,
        their="Its" if len(constant) == 1 else "Their",
    )


def _name(result: SettingResult) -> str:
    return f"{result.architecture} ({result.name})"


def _percent(result: SettingResult, name: str) -> Markup:
    return number(result.scores[name].value, result.key, f"test_{name}", "percent")


def _share(result: SettingResult, level: str) -> Markup:
    value = getattr(result.majority, f"{level}_share")
    return number(value, result.key, f"{level}_majority", "percent")


def _interval(result: SettingResult, name: str, show: str = "percent") -> Markup:
    """Return a score's interval in words; say that there is none where draws cannot tell."""
    score = result.scores[name]
    if score.interval is None:
        return Markup() if isnan(score.value) else Markup(" (no interval can be given)")
    wilson = isnan(score.low)
    part = "_wilson" if wilson else ""
    return Markup(" ({}95% interval {} to {})").format(
        "Wilson’s " if wilson else "",
        number(score.interval[0], result.key, f"test_{name}{part}_low", show),
        number(score.interval[1], result.key, f"test_{name}{part}_high", show),
    )


TOO_LITTLE = Markup("Too little is known of these subjects to say whether it differs from chance.")
NOBODY_KNOWS = Markup(
    "The pictures name no subjects, so slices of one person may stand in training and in test: "
    "none of these accuracies says how the network would do on new people."
)
NONE_APART = Markup(
    "In every run here, slices of one subject stand in training and in test: none of these "
    "accuracies says how the network would do on new people."
)
NOT_MEASURED = Markup(
    "What a split by slice, as in the paper, would have claimed was not measured: "
    "<code>--splits subject,slice</code> runs both."
)
ONLY_CONSTANTS = Markup(
    "A split by slice was run too, but in every pair of runs a network predicts one class for all "
    "test slices: there is no gap to be measured."
)
CONSTANT_PAIR = Markup(
    "Of {} no gap can be measured, as it predicts one class for all test slices under one of the "
    "splits. "
)
