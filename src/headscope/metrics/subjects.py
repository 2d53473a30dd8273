"""What a score counts: slices, or subjects made of them."""

from collections.abc import Sequence
from math import log, log1p
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.special import log_softmax, logsumexp

from headscope.errors import InputError

Array = NDArray[Any]
Aggregate = Literal["mean", "logits", "vote"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
# Names of the class without the finding; the other class of two is then the positive one.
CONTROLS = {"nc", "cn", "hc", "nl", "ctl", "ctrl", "control", "controls", "healthy", "normal"} | {
    "nondemented",
    "negative",
    "absent",
    "none",
    "no",
}
_TIES = 1e-9
_ROUNDING = (
    1e-12  # of log-odds, relative: far above the rounding of sums, far below single precision
)


class Units(NamedTuple):
    """What a score counts, slices or subjects.

    labels (n,), log_probabilities (n, K) in float64, owner (n,): the subject of each, as a number.
    """

    labels: Array
    log_probabilities: Array
    owner: Array

    @property
    def class_count(self) -> int:
        """K."""
        return self.log_probabilities.shape[1]

    @property
    def probabilities(self) -> Array:
        """(n, K). They cannot rank: beyond a margin of about 37 one of them is 1.0."""
        return np.exp(self.log_probabilities)

    @property
    def predicted(self) -> Array:
        """The most probable class (n,)."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def correct(self) -> Array:
        """Whether the most probable class is the label (n,)."""
        return self.predicted == self.labels

    def margin(self, k: int) -> Array:
        """Return log p_k − log(1 − p_k) of each unit (n,), by which units are ranked.

        Of two classes, the margins of one are those of the other with the sign changed, so that
        both have the same area under the ROC curve. Margins that differ by rounding alone are made
        equal, so that ties stay ties. Source: docs/science.md, section 19.
        """
        logs = self.log_probabilities
        rest = np.delete(logs, k, axis=1)  # (n, K − 1)
        rest = rest[:, 0] if rest.shape[1] == 1 else logsumexp(rest, axis=1)
        return _merge_ties(logs[:, k] - rest)


def _merge_ties(values: Array) -> Array:
    """Give values (n,) that differ by rounding alone one value, the lowest of them."""
    order = np.argsort(values)
    ranked = values[order]
    with np.errstate(invalid="ignore"):  # of two infinities there is no difference
        gaps = np.diff(ranked)
        apart = (gaps > _ROUNDING * (1 + np.abs(ranked[1:]))) | np.isposinf(gaps)
    first = np.maximum.accumulate(np.where(np.append(True, apart), np.arange(len(ranked)), 0))
    merged = np.empty_like(values)
    merged[order] = np.where(np.isnan(ranked), ranked, ranked[first])
    return merged


def slice_units(labels: Array, logits: Array, owner: Array) -> Units:
    """Return slices as units: labels (N,), logits (N, K) or logs of probabilities, owner (N,)."""
    return Units(labels, log_softmax(np.asarray(logits, dtype=np.float64), axis=1), owner)


def subject_level(slices: Units, aggregate: str = "mean") -> Units:
    """Return one row per subject (and label): its label, log-probabilities (S, K) and owner.

    A subject's probability is the `mean` of its slices'; the mean of their `logits`, which is the
    normalised geometric mean of their probabilities; or the share of slices that `vote` for the
    class, ties broken by the mean. All are computed on logarithms, so that no probability is
    rounded to 0 or 1 on the way. Source: docs/science.md, section 19.

    Raises
    ------
    InputError
        The aggregate is none of the three.
    """
    if aggregate not in AGGREGATES:
        raise InputError(f"Unknown aggregate {aggregate!r}: choose one of {', '.join(AGGREGATES)}.")
    labels, logs, owner = slices
    classes = slices.class_count
    keys, rows = np.unique(owner * classes + labels, return_inverse=True)
    sizes = np.bincount(rows, minlength=len(keys))[:, None]  # (S, 1)

    def mean(values: Array) -> Array:
        """Average rows (N, K) over each subject: (S, K)."""
        sums = [np.bincount(rows, column, minlength=len(keys)) for column in values.T]
        return np.stack(sums, axis=1) / sizes

    if aggregate == "logits":
        subjects = log_softmax(mean(logs), axis=1)
    else:
        subjects = _log_mean(logs, rows, sizes)
    if aggregate == "vote":
        with np.errstate(divide="ignore"):
            votes = np.log(mean(np.eye(classes)[slices.predicted]))  # (S, K)
        subjects = np.logaddexp(votes, log(_TIES) + subjects) - log1p(_TIES)
    return Units(keys % classes, subjects, keys // classes)


def _log_mean(logs: Array, rows: Array, sizes: Array) -> Array:
    """Return the log of the mean probability over each subject, (S, K), of logs (N, K)."""
    top = np.full((len(sizes), logs.shape[1]), -np.inf)
    np.maximum.at(top, rows, logs)
    shift = np.where(np.isfinite(top), top, 0.0)
    scaled = np.exp(logs - shift[rows])  # (N, K), the largest of each subject 1
    sums = [np.bincount(rows, column, minlength=len(sizes)) for column in scaled.T]
    with np.errstate(divide="ignore"):
        return shift + np.log(np.stack(sums, axis=1) / sizes)


def softmax(logits: Array) -> Array:
    """Return probabilities (N, K) of logits (N, K), in float64."""
    return special.softmax(np.asarray(logits, dtype=np.float64), axis=1)


def positive_class(class_names: Sequence[str]) -> int:
    """Return the class of which sensitivity is the recall: the one not named like a control.

    Of two classes of which one has a name of `CONTROLS` (NC, healthy, Nondemented …) it is the
    other; where names do not tell, the first.
    """
    controls = [str(name).lower().replace("-", "") in CONTROLS for name in class_names]
    return controls.index(False) if len(controls) == 2 and sum(controls) == 1 else 0
