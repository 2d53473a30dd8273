"""How far a new scan is from those that trained a network, in what its final layer reads.

A scan is the mean of its slices' features; its distance is that to the nearest training scan. The
limit is the largest such distance of a training scan to those of other subjects. A new subject of
the same kind is then beyond the limit in at most one of n + 1 cases, n the number of training
subjects, whatever the features' distribution: all n + 1 are exchangeable, and one among them only
brings others nearer. That holds where training did not shape the features (a frozen network).

Source: nearest neighbours in feature space, Sun et al. 2022 (ICML, Out-of-distribution detection
with deep nearest neighbors); the level by exchangeability, Vovk et al. 2005.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from headscope.analysis.blocks import take_rows
from headscope.errors import InputError
from headscope.record import Run

FEWEST_SUBJECTS = 3  # in training: of fewer no distance can be called usual
SAME = 1e-3  # of the limit: the rounding of a pass; no two scans are so near
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TrainingScans:
    """The scans of training and validation as a new scan is held against them.

    Attributes
    ----------
    centre
        (S, D), the mean of each scan's features.
    rows
        The rows of `predictions.tsv` of each scan.
    trained
        Which scans trained (S,); the others validated.
    subjects
        How many subjects trained.
    limit
        The largest distance of a training scan to the nearest one of another subject; NaN where
        training has fewer than three subjects, or slices without a subject id.
    """

    centre: Array
    rows: tuple[NDArray[np.int64], ...]
    trained: NDArray[np.bool_]
    subjects: int
    limit: float

    @property
    def fewest_slices(self) -> int:
        """The fewest slices of a training scan; the mean of fewer is another kind of thing."""
        return min(
            (len(rows) for rows, trains in zip(self.rows, self.trained, strict=True) if trains),
            default=0,
        )

    def distances(self, features: ArrayLike) -> Array:
        """Return the distance (S,) of a scan, by the features (n, D) of its slices, to each."""
        return np.linalg.norm(
            self.centre - np.asarray(features, dtype=np.float64).mean(axis=0), axis=1
        )

    def share_of_limit(self, features: ArrayLike) -> float:
        """Return the distance to the nearest training scan over the limit; NaN if unjudged.

        It is not judged where there is no limit, or the scan has fewer slices than any in training.
        """
        if not self.limit > 0 or len(np.asarray(features)) < self.fewest_slices:
            return float("nan")
        return float(self.distances(features)[self.trained].min() / self.limit)


def training_scans(run: Run) -> TrainingScans:
    """Return the scans on which a run trained and chose, by `features.npz`."""
    table = run.predictions
    inside = np.flatnonzero(table["subset"].isin(["train", "val"]).to_numpy())
    keys = [name for name in ("scan", "subject_id", "session_id") if name in table]
    groups = table.iloc[inside].groupby(keys, sort=True).indices
    rows = tuple(inside[places] for places in groups.values())
    features = run.features["features"]
    means = [take_rows(features, part, np.float64).mean(axis=0) for part in rows]
    centre = np.stack(means)  # (S, D)
    trains = (table["subset"] == "train").to_numpy()
    trained = np.array([trains[part].any() for part in rows], dtype=bool)
    subject = pd.factorize(table["subject_id"].iloc[[part[0] for part in rows]])[0]
    limit = usual_limit(centre[trained], subject[trained]) if run.named else float("nan")
    return TrainingScans(centre, rows, trained, len(np.unique(subject[trained])), limit)


def usual_limit(centre: ArrayLike, subject: ArrayLike) -> float:
    """Return the largest distance of a scan (S, D) to the nearest one of another subject (S,).

    NaN below three subjects.
    """
    points, owner = np.asarray(centre, dtype=np.float64), np.asarray(subject)
    if points.ndim != 2 or owner.shape != points.shape[:1]:
        raise InputError(
            f"centre has shape {points.shape}, subject {owner.shape}; (S, D) and (S,)."
        )
    if len(np.unique(owner)) < FEWEST_SUBJECTS:
        return float("nan")
    nearest = [
        np.linalg.norm(points[owner != owner[n]] - point, axis=1).min()
        for n, point in enumerate(points)
    ]
    return float(max(nearest))
