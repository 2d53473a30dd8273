"""The page's first screen: one sentence, what to know before believing it, all settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isclose, isnan
from typing import Final

from markupsafe import Markup

from headscope.analysis.leakage.split_gap import Gap, clearest_gap
from headscope.analysis.results.settings import SettingResult, choose_apart, rival_words
from headscope.analysis.results.table import Score
from headscope.audit_record import Audit
from headscope.record import Run
from headscope.reporting.cautions import cautions, shared_heads, unaudited
from headscope.reporting.chapters.runs import bar, group_by
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import number, say
from headscope.reporting.plots import DotRow, Dots, Sentence
from headscope.text import percent

SIMULATED: Final = Markup(
    "<b>The cohort is simulated:</b> the numbers show how the tool works and say nothing about "
    'disease. <a href="#cohort">How it was made</a>'
)
CAPTION: Final = (
    "Accuracy over test subjects with its 95% interval: ● subjects kept apart, ▲ slices of one "
    "subject on both sides; hollow where a network predicts one class for all. The dashed line is "
    "what predicting the larger class for all gives."
)
SLICE_CAPTION: Final = (
    "Accuracy over test slices: ▲ slices of one subject are, or may be, on both sides; hollow "
    "where a network predicts one class for all. The dashed line is what predicting the larger "
    "class for all gives."
)


@dataclass(frozen=True)
class Answer:
    """What a reader learns in ten seconds; `flags` link to their evidence."""

    headline: Sentence
    below: Sentence
    flags: Sequence[Sentence]
    forest: Dots


def answer(
    results: Sequence[SettingResult],
    gaps: Sequence[Gap],
    audit: Audit | None,
    failures: Mapping[str, str],
    left_out: Sequence[Sentence] = (),
    *,
    rivals: Sequence[SettingResult] = (),
    explained: Sequence[Explanation] = (),
) -> Answer:
    """Return the first screen of a report: about all settings, naming the one that it chooses.

    results and rivals: of `setting_results`; gaps: of the settings under both splits; audit: None
    where there is none; failures: reasons of the runs that failed, by name; left_out: sentences on
    what has changed since it was written and is no part of the page; explained: what else could
    explain it.
    """
    runs = [run for result in results for run in result.runs]
    headline, below = _headline(results, shared_heads(audit, runs))
    headline += Markup().join(part.headline for part in explained)
    below = Markup(" ").join([below, *(words for part in explained for words in part.below)])
    flags = [
        *left_out,
        simulated_flag(runs),
        _failed(failures, len(runs)),
        *(flag for part in explained for flag in part.flags),
        _leaking(gaps),
        *setting_flags(results, audit),
    ]
    return Answer(headline, below, [flag for flag in flags if flag], forest([*results, *rivals]))


def setting_flags(results: Sequence[SettingResult], audit: Audit | None) -> list[Markup | str]:
    """Return what limits the accuracies of an experiment's settings, as far as these tell."""
    runs = [run for result in results for run in result.runs]
    flags = [
        _untrained(results),
        _nameless(results),
        _constant(results),
        *cautions(audit, runs),
        unaudited(audit, runs),
        _few([result for result in results if result.apart]),
        _untested(results),
    ]
    return [flag for flag in flags if flag]


def simulated_flag(runs: Sequence[Run]) -> Markup | str:
    """Say that the cohort is simulated, where it is."""
    return SIMULATED if any(run.settings.get("simulated") for run in runs) else ""


def _headline(results: Sequence[SettingResult], crossed: bool) -> tuple[Markup, Markup]:
    """Return the sentence at the top, and the one below it that names the setting."""
    apart = [result for result in results if result.apart]
    if not apart:
        reason = "slices of one subject are in training and in test"
        if any(result.nameless for result in results):
            reason = "the pictures name no subject"
        text = f"No accuracy here is that of unseen subjects: {reason}."
        return Markup.escape(text), Markup("Read each accuracy as an upper limit.")
    best, by, candidates = choose_apart(apart)
    below = f"{best.architecture}, {best.name}"
    if candidates > 1:
        way = f"chosen by {by}" if by else "the first"
        below += f", {way} among {candidates} settings that keep subjects apart"
    auc, text = best.scores["subject_auc"], "{}; AUC over {} test subjects {}."
    area = number(auc.value, best.key, "test_subject_auc", "fraction")
    if auc.interval is not None:
        area = say("{} ({:.3f} to {:.3f})", area, *auc.interval)
    if isnan(auc.value):
        text = "{}."
    ranked = apart if candidates > 1 else [best]  # of another split, validation chose none
    return _claim(best, ranked, crossed), say(text, below, best.subjects, area)


