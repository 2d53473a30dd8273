"""What the final layers of all runs show beyond what training forces on them, in a sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan

from markupsafe import Markup

from headscope.analysis import PairAnalysis
from headscope.analysis.final_layer.layer import relatedness
from headscope.analysis.final_layer.relation import ALPHA
from headscope.reporting.blocks import refer
from headscope.reporting.numbers import number

FIGURE = refer("figure-weights")
FORCED = Markup(
    "The correlation of the rows of weights, drawn in {figure}, is the one that the training rule "
    "forces on any data, to within {residual}: it tells how far the head moved, and nothing about "
    "MRI. Of two classes nothing can depart from it while the sum of the rows is conserved."
)
MANY = Markup(
    "Of more than two classes training forces no correlation of two rows, only that their mean "
    "stays."
)
JUDGED = Markup(
    " Without that mean, {related} of {all} pairs of rows, drawn in {figure}, correlate otherwise "
    "than in heads retrained on labels permuted by subject (at {alpha:.0%} over the pairs of a "
    "head). "
    "Farthest from chance are {first} and {second} in {run}: {r}, where permuted labels give "
    "{low} to {high} (p = {p})."
)
WITHHELD = Markup(" No relation is claimed for {pairs} {other}pairs. {reason}")
DEPARTS = Markup(
    "The correlation of the rows of weights, drawn in {figure}, departs from the one that the "
    "training rule forces, by {residual} in {run}; only that part is worth interpreting.{cause}"
)
DRIFTED = Markup(
    " The sum of the rows moved in {}, which training by the recorded settings cannot do: the "
    "head was changed, or trained otherwise than its record says."
)


def forced(heads: Mapping[str, Sequence[PairAnalysis]]) -> Markup:
    """Say whether the correlation of the rows is the one that training forces."""
    pairs = [(run, pair) for run, analyses in heads.items() for pair in analyses]
    pairs = [(run, pair) for run, pair in pairs if not isnan(pair.residual)]
    if not pairs:
        return Markup()
    apart = [(run, pair) for run, pair in pairs if pair.departs]
    run, farthest = max(apart or pairs, key=lambda item: abs(item[1].residual))
    residual = number(abs(farthest.residual), run, "abs_residual", "brief", farthest.pair)
    if not apart and farthest.class_count > 2:
        return _learned(pairs)
    if not apart:
        return FORCED.format(figure=FIGURE, residual=residual)
    drifted = sorted({name for name, pair in apart if pair.drifted})
    cause = DRIFTED.format(", ".join(drifted)) if drifted else Markup()
    return DEPARTS.format(figure=FIGURE, run=run, residual=residual, cause=cause)


def _learned(pairs: Sequence[tuple[str, PairAnalysis]]) -> Markup:
    """Say of several classes, whose null hardly binds, which pairs are related beyond chance.

    The r of these pairs is that of the null.
    """
    judged = [(run, pair) for run, pair in pairs if not pair.withheld]
    reasons = Markup("").join(
        WITHHELD.format(
            pairs=number(count, "all", f"withheld_pairs_{k}", "count"),
            reason=reason,
            other="other " if judged else "",
        )
        for k, (reason, count) in enumerate(
            Counter(pair.withheld for _, pair in pairs if pair.withheld).items()
        )
    )
    if not judged:
        return MANY + reasons
    run, most = max(judged, key=lambda item: relatedness(item[1]))
    text = MANY + JUDGED.format(
        figure=FIGURE,
        alpha=ALPHA,
        related=number(sum(pair.related for _, pair in judged), "all", "related_pairs", "count"),
        all=number(len(judged), "all", "pairs", "count"),
        first=most.class_names[0],
        second=most.class_names[1],
        run=run,
        r=number(most.r_learned, run, "r_learned_most", "correlation", most.pair),
        low=number(most.r_unrelated_low, run, "r_unrelated_low_most", "correlation", most.pair),
        high=number(most.r_unrelated_high, run, "r_unrelated_high_most", "correlation", most.pair),
        p=number(most.related_p, run, "related_p_most", "probability", most.pair),
    )
    return text + reasons
