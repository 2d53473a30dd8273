"""What flattening reads from the last feature maps and averaging does not: location.

Fig. 1 of the paper shows maps before they are flattened. Here: what becomes of the decision when
positions are shuffled, what a linear probe reads with and without them, and what each position
adds to a logit. All from `maps.npz` and the recorded layers behind it (docs/science.md, 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import check_ids, check_labels, check_pair
from headscope.analysis.probes import ridge_by_gram
from headscope.analysis.representation.discriminant import subject_folds
from headscope.analysis.representation.recorded_tail import Tail, read_tail
from headscope.analysis.stored import stored
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import Run
from headscope.tables import Shown, Table
from headscope.text import show, significant

Array = NDArray[np.float64]
REPEATS = 5
FOLDS = 5
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # times the mean squared length of a slice's maps
# What is on the left and on the right of a slice (docs/cohorts.md): of the subject, unlike in
# radiology, its left is on the left.
SIDES = {"axial": "LR", "coronal": "LR", "sagittal": "PA"}
PROBE_NOTE = (
    "Probes: ridge classifiers on {slices} test slices of {subjects} subjects, 5 folds by subject, "
    "assigned {repeats} times; the penalty is chosen by subject within each training part."
)


@dataclass(frozen=True, eq=False)
class Shuffle:
    """What shuffling the positions of the maps did, over repeats.

    `permutation` is 'one for all slices' or 'one per slice'; `slice_accuracy` (repeats,) after it;
    `largest_change` is the largest |change of a logit| over slices, classes and repeats;
    `relative_change` the root mean square change of the logits less their mean over classes, in
    units of their deviation over slices: 0 where location counts for nothing, about √2 where it
    is all; NaN where no logit varies. The drop's sd is over repeats.
    """

    permutation: str
    slice_accuracy: Array
    largest_change: float
    drop: float
    drop_sd: float
    relative_change: float = nan


@dataclass(frozen=True, eq=False)
class Probe:
    """Slice accuracy of a linear probe on held-out subjects, over repeats; NaN if undefined."""

    reads: str
    width: int
    slice_accuracy: Array
    mean: float
    sd: float


@dataclass(frozen=True, eq=False, repr=False)
class FlattenAnalysis(Shown):
    """What location gives the decision of one network.

    Attributes
    ----------
    averages
        Whether the network averages positions before any layer tells them apart.
    tail
        The layers between maps and logits, as recorded.
    slice_accuracy
        Of the slices whose maps are recorded, unshuffled.
    shuffles
        One permutation for all slices, and one for each.
    probes
        On pooled maps (mean over positions) and on unpooled ones.
    """

    title: str
    averages: bool
    tail: tuple[str, ...]
    slices: int
    subjects: int
    positions: tuple[int, int]
    slice_accuracy: float
    shuffles: tuple[Shuffle, ...]
    probes: tuple[Probe, ...]
    notes: tuple[str, ...]

    def tables(self) -> Sequence[Table]:
        """Return the shuffles and the probes."""
        name = f", {self.title}" if self.title else ""
        h, w = self.positions
        shuffled = Table(
            f"Shuffled positions{name} ({self.slices:,} slices, {h} × {w} positions)",
            ("permutation", "slice accuracy", "drop", "sd", "change of logits", "largest"),
            [
                (
                    s.permutation,
                    float(s.slice_accuracy.mean()),
                    s.drop,
                    s.drop_sd,
                    s.relative_change,
                    s.largest_change,
                )
                for s in self.shuffles
            ],
            [
                f"Unshuffled: {show(self.slice_accuracy)}.",
                "Changes of logits in units of their spread over slices; the largest as it is.",
            ],
        )
        probed = Table(
            "Linear probe on held-out subjects",
            ("reads", "features", "slice accuracy", "sd"),
            [(p.reads, p.width, p.mean, p.sd) for p in self.probes],
            self.notes,
        )
        return [shuffled, probed]


@stored
def analyse_flattening(
    run: Run, *, repeats: int = REPEATS, probe_repeats: int = 5, seed: int = 0
) -> FlattenAnalysis:
    """Shuffle and probe the recorded feature maps of up to 256 test slices of a run.

    Raises
    ------
    InputError
        The run records no maps, or they do not lead to its logits through its recorded tail.
    """
    tail = read_tail(run)
    rows = run.maps["slice"]
    return flatten_analysis(
        run.maps["maps"],
        tail,
        run.features["label"][rows],
        run.features["subject_id"][rows],
        words=run.settings["tail"],
        title=run.name,
        repeats=repeats,
        probe_repeats=probe_repeats,
        seed=seed,
    )


def flatten_analysis(
    maps: ArrayLike,
    tail: Tail,
    labels: ArrayLike,
    subjects: ArrayLike,
    *,
    words: Sequence[str] = (),
    title: str = "",
    repeats: int = REPEATS,
    probe_repeats: int = 5,
    seed: int = 0,
) -> FlattenAnalysis:
    """Return what shuffling and pooling the positions of `maps` (n, C, h, w) does.

    Source: docs/science.md, section 6.
    """
    values = check_maps(maps)
    n, C, h, w = values.shape
    y, ids = check_labels(labels, n), check_ids(subjects, n, "subjects")
    notes = [] if h * w > 1 else ["The maps have one position: there is nothing to shuffle."]
    if tail.mismatch > 1e-3:
        notes.append(
            f"The recorded logits are up to {significant(tail.mismatch, 2)} from those computed "
            "here, as they are where a network ran in bfloat16."
        )
    spread = {"repeats": probe_repeats, "seed": seed}
    unpooled = values.reshape(n, C * h * w)
    probes = (
        linear_probe(values.mean(axis=(2, 3)), y, ids, reads="pooled maps", **spread),
        linear_probe(unpooled, y, ids, reads="unpooled maps", **spread),
    )
    some = len(np.unique(ids))
    if np.isnan(probes[0].mean):
        notes.append("The probes are undefined: each class needs slices of 2 known subjects.")
    else:
        notes.append(PROBE_NOTE.format(slices=n, subjects=some, repeats=probe_repeats))
    return FlattenAnalysis(
        title=title,
        averages=tail.averages,
        tail=tuple(words),
        slices=n,
        subjects=some,
        positions=(h, w),
        slice_accuracy=float((tail(values).argmax(axis=1) == y).mean()),
        shuffles=shuffle_test(values, tail, y, repeats=repeats, seed=seed),
        probes=probes,
        notes=tuple(notes),
    )


def shuffle_test(
    maps: NDArray[np.floating],
    tail: Tail,
    labels: NDArray[np.int64],
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> tuple[Shuffle, Shuffle]:
    """Permute the positions of maps (n, C, h, w), all alike and each slice by itself.

    A tail that averages is computed in float64, so that only location can change a logit.
    Source: docs/science.md, section 6 (a).
    """
    maps = _as_precise(maps, tail)
    n, C, h, w = maps.shape
    flat = maps.reshape(n, C, h * w)
    logits = tail(maps)  # (n, K)
    decision = _centred(logits)
    deviation = _root_mean_square(decision - decision.mean(axis=0))
    right = (logits.argmax(axis=1) == labels).mean()
    rng = np.random.default_rng(seed)
    results = []
    for name, orders in (("one for all slices", 1), ("one per slice", n)):
        accuracy, change, moves = np.empty(repeats), 0.0, np.empty(repeats)
        for r in range(repeats):
            order = rng.permuted(np.tile(np.arange(h * w), (orders, 1)), axis=1)  # (1 or n, h·w)
            if orders == 1:
                moved = flat[:, :, order[0]]
            else:
                moved = np.take_along_axis(flat, order[:, None], axis=2)
            other = tail(moved.reshape(maps.shape))
            accuracy[r] = (other.argmax(axis=1) == labels).mean()
            change = max(change, float(np.abs(other - logits).max()))
            moves[r] = _root_mean_square(_centred(other) - decision)
        drops = right - accuracy
        spread = float(drops.std(ddof=1)) if repeats > 1 else nan
        relative = _root_mean_square(moves) / deviation if deviation > 0 else nan
        results.append(Shuffle(name, accuracy, change, float(drops.mean()), spread, relative))
    return results[0], results[1]


def linear_probe(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    subjects: NDArray[np.str_],
    *,
    reads: str = "",
    repeats: int = 5,
    seed: int = 0,
) -> Probe:
    """Return how well a ridge classifier reads the class from features (n, D), by subject.

    Folds keep subjects whole; folds within a training part choose the penalty. A ridge depends
    on inner products alone, so an (n, n) matrix stands for any number of features.
    Source: docs/science.md, section 6 (b).
    """
    D = features.shape[1]
    if len(np.unique(labels)) < 2 or (subjects == NO_ID).any():
        return Probe(reads, D, np.full(repeats, nan), nan, nan)
    X = features.astype(np.float64)
    X -= X.mean(axis=0)
    gram = X @ X.T  # (n, n)
    gram /= np.trace(gram) / len(gram) or 1.0
    accuracy = np.full(repeats, nan)
    for r in range(repeats):
        fold = subject_folds(subjects, labels, FOLDS, seed=seed + r)
        if fold is None:
            break
        correct = np.zeros(len(labels), dtype=bool)
        for part in np.unique(fold):
            train, out = fold != part, fold == part
            penalty = _penalty(gram[np.ix_(train, train)], labels[train], subjects[train], seed + r)
            predicted = ridge_by_gram(gram, labels, train, penalty * train.sum(keepdims=True))
            correct[out] = (predicted[0] == labels)[out]
        accuracy[r] = correct.mean()
    spread = float(accuracy.std(ddof=1)) if repeats > 1 else nan
    return Probe(reads, D, accuracy, float(accuracy.mean()), spread)


def contribution_maps(
    maps: ArrayLike, tail: Tail, direction: Sequence[float] | Array
) -> tuple[Array, Array]:
    """Return what each position adds to a combination of the logits, and what biases add.

    maps (n, C, h, w), direction (K,): (0, 1) asks for the logit of class 1, (−1, 1) for the
    margin. The positions (n, h, w) and the biases (n,) add up to it, but for rounding. Where
    positions are averaged these are class activation maps (Zhou et al. 2016); elsewhere gradient
    × input of the linear map that the slice's ReLU pattern selects.
    """
    values = _as_precise(check_maps(maps), tail)
    wanted = np.asarray(direction, dtype=np.float64)
    classes = tail(values[:1]).shape[1]
    if wanted.shape != (classes,):
        raise InputError(f"direction has shape {wanted.shape}; {classes} logits need ({classes},).")
    return tail.local(values, wanted)


def analyse_contributions(
    run: Run, pair: tuple[int, int] = (0, 1)
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return what each position adds to the logit of pair[1] less that of pair[0].

    Positions (n, h, w), biases (n,), and the rows of the slices (n,), as in `contribution_maps`.
    """
    check_pair(pair, len(run.class_names))
    direction = np.zeros(len(run.class_names))
    direction[list(pair)] = -1, 1
    positions, rest = contribution_maps(run.maps["maps"], read_tail(run), direction)
    return positions, rest, run.maps["slice"]