def _claim(best: SettingResult, apart: Sequence[SettingResult], crossed: bool) -> Markup:
    """Say what the chosen setting reached, beside chance and the larger class."""
    value = partial(number, run=best.key, form="percent")
    accuracy = best.scores["subject_accuracy"]
    share, labels = best.majority.subject_share, best.subject_labels
    words = {
        "who": (f"{labels:,} labels of " if labels != best.subjects else "")
        + f"{best.subjects:,} {'tested' if crossed else 'unseen'}"
        f"{' inferred' if best.runs[0].setting.subjects else ''} subject"
        f"{'s' if best.subjects != 1 else ''}",
        "accuracy": value(accuracy.value, quantity="test_subject_accuracy"),
        "share": value(share, quantity="subject_majority"),
        "network": f"{best.architecture} ({best.name})",
        "larger": larger_class(best, share),
        "beside": beside_share(accuracy, share),
    }
    standing = best.chance.standing
    if len(best.constant) == len(best.runs):
        text = (
            "{network} predicts one class for all {who}: its {accuracy}% is that class’s share "
            "and no skill."
        )
    elif standing == "above" and accuracy.interval is not None and accuracy.interval[0] > share:
        text = (
            "{network} predicts {accuracy}% of {who} correctly, better than chance; predicting "
            "{larger} for all gives {share}%."
        )
    elif standing == "above":
        text = (
            "{network} ranks {who} better than chance, but its {accuracy}% {beside} the {share}% "
            "that predicting {larger} for all gives."
        )
    elif standing == "below":
        text = (
            "{network} ranks {who} worse than chance ({accuracy}% correct): labels or data "
            "deserve a second look."
        )
    elif standing == "unknown":
        text = (
            "{who} are too few to tell whether {network} beats chance: it predicts {accuracy}% "
            "correctly, predicting {larger} for all gives {share}%."
        )
    else:
        who, chosen = "{network} is not", "it"
        if len(apart) > 1 and not any(result.chance.better for result in apart):
            who, chosen = "No network is", "the one that validation chose"
        text = (
            f"{who} shown to beat chance on {{who}}: {chosen} predicts {{accuracy}}% correctly, "
            "predicting {larger} for all gives {share}%."
        )
    return say(text, **words)


def larger_class(best: SettingResult, *shares: float) -> str:
    """Name the class of these shares of the majority in words: several may be as large."""
    if best.majority.class_name:
        return "the larger class"
    even = 1 / len(best.runs[0].class_names)
    return "any one class" if all(isclose(share, even) for share in shares) else "a largest class"


def beside_share(accuracy: Score, share: float) -> str:
    """Say in a verb how an accuracy stands to the larger class's share, which it does not pass."""
    below = accuracy.interval is not None and accuracy.interval[1] < share
    return "is below" if below else "is not shown to be above"


def _failed(failures: Mapping[str, str], finished: int) -> Markup | str:
    if not failures:
        return ""
    return say(
        '<b>{} of {} runs failed</b> and are not in these figures. <a href="#results">Why</a>',
        *(len(failures), len(failures) + finished),
    )


def _untrained(results: Sequence[SettingResult]) -> Markup | str:
    """Count the runs whose regime starts from pretrained weights, but which had random ones."""
    runs = [run for result in results for run in result.runs if run.setting.regime != "scratch"]
    random = [run for run in runs if run.settings.get("weights_setting") == "random"]
    if not random:
        return ""
    return say(
        "<b>Random weights in place of pretrained ones:</b> {} of {} frozen or fine-tuned networks "
        'began with them, so nothing was learned before. <a href="#settings">Settings</a>',
        number(len(random), "all", "random_start_runs", "count"),
        number(len(runs), "all", "pretrained_regime_runs", "count"),
    )


def _nameless(results: Sequence[SettingResult]) -> Markup | str:
    """Say that no ids are known, or that every split mixes subjects."""
    if any(result.nameless for result in results):
        return Markup(
            "<b>No subject ids:</b> slices of one subject may be in training and in test, so an "
            'accuracy may be that of recognising subjects. <a href="#leakage">What was tried</a>'
        )
    if all(result.shared_subjects for result in results):
        return Markup(
            "<b>Every split here shares subjects</b> between training and test. "
            '<a href="#leakage">What that is worth</a>'
        )
    return ""


