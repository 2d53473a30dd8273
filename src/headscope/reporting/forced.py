"""What the final layers of all runs show beyond what training forces on them, in a sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import isnan

from markupsafe import Markup

from headscope.analysis import PairAnalysis
from headscope.analysis.final_layer.layer import relatedness
from headscope.analysis.final_layer.relation import ALPHA
from headscope.reporting.blocks import refer
from headscope.reporting.numbers import number, say

ROWS = say("The correlation of the rows of weights, drawn in {}", refer("figure-fig3"))
FORCED = ROWS + Markup(
    ", is the one that the training rule forces on any data, to within {residual}: it tells how "
    "far the head moved, and nothing about MRI. Of two classes nothing can depart from it while "
    "the sum of the rows is conserved."
)
DEPARTS = ROWS + Markup(
    ", departs from the one that the training rule forces, by {residual} in {run}; only that part "
    "is worth interpreting.{cause}"
)
DRIFTED = (
    " The sum of the rows moved in {}, which training by the recorded settings cannot do: the head "
    "was changed, or trained otherwise than its record says."
)
MANY = Markup(
    "Of more than two classes training forces no correlation of two rows, only that their mean "
    "stays."
)
JUDGED = (
    " Less the mean of all rows, {pairs}, drawn in {figure}, {correlate} otherwise than in heads "
    "retrained on labels permuted by subject (at {alpha:.0%} over the pairs of a head). {farthest} "
    "{first} and {second} in {run}: {r}, where permuted labels give {low} to {high} (p = {p})."
)
WITHHELD = " No relation is claimed for {} {}pair{}. {}"


def forced(heads: Mapping[str, Sequence[PairAnalysis]]) -> Markup:
    """Say whether the correlation of the rows is the one that training forces.

    `heads` holds the pairs of each final layer by the name of its run; the sentence refers to
    their figure.
    """
    defined = [(run, pair) for run, of_run in heads.items() for pair in of_run if not isnan(pair.r)]
    reasons = dict.fromkeys(pair.no_null for _, pair in defined if pair.no_null)
    pairs = [(run, pair) for run, pair in defined if not pair.no_null]
    without = say(" ".join(reasons))
    if not pairs:
        return _learned(defined, without) if defined else Markup()
    return _beside(pairs) + (Markup(" ") + without if reasons else "")


def _beside(pairs: Sequence[tuple[str, PairAnalysis]]) -> Markup:
    """Say whether the correlation of these rows is the one of their null."""
    apart = [(run, pair) for run, pair in pairs if pair.departs]
    run, farthest = max(apart or pairs, key=lambda item: abs(item[1].residual))
    residual = number(abs(farthest.residual), run, "abs_residual", "brief", farthest.pair)
    if apart:
        drifted = sorted({name for name, pair in apart if pair.drifted})
        cause = say(DRIFTED, ", ".join(drifted)) if drifted else ""
        return DEPARTS.format(run=run, residual=residual, cause=cause)
    return FORCED.format(residual=residual) if farthest.class_count == 2 else _learned(pairs)


def _learned(pairs: Sequence[tuple[str, PairAnalysis]], opening: Markup = MANY) -> Markup:
    """Say of several classes, whose null hardly binds, which pairs are related beyond chance.

    The r of these pairs is that of the null.
    """
    judged = [(run, pair) for run, pair in pairs if not pair.withheld]
    reasons = Counter(pair.withheld for _, pair in pairs if pair.withheld)
    other = "other " if judged else ""
    withheld = [
        say(
            WITHHELD,
            number(count, "all", f"withheld_pairs_{k}", "count"),
            *(other, "" if count == 1 else "s", reason),
        )
        for k, (reason, count) in enumerate(reasons.items())
    ]
    if not judged:
        return opening + Markup().join(withheld)
    run, most = max(judged, key=lambda item: relatedness(item[1]))
    r = partial(number, run=run, form="correlation", pair=most.pair)
    first, second = most.class_names
    related, alone = sum(pair.related for _, pair in judged), len(judged) == 1
    counts = (
        number(value, "all", quantity, "count")
        for value, quantity in ((related, "related_pairs"), (len(judged), "pairs"))
    )
    does = "correlates" if related == 1 else "does not correlate" if alone else "correlate"
    sentence = say(
        JUDGED,
        pairs="the only pair of rows that is judged"
        if alone
        else say("{} of {} pairs of rows", *counts),
        correlate=does,
        farthest="It is that of" if alone else "Farthest from chance are",
        figure=refer("figure-fig3"),
        alpha=ALPHA,
        first=first,
        second=second,
        run=run,
        r=r(most.r_learned, quantity="r_learned_most"),
        low=r(most.r_unrelated_low, quantity="r_unrelated_low_most"),
        high=r(most.r_unrelated_high, quantity="r_unrelated_high_most"),
        p=number(most.related_p, run, "related_p_most", "probability", most.pair),
    )
    return opening + sentence + Markup().join(withheld)
