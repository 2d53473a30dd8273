"""How far the layers of a network moved from where they started, stage by stage.

From the mean activations that every run keeps of the same slices (`layers.npz`), and the weights
of two runs: the run itself, and the frozen one, whose backbone is the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.arrays import check_points
from headscope.analysis.probes import nearest
from headscope.analysis.stored import stored
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.record import Run, open_network
from headscope.tables import Shown, Table

Array = NDArray[np.float64]
NEIGHBOURS = 5
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, eq=False)
class StageTransfer:
    """One stage; undefined numbers are NaN.

    Attributes
    ----------
    cka
        Linear centred kernel alignment with the reference's stage, 0 to 1: 1 where the slices
        are arranged alike but for rotation and scale. Source: Kornblith et al. 2019.
    cka_debiased
        The same from unbiased estimates (Song et al. 2012): about 0 for unrelated activations
        even where there are more channels than slices.
    weight_change
        ‖θ − θ₀‖ / ‖θ₀‖ over the stage's weights, θ₀ the reference's.
    knn_accuracy
        Share of the test slices with the class of most of their 5 nearest training slices of
        other subjects.
    same_subject
        Share of the slices whose nearest other slice is of the same subject, among those that
        have another.
    """

    stage: str
    width: int
    cka: float
    cka_debiased: float
    weight_change: float
    knn_accuracy: float
    same_subject: float


@dataclass(frozen=True, eq=False, repr=False)
class TransferAnalysis(Shown):
    """Each stage of a run, in the order of the network; `majority` is the commonest class's share.

    `reference` is the run that the stages are compared with; '' for none.
    """

    title: str
    reference: str
    slices: int
    test_slices: int
    majority: float
    stages: tuple[StageTransfer, ...]
    notes: tuple[str, ...]

    def tables(self) -> Sequence[Table]:
        """Return one row per stage."""
        versus = f" against {self.reference}" if self.reference else ""
        return [
            Table(
                f"Stages of {self.title}{versus} ({self.slices:,} slices)",
                ("stage", "channels", "CKA", "debiased", "weights moved", "kNN", "same subject"),
                [
                    (s.stage, s.width, s.cka, s.cka_debiased, s.weight_change, s.knn_accuracy,
                     s.same_subject)
                    for s in self.stages
                ],
                self.notes,
            )
        ]  # fmt: skip


@stored
def analyse_transfer(run: Run, reference: Run | None = None) -> TransferAnalysis:
    """Compare the stages of a run with those of the frozen run of the same network.

    Raises
    ------
    InputError
        The runs are of different networks or keep different slices, or the network of one has
        changed since it was written.
    """
    stages = {name: values for name, values in run.layers.items() if name != "slice"}
    rows = run.layers["slice"]
    others = _stages_of(run, reference) if reference else {}
    changes = _weight_changes(run, reference, list(stages)) if reference else {}
    label, subject = run.features["label"][rows], run.features["subject_id"][rows]
    subset = run.features["subset"][rows]
    notes = []
    if (subject == NO_ID).any():
        notes.append("Without subject ids neighbours cannot be of other subjects.")
    elif not ((subset == "test").any() and (subset == "train").any()):
        notes.append("No test slice, or no training slice, has its activations recorded.")
    transfers = []
    for name, values in stages.items():
        X = check_points(values, name)
        start = others.get(name)
        transfers.append(
            StageTransfer(
                name,
                X.shape[1],
                cka=nan if start is None else linear_cka(X, start),
                cka_debiased=nan if start is None else linear_cka(X, start, debiased=True),
                weight_change=changes.get(name, nan),
                knn_accuracy=knn_accuracy(X, label, subject, subset == "train", subset == "test"),
                same_subject=same_subject(X, subject),
            )
        )
    tested = label[subset == "test"]
    flat = [name for name, values in stages.items() if _one_direction(values)]
    if flat:
        notes.append(
            f"{', '.join(flat)}: the means over positions vary along one direction alone (the "
            f"brightness of a slice, say), so that any two such stages are aligned."
        )
    return TransferAnalysis(
        title=run.name,
        reference=reference.name if reference else "",
        slices=len(rows),
        test_slices=len(tested),
        majority=float(np.bincount(tested).max() / len(tested)) if len(tested) else nan,
        stages=tuple(transfers),
        notes=tuple(notes),
    )


def linear_cka(x: ArrayLike, y: ArrayLike, *, debiased: bool = False) -> float:
    """Return the linear CKA of activations (n, C) and (n, C'), of the same n slices.

    ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) of centred activations (Kornblith et al. 2019); debiased: each
    product from the unbiased estimate of HSIC (Song et al. 2012, equation 5). NaN where
    activations do not vary, or debiased from fewer than 4 slices or an estimate not above 0.
    """
    X, Y = check_points(x, "x"), check_points(y, "y")
    if len(X) != len(Y):
        raise InputError(f"x has {len(X)} slices and y {len(Y)}.")
    if len(X) < (4 if debiased else 2) or not (np.ptp(X, axis=0).any() and np.ptp(Y, axis=0).any()):
        return nan
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    K, L = X @ X.T, Y @ Y.T  # (n, n)
    product = _hsic if debiased else _sum_of_products
    size_x, size_y = product(K, K), product(L, L)
    return product(K, L) / sqrt(size_x * size_y) if size_x > 0 and size_y > 0 else nan


def knn_accuracy(
    points: Array,
    labels: NDArray[np.int64],
    subjects: NDArray[np.str_],
    sources: NDArray[np.bool_],
    queries: NDArray[np.bool_],
    neighbours: int = NEIGHBOURS,
) -> float:
    """Return how often the nearest `sources` of other subjects name the class of a query.

    points (n, C), all others (n,). The Euclidean nearest 5 vote; equal votes go to the class of
    the nearest among them. NaN where there are none, or subjects are unknown.
    """
    rows, candidates = np.flatnonzero(queries), np.flatnonzero(sources)
    if len(rows) == 0 or len(candidates) == 0 or (subjects == NO_ID).any():
        return nan
    others = subjects[rows][:, None] != subjects[candidates]
    order = nearest(points - points.mean(axis=0), rows, candidates, others, neighbours)
    usable = order >= 0  # (rows, neighbours)
    votes = np.zeros((len(rows), int(labels.max()) + 1))
    for rank in range(order.shape[1]):
        weight = usable[:, rank] * (1 + 1e-6 * 2.0**-rank)  # the nearest decide equal votes
        np.add.at(votes, (np.arange(len(rows)), labels[order[:, rank]]), weight)
    some = usable.any(axis=1)
    if not some.any():
        return nan
    return float((votes.argmax(axis=1) == labels[rows])[some].mean())


def same_subject(points: Array, subjects: NDArray[np.str_]) -> float:
    """Return how often the nearest other slice is of the same subject; points (n, C).

    Among slices whose subject has another here; NaN where there are none.
    """
    _, owner, count = np.unique(subjects, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(count[owner] > 1)
    if len(rows) == 0 or (subjects == NO_ID).any():
        return nan
    places = np.arange(len(points))
    other = rows[:, None] != places
    neighbour = nearest(points - points.mean(axis=0), rows, places, other)[:, 0]
    return float((owner[neighbour] == owner[rows]).mean())


def _one_direction(values: NDArray[np.floating]) -> bool:
    """Whether 99% of the variance of (n, C) is along one direction."""
    X = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    products = X @ X.T if len(X) < X.shape[1] else X.T @ X
    power = np.linalg.eigvalsh(products)  # the squared singular values, but for zeros
    return bool(len(power) > 1 and power[-1] > 0.99 * np.trace(products) > 0)


def _sum_of_products(K: Array, L: Array) -> float:
    return float((K * L).sum())


def _hsic(K: Array, L: Array) -> float:
    """Return the unbiased estimate of HSIC from two Gram matrices (n, n)."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    rows_of_k, rows_of_l = K.sum(axis=1), L.sum(axis=1)
    all_of = float(rows_of_k.sum()) * float(rows_of_l.sum()) / ((n - 1) * (n - 2))
    cross = 2 * float(rows_of_k @ rows_of_l) / (n - 2)
    return (float((K * L).sum()) + all_of - cross) / (n * (n - 3))


