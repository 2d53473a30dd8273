"""The page's first words, made from the numbers: what was reached, and what would be claimed."""

import re
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd
from markupsafe import Markup

from headscope.analysis import NAMELESS, PairAnalysis
from headscope.reporting.numbers import number

Row = Mapping[str, Any]


def verdict(table: pd.DataFrame, heads: Mapping[str, Sequence[PairAnalysis]]) -> list[Markup]:
    """Return the verdict's sentences from `results_table` and each run's head analyses."""
    rows = table.to_dict("records")
    apart = [row for row in rows if not row["shared_subjects"]]
    mixed = [row for row in rows if row["shared_subjects"]]
    nameless = any(row["marker"] == NAMELESS for row in mixed)
    sentences = _reached(apart) if apart else [NOBODY_KNOWS if nameless else NONE_APART]
    return [*sentences, *leak_gaps(apart, mixed), *_correlation(heads)]


def leak_gaps(apart: Sequence[Row], mixed: Sequence[Row]) -> list[Markup]:
    """Say, for each run that mixes subjects, what its twin with subjects kept apart reached."""
    keys = ("architecture", "name", "regime", "seed", "fold")
    sentences = []
    for claim in mixed:
        twins = [row for row in apart if all(row[key] == claim[key] for key in keys)]
        if not twins:
            continue
        gap = 100 * (claim["test_slice_accuracy"] - twins[0]["test_slice_accuracy"])
        sentences.append(
            Markup(
                "With slices of one subject on both sides of the split, {network} would have "
                "claimed {claim}% of slices, where it reaches {honest}% on unseen subjects: "
                "{words} of {gap} points."
            ).format(
                network=_name(claim),
                words="a leakage gap" if gap > 0 else "no gap, but a difference",
                claim=_number(claim, "test_slice_accuracy", "percent"),
                honest=_number(twins[0], "test_slice_accuracy", "percent"),
                gap=number(gap, claim["run"], "leak_gap_points", "points"),
            )
        )
    return sentences


def _reached(apart: Sequence[Row]) -> list[Markup]:
    rivals: Sequence[Row] = apart
    if len({_split_file(row) for row in apart}) > 1:
        settings = _comparable(apart)
        if len(settings[0]) > 1:
            return _reached_over_splits(settings)
        rivals = [row for (row,) in settings]
    best = max(rivals, key=_validated)
    chosen = Markup()
    if len(rivals) > 1:
        chosen = Markup(
            " It is the run of the highest validation slice accuracy among the {} that keep "
            "subjects apart; the table below has them all."
        ).format(len(rivals))
    reached = Markup(
        "On {subjects} subjects never seen in training, {network} classified {subject}% of "
        "subjects{subject_interval} and {slice}% of their slices{slice_interval} correctly.{chosen}"
    ).format(
        subjects=_number(best, "test_subjects", "count"),
        network=_name(best),
        subject=_number(best, "test_subject_accuracy", "percent"),
        subject_interval=_interval(best, "test_subject_accuracy", "percent"),
        slice=_number(best, "test_slice_accuracy", "percent"),
        slice_interval=_interval(best, "test_slice_accuracy", "percent"),
        chosen=chosen,
    )
    return [reached, _against_chance(best)]


