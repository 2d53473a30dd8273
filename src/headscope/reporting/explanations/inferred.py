"""What a page says of subjects inferred from pixels, and of a partition given without ids."""

from collections.abc import Sequence

from markupsafe import Markup

from headscope.analysis.results.inferred import Bracket, brackets
from headscope.analysis.results.settings import SettingResult, choose_apart
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import say, subject_accuracy

LINK = Markup('<a href="#results">strict and loose</a>')


def explain_by_inference(results: Sequence[SettingResult]) -> Explanation:
    """Return what inferred subjects, or a partition without ids, mean for the accuracy."""
    apart = [result for result in results if result.apart]
    best = choose_apart(apart)[0] if apart else None
    text = (
        "The honest accuracy is estimated at {}, subjects inferred from pixels by a strict and by "
        "a loose threshold; it need not lie between the two."
    )
    of_best = [bracket for bracket in brackets(results) if best in (bracket.strict, bracket.loose)]
    sentences = [say(text, _estimates(bracket)) for bracket in of_best[:1]]
    return Explanation(flags=inferred_flags(results), sentences=sentences)


def inferred_flags(results: Sequence[SettingResult]) -> list[Markup]:
    """Return the flags of the first screen: how subjects are known, and the interval between."""
    flags = []
    first = next(iter(brackets(results)), None)
    if first is not None:
        flags.append(
            say(
                "<b>Subjects are inferred from pixels, not known:</b> the honest accuracy of {} "
                "is estimated at {}. {}",
                *(f"{first.architecture} ({first.variant})", _estimates(first), LINK),
            )
        )
    elif any(result.runs[0].setting.subjects for result in results):
        flags.append(Markup("<b>Subjects are inferred from pixels, not known.</b>"))
    if any(result.nameless and result.split == "given" for result in results):
        flags.append(
            Markup(
                "<b>The partition is as it was given,</b> without subject ids: whether it keeps "
                'subjects apart is unknown. <a href="#audit">What crosses it</a>'
            )
        )
    return flags


def _estimates(bracket: Bracket) -> Markup:
    """Give both accuracies, the lower first, and how far their intervals reach together."""
    values = (subject_accuracy(result) for result in bracket.ordered)
    return say("{}% and {}%{}", *values, bracket.interval)