def _constant(results: Sequence[SettingResult]) -> Markup | str:
    """Count the runs that predict one class for all of their test slices."""
    runs = sum(len(result.runs) for result in results)
    constant = sum(len(result.constant) for result in results)
    if not constant:
        return ""
    return say(
        "<b>{} of {} runs {} one class for every test slice;</b> {} accuracy is that class’s "
        'share, and no gap is measured beside it. <a href="#results">Which</a>',
        number(constant, "all", "one_class_runs", "count"),
        number(runs, "all", "runs", "count"),
        "predict" if constant > 1 else "predicts",
        "their" if constant > 1 else "its",
    )


def _leaking(gaps: Sequence[Gap]) -> Markup | str:
    """Give the clearest gap whose interval is above 0."""
    clearest = clearest_gap([gap for gap in gaps if gap.scores["slice_accuracy"].low > 0])
    if clearest is None:
        return ""
    names, gap = (clearest.architecture, clearest.variant), clearest.scores["slice_accuracy"].gap
    return say(
        "<b>Leakage: {} points</b> of slice accuracy ({}, {}) once slices of one subject are on "
        'both sides. <a href="#leakage">All gaps</a>',
        *(number(100 * gap, "-".join(names), "gap.slice_accuracy", "points"), *names),
    )


def _few(apart: Sequence[SettingResult]) -> Markup | str:
    """Say that subjects are too few, where no arrangement of their labels would tell."""
    unknown = [result for result in apart if result.chance.standing == "unknown"]
    if not unknown:
        return ""
    least = min(result.subjects for result in unknown)
    return say(
        "<b>Too few test subjects to tell:</b> with {}, no accuracy would differ from chance. "
        '<a href="#cohort">The cohort</a>',
        number(least, "all", "fewest_subjects", "count"),
    )


def _untested(results: Sequence[SettingResult]) -> Markup | str:
    """Name the classes of which a test has no subject."""
    names = dict.fromkeys(name for result in results for name in result.untested)
    if not names:
        return ""
    return say(
        "<b>No test subject of {}:</b> no score here speaks of that class. "
        '<a href="#cohort">The cohort</a>',
        " and ".join(names),
    )


def forest(results: Sequence[SettingResult]) -> Dots:
    """Set each architecture and regime in a row, under both kinds of split."""
    named = not any(result.nameless for result in results)
    score = "subject_accuracy" if named else "slice_accuracy"

    def place(result: SettingResult) -> tuple[str, str]:
        title = rival_words(result) if result.is_rival else result.architecture
        return title, result.name.replace("-inferred-", ", ")

    rows = [_row(names, sides, score) for names, sides in group_by(results, place)]
    values = [row.reference for row in rows]
    values += [end for row in rows for mark in row.marks for end in (mark.value, mark.low)]
    least = min((value for value in values if not isnan(value)), default=0.0)
    start = max(0.0, 10 * ((least - 5) // 10))
    return Dots(rows, CAPTION if named else SLICE_CAPTION, start)


def _row(place: tuple[str, str], sides: Sequence[SettingResult], score: str) -> DotRow:
    sides = sorted(sides, key=lambda result: not result.apart)
    splits = {apart: {one.split for one in sides if one.apart == apart} for apart in (True, False)}
    marks, words = [], []
    for result in sides:
        if not isnan(result.scores[score].value):
            constant = len(result.constant) == len(result.runs)
            marks.append(bar(result.scores[score], int(not result.apart), constant))
            words.append(_words(result, score, constant, named=len(splits[result.apart]) > 1))
    share = sides[0].majority
    majority = share.subject_share if score.startswith("subject") else share.slice_share
    return DotRow(*place, marks, 100 * majority, Markup(" ").join(words))


def _words(result: SettingResult, score: str, constant: bool, *, named: bool) -> Markup:
    """Return an accuracy with its interval, or behind an arrow that of a mixed split; of several
    splits that keep subjects apart, or that mix them, with the name of each.
    """
    value = number(result.scores[score].value, result.key, f"test_{score}", "percent")
    ends = result.scores[score].interval
    interval = f" {percent(ends[0])}–{percent(ends[1])}" if ends and result.apart else ""
    classes = sorted(set(result.constant.values()))
    one = f" all {' or '.join(classes)}" if constant else ""
    text = "<b>{}</b><small>{}{}</small>" if result.apart else "<small>▲ {}{}{}</small>"
    if named:
        interval = f"{interval} {result.split}"
    return say(text, value, interval, one)
