"""What a figure counts: slices, or subjects made of them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError

Array = NDArray[Any]
Aggregate = Literal["mean", "logits", "vote"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
# Names under which people without the finding go; the other class of two is then the positive one.
CONTROLS = {"nc", "cn", "hc", "nl", "ctl", "ctrl", "control", "controls", "healthy", "normal"} | {
    "nondemented",
    "negative",
    "absent",
    "none",
    "no",
}
_TIES = 1e-9


class Units(NamedTuple):
    """What a figure counts, slices or subjects: labels (n,), probabilities (n, K), owner (n,)."""

    labels: Array
    probabilities: Array
    owner: Array


def subject_level(
    labels: Array, probabilities: Array, owner: Array, aggregate: str = "mean"
) -> Units:
    """Return one row a subject (and label): its label, probabilities (S, K) and owner.

    labels (N,), probabilities (N, K), owner (N,) whole numbers. A subject's probability is the
    `mean` of its slices'; the mean of their `logits`, which is the normalised geometric mean of
    their probabilities; or the share of slices that `vote` for the class, ties broken by the mean.

    Raises
    ------
    InputError
        The aggregate is none of the three.
    """
    if aggregate not in AGGREGATES:
        raise InputError(f"aggregate {aggregate!r} is none of {', '.join(AGGREGATES)}.")
    keys, rows = np.unique(np.column_stack([owner, labels]), axis=0, return_inverse=True)
    rows = rows.ravel()
    sizes = np.bincount(rows, minlength=len(keys))[:, None]  # (S, 1)

    def mean(values: Array) -> Array:
        """Average rows (N, K) over each subject: (S, K)."""
        sums = [np.bincount(rows, column, minlength=len(keys)) for column in values.T]
        return np.stack(sums, axis=1) / sizes

    if aggregate == "logits":
        subjects = softmax(mean(np.log(np.maximum(probabilities, np.finfo(float).tiny))))
    elif aggregate == "vote":
        votes = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]  # (N, K)
        subjects = (mean(votes) + _TIES * mean(probabilities)) / (1 + _TIES)
    else:
        subjects = mean(probabilities)
    return Units(keys[:, 1], subjects, keys[:, 0])


def softmax(logits: Array) -> Array:
    """Return probabilities (N, K) of logits (N, K), in float64."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def positive_class(class_names: Sequence[str]) -> int:
    """Return which class sensitivity speaks of: the one that is not named like a control.

    Of two classes of which one bears a name of `CONTROLS` (NC, healthy, Nondemented …) it is the
    other; wherever names do not tell, the first.
    """
    controls = [str(name).lower().replace("-", "") in CONTROLS for name in class_names]
    return controls.index(False) if len(controls) == 2 and sum(controls) == 1 else 0