def _comparable(apart: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each setting that ran on the same split files, as many as there are."""
    settings: dict[tuple[str, ...], dict[Any, Row]] = {}
    for row in apart:
        settings.setdefault(_setting(row), {})[_split_file(row)] = row
    splits = max(settings.values(), key=len).keys()
    return [list(rows.values()) for rows in settings.values() if rows.keys() == splits]


def _reached_over_splits(settings: Sequence[Sequence[Row]]) -> list[Markup]:
    """Say what the best setting reached over all folds and seeds, as validation chose it.

    Figures are weighted by the subjects or slices that each test holds: pooled, where the tests
    share nobody.
    """
    rows = max(settings, key=lambda rows: sum(map(_validated, rows)))
    key = _setting(rows[0])
    chosen = Markup()
    if len(settings) > 1:
        chosen = Markup(
            " It has the highest mean validation slice accuracy of the {} settings that ran on "
            "the same splits; the table below has all runs."
        ).format(len(settings))
    return [
        Markup(
            "{over}, {network} classified {subject} of subjects never seen in training and "
            "{slice} of their slices correctly.{chosen}"
        ).format(
            over=_over(rows, "/".join(key)),
            network=f"{rows[0]['architecture']} ({_plain_name(rows[0])})",
            subject=_pooled(rows, key, "subject"),
            slice=_pooled(rows, key, "slice"),
            chosen=chosen,
        )
    ]


def _over(rows: Sequence[Row], setting: str) -> Markup:
    """Say over what the figures are taken: folds, seeds or both."""
    folds, seeds = {row["fold"] for row in rows} - {""}, {row["seed"] for row in rows}
    if not folds:
        return Markup("On average over {} seeds, each with its own split").format(
            number(len(seeds), setting, "seeds", "count")
        )
    count = number(len(folds), setting, "folds", "count")
    if len(seeds) == 1:
        subjects = number(
            sum(row["test_subjects"] for row in rows), setting, "test_subjects", "count"
        )
        return Markup("Pooled over the tests of {} folds, {} subjects in all").format(
            count, subjects
        )
    return Markup("On average over {} folds of {} seeds").format(
        count, number(len(seeds), setting, "seeds", "count")
    )


def _pooled(rows: Sequence[Row], key: tuple[str, ...], unit: str) -> Markup:
    """Return the share right over all tests, and its range from split to split."""
    quantity, run = f"test_{unit}_accuracy", "/".join(key)
    known = [row for row in rows if not isnan(row[quantity])]
    total = sum(row[f"test_{unit}s"] for row in known)
    if not total:
        return Markup("an unknown share")
    share = sum(row[quantity] * row[f"test_{unit}s"] for row in known) / total
    lowest, highest = (each(known, key=lambda row: row[quantity]) for each in (min, max))
    return Markup("{}% ({} to {} from split to split)").format(
        number(share, run, f"pooled_{quantity}", "percent"),
        _number(lowest, quantity, "percent"),
        _number(highest, quantity, "percent"),
    )


def _against_chance(row: Row) -> Markup:
    low, high = row["test_subject_auc_low"], row["test_subject_auc_high"]
    if isnan(low) or isnan(high):
        return Markup(
            "Its area under the ROC curve over subjects is {auc}, without an interval: too few or "
            "too uniform subjects to say whether it differs from chance."
        ).format(auc=_number(row, "test_subject_auc", "fraction"))
    if low > 0.5:
        meaning = "which lies above the 0.5 of chance."
    elif high < 0.5:
        meaning = "which lies below the 0.5 of chance: labels or data deserve a second look."
    else:
        meaning = "which includes 0.5: with these subjects it cannot be told from chance."
    return Markup(
        "Its area under the ROC curve over subjects is {auc}{interval}, {meaning}"
    ).format(
        auc=_number(row, "test_subject_auc", "fraction"),
        interval=_interval(row, "test_subject_auc", "fraction"),
        meaning=meaning,
    )


def _correlation(heads: Mapping[str, Sequence[PairAnalysis]]) -> list[Markup]:
    known = [(run, each) for run, analyses in heads.items() for each in analyses]
    known = [(run, each) for run, each in known if not isnan(each.residual)]
    if not known:
        return []
    apart = [(run, each) for run, each in known if each.departs]
    run, worst = max(apart or known, key=lambda item: abs(item[1].residual))
    residual = number(abs(worst.residual), run, "abs_residual", "brief", worst.pair)
    if not apart:
        return [FORCED.format(residual=residual)]
    drifted = sorted({name for name, each in apart if each.drifted})
    cause = DRIFTED.format(", ".join(drifted)) if drifted else Markup()
    return [DEPARTS.format(run=run, residual=residual, cause=cause)]


def _split_file(row: Row) -> tuple[Any, ...]:
    return row["fold"], row["seed"]


def _setting(row: Row) -> tuple[str, ...]:
    return row["architecture"], _plain_name(row), row["regime"], row["split"]


def _plain_name(row: Row) -> str:
    """Return the name of the row without its fold."""
    return re.sub(r"-fold\d+of\d+$", "", row["name"])


def _validated(row: Row) -> float:
    value = row["val_slice_accuracy"]
    return -1.0 if isnan(value) else float(value)


def _name(row: Row) -> str:
    return f"{row['architecture']} ({row['name']})"


def _number(row: Row, quantity: str, show: str) -> Markup:
    return number(row[quantity], row["run"], quantity, show)


def _interval(row: Row, quantity: str, show: str) -> Markup:
    if isnan(row[f"{quantity}_low"]) or isnan(row[f"{quantity}_high"]):
        return Markup()
    return Markup(" (95% interval {} to {})").format(
        _number(row, f"{quantity}_low", show), _number(row, f"{quantity}_high", show)
    )


NOBODY_KNOWS = Markup(
    "The pictures name no subjects, so slices of one person may stand in training and in test: "
    "none of these accuracies says how the network would do on new people."
)
NONE_APART = Markup(
    "In every run here, slices of one subject stand in training and in test: none of these "
    "accuracies says how the network would do on new people."
)
FORCED = Markup(
    "The correlation of the rows of weights, drawn in Figure 3, is the one that the training "
    "rule forces on any data, to within {residual}: it tells how far the head moved, and "
    "nothing about MRI."
)
DEPARTS = Markup(
    "The correlation of the rows of weights, drawn in Figure 3, departs from the one that the "
    "training rule forces, by {residual} in {run}; only that part is worth interpreting.{cause}"
)
DRIFTED = Markup(
    " The sum of the rows moved in {}, which training by the recorded settings cannot do: the "
    "head was changed, or trained otherwise than its record says."
)
