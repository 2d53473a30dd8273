"""Numbers as the page sets them, each with its full value, run and name for whoever checks.

Where a number is recorded follows from its name: its kind, what it is of and its quantity, with
tabs between them. The kind is "one" where `data-run` is a single run, "many" where it is a setting
of several. The first pattern that matches gives file and key. The page's script reads the same
patterns, so they keep to what Python and JavaScript share; $1 stands for the first group.
"""

import re
from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, Final

from markupsafe import Markup

from headscope.analysis.results.settings import SettingResult
from headscope.metrics.intervals import LEVEL
from headscope.text import FORMATS

CONFIDENCE = f"{100 * LEVEL:.0f}%"  # of intervals, as sentences name it
NUMBER = Markup(
    '<span class="num" data-run="{run}" data-quantity="{quantity}" data-value="{value}"'
    "{pair}>{text}</span>"
)


def number(
    value: float | int | None,
    run: str,
    quantity: str,
    form: str = "significant",
    pair: tuple[int, int] | None = None,
) -> Markup:
    """Return a number as HTML: rounded to the eye, whole in `data-value`.

    `form` is one of `headscope.text.FORMATS`. None counts as NaN: 'undefined'.
    """
    value = float("nan") if value is None else value
    return numbers([value], run, quantity, FORMATS[form](value), pair)


def say(sentence: str, *values: object, **named: object) -> Markup:
    """Return a sentence with values in its places: text escaped, thousands of counts apart."""
    shown = [_thousands(value) for value in values]
    parts = {name: _thousands(value) for name, value in named.items()}
    return Markup(sentence).format(*shown, **parts)  # noqa: S704


