"""Calibration and thresholds: chosen on validation, measured on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from headscope.analysis.stored import stored
from headscope.analysis.units import run_units
from headscope.files import NO_ID
from headscope.metrics import (
    BINS,
    Units,
    calibration_bins,
    draw_subjects,
    positive_class,
    scores,
    slice_units,
    softmax,
    wilson,
)
from headscope.metrics.intervals import LEVEL
from headscope.record import Run
from headscope.tables import Cell, Column, Shown, Table

FEWEST_SUBJECTS = 2  # of a bin, for an interval
Array = NDArray[Any]


@dataclass(frozen=True)
class Reliability:
    """How confident predictions are and how often they are correct, by bin of confidence.

    Bins are of equal width between 0 and 1; `count` slices are in each, `confidence` and
    `accuracy` are their means, NaN in an empty bin. nll is the mean negative log-likelihood in
    nats, brier and ece as `headscope.metrics.scores` has them. low and high are the ends of the
    accuracy's 95% interval over subjects; empty where slices name no subjects.
    """

    count: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    nll: float
    brier: float
    ece: float
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the positive class's probability of a subject, and what it does on test.

    `rule` says how it was chosen on validation. Subjects are cut by `margin`, the log-odds of the
    threshold, which separates what rounded probabilities do not. Shares are of the test's
    subjects of each class, with Wilson's 95% intervals; NaN where the test has none of the class.
    """

    rule: str
    margin: float
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

    @property
    def threshold(self) -> float:
        """The probability at which a subject is predicted positive."""
        return float(expit(self.margin))


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

    def tables(self) -> Sequence[Table]:
        """Return the scores before and after, and the operating points."""
        both = {"as trained": self.before, f"temperature {self.temperature:.3f}": self.after}
        columns = ("probabilities", "negative log-likelihood", "Brier score", "calibration error")
        rows = [(name, r.nll, r.brier, r.ece) for name, r in both.items() if r is not None]
        tables = [Table(f"Calibration of {self.title}, test slices", columns, rows, self.notes)]
        if self.points:
            shares = [
                Column(name, format="fraction", interval=True)
                for name in ("sensitivity", "specificity")
            ]
            rules = [
                (
                    p.rule,
                    p.threshold,
                    Cell(p.sensitivity, p.sensitivity_low, p.sensitivity_high),
                    Cell(p.specificity, p.specificity_low, p.specificity_high),
                )
                for p in self.points
            ]
            title = f"Subjects predicted {self.positive_class} at a threshold, test"
            tables.append(Table(title, ("chosen on validation for", "threshold", *shares), rules))
        return tables


@stored
def analyse_calibration(run: Run, sensitivity: float = 0.9) -> Calibration:
    """Return the calibration of a run's test, with temperature and thresholds from validation.

    Parameters
    ----------
    run
        A finished run.
    sensitivity
        Least sensitivity of the second operating point on validation.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> hs.analyse_calibration(run).positive_class
    'AD'
    """
    names, notes = run.class_names, []
    (chosen, val, val_ids), (tested, test, test_ids) = (
        run_units(run, subset) for subset in ("val", "test")
    )
    temperature = fit_temperature(chosen.log_probabilities, chosen.labels)
    if np.isnan(temperature):
        notes.append(
            "No temperature: validation is empty, all of its slices are predicted correctly, or "
            "its logits carry no information."
        )
    points: tuple[OperatingPoint, ...] = ()
    if len(names) == 2:
        if NO_ID in {*val_ids, *test_ids}:
            notes.append("No operating point: slices name no subjects.")
        else:
            points = operating_points(val, test, positive_class(names), sensitivity)
            if not points:
                notes.append("No operating point: validation lacks a class.")
    logits, label = tested.log_probabilities, tested.labels
    owner = None if NO_ID in test_ids else tested.owner
    return Calibration(
        title=run.name,
        positive_class=names[positive_class(names)] if len(names) == 2 else None,
        temperature=temperature,
        before=reliability(logits, label, owner=owner),
        after=None
        if np.isnan(temperature)
        else reliability(logits / temperature, label, owner=owner),
        points=points,
        notes=tuple(notes),
    )


def fit_temperature(logits: Array, label: Array) -> float:
    """Return the temperature T that makes softmax(logits / T) likeliest; NaN where none does.

    logits (N, K), label (N,). There is none where no other class is above the true one (the
    sharper the likelier), where the logits of the true classes are no higher than others on average
    (the flatter the likelier), and of no slices. Anywhere else there is one, found without bounds:
    the likelihood is concave in 1 / T. Source: Guo et al. 2017, ICML.
    """
    if len(label) == 0:
        return nan
    logits = np.asarray(logits, dtype=np.float64)
    margins = logits - logits[np.arange(len(label)), label][:, None]  # (N, K), 0 of the true class
    if margins.max() <= 0 or margins.mean() >= 0:
        return nan
    reach = float(np.abs(margins).max())

    def slope(inverse: float) -> float:
        """Differentiate the negative log-likelihood by 1 / T; it rises with 1 / T (convex)."""
        return float((softmax(margins * inverse) * margins).sum(axis=1).mean())

    from scipy.optimize import brentq  # slow to load

    low = high = 1 / reach
    while slope(low) > 0:
        low /= 4
    while slope(high) < 0:
        high *= 4
    return 1 / float(brentq(slope, low, high, xtol=1e-12 * low, rtol=1e-12))


