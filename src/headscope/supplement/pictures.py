"""The main figures of an experiment, each with its data."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from headscope.analysis import LogitScatter, PairAnalysis, analyse_pair
from headscope.analysis.leakage.dose_response import DoseResponse
from headscope.analysis.results.calibration import Reliability, analyse_calibration
from headscope.analysis.results.curves import GRID, Curves, subject_curves
from headscope.analysis.results.pooled import pool_runs
from headscope.analysis.results.settings import SettingResult
from headscope.analysis.results.table import all_slices
from headscope.console import track
from headscope.figures import (
    plot_curve_grid,
    plot_dose,
    plot_forest,
    plot_gap,
    plot_logit_grid,
    plot_reliability_grid,
    plot_weight_grid,
)
from headscope.figures.scores import forest_score
from headscope.figures.style import fold
from headscope.metrics import positive_class
from headscope.record import Run
from headscope.supplement.flow import flow, flow_frame, plot_flow
from headscope.supplement.study import Study

MOST_PAIRS = 3  # pairs of classes that have a Fig. 3
T = TypeVar("T")
Networks = Mapping[str, Mapping[str, T]]
Columns = dict[str, Any]  # of a panel's data, by name


@dataclass(frozen=True)
class Picture:
    """A figure: how it is drawn at a width in inches, its data, and what it shows."""

    name: str
    draw: Callable[[float], Figure]
    data: pd.DataFrame
    caption: str


def pictures(study: Study) -> list[Picture]:
    """Return the main figures of an experiment, those that it has data for."""
    makers = (_flow, _logits, _weights, _forest, _gaps, _curves, _reliability)
    made = track(makers, "Analysing for figures", total=len(makers))
    return [picture for make in made for picture in make(study)]


def _flow(study: Study) -> Iterator[Picture]:
    boxes = flow(study)
    caption = "From scans to subsets, with what was left out and why."
    yield Picture("flow", partial(plot_flow, boxes), flow_frame(boxes), caption)


def by_network(study: Study, make: Callable[[SettingResult], T | None]) -> dict[str, dict[str, T]]:
    """Return what is made of each setting, by network and by what tells its settings apart."""
    networks: dict[str, dict[str, T]] = {}
    one_split = len({result.split for result in study.results}) == 1
    for result in study.results:
        made = make(result)
        if made is not None:
            title = result.name if one_split else f"{result.name}, {result.split} split"
            networks.setdefault(result.architecture, {})[title] = made
    return networks


def _shown(result: SettingResult) -> list[Run]:
    """Return the runs that a panel shows: of its first seed, every fold."""
    return [run for run in result.runs if run.setting.seed == result.seeds[0]]


def _several(study: Study) -> str:
    """Say what panels show where settings have several runs."""
    text = ""
    if any(len(result.seeds) > 1 for result in study.results):
        text += " Panels show the first seed."
    if any(result.folds for result in study.results):
        text += " Folds are drawn together, each slice by the network that was not trained on it."
    return text


def _logits(study: Study) -> Iterator[Picture]:
    def columns(panel: LogitScatter) -> Columns:
        names = [f"logit_{name}" for name in panel.class_names]
        if panel.against_others:
            names = ["logit_of_class", "largest_other_logit"]
        label = np.array(panel.class_names)[panel.label]
        logits = dict(zip(names, panel.logits.T, strict=False))
        return {"label": label, "correct": panel.correct} | logits

    panels = by_network(study, lambda result: _join([all_slices(run) for run in _shown(result)]))
    caption = "Logits of the test slices, one mark each; hollow marks are misclassified."
    draw = partial(plot_logit_grid, panels)
    yield Picture("fig2-logits", draw, _frame(panels, columns), caption + _several(study))


def _frame(networks: Networks[T], *columns: Callable[[T], Columns]) -> pd.DataFrame:
    """Return the columns of each panel below each other, after its network and setting."""
    return pd.concat(
        [
            pd.DataFrame({"network": network, "setting": title} | part)
            for network, settings in networks.items()
            for title, panel in settings.items()
            for make in columns
            if (part := make(panel))
        ],
        ignore_index=True,
    )


def _join(panels: list[LogitScatter]) -> LogitScatter:
    parts: Any = {name: np.concatenate([getattr(panel, name) for panel in panels])
             for name in ("logits", "label", "correct")}  # fmt: skip
    return replace(panels[0], **parts)


def _weights(study: Study) -> Iterator[Picture]:
    names = study.class_names
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    several = any(len(result.runs) > 1 for result in study.results)
    for pair in pairs[:MOST_PAIRS]:
        panels = _weight_panels(study, pair)
        first, second = (names[k] for k in pair)
        caption = f"Weights of the final layer to {first} and to {second}, one dot per feature; r "
        caption += "beside what the null model predicts from the initial weights."
        caption += " Panels show the first seed and fold." if several else ""
        if len(pairs) > MOST_PAIRS:
            caption += f" The first {MOST_PAIRS} of {len(pairs)} pairs of classes are drawn."
        suffix = "" if len(pairs) == 1 else f"-{pair[0]}-{pair[1]}"
        draw = partial(plot_weight_grid, panels)
        yield Picture(f"fig3-weights{suffix}", draw, _frame(panels, _weight_columns), caption)


def _weight_panels(study: Study, pair: tuple[int, int]) -> Networks[PairAnalysis]:
    return by_network(study, lambda result: analyse_pair(result.runs[0], pair))


def _weight_columns(pair: PairAnalysis) -> Columns:
    first, second = pair.class_names
    weights = {f"weight_{first}": pair.x, f"weight_{second}": pair.y}
    return {"feature": np.arange(len(pair.x))} | weights | {"r": pair.r, "r_null": pair.r_null}


def _forest(study: Study) -> Iterator[Picture]:
    rows = [
        (r.architecture, r.name, r.split, *forest_score(r), len(r.constant), len(r.runs))
        for r in study.everything
    ]
    columns = ["network", "setting", "split", "accuracy", "low", "high", "larger_class",
               "one_class_runs", "runs"]  # fmt: skip
    over = "subjects" if study.named else "slices, as the pictures name no subjects"
    caption = (
        f"Accuracy over test {over}, with its 95% interval where it has one, beside what "
        "predicting the larger class for all gives. Hollow: every network predicts one class."
    )
    draw = partial(plot_forest, study.everything)
    yield Picture("accuracies", draw, pd.DataFrame(rows, columns=columns), caption)


def _gaps(study: Study) -> Iterator[Picture]:
    gaps, doses = study.leakage.gaps, study.leakage.dose_responses
    if gaps:
        rows = [
            (gap.architecture, gap.variant, name, np.mean(score.by_subject),
             np.mean(score.by_slice), score.gap, score.low, score.high, gap.measurable)
            for gap in gaps for name, score in gap.scores.items()
        ]  # fmt: skip
        columns = ["network", "setting", "score", "by_subject", "by_slice", "gap", "low", "high",
                   "measurable"]  # fmt: skip
        caption = "The leak gap: accuracy where slices of one subject are on both sides, less that "
        caption += "where subjects are kept apart, with 95% intervals; none between constants."
        yield Picture("leak-gap", lambda width: plot_gap(gaps, "Leak gap"),
                      pd.DataFrame(rows, columns=columns), caption)  # fmt: skip
    for k, dose in enumerate(doses):
        frame = pd.DataFrame({"share_in_training": dose.shares, "slice_accuracy": dose.means,
                              "sd": dose.spreads})  # fmt: skip
        title = f"{dose.architecture}, {dose.variant}"
        caption = f"{title}: slice accuracy as test subjects leak into training."
        suffix = f"-{k + 1}" if len(doses) > 1 else ""
        yield Picture(f"dose-response{suffix}", _dose_drawer(dose, title), frame, caption)


def _dose_drawer(dose: DoseResponse, title: str) -> Callable[[float], Figure]:
    return lambda width: plot_dose(dose, fold(title, 48, 1))


def _curves(study: Study) -> Iterator[Picture]:
    positive = positive_class(study.class_names)
    curves = by_network(study, lambda result: subject_curves(pool_runs(result.runs), positive))
    if not curves:
        return
    areas = by_network(study, lambda result: result.scores["subject_auc"].value)
    name = study.class_names[positive] if len(study.class_names) == 2 else ""
    frame = _frame(curves, _curve_columns)
    over = "" if name else ", the mean of each class against the rest"
    band = f" over test subjects{over}; bands hold 95% of draws of subjects, point by point."
    draw = partial(plot_curve_grid, curves, "roc", areas, name)
    yield Picture("roc", draw, frame, f"ROC curves{band}")
    draw = partial(plot_curve_grid, curves, "precision", None, name)
    yield Picture("precision-recall", draw, frame, f"Precision–recall curves{band}")


def _curve_columns(curves: Curves) -> Columns:
    parts = {"sensitivity": curves.roc, "precision": curves.precision}
    columns: Columns = {"false_positive_rate_or_recall": GRID}
    for name, curve in parts.items():
        columns |= {name: curve.y, f"{name}_low": curve.low, f"{name}_high": curve.high}
    return columns | {"share_of_positives": curves.prevalence}


def _reliability(study: Study) -> Iterator[Picture]:
    calibrate = cache(analyse_calibration)
    panels = by_network(study, lambda result: calibrate(result.runs[0]))
    caption = (
        "Share of correct test slices by the confidence of their prediction, as trained and at the "
        "temperature of validation, with 95% intervals over subjects; bins of fewer than 10 slices "
        "are left out. Above: expected calibration error."
    )
    if any(len(result.runs) > 1 for result in study.results):
        caption += " Panels show the first seed and fold."
    frame = _frame(
        panels,
        lambda result: _bins(result.before, 1.0),
        lambda result: _bins(result.after, result.temperature),
    )
    yield Picture("calibration", partial(plot_reliability_grid, panels), frame, caption)


def _bins(result: Reliability | None, temperature: float) -> Columns:
    if result is None:
        return {}
    nothing = [float("nan")] * len(result.count)
    return {
        "temperature": temperature,
        "slices": result.count, "confidence": result.confidence, "accuracy": result.accuracy,
        "low": result.low or nothing, "high": result.high or nothing, "ece": result.ece,
    }  # fmt: skip