def _thousands(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def ends_of(
    ends: Iterable[float | None],
    run: str,
    quantity: str,
    form: str,
    pair: tuple[int, int] | None = None,
) -> list[Markup]:
    """Return the ends of an interval, low and high, as numbers that are named by the quantity."""
    sides = zip(ends, ("low", "high"), strict=True)
    return [number(end, run, f"{quantity}_{side}", form, pair) for end, side in sides]


def numbers(
    values: Sequence[float], run: str, quantity: str, text: str, pair: tuple[int, int] | None = None
) -> Markup:
    """Return a text that stands for several numbers, such as the equation of a fit."""
    whole = " ".join(repr(getattr(value, "item", lambda value=value: value)()) for value in values)
    classes = Markup(' data-pair="{},{}"').format(*pair) if pair else ""
    return NUMBER.format(run=run, quantity=quantity, value=whole, text=text, pair=classes)


def subject_accuracy(result: SettingResult) -> Markup:
    """Return the subject accuracy of a setting, in per cent."""
    value = result.scores["subject_accuracy"].value
    return number(value, result.key, "test_subject_accuracy", "percent")


def bounded(
    value: float | None,
    ends: Sequence[float | None],
    run: str,
    quantity: str,
    form: str,
    way: str = "",
    pair: tuple[int, int] | None = None,
) -> Markup:
    """Return a number with its interval (low, high) under it, if it has one.

    `way` tells in the names of the ends by which way they were found, as '_wilson'.
    """
    low, high = (float("nan") if end is None else end for end in ends)
    cell = number(value, run, quantity, form, pair)
    if isnan(low) or isnan(high):
        return cell
    first, last = ends_of((low, high), run, quantity + way, form, pair)
    return say("{} <small>{}{}{}</small>", cell, first, " to " if low < 0 else "–", last)


METRICS: Final = "runs/$1/metrics.json"
PREDICTIONS: Final = "runs/$1/predictions.tsv"
HEAD: Final = "runs/$1/head.npz"
FEATURES: Final = "runs/$1/features.npz"
LEAKAGE: Final = "leakage.json"
COUNTED: Final = "counted over its rows"
# a pattern that does not begin with ^ is that of a quantity, of any kind and of the run $1
BEFORE: Final = (
    # the audit of the scans
    (r"^\w+\taudit/pair(\d+)\t(.+)$", "audit.json", "pairs[$1].$2"),
    (r"^\w+\taudit/([^\t]+)\tauc(_?)(low|high|)$", "audit.json", "shortcuts, family $1: auc$2$3"),
    (r"^\w+\taudit/([^\t]+)\t(.+)$", "audit.json", "splits, name $1: $2"),
    (r"^\w+\taudit\t(.+)$", "audit.json", "counted: $1"),
    # other cohorts and the ladder of rungs
    (
        r"^\w+\tevaluations/([^/\t]+)/?([^\t]*)\t(.+)$",
        "evaluations/$1",
        "computed from its predictions: $2 $3",
    ),
    (
        r"^\w+\t(.+) (\S+)\t(accuracy|subject_auc|difference|majority)(_low|_high|)$",
        "ablation/$2/runs/*/predictions.tsv",
        "computed for $1: $3$4",
    ),
    # the leakage analysis, in points where the page shows points
    (r"gap\.seeds", LEAKAGE, "gaps of $1: seeds, counted"),
    (r"checks\.gap_(low|high)", LEAKAGE, "gaps of $1: scores.slice_accuracy.$2 × 100"),
    (r"gap\.(\w+)_(low|high)", LEAKAGE, "gaps of $1: scores.$2.$3 × 100"),
    (r"checks\.gap", LEAKAGE, "gaps of $1: scores.slice_accuracy.gap × 100"),
    (r"gap\.(\w+)", LEAKAGE, "gaps of $1: scores.$2.gap × 100"),
    (r"(by_\w+)\.(\w+)", LEAKAGE, "gaps of $1: mean of scores.$3.$2 × 100"),
    (r"identity\.subjects", LEAKAGE, "reidentification, run $1: subjects"),
    (r"((?:nearest|linear)_(?:subject|class)\.\w+)", LEAKAGE, "reidentification, run $1: $2"),
    (r"checks\.neighbour", LEAKAGE, "neighbours of the runs of $1: mean of share"),
    (r"checks\.permuted", LEAKAGE, "permuted, runs of $1: mean of the draws"),
    (
        r"checks\.identified",
        LEAKAGE,
        "reidentification, runs of $1: mean of linear_subject.accuracy",
    ),
    (r"checks\.shared", "table.tsv", "row $1, column shared_subjects"),
    (r"checks\.duplicated", "table.tsv", "row $1, column test_duplicates"),
    # a run's scores
    (r"^one\t(.+)\ttrain_seconds$", METRICS, "train_seconds"),
    (r"^one\t(.+)\tshared_subjects$", PREDICTIONS, COUNTED),
    (r"^one\t(.+)\ttest_(slice|subject)_wilson$", METRICS, "test.$2_accuracy.value"),
    (r"^one\t(.+)\ttest_(slice|subject)_wilson_(low|high)$", METRICS, "test.$2_accuracy.wilson_$3"),
    (r"^one\t(.+)\t(val|test)_(slices|subjects)$", METRICS, "$2.$3"),
    (r"^one\t(.+)\t(train|val|test)_(s\w+)_(wilson_low|wilson_high)$", METRICS, "$2.$3.$4"),
    (r"^one\t(.+)\t(train|val|test)_(s\w+)_(low|high)$", METRICS, "$2.$3.$4"),
    (r"^one\t(.+)\t(train|val|test)_(s\w+)$", METRICS, "$2.$3.value"),
    (r"matrix\.(slice|subject)\.(.+)", METRICS, "test.$2_confusion, $3"),
    (r"confusion\.(.+)\.(\w+)", METRICS, "test.slice_confusion, $2: $3"),
    (r"class\.(.+)\.(slices|subjects)", METRICS, "test confusion, row $2: $3"),
    (r"class\.(.+)\.(slice|subject)_(\w+)_(low|high)", METRICS, "test.$3_per_class.$2.$4.$5"),
    (r"class\.(.+)\.(slice|subject)_(\w+)", METRICS, "test.$3_per_class.$2.$4.value"),
    # two settings side by side, and counts of settings
    (r"^\w+\t(.+) \| (.+) \| (.+)\t(.+)$", "runs/*/predictions.tsv", "$1 and $2 by $3: $4"),
    (r"^\w+\tall\t(gaps|leaking_gaps)$", LEAKAGE, "counted over gaps"),
    (r"^\w+\tall\t(withheld_pairs_\d+|related_pairs|pairs)$", "runs/*/head.npz", "counted: $1"),
    (r"^\w+\tall\t(limit)$", "runs/*/run.toml", "$1, the least"),
    (r"^\w+\tall\t(.+)$", "table.tsv", "counted over its rows: $1"),
)
AFTER: Final = (
    (r"(folds|seeds|subject_labels|rivals\w*|networks|beating)", "table.tsv", "counted: $2"),
    # what is computed from arrays
    (r"(?:subjects|sessions|slices)(?:\..+)?", PREDICTIONS, COUNTED),
    (r"wrong\..+", PREDICTIONS, COUNTED),
    (r"logits\.(\w+)\.(.+)", FEATURES, "computed from logits, subset $2: $3"),
    (r"features\.(\w+)\.(.+)", FEATURES, "computed from features, subset $2: $3"),
    (r"(train|val|test)\.(nc\w+)", FEATURES, "computed from features, subset $2: $3"),
    (r"stage\.(.+)\.(\w+)", "runs/$1/layers.npz", "computed from $2: $3"),
    (r"(?:maps\.|shuffle|probe)(.+)", "runs/$1/maps.npz", "computed from maps: $2"),
    (
        r"(temperature|before\..+|after\..+|point\d.+)",
        PREDICTIONS,
        "computed from the logits of val and test: $2",
    ),
    (r"carrier\.(.+)", FEATURES, "computed from features and head.npz: $2"),
    (r"^\w+\t(.+)/(.+)\tbetween_seeds\.(.+)$", "runs/*/head.npz", "$1 $2: $3, over seeds"),
    (r"(.+)", HEAD, "computed from weight and initial_weight: $2"),
)


def rules(columns: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return pattern, file and key of every number, given the columns of `table.tsv`."""
    names = "|".join(sorted(map(re.escape, columns)))
    table = (rf"^\w+\t(.+)\t({names})$", "table.tsv", "row $1, column $2")
    whole = r"^\w+\t(.+)\t{}$"
    return [
        (pattern if pattern.startswith("^") else whole.format(pattern), file, key)
        for pattern, file, key in (*BEFORE, table, *AFTER)
    ]


def page_sources(results: Sequence[SettingResult], columns: Iterable[str]) -> dict[str, Any]:
    """Return the patterns as the script reads them, and which settings are a single run."""
    single = [result.key for result in results if len(result.runs) == 1]
    return {"sources": {"rules": rules(columns), "single": single}}
