"""The leak gap: what the same network reaches by slice and by subject, and what carries it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headscope.analysis.slices import (
    Array,
    nearest,
    run_slices,
    run_units,
    standardised,
    variant_of,
)
from headscope.metrics import (
    Resampled,
    Units,
    bootstrap_interval,
    figures,
    resample,
)
from headscope.record import Run

FIGURES = ("slice_accuracy", "subject_accuracy", "slice_auc", "subject_auc")


@dataclass(frozen=True)
class GapFigure:
    """A test figure under both splits, one a pair of runs, and the gap: slice less subject split.

    gap is the mean over the pairs; low and high its 95% interval over subjects, NaN where the
    bootstrap cannot tell.
    """

    by_subject: tuple[float, ...]
    by_slice: tuple[float, ...]
    gap: float
    low: float
    high: float

    @property
    def gaps(self) -> tuple[float, ...]:
        """The gap of each pair."""
        return tuple(b - a for a, b in zip(self.by_subject, self.by_slice, strict=True))


@dataclass(frozen=True)
class Gap:
    """The same network, regime and seeds under both splits; figures by name, of `FIGURES`.

    subjects counts those who stand in a test subset of either split.
    """

    architecture: str
    variant: str
    seeds: tuple[int, ...]
    subjects: int
    figures: dict[str, GapFigure]


@dataclass(frozen=True)
class Neighbours:
    """Whose the nearest training slice of each test slice is.

    share of the n test slices have one of the same subject for nearest (0 under a split by
    subject); then the run's accuracy on those and on the rest, NaN where there are none.
    """

    run: str
    architecture: str
    variant: str
    split: str
    seed: int
    slices: int
    share: float
    same_accuracy: float
    other_accuracy: float


def leak_gap(pairs: Sequence[tuple[Run, Run]]) -> Gap:
    """Compare runs by subject with their likes by slice, pair by pair (a seed, or a fold, each).

    The two tests hold different slices of partly the same subjects. So the subjects of all of
    them are drawn together, within class, and each draw gives every test its figure: what a
    subject adds to both sides of the gap is paired, the rest is not. The interval is that of
    `bootstrap_interval` for the mean gap over the pairs; it holds these networks fixed.
    """
    tests = [[_levels(run) for run in pair] for pair in pairs]
    known = {name: k for pair in tests for side in pair for name, k in side[2].items()}
    names = sorted(known)
    people = {name: n for n, name in enumerate(names)}
    label = np.array([known[name] for name in names])
    resampled = resample(label, np.arange(len(names)), len(names))
    sides = [[_counted(side, people, resampled) for side in pair] for pair in tests]
    first = pairs[0][0]
    return Gap(
        architecture=str(first.settings["architecture"]),
        variant=variant_of(first),
        seeds=tuple(int(pair[0].settings["seed"]) for pair in pairs),
        subjects=len(names),
        figures={name: _gap(name, sides, resampled) for name in FIGURES},
    )


def _levels(run: Run) -> tuple[Units, Units, dict[str, int]]:
    """Return the test slices and subjects as units, and the label of each id."""
    slices, people, ids = run_units(run, "test")
    first = np.unique(slices.owner, return_index=True)[1]
    return slices, people, dict(zip(ids.tolist(), slices.labels[first].tolist(), strict=True))


def _counted(
    side: tuple[Units, Units, dict[str, int]], people: dict[str, int], resampled: Resampled
) -> dict[str, list[Array]]:
    """Return each figure once, over the draws, and with each subject left out."""
    own = np.array([people[name] for name in side[2]])  # column of each subject of this test
    whole = np.ones((1, len(people)))
    found = {}
    for level, units in (("slice", side[0]), ("subject", side[1])):
        parts = [
            figures(units, counts[:, own])
            for counts in (whole, resampled.drawn, resampled.left_out)
        ]
        for name in ("accuracy", "auc"):
            found[f"{level}_{name}"] = [part[name] for part in parts]
    return found


def _gap(name: str, sides: list[list[dict[str, list[Array]]]], resampled: Resampled) -> GapFigure:
    by_subject, by_slice = ([float(pair[n][name][0][0]) for pair in sides] for n in (0, 1))
    once, drawn, left_out = (
        np.mean([pair[1][name][part] - pair[0][name][part] for pair in sides], axis=0)
        for part in range(3)
    )
    interval = None
    if np.isfinite(once[0]):
        interval = bootstrap_interval(float(once[0]), drawn, left_out, resampled.stratum)
    low, high = interval or (np.nan, np.nan)
    return GapFigure(tuple(by_subject), tuple(by_slice), float(once[0]), low, high)


def nearest_neighbours(run: Run) -> Neighbours | None:
    """Say whose the nearest training slice is of each test slice; None without subject ids.

    By Euclidean distance of the features that the head reads, each standardised over the training
    slices.
    """
    slices = run_slices(run)
    train, test = slices.rows("train"), slices.rows("test")
    if not slices.named:
        return None
    features = standardised(slices.features, train)
    found = nearest(features, test, train)
    same = slices.subject[found] == slices.subject[test]
    right = slices.logits[test].argmax(axis=1) == slices.label[test]
    return Neighbours(
        run=run.name,
        architecture=str(run.settings["architecture"]),
        variant=variant_of(run),
        split=str(run.settings["split"]),
        seed=int(run.settings["seed"]),
        slices=len(test),
        share=float(same.mean()),
        same_accuracy=float(right[same].mean()) if same.any() else float("nan"),
        other_accuracy=float(right[~same].mean()) if (~same).any() else float("nan"),
    )
