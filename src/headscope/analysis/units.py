"""A run's slices as arrays: whose they are, what the head read of them, and what it said."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.files import NO_ID
from headscope.metrics import Units, slice_units, subject_level
from headscope.record import Run

Array = NDArray[Any]
BLOCK = 1024  # queries whose distances are held at once


@dataclass(frozen=True)
class Slices:
    """N slices of a run, in the order of the slice table.

    features (N, D) and logits (N, K); label (N,); subset (N,) of names. subject (N,) and session
    (N,) are whole numbers that follow the order of the ids; a session belongs to one subject.
    depth (N,) is the rank of a slice within its session and plane. named: whether every slice
    says whom it shows.
    """

    features: Array
    logits: Array
    label: Array
    subset: Array
    subject: Array
    session: Array
    depth: Array
    named: bool

    @property
    def classes(self) -> int:
        """K."""
        return self.logits.shape[1]

    @property
    def subjects(self) -> int:
        """How many subjects there are."""
        return int(self.subject.max()) + 1

    def rows(self, subset: str) -> Array:
        """Return the rows of a subset."""
        return np.flatnonzero(self.subset == subset)


def run_slices(run: Run) -> Slices:
    """Read a run's slices from `features.npz` and `predictions.tsv`."""
    stored, told = run.features, run.predictions
    subject = np.unique(stored["subject_id"], return_inverse=True)[1]
    visits = pd.DataFrame({"subject": subject, "session": told["session_id"].astype(str)})
    session = visits.groupby(["subject", "session"], sort=True).ngroup().to_numpy()
    places = told[["plane", "slice_index"]].assign(session=session)
    depth = places.groupby(["session", "plane"])["slice_index"].rank(method="first")
    return Slices(
        features=stored["features"],
        logits=stored["logits"],
        label=stored["label"].astype(np.int64),
        subset=stored["subset"],
        subject=subject,
        session=session,
        depth=depth.to_numpy().astype(np.int64) - 1,
        named=bool((stored["subject_id"] != NO_ID).all()),
    )


def run_units(run: Run, subset: str) -> tuple[Units, Units, Array]:
    """Return a subset's slices, the subjects made of them as the run makes them, and their ids."""
    table = run.predictions
    rows = (table["subset"] == subset).to_numpy()
    ids, owner = np.unique(table["subject_id"].to_numpy(str)[rows], return_inverse=True)
    labels = pd.Index(run.class_names).get_indexer(table["label"])[rows].astype(np.int64)
    slices = slice_units(labels, run.logits[rows], owner)
    return slices, subject_level(slices, str(run.settings.get("aggregate", "mean"))), ids


def standardised(features: Array, rows: Array) -> Array:
    """Return features (N, D) with mean 0 and standard deviation 1 over `rows`, in float32.

    Features that do not vary there are left out.
    """
    mean, spread = features[rows].mean(axis=0), features[rows].std(axis=0)
    varying = spread > 1e-6 * max(float(np.abs(mean).max(initial=0)), 1e-6)
    return ((features[:, varying] - mean[varying]) / spread[varying]).astype(np.float32)


def nearest(
    features: Array, queries: Array, candidates: Array, allowed: Array | None = None
) -> Array:
    """Return for each query row the candidate row nearest by Euclidean distance.

    allowed (Q, C) says which candidates count, all by default; −1 where none does. Some queries
    at a time, so that memory stays bounded.
    """
    c = features[candidates]
    length = (c**2).sum(axis=1)
    found = []
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK]
        distance = length - 2 * features[part] @ c.T  # (Q, C), less the query's own length
        if allowed is not None:
            distance[~allowed[start : start + BLOCK]] = np.inf
        best = distance.argmin(axis=1)
        some = np.isfinite(distance[np.arange(len(part)), best])
        found.append(np.where(some, candidates[best], -1))
    return np.concatenate(found)
