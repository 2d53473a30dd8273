"""What was learned, in numbers: classes in logits and features."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from headscope.analysis.representation.features import FeatureAnalysis, analyse_features
from headscope.analysis.representation.separation import MOST_CLASSES
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import (
    Cell,
    Folded,
    Grid,
    Part,
    attributes,
    named,
    twin,
)

SPREAD: Final = (
    ("fisher_ratio", "significant"),
    ("overlap", "fraction"),
    ("silhouette", "fraction"),
    ("effective_rank", "significant"),
    ("within", "significant"),
)
RATIOS: Final = (("dispersion_ratio", "significant"), ("separation_ratio", "significant"))


def separations(runs: Sequence[Run]) -> dict[str, FeatureAnalysis]:
    """Analyse the test logits and features of each run, beside its frozen twin's."""
    found: dict[str, FeatureAnalysis] = {}
    for run in sorted(runs, key=lambda run: run.settings["regime"] != "frozen"):
        frozen = twin(run, runs)
        known = found.get(frozen.name) if frozen is not None and frozen.name != run.name else None
        found[run.name] = analyse_features(run, reference=known)
    return found


def separation_parts(runs: Sequence[Run], found: dict[str, FeatureAnalysis]) -> list[Part]:
    """Say in numbers what Fig. 2 shows to the eye, and whose slices lie on the wrong side."""
    rows: list[list[Cell]] = []
    people: list[list[Cell]] = []
    for run in runs:
        analysis = found[run.name]
        for space in ("logits", "features"):
            each = getattr(analysis, space)
            name = f"{space}.test"
            shown = [*SPREAD, *(RATIOS if analysis.reference else ())]
            cells = [named(run), space, *attributes(each, shown, run.name, name)]
            cells += [] if analysis.reference else ["–"] * len(RATIOS)
            alike = {(one.of, one.by): one for one in analysis.intraclass}
            one = alike.get(("logit margin" if space == "logits" else space, "subject"))
            icc = one.icc if one is not None else None
            rows.append([*cells, number(icc, run.name, f"{name}.icc", "fraction")])
        for row in analysis.wrong.itertuples(index=False):
            key = f"wrong.{row.subject_id}.{row.label}"
            counts = [
                number(value, run.name, f"{key}.{what}", "count")
                for what, value in (("wrong", row.wrong), ("total", row.total))
            ]
            people.append([named(run), str(row.subject_id), str(row.label), *counts])
    ruler = Grid(
        Markup(
            "<b>Table 7.</b> Test slices in the space of the logits and in that of the features. "
            "Scatter is mean squared distance; overlap is the area that two classes share along "
            "their discriminant, fitted on other subjects{}; ratios are to the frozen run of the "
            "same "
            "split. The intraclass correlation (of the margin for logits) says how alike the "
            "slices "
            "of one subject are within their class: near 1, the network tells people, not slices."
        ).format(_over_pairs(runs)),
        (
            ("Run", ""),
            ("Space", ""),
            ("Fisher ratio", ""),
            ("Overlap", ""),
            ("Silhouette", ""),
            ("Effective rank", ""),
            ("Scatter within classes", ""),
            ("Dispersion / frozen", ""),
            ("Separation / frozen", ""),
            ("Intraclass correlation", ""),
        ),
        rows,
        left=2,
    )
    wrong = Grid(
        Markup("Test slices called wrongly, by subject."),
        (("Run", ""), ("Subject", ""), ("Class", ""), ("Wrong", "slices"), ("Of", "slices")),
        people,
        left=3,
    )
    summary = f"Slices called wrongly, by subject ({len(people)} rows)"
    return [ruler, *([Folded(summary, [wrong])] if people else [])]


def _over_pairs(runs: Sequence[Run]) -> str:
    """Say how one overlap stands for the pairs of several classes."""
    K = max(len(run.class_names) for run in runs)
    if K == 2:
        return ""
    limit = f" (of at most {MOST_CLASSES} classes)"
    return ", the mean over all pairs" + (limit if K > MOST_CLASSES else "")