def _stages_of(run: Run, reference: Run) -> dict[str, NDArray[np.float32]]:
    """Return the reference's stages, if they are of the same network and slices."""
    one, other = run.settings["architecture"], reference.settings["architecture"]
    if one != other:
        raise InputError(f"{reference.name} is no reference for {run.name}: {other} is not {one}.")
    if not np.array_equal(run.layers["slice"], reference.layers["slice"]):
        raise InputError(f"{run.name} and {reference.name} keep activations of different slices.")
    return {name: values for name, values in reference.layers.items() if name != "slice"}


def _weight_changes(run: Run, reference: Run, stages: Sequence[str]) -> dict[str, float]:
    """Return how far the weights of each stage are from the reference's, relative to those."""
    moved, size = dict.fromkeys(stages, 0.0), dict.fromkeys(stages, 0.0)
    if not (run.keeps_network and reference.keeps_network):
        return {}
    with open_network(run) as ours, open_network(reference) as theirs:
        shared = sorted(ours.keys() & theirs.keys())  # the same sum in every process
        for stage in stages:
            for name in shared:
                if name.startswith(f"{stage}.") and not name.endswith(BUFFERS):
                    a, b = (tensors[name].astype(np.float32) for tensors in (ours, theirs))
                    moved[stage] += float(((a - b) ** 2).sum(dtype=np.float64))
                    size[stage] += float((b**2).sum(dtype=np.float64))
    return {stage: sqrt(moved[stage] / size[stage]) for stage in stages if size[stage] > 0}