def nll(log_probabilities: Array, label: Array) -> float:
    """Return the mean negative log-likelihood in nats; NaN of nothing."""
    if len(label) == 0:
        return nan
    return float(-log_probabilities[np.arange(len(label)), label].mean())


def reliability(logits: Array, label: Array, owner: Array | None = None) -> Reliability:
    """Return the reliability of predictions: logits (N, K), label (N,), owner (N,) the subject."""
    units = slice_units(label, logits, np.arange(len(label)))
    confidence, correct = units.probabilities.max(axis=1), units.correct
    place = calibration_bins(confidence, BINS)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, part, minlength=BINS) / count for part in (confidence, correct)]
    brier = ece = nan
    if len(label):
        values = scores(units, np.ones((1, len(label))), names=("brier", "ece"))
        brier, ece = float(values["brier"][0]), float(values["ece"][0])
    return Reliability(
        count=tuple(count.tolist()),
        confidence=tuple(means[0].tolist()),
        accuracy=tuple(means[1].tolist()),
        nll=nll(units.log_probabilities, label),
        brier=brier,
        ece=ece,
        **_bin_intervals(label, owner, place, correct),
    )


def _bin_intervals(
    label: Array, owner: Array | None, place: Array, correct: Array
) -> dict[str, tuple[float, ...]]:
    """Return the ends of each bin's accuracy over draws of subjects; NaN below two subjects."""
    if owner is None or not len(label):
        return {}
    subjects = int(owner.max()) + 1
    cells = subjects, BINS
    held, right = np.zeros(cells), np.zeros(cells)
    np.add.at(held, (owner, place), 1)
    np.add.at(right, (owner, place), correct)
    drawn = draw_subjects(label, owner, subjects)  # (draws, S)
    with np.errstate(invalid="ignore"):
        accuracy = (drawn @ right) / (drawn @ held)  # (draws, bins)
    few = (held > 0).sum(axis=0) < FEWEST_SUBJECTS
    ends = np.full((2, BINS), nan)
    ends[:, ~few] = np.nanquantile(accuracy[:, ~few], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {"low": tuple(ends[0].tolist()), "high": tuple(ends[1].tolist())}


def operating_points(
    val: Units, test: Units, positive: int, sensitivity: float = 0.9
) -> tuple[OperatingPoint, ...]:
    """Choose thresholds on validation subjects and apply them to test; () if it lacks a class.

    The first has the largest sum of sensitivity and specificity on validation (Youden 1950), the
    second the highest specificity among those that reach the sensitivity asked for. A subject is
    predicted positive at the threshold or above; thresholds are midway between neighbouring
    log-odds of validation, and ties go to the middle one.
    """
    truth = val.labels == positive
    if truth.all() or not truth.any():
        return ()
    margins = val.margin(positive)
    levels = np.unique(margins)
    cuts = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    above = margins >= cuts[:, None]  # (cuts, S)
    sens, spec = above[:, truth].mean(axis=1), (~above)[:, ~truth].mean(axis=1)
    fixed = np.where(sens >= sensitivity - 1e-12, spec, -1.0)
    rules = {
        "largest sensitivity + specificity on validation": sens + spec,
        f"sensitivity of at least {100 * sensitivity:.0f}% on validation": fixed,
    }
    points = []
    for rule, worth in rules.items():
        best = np.flatnonzero(worth >= worth.max() - 1e-12)
        chosen = int(best[len(best) // 2])
        point = _point(rule, cuts[chosen], sens[chosen], spec[chosen], test, positive)
        points.append(point)
    return tuple(points)


def _point(
    rule: str, margin: float, val_sens: float, val_spec: float, test: Units, positive: int
) -> OperatingPoint:
    truth, above = test.labels == positive, test.margin(positive) >= margin
    hits, rejected = int((above & truth).sum()), int((~above & ~truth).sum())
    positives, negatives = int(truth.sum()), int((~truth).sum())
    sens_low, sens_high = wilson(hits, positives)
    spec_low, spec_high = wilson(rejected, negatives)
    return OperatingPoint(
        rule=rule,
        margin=float(margin),
        val_sensitivity=float(val_sens),
        val_specificity=float(val_spec),
        sensitivity=hits / positives if positives else nan,
        sensitivity_low=sens_low,
        sensitivity_high=sens_high,
        specificity=rejected / negatives if negatives else nan,
        specificity_low=spec_low,
        specificity_high=spec_high,
        positives=positives,
        negatives=negatives,
    )
