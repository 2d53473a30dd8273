"""Are the probabilities right, and where to cut them: both chosen on validation, told on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from headscope.analysis.display import Sheet, Shown
from headscope.analysis.slices import run_units
from headscope.files import NO_ID
from headscope.metrics import (
    BINS,
    Units,
    calibration_bins,
    figures,
    positive_class,
    softmax,
    wilson,
)
from headscope.record import Run

Array = NDArray[Any]
TEMPERATURES = (1e-3, 1e3)  # the range searched


@dataclass(frozen=True)
class Reliability:
    """How confident calls are and how often they are right, by bin of confidence.

    Bins are of equal width between 0 and 1; `count` slices lie in each, `confidence` and
    `accuracy` are their means, NaN in an empty bin. nll is the mean negative log-likelihood in
    nats, brier and ece as `headscope.metrics.figures` has them.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the positive class's probability of a subject, and what it does on test.

    `rule` says how it was chosen on validation. Shares are of the test's subjects of each class,
    with Wilson's 95% intervals; NaN where the test has none of the class.
    """

    rule: str
    threshold: float
    val_sensitivity: float
    val_specificity: float
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    specificity_low: float
    specificity_high: float
    positives: int
    negatives: int


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Shown):
    """Reliability of a run's test slices as they are, and with the temperature of validation.

    temperature is NaN, and `after` None, where validation cannot fix it; `points` are for two
    classes alone. `notes` say why something is missing.
    """

    title: str
    positive_class: str | None
    temperature: float
    before: Reliability
    after: Reliability | None
    points: tuple[OperatingPoint, ...]
    notes: tuple[str, ...]

    def sheets(self) -> Sequence[Sheet]:
        """Return the figures before and after, and the operating points."""
        both = {"as trained": self.before, f"temperature {self.temperature:.3f}": self.after}
        rows = [(name, r.nll, r.brier, r.ece) for name, r in both.items() if r is not None]
        columns = ("probabilities", "negative log-likelihood", "Brier score", "calibration error")
        found = [Sheet(f"Calibration of {self.title}, test slices", columns, rows, self.notes)]
        if self.points:
            columns = ("chosen on validation for", "threshold", "sensitivity", "specificity")
            rules = [
                (
                    p.rule,
                    p.threshold,
                    _share(p.sensitivity, p.sensitivity_low, p.sensitivity_high),
                    _share(p.specificity, p.specificity_low, p.specificity_high),
                )
                for p in self.points
            ]
            title = f"Subjects called {self.positive_class} at a threshold, test"
            found.append(Sheet(title, columns, rules))
        return found


def run_calibration(run: Run, sensitivity: float = 0.9) -> Calibration:
    """Return the calibration of a run's test, with temperature and thresholds from validation.

    sensitivity is what the second operating point asks for on validation.
    """
    stored, names = run.features, run.class_names
    parts = {}
    for subset in ("val", "test"):
        rows = stored["subset"] == subset
        parts[subset] = (stored["logits"][rows].astype(float), stored["label"][rows])
    notes = []
    temperature = fit_temperature(*parts["val"])
    if np.isnan(temperature):
        notes.append(
            "No temperature: validation is empty, all of its slices are called right, or its "
            "logits tell nothing."
        )
    points: tuple[OperatingPoint, ...] = ()
    if len(names) == 2:
        val, test = (_subjects(run, subset) for subset in ("val", "test"))
        if val is None or test is None:
            notes.append("No operating point: slices name no subjects.")
        else:
            points = operating_points(val, test, positive_class(names), sensitivity)
            if not points:
                notes.append("No operating point: validation lacks a class.")
    logits, label = parts["test"]
    return Calibration(
        title=run.name,
        positive_class=names[positive_class(names)] if len(names) == 2 else None,
        temperature=temperature,
        before=reliability(softmax(logits), label),
        after=None if np.isnan(temperature) else reliability(softmax(logits / temperature), label),
        points=points,
        notes=tuple(notes),
    )


def fit_temperature(logits: Array, label: Array) -> float:
    """Return the temperature T that makes softmax(logits / T) likeliest; NaN where none does.

    logits (N, K), label (N,). There is none where every slice is called right (the sharper the
    likelier), where the logits of the true classes lie no higher than others on average (the
    flatter the likelier), and of no slices. Source: Guo et al. 2017, ICML.
    """
    if len(label) == 0 or (logits.argmax(axis=1) == label).all():
        return nan
    own = logits[np.arange(len(label)), label]
    if own.mean() <= logits.mean():
        return nan
    best = minimize_scalar(
        lambda t: nll(softmax_log(logits / exp(t)), label),
        bounds=(log(TEMPERATURES[0]), log(TEMPERATURES[1])),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(exp(best.x))


def softmax_log(logits: Array) -> Array:
    """Return the logarithms of softmax probabilities (N, K)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def nll(log_probabilities: Array, label: Array) -> float:
    """Return the mean negative log-likelihood in nats; NaN of nothing."""
    if len(label) == 0:
        return nan
    return float(-log_probabilities[np.arange(len(label)), label].mean())


