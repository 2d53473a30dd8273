"""The page's first words: what was reached, whether it beats chance, what would be claimed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd
from markupsafe import Markup

from headscope.analysis import NAMELESS, PairAnalysis
from headscope.analysis.comparisons import Comparison, Comparisons
from headscope.analysis.gap import Gap, GapFigure
from headscope.analysis.table import without_fold
from headscope.analysis.weights import relatedness
from headscope.analysis.words import ALPHA, MEANINGS, AgainstChance, against_chance, area_words
from headscope.record import Run
from headscope.reporting.numbers import number

Row = Mapping[str, Any]
MOST_NAMED = 3  # settings that a sentence lists by name


def verdict(
    table: pd.DataFrame,
    runs: Mapping[str, Run],
    compared: Comparisons,
    gaps: Sequence[Gap],
) -> list[Markup]:
    """Return three sentences: what was reached on unseen subjects, whether it differs from chance
    and from its rivals, and what a split by slice would have claimed.

    table is `results_table` of the runs, by name; compared and gaps are theirs.
    """
    rows = table.to_dict("records")
    apart = [row for row in rows if not row["shared_subjects"]]
    if not apart:
        nameless = any(row["marker"] == NAMELESS for row in rows)
        return [NOBODY_KNOWS if nameless else NONE_APART]
    chosen, reached = _reached(apart)
    standing = [against_chance(runs[row["run"]].metrics.get("test") or {}) for row in chosen]
    rivals = _rivals(chosen[0], compared)
    return [reached, _joined(chosen, standing) + rivals, _claimed(chosen[0], gaps)]


def _reached(apart: Sequence[Row]) -> tuple[Sequence[Row], Markup]:
    """Return the runs of the setting that validation chose, and what they reached."""
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
    return [best], reached


def _comparable(apart: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of each setting that ran on the same split files, as many as there are."""
    settings: dict[tuple[str, ...], dict[Any, Row]] = {}
    for row in apart:
        settings.setdefault(_setting(row), {})[_split_file(row)] = row
    splits = max(settings.values(), key=len).keys()
    return [list(rows.values()) for rows in settings.values() if rows.keys() == splits]


def _reached_over_splits(settings: Sequence[Sequence[Row]]) -> tuple[Sequence[Row], Markup]:
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
    reached = Markup(
        "{over}, {network} classified {subject} of subjects never seen in training and "
        "{slice} of their slices correctly.{chosen}"
    ).format(
        over=_over(rows, "/".join(key)),
        network=f"{rows[0]['architecture']} ({_plain_name(rows[0])})",
        subject=_pooled(rows, key, "subject"),
        slice=_pooled(rows, key, "slice"),
        chosen=chosen,
    )
    return rows, reached


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


def _standing(row: Row, found: AgainstChance) -> Markup:
    """Say whether a run's test differs from chance."""
    if found.figure != "auc":
        return Markup("{}").format(found.text)
    return Markup("{area} is {auc}{interval}, which {meaning}.").format(
        area=area_words("subjects", found.classes),
        auc=_number(row, "test_subject_auc", "fraction"),
        interval=_interval(row, "test_subject_auc", "fraction"),
        meaning=MEANINGS[found.standing],
    )


def _joined(chosen: Sequence[Row], found: Sequence[AgainstChance]) -> Markup:
    """Say it once for a single run; of several, count those above chance, and what that is worth.

    Tests of several seeds share subjects. However they depend on each other, m or more of them
    are false alarms with a chance of at most the sum of their levels over m (Markov).
    """
    if len(chosen) == 1:
        return _standing(chosen[0], found[0])
    above = sum(test.better for test in found)
    levels = sum(ALPHA / 2 if test.figure == "auc" else ALPHA for test in found)
    setting = "/".join(_setting(chosen[0]))
    words = ": no better than chance"
    if above:
        enough = levels <= ALPHA * above
        words = ": better than chance" if enough else ", too few to call it better than chance"
    return Markup("Over subjects, {above} of its {all} tests lie above chance{words}.").format(
        above=number(above, setting, "tests_above_chance", "count"),
        all=number(len(chosen), setting, "tests", "count"),
        words=words,
    )


