"""How sure a test of so many subjects can be: widths of intervals, and what a paired test finds.

Known before training, from the number of test subjects alone. Source: docs/science.md, section 17.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

from scipy import optimize, stats

from headscope.metrics.intervals import LEVEL
from headscope.tables import Column, Shown, Table

POWER = 0.8
CORRELATION = 0.5  # of the errors of two networks on the same subjects
ASSUMED = (0.7, 0.8, 0.9)  # true accuracy and AUC
Z = float(stats.norm.ppf((1 + LEVEL) / 2))
REACH = Z + float(stats.norm.ppf(POWER))


@dataclass(frozen=True)
class Precision:
    """What a test tells if its true accuracy and AUC are `truth`; NaN where it cannot be told.

    accuracy_width and auc_width are those of the 95% interval; accuracy_difference and
    auc_difference the smallest difference of two networks that a paired test finds with 80% power.
    """

    truth: float
    accuracy_width: float
    accuracy_difference: float
    auc_width: float
    auc_difference: float


@dataclass(frozen=True, eq=False, repr=False)
class Precisions(Shown):
    """What a test of so many subjects per class can tell, for several true values."""

    subjects: tuple[int, ...]
    rows: tuple[Precision, ...]

    def tables(self) -> list[Table]:
        """Return one row per true value."""
        columns = (
            Column("True accuracy or AUC", "", "fraction"),
            Column("Accuracy: width of the 95% interval", "points", "points"),
            Column("difference found", "points", "points"),
            Column("AUC: width of the 95% interval", "", "fraction"),
            Column("AUC: difference found", "", "fraction"),
        )
        rows = [
            [
                row.truth,
                100 * row.accuracy_width,
                100 * row.accuracy_difference,
                row.auc_width,
                row.auc_difference,
            ]
            for row in self.rows
        ]
        counts = " and ".join(map(str, self.subjects))
        note = (
            "Differences of two networks on the same subjects, by McNemar's and DeLong's tests "
            f"at 5% with {POWER:.0%} power, if their errors correlate by {CORRELATION}."
        )
        return [
            Table(f"What a test of {counts} subjects per class can tell", columns, rows, [note])
        ]


def precisions(per_class: Sequence[int], truths: Sequence[float] = ASSUMED) -> Precisions:
    """Return what a test of so many subjects per class can tell, for each true accuracy or AUC.

    The interval of an accuracy is Wilson's, that of an AUC follows Hanley and McNeil, of each class
    against the rest where there are more than two (the widest). Two accuracies are compared by
    McNemar's test (Connor 1987), two AUC by their standard errors; the errors of the two networks
    correlate by 0.5.

    References
    ----------
    Wilson 1927; Hanley & McNeil 1982, Radiology 143, 29–36; Connor 1987, Biometrics 43, 207–211.
    """
    counts = tuple(int(count) for count in per_class)
    return Precisions(counts, tuple(_precision(truth, counts) for truth in truths))


def _precision(truth: float, counts: Sequence[int]) -> Precision:
    total, classes = sum(counts), list(counts) if len(counts) > 2 else list(counts[:1])
    errors = [auc_error(truth, count, total - count) for count in classes]
    error = max(errors, default=nan)
    return Precision(
        truth,
        wilson_width(truth, total),
        paired_difference(truth, total),
        2 * Z * error,
        REACH * error * sqrt(2 * (1 - CORRELATION)),
    )


def auc_error(auc: float, cases: int, others: int) -> float:
    """Return the standard error of an area under the ROC curve. Source: Hanley & McNeil 1982."""
    if cases < 1 or others < 1:
        return nan
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (cases - 1) * (one - auc**2) + (others - 1) * (two - auc**2)
    return sqrt((auc * (1 - auc) + spread) / (cases * others))


def wilson_width(share: float, count: int) -> float:
    """Return the width of Wilson's interval of a share at its expected value; NaN of none."""
    if count < 1:
        return nan
    return 2 * Z * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)


def paired_difference(accuracy: float, count: int) -> float:
    """Return the smallest loss of accuracy that McNemar's test finds with 80% power.

    Where the better network has `accuracy` and both err on the same of `count` subjects as often as
    a correlation of 0.5 makes them. NaN where no loss would be found. Source: Connor 1987.
    """

    def lacking(loss: float) -> float:
        discordant = _discordant(accuracy, accuracy - loss)
        under = Z * sqrt(discordant) + (REACH - Z) * sqrt(max(discordant - loss**2, 0.0))
        return under - loss * sqrt(count)

    if count < 1 or lacking(accuracy) > 0:
        return nan
    return float(optimize.brentq(lacking, 1e-9, accuracy))


def _discordant(first: float, second: float) -> float:
    """Return how often one of two networks alone is correct, if they correlate by 0.5."""
    both = first * second
    both += CORRELATION * sqrt(first * (1 - first) * second * (1 - second))
    both = min(both, first, second)
    return first + second - 2 * both
