"""A run's slices as arrays: their subjects, what the head reads of them, and its logits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.grouping import scans_of
from headscope.metrics import Units, slice_units, subject_level
from headscope.record import Arrays, Run

Array = NDArray[Any]
P = ParamSpec("P")
R = TypeVar("R")


def once_per_run(
    function: Callable[Concatenate[Run, P], R],
) -> Callable[Concatenate[Run, P], R]:
    """Let a run hold what a function read of it, as it holds its files; arguments are hashable."""

    @wraps(function)
    def read(run: Run, *args: P.args, **kwargs: P.kwargs) -> R:
        held = vars(run)
        key = f"{function.__qualname__}{args}{kwargs}"
        if key not in held:
            held[key] = function(run, *args, **kwargs)
        result: R = held[key]
        return result

    return read


@dataclass(frozen=True)
class Samples:
    """N slices of a run, in the order of the slice table.

    features (N, D) and logits (N, K); label (N,); subset (N,) of names. subject (N,) and session
    (N,) are whole numbers that follow the order of the ids; a session belongs to one subject.
    depth (N,) is the rank of a slice within its session and plane. named: whether every slice
    has a subject id.
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
        """The number of subjects."""
        return int(self.subject.max()) + 1

    def rows(self, subset: str) -> Array:
        """Return the rows of a subset."""
        return np.flatnonzero(self.subset == subset)


OVER_SCANS = "The head trained on scans: each slice here is a scan, the mean of its slices."


def over_scans(run: Run) -> tuple[str, ...]:
    """Return the note on the analyses of a head that trained on scans; none of another."""
    return () if run.setting.unit == "slice" else (OVER_SCANS,)


def examples_of(run: Run) -> tuple[Arrays, pd.DataFrame]:
    """Return the arrays of `features.npz` and the rows of what a run's head trained on.

    These are its slices; or its scans, where it trained on the mean of each: the mean of their
    features and logits, with the first slice of each in the table (docs/science.md, section 11).
    """
    stored, table = run.features, run.predictions
    if run.setting.unit == "slice":
        return stored, table
    scans = scans_of(table, stored["subset"])
    pooled = {
        name: scans.mean(values) if name in ("features", "logits") else values[scans.first]
        for name, values in stored.items()
    }
    return pooled, table.iloc[scans.first].reset_index(drop=True)


def read_samples(run: Run, *, examples: bool = False) -> Samples:
    """Read a run's slices from its record, or the `examples_of` its head."""
    stored = examples_of(run)[0] if examples else run.features
    subject, session, depth = _groups(run, examples)
    return Samples(
        features=stored["features"],
        logits=stored["logits"],
        label=stored["label"].astype(np.int64),
        subset=stored["subset"],
        subject=subject,
        session=session,
        depth=depth,
        named=run.named,
    )


@once_per_run
def _groups(run: Run, examples: bool) -> tuple[Array, Array, Array]:
    """Return the subject, the session and the depth (N,) of each slice of a run, or example."""
    ids, table = run.features["subject_id"], run.predictions
    if examples:
        stored, table = examples_of(run)
        ids = stored["subject_id"]
    subject = np.unique(ids, return_inverse=True)[1]
    visits = pd.DataFrame({"subject": subject, "session": table["session_id"].astype(str)})
    session = visits.groupby(["subject", "session"], sort=True).ngroup().to_numpy()
    places = table[["plane", "slice_index"]].assign(session=session)
    depth = places.groupby(["session", "plane"])["slice_index"].rank(method="first")
    return subject, session, depth.to_numpy().astype(np.int64) - 1


def run_facts(run: Run) -> dict[str, Any]:
    """Return the fields by which a result names its run."""
    setting = run.setting
    return {
        "run": run.name,
        "architecture": setting.architecture,
        "variant": setting.variant,
        "split": setting.split,
        "seed": setting.seed,
    }


def run_units(run: Run, subset: str) -> tuple[Units, Units, Array]:
    """Return a subset's slices, the subjects made of them as the run makes them, and their ids."""
    rows, labels, ids, owner = _labelled(run, subset)
    slices = slice_units(labels, run.logits[rows], owner)
    return slices, subject_level(slices, str(run.settings.get("aggregate", "mean"))), ids


@once_per_run
def _labelled(run: Run, subset: str) -> tuple[Array, Array, Array, Array]:
    """Return which slices (N,) are of a subset, their labels, the subjects' ids and whose each."""
    table = run.predictions
    rows = (table["subset"] == subset).to_numpy()
    ids, owner = np.unique(table["subject_id"].to_numpy(str)[rows], return_inverse=True)
    labels = pd.Index(run.class_names).get_indexer(pd.Index(table["label"]))[rows].astype(np.int64)
    return rows, labels, ids, owner
