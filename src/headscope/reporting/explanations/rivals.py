"""Whether networks beat what simpler explanations reach on the same subjects, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

from markupsafe import Markup

from headscope.analysis.results.comparisons import ALPHA, Comparison, Comparisons, Difference
from headscope.analysis.results.settings import SettingResult, choose_apart, rival_words
from headscope.reporting.chapters.runs import group_by
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import CONFIDENCE, ends_of, number, say, subject_accuracy


def explain_by_rivals(
    results: Sequence[SettingResult], rivals: Sequence[SettingResult], compared: Comparisons
) -> Explanation:
    """Return what simple rivals say of the networks: headline and verdict."""
    standing, apart = standings(results, rivals, compared), [r for r in results if r.apart]
    if not apart:
        return Explanation(sentences=rival_sentences(standing))
    best = choose_apart(apart)[0]
    # the verdict speaks of one split, under which others, or inferred otherwise, were not tested
    same = best.split, _subjects(best)
    beside = [one for one in standing if (one.rival.split, _subjects(one.rival)) == same]
    return Explanation(headline=unbeaten(standing, best), sentences=rival_sentences(beside))


@dataclass(frozen=True, eq=False)
class Standing:
    """A simple rival under one split, and each network's comparison with it, by its setting."""

    rival: SettingResult
    networks: Mapping[SettingResult, Comparison]

    @property
    def words(self) -> str:
        """Say what the rival is, and how its subjects are inferred, where they are."""
        subjects = _subjects(self.rival)
        return rival_words(self.rival) + (f" ({subjects})" if subjects else "")

    @property
    def beating(self) -> list[SettingResult]:
        """The networks whose subject accuracy is shown to be above the rival's."""
        return [result for result, row in self.networks.items() if beats(row.subject_accuracy)]


def beats(difference: Difference) -> bool:
    """Whether a network is shown to beat a rival: by the corrected p of the table, at 5%.

    Holm's correction is over all pairs of a network and a rival under the split.
    """
    return difference.value > 0 and difference.p_holm < ALPHA


def standings(
    results: Sequence[SettingResult], rivals: Sequence[SettingResult], compared: Comparisons
) -> list[Standing]:
    """Set each rival beside the networks that were tested on the same subjects."""
    rows = {(row.split, row.first, row.second): row for row in compared.rivals}
    placed = []
    for rival in rivals:
        networks = {}
        for result in results:
            names = (result.name, f"{result.architecture} {result.name}")  # where there is but one
            keys = [(rival.split, name, rival.architecture) for name in names]
            row = next((rows[key] for key in keys if key in rows), None)
            alike = (result.split, _subjects(result)) == (rival.split, _subjects(rival))
            if row is not None and alike:
                networks[result] = row
        placed.append(Standing(rival, networks))
    return placed


def _subjects(result: SettingResult) -> str | None:
    """Return how a setting's subjects are inferred; None where their ids are given."""
    return result.runs[0].setting.subjects


def unbeaten(standing: Sequence[Standing], best: SettingResult) -> Markup:
    """Say in the headline which rivals the chosen setting is not shown to beat; nothing of none.

    The larger class has its own words there.
    """
    names = [
        place.words
        for place in standing
        if best in place.networks
        and best not in place.beating
        and place.rival.architecture != "majority"
    ]
    return say(" It is not shown to beat {}.", ", or ".join(names)) if names else Markup()


def rival_sentences(standing: Sequence[Standing]) -> list[Markup]:
    """Return what the verdict says of simple rivals, where subjects are kept apart."""
    apart = [place for place in standing if place.networks and place.rival.apart]
    return [Markup(" ").join(_sentences(apart))] if apart else []


def _sentences(standing: Sequence[Standing]) -> Iterator[Markup]:
    """Yield what the rivals reach, then of each how many networks are shown to beat it."""
    reached = Markup(", ").join(
        say("{} {}%", place.words, subject_accuracy(place.rival)) for place in standing
    )
    yield say("What is no network reaches on the same subjects: {}.", reached)
    short = [place for place in standing if len(place.beating) < len(place.networks)]
    for _, (place, *more) in group_by(short, lambda p: (len(p.beating), len(p.networks))):
        first = say("{} by subject accuracy{}", place.words, _closest(place))
        others = [say("{}{}", other.words, _closest(other)) for other in more]
        join = Markup("; and ") if place.beating else Markup("; nor ")
        yield say("{} shown to beat {}.", _who(place), join.join([first, *others]))
    if not short:
        yield Markup("Every network is shown to beat each of them by subject accuracy.")


def _who(place: Standing) -> Markup:
    """Say how many of the networks are shown to beat a rival, up to the verb."""
    count = partial(number, run=place.rival.key, form="count")
    beating, networks = len(place.beating), count(len(place.networks), quantity="networks")
    if len(place.networks) == 1:
        return Markup("The network is not")
    if not beating:
        return say("None of {} networks is", networks)
    verb = "is" if beating == 1 else "are"
    return say("{} of {} networks {}", count(beating, quantity="beating"), networks, verb)


def _closest(place: Standing) -> Markup:
    """Return the largest difference to a rival that is not beaten, with its interval."""
    rest = [row for one, row in place.networks.items() if one not in place.beating]
    row = max(rest, key=lambda row: row.subject_accuracy.value)
    pair, difference = f"{row.first} | {row.second} | {row.split}", row.subject_accuracy
    key = pair, "difference.subject_accuracy", "points"
    value = number(100 * difference.value, *key)
    if isnan(difference.low):
        return say(" ({}: {} points)", row.first, value)
    low, high = ends_of((100 * difference.low, 100 * difference.high), *key)
    p = Markup()
    if difference.low > 0:  # alone it would be shown to
        p_holm = number(difference.p_holm, pair, "subject_accuracy.p", "p")
        p = say("; {} after Holm's correction for {} pairs", p_holm, row.pairs)
    return say(" ({}: {} points, {} {} to {}{})", row.first, value, CONFIDENCE, low, high, p)
