"""How sure a test of so many subjects can be: widths of intervals, and what a paired test finds.

Known before training, from the number of test subjects alone. Source: docs/science.md, section 17.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Any

from scipy import optimize, stats

from headscope.files import encode_nan
from headscope.metrics.intervals import LEVEL
from headscope.tables import Column, Shown, Table

POWER = 0.8
CORRELATION = 0.5  # of the errors of two networks on the same subjects
ASSUMED = (0.7, 0.8, 0.9)  # true accuracy and AUC
MIDDLE = 0.8  # of which a sentence speaks
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

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON; undefined ones are None."""
        rows = [encode_nan(vars(row)) for row in self.rows]
        return {"subjects": list(self.subjects), "rows": rows}

    @property
    def sentence(self) -> str:
        """What a true AUC and accuracy of 0.8 would give, in one sentence."""
        row = min(self.rows, key=lambda row: abs(row.truth - MIDDLE))
        counts = " and ".join(map(str, self.subjects))
        paired = "no difference of two networks would be found"
        if not isnan(row.accuracy_difference):
            loss = f"{100 * row.accuracy_difference:.0f} points"
            paired = f"two networks must differ by {loss} to be told apart with {POWER:.0%} power"
        return (
            f"A test of {counts} subjects of the classes: the 95% interval of an AUC of "
            f"{row.truth} is {row.auc_width:.2f} wide, that of an accuracy of {row.truth:.0%} "
            f"{100 * row.accuracy_width:.0f} points; {paired}."
        )

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
        title = f"What a test of {counts} subjects of the classes can tell"
        return [Table(title, columns, rows, [note])]


def precisions(per_class: Sequence[int]) -> Precisions:
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
    return Precisions(counts, tuple(_precision(truth, counts) for truth in ASSUMED))


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