def _centred(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Take from each slice's logits their mean, which no softmax sees."""
    return logits - logits.mean(axis=1, keepdims=True)


def _root_mean_square(values: NDArray[np.floating]) -> float:
    return float(np.sqrt((values.astype(np.float64) ** 2).mean()))


def _as_precise(maps: NDArray[np.floating], tail: Tail) -> NDArray[np.floating]:
    """Return maps in float64, but where a large layer reads them flat: that would take minutes."""
    return maps.astype(np.float64 if tail.averages else np.float32)


def check_maps(values: ArrayLike) -> NDArray[np.floating]:
    """Return feature maps (n, C, h, w) as floats, or raise InputError."""
    maps = np.asarray(values)
    if maps.ndim != 4 or 0 in maps.shape:
        raise InputError(f"maps has shape {maps.shape}; (n, C, h, w) is needed.")
    maps = maps if maps.dtype == np.float64 else maps.astype(np.float32)
    if not np.isfinite(maps).all():
        raise InputError("maps holds values that are not finite.")
    return maps


def _penalty(gram: Array, y: NDArray[np.int64], ids: NDArray[np.str_], seed: int) -> float:
    """Choose the penalty by folds of subjects; the middle one where there are too few."""
    fold = subject_folds(ids, y, 4, seed=seed) if len(np.unique(y)) > 1 else None
    if fold is None:
        return PENALTIES[len(PENALTIES) // 2]
    right = np.zeros(len(PENALTIES), dtype=int)
    for part in np.unique(fold):
        train = fold != part
        predicted = ridge_by_gram(gram, y, train, np.array(PENALTIES) * train.sum())
        right += (predicted == y)[:, ~train].sum(axis=1)
    return PENALTIES[int(right.argmax())]