def reliability(probabilities: Array, label: Array, bins: int = BINS) -> Reliability:
    """Return the reliability of calls: probabilities (N, K), label (N,)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    place = calibration_bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, each, minlength=bins) / count for each in (confidence, right)]
    logs = np.log(np.maximum(probabilities, np.finfo(float).tiny))
    brier = ece = nan
    if len(label):
        units = Units(label, probabilities, np.arange(len(label)))
        found = figures(units, np.ones((1, len(label))), names=("brier", "ece"))
        brier, ece = float(found["brier"][0]), float(found["ece"][0])
    return Reliability(
        count=tuple(count.tolist()),
        confidence=tuple(means[0].tolist()),
        accuracy=tuple(means[1].tolist()),
        nll=nll(logs, label),
        brier=brier,
        ece=ece,
    )


def operating_points(
    val: Units, test: Units, positive: int, sensitivity: float = 0.9
) -> tuple[OperatingPoint, ...]:
    """Choose thresholds on validation subjects and apply them to test; () if it lacks a class.

    The first has the largest sum of sensitivity and specificity on validation (Youden 1950), the
    second the highest specificity among those that reach the sensitivity asked for. A subject is
    called positive at the threshold or above; thresholds lie midway between neighbouring
    probabilities of validation, and ties go to the middle one.
    """
    truth = val.labels == positive
    if truth.all() or not truth.any():
        return ()
    scores = val.probabilities[:, positive]
    levels = np.unique(scores)
    cuts = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    called = scores >= cuts[:, None]  # (cuts, S)
    sens, spec = called[:, truth].mean(axis=1), (~called)[:, ~truth].mean(axis=1)
    fixed = np.where(sens >= sensitivity - 1e-12, spec, -1.0)
    rules = {
        "largest sensitivity + specificity on validation": sens + spec,
        f"sensitivity of at least {100 * sensitivity:.0f}% on validation": fixed,
    }
    points = []
    for rule, worth in rules.items():
        best = np.flatnonzero(worth >= worth.max() - 1e-12)
        chosen = int(best[len(best) // 2])
        threshold = float(cuts[chosen])
        points.append(
            _point(rule, threshold, float(sens[chosen]), float(spec[chosen]), test, positive)
        )
    return tuple(points)


def _share(value: float, low: float, high: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f} to {high:.3f}]"


def _point(
    rule: str, threshold: float, val_sens: float, val_spec: float, test: Units, positive: int
) -> OperatingPoint:
    truth = test.labels == positive
    called = test.probabilities[:, positive] >= threshold
    hits, rejected = int((called & truth).sum()), int((~called & ~truth).sum())
    positives, negatives = int(truth.sum()), int((~truth).sum())
    sens_low, sens_high = wilson(hits, positives)
    spec_low, spec_high = wilson(rejected, negatives)
    return OperatingPoint(
        rule=rule,
        threshold=threshold,
        val_sensitivity=val_sens,
        val_specificity=val_spec,
        sensitivity=hits / positives if positives else nan,
        sensitivity_low=sens_low,
        sensitivity_high=sens_high,
        specificity=rejected / negatives if negatives else nan,
        specificity_low=spec_low,
        specificity_high=spec_high,
        positives=positives,
        negatives=negatives,
    )


def _subjects(run: Run, subset: str) -> Units | None:
    """Return the subjects of a subset; None where slices name none."""
    _, people, ids = run_units(run, subset)
    return None if (ids == NO_ID).any() else people
