"""Two predictions of the same subjects, compared by the tests of `compare_runs`."""

from dataclasses import replace
from math import nan

import numpy as np

from headscope.analysis.results.comparisons import (
    Comparison,
    Comparisons,
    Difference,
    difference_of,
    exactly_tested,
)
from headscope.analysis.results.paired import mcnemar
from headscope.cohort.tables import listed
from headscope.errors import InputError
from headscope.scoring.tested import Tested, labels_by_subject
from headscope.text import count


def compare_tests(first: Tested, second: Tested, aggregate: str = "mean") -> Comparisons:
    """Compare two predictions subject by subject, over the subjects that both have."""
    for side in (first, second):
        if not side.named:
            raise InputError(
                f"{side.name} names no subjects, by which two tables are compared: name their "
                "column by --subject."
            )
    one, two, notes = _shared(first, second)
    sides = [side.levels(aggregate, ranked=False).subjects for side in (one, two)]
    once_each = len(sides[0].labels) == len(one.ids)
    counts = mcnemar(sides[0].correct, sides[1].correct) if once_each else None
    differences = {
        name: _difference(one, two, name, aggregate)
        for name in ("subject_accuracy", "slice_accuracy", "subject_auc")
    }
    ranked = None
    if once_each and len(one.class_names) == 2 and not np.isnan(differences["subject_auc"].value):
        ranked = [side.levels(aggregate, ranked=True).subjects for side in (one, two)]
    differences = exactly_tested(differences, counts, ranked)
    row = Comparison(
        first=first.name,
        second=second.name,
        split="",
        trainings=1,
        subjects=len(one.ids),
        slices=len(one.hard.labels),
        only_first=counts.only_first if counts else None,
        only_second=counts.only_second if counts else None,
        **{name: replace(value, p_holm=value.p) for name, value in differences.items()},  # type: ignore[arg-type]
    )
    return Comparisons((row,), tuple(notes))


def _shared(first: Tested, second: Tested) -> tuple[Tested, Tested, list[str]]:
    """Return both over the subjects that both have; refuse other classes and other labels."""
    if set(first.class_names) != set(second.class_names):
        raise InputError(
            f"{first.name} has the classes {listed(first.class_names)}, {second.name} "
            f"{listed(second.class_names)}: only the same labels are compared."
        )
    second = second.in_order(first.class_names)
    ids = np.intersect1d(first.ids, second.ids)
    if not len(ids):
        raise InputError(
            f"{first.name} and {second.name} have no subject in common (the first are "
            f"{str(first.ids[0])!r} and {str(second.ids[0])!r})."
        )
    notes = [
        f"{count(len(side.ids) - len(ids))} subjects of {side.name} are not in the other table: "
        "they are left out of the comparison."
        for side in (first, second)
        if len(side.ids) > len(ids)
    ]
    one, two = first.only(ids), second.only(ids)
    labels = labels_by_subject(one), labels_by_subject(two)
    differing = [name for name in labels[0] if sorted(labels[0][name]) != sorted(labels[1][name])]
    if differing:
        name = str(differing[0])
        texts = [" and ".join(side[name]) for side in labels]
        raise InputError(
            f"{count(len(differing))} of {count(len(ids))} subjects have other labels in the other "
            f"table, the first {name!r} ({texts[0]} in {first.name}, {texts[1]} in {second.name})."
        )
    return one, two, notes


def _difference(one: Tested, two: Tested, name: str, aggregate: str) -> Difference:
    """Return a score's difference from paired draws; NaN where one side does not rank."""
    ranked = name.endswith("auc")
    if ranked and (one.soft is None or two.soft is None):
        return Difference(nan, nan, nan, "", nan)
    pools = [side.pool(aggregate, ranked) for side in (one, two)]
    drawn = [pool.draw(name) for pool in pools]
    return difference_of(drawn[0] - drawn[1], name, pools[0].ratio)