def _rivals(best: Row, compared: Comparisons) -> Markup:
    """Say from which other settings the chosen one can be told apart."""
    names = _plain_name(best), f"{best['architecture']} {_plain_name(best)}"
    rows = [
        row
        for row in compared.rows
        if row.split == best["split"] and (row.first in names or row.second in names)
    ]
    if not rows:
        return Markup()
    told = [row for row in rows if row.distinguishable]
    others = [_other(row, names) for row in rows if not row.distinguishable]
    sentences = [
        Markup(" By subject accuracy it is {} than {} (p = {} after Holm's correction).").format(
            "better" if (row.subject_accuracy.value > 0) == (row.first in names) else "worse",
            _other(row, names),
            number(row.subject_accuracy.p_holm, f"{row.first} | {row.second} | {row.split}",
                   "subject_accuracy.p", "probability"),
        )
        for row in told
    ]  # fmt: skip
    if len(others) > MOST_NAMED:
        setting = "/".join(_setting(best))
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


def _claimed(best: Row, gaps: Sequence[Gap]) -> Markup:
    """Say what slices of the same people on both sides would have claimed."""
    if not gaps:
        return NOT_MEASURED
    same = [each for each in gaps if (each.architecture, each.variant) == _named_setting(best)]
    gap = same[0] if same else max(gaps, key=lambda each: each.figures["slice_accuracy"].gap)
    found = gap.figures["slice_accuracy"]
    claim, honest = (
        100 * sum(values) / len(values) for values in (found.by_slice, found.by_subject)
    )
    run = f"{gap.architecture}-{gap.variant}"
    interval = Markup()
    if not (isnan(found.low) or isnan(found.high)):
        interval = Markup(" (95% interval {} to {})").format(
            number(100 * found.low, run, "gap.slice_accuracy_low", "points"),
            number(100 * found.high, run, "gap.slice_accuracy_high", "points"),
        )
    return Markup(
        "With slices of one subject on both sides of the split, as in the paper, {network} would "
        "have claimed {claim}% of slices, where it reaches {honest}% on unseen subjects: {words} "
        "of {gap} points{interval}{doubt}."
    ).format(
        network=f"{gap.architecture} ({gap.variant})",
        claim=number(claim, run, "by_slice.slice_accuracy", "points"),
        honest=number(honest, run, "by_subject.slice_accuracy", "points"),
        words=_kind(found),
        gap=number(100 * found.gap, run, "gap.slice_accuracy", "points"),
        interval=interval,
        doubt="" if interval else ", whose interval cannot be told",
    )


def _kind(found: GapFigure) -> str:
    """Name a gap by what its interval carries."""
    if found.low > 0:
        return "a leakage gap"
    if found.gap <= 0:
        return "no gap, but a difference"
    return "a difference" if isnan(found.low) else "a difference, not told from none,"


def _named_setting(row: Row) -> tuple[str, str]:
    return str(row["architecture"]), _plain_name(row)


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
        return FORCED.format(residual=residual)
    drifted = sorted({name for name, pair in apart if pair.drifted})
    cause = DRIFTED.format(", ".join(drifted)) if drifted else Markup()
    return DEPARTS.format(run=run, residual=residual, cause=cause)


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


def _split_file(row: Row) -> tuple[Any, ...]:
    return row["fold"], row["seed"]


def _setting(row: Row) -> tuple[str, ...]:
    return row["architecture"], _plain_name(row), row["regime"], row["split"]


def _plain_name(row: Row) -> str:
    """Return the name of the row without its fold."""
    return without_fold(row["name"])


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
NOT_MEASURED = Markup(
    "What a split by slice, as in the paper, would have claimed was not measured: "
    "<code>--splits subject,slice</code> runs both."
)
FORCED = Markup(
    "The correlation of the rows of weights, drawn in Figure 3, is the one that the training "
    "rule forces on any data, to within {residual}: it tells how far the head moved, and "
    "nothing about MRI. Of two classes nothing can depart from it while the sum of the rows is "
    "conserved."
)
MANY = Markup(
    "Of more than two classes training forces no correlation of two rows, only that their mean "
    "stays."
)
JUDGED = Markup(
    " Without that mean, {related} of {all} pairs of rows, drawn in Figure 3, correlate otherwise "
    "than in heads retrained on labels permuted by subject (at 5% over the pairs of a head). "
    "Farthest from chance are {first} and {second} in {run}: {r}, where permuted labels give "
    "{low} to {high} (p = {p})."
)
WITHHELD = Markup(" No relation is claimed for {pairs} {other}pairs. {reason}")
DEPARTS = Markup(
    "The correlation of the rows of weights, drawn in Figure 3, departs from the one that the "
    "training rule forces, by {residual} in {run}; only that part is worth interpreting.{cause}"
)
DRIFTED = Markup(
    " The sum of the rows moved in {}, which training by the recorded settings cannot do: the "
    "head was changed, or trained otherwise than its record says."
)
