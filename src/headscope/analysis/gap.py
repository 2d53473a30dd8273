"""The leak gap: what the same network reaches by slice and by subject, and what carries it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

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
    SHARED_GAP,
    Resampled,
    Units,
    figures,
    repeated_interval,
    resample,
)
from headscope.record import Run

MEASURES = ("accuracy", "balanced_accuracy", "auc")
FIGURES = tuple(f"{level}_{name}" for level in ("slice", "subject") for name in MEASURES)
FEWEST_SUBJECTS = 2  # of a class in a test, for an interval
Pair = tuple[Run, Run]


@dataclass(frozen=True)
class GapFigure:
    """A test figure under both splits, one for each seed, and the gap: slice less subject split.

    gap is the mean over the seeds; low and high its 95% interval, NaN where there is none.
    """

    by_subject: tuple[float, ...]
    by_slice: tuple[float, ...]
    gap: float
    low: float
    high: float

    @property
    def gaps(self) -> tuple[float, ...]:
        """The gap of each seed."""
        return tuple(b - a for a, b in zip(self.by_subject, self.by_slice, strict=True))

    @property
    def clearness(self) -> float:
        """How far the gap is above 0, in units of its interval's lower half: beyond 1 is certain.

        −inf without an interval, so that gaps sort by it.
        """
        if isnan(self.low) or self.gap <= self.low:
            return float("-inf")
        return self.gap / (self.gap - self.low)


@dataclass(frozen=True)
class Gap:
    """The same network, regime and seeds under both splits; figures by name, of `FIGURES`.

    subjects counts those who stand in a test subset of either split. The folds of a seed make
    one test. constant says of each seed on record whether the networks by subject, and those by
    slice, predict one class for all of their test slices: such a seed has no part in the figures,
    as the accuracy of a constant is the share of a class, not what was learned. seeds are the
    others, or all of them where there is no other; then no figure has a gap.
    """

    architecture: str
    variant: str
    seeds: tuple[int, ...]
    subjects: int
    figures: dict[str, GapFigure]
    constant: tuple[tuple[bool, bool], ...] = ()

    @property
    def measurable(self) -> bool:
        """Whether some seed's networks predict more than one class under both splits."""
        return not self.constant or any(not any(sides) for sides in self.constant)

    @property
    def left_out(self) -> int:
        """How many seeds have no part in the gap, as a side predicts one class for all."""
        return sum(any(sides) for sides in self.constant)

    @property
    def one_seed(self) -> bool:
        """Whether the interval speaks of these networks alone."""
        return len(set(self.seeds)) == 1

    @property
    def scope(self) -> str:
        """What the interval speaks of, in words."""
        return "of these networks" if self.one_seed else f"over {len(set(self.seeds))} seeds"


def clearest_gap(gaps: Sequence[Gap], name: str = "slice_accuracy") -> Gap | None:
    """Return the measurable gap that is most certain to be above 0; None where none is."""
    measurable = [gap for gap in gaps if gap.measurable]
    return max(measurable, key=lambda gap: _order(gap.figures[name]), default=None)


def _order(figure: GapFigure) -> tuple[float, float]:
    return figure.clearness, float("-inf") if isnan(figure.gap) else figure.gap


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


def leak_gap(pairs: Sequence[Pair]) -> Gap:
    """Compare runs by subject with their likes by slice, pair by pair (a seed, or a fold, each).

    The two tests hold different slices of partly the same subjects. So the subjects of all of
    them are drawn together, within class, and each draw gives every test its figure: what a
    subject adds to both sides of the gap is paired, the rest is not. The folds of a seed are
    pooled to one test; areas are ranked within folds and averaged. With one seed the interval
    holds these networks fixed; with several the variance between them is in it
    (`repeated_interval`). It is not given where a test has fewer than two subjects in a class.
    """
    repeats: dict[int, list[Pair]] = {}
    for pair in pairs:
        repeats.setdefault(int(pair[0].settings["seed"]), []).append(pair)
    constant = {seed: _constant(folds) for seed, folds in repeats.items()}
    varied = [seed for seed, sides in constant.items() if not any(sides)]
    seeds = varied or list(repeats)
    chosen = [repeats[seed] for seed in seeds]
    tests = [[[_Test.of(pair[side]) for pair in folds] for side in (0, 1)] for folds in chosen]
    labels = _labels(tests)
    people = {name: n for n, name in enumerate(labels)}
    label = np.array(list(labels.values()))
    resampled = resample(label, np.arange(len(people)), len(people))
    sides = [[_figures(folds, people, resampled) for folds in pair] for pair in tests]
    runs = [run for folds in chosen for pair in folds for run in pair]
    sampled = bool(varied) and _enough(tests, runs)
    first = pairs[0][0]
    return Gap(
        architecture=str(first.settings["architecture"]),
        variant=variant_of(first),
        seeds=tuple(seeds),
        subjects=len(people),
        figures={
            name: _gap(name, sides, resampled, _ratio(runs), bool(varied), sampled)
            for name in FIGURES
        },
        constant=tuple(constant.values()),
    )


@dataclass(frozen=True)
class _Test:
    """A run's test: its slices and subjects as units, and the label of each subject's id."""

    slices: Units
    subjects: Units
    labels: dict[str, int]

    @classmethod
    def of(cls, run: Run) -> "_Test":
        slices, subjects, ids = run_units(run, "test")
        first = np.unique(slices.owner, return_index=True)[1]
        labels = dict(zip(ids.tolist(), slices.labels[first].tolist(), strict=True))
        return cls(slices, subjects, labels)


def _labels(tests: Sequence[Sequence[Sequence[_Test]]]) -> dict[str, int]:
    """Return the label of every test subject, by id in order."""
    labels: dict[str, int] = {}
    for pair in tests:
        for folds in pair:
            for test in folds:
                labels |= test.labels
    return dict(sorted(labels.items()))


def _constant(folds: Sequence[Pair]) -> tuple[bool, bool]:
    """Say of both sides whether each network predicts one class for all of its test slices."""
    by_subject, by_slice = (all(_is_constant(pair[side]) for pair in folds) for side in (0, 1))
    return by_subject, by_slice


def _is_constant(run: Run) -> bool:
    stored = run.features
    calls = stored["logits"][stored["subset"] == "test"].argmax(axis=1)
    return len(np.unique(calls)) == 1


def _enough(tests: Sequence[Sequence[Sequence[_Test]]], runs: Sequence[Run]) -> bool:
    """Whether each test, its folds pooled, has two subjects or more of every class there is."""
    classes = np.unique(np.concatenate([run.features["label"] for run in runs]))
    for pair in tests:
        for folds in pair:
            people = {name: label for test in folds for name, label in test.labels.items()}
            counts = [sum(label == k for label in people.values()) for k in classes]
            if min(counts) < FEWEST_SUBJECTS:
                return False
    return True


def _ratio(runs: Sequence[Run]) -> float:
    """Return how many slices are tested for each that trains, the mean over the runs."""
    subsets = [np.asarray(run.features["subset"]) for run in runs]
    shares = [(s == "test").sum() / max((s == "train").sum(), 1) for s in subsets]
    return float(np.mean(shares))


def _figures(
    folds: Sequence[_Test], people: dict[str, int], resampled: Resampled
) -> dict[str, list[Array]]:
    """Return each figure of pooled folds: once (1,), over the draws (B,), each left out (S,)."""
    whole = np.ones((1, len(people)))
    columns = [np.array([people[name] for name in test.labels]) for test in folds]
    values: dict[str, list[Array]] = {}
    for level in ("slice", "subject"):
        units = [
            unit._replace(owner=column[unit.owner])
            for unit, column in zip(
                (test.slices if level == "slice" else test.subjects for test in folds),
                columns,
                strict=True,
            )
        ]
        pooled = Units(*(np.concatenate(parts) for parts in zip(*units, strict=True)))
        for counts in (whole, resampled.drawn, resampled.left_out):
            shares = figures(pooled, counts, names=("accuracy", "balanced_accuracy"))
            areas = [figures(unit, counts, names=("auc",))["auc"] for unit in units]
            for name, value in (shares | {"auc": _mean_of_any(areas)}).items():
                values.setdefault(f"{level}_{name}", []).append(value)
    return values


def _mean_of_any(areas: Sequence[Array]) -> Array:
    """Return the mean over the folds that have an area, (B,); NaN where none has."""
    stacked = np.stack(areas)
    counts = np.isfinite(stacked).sum(axis=0)
    sums: Array = np.nansum(stacked, axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _gap(
    name: str,
    sides: Sequence[Sequence[dict[str, list[Array]]]],
    resampled: Resampled,
    ratio: float,
    varied: bool,
    sampled: bool,
) -> GapFigure:
    by_subject, by_slice = (
        tuple(float(pair[side][name][0][0]) for pair in sides) for side in (0, 1)
    )
    if not varied:
        return GapFigure(by_subject, by_slice, nan, nan, nan)
    once, drawn, left_out = (
        np.stack([pair[1][name][part] - pair[0][name][part] for pair in sides]) for part in range(3)
    )
    interval = None
    if sampled:
        interval = repeated_interval(
            once[:, 0],
            drawn,
            left_out,
            resampled.stratum,
            ratio=ratio,
            shared=SHARED_GAP,
            bounds=(-1.0, 1.0),
        )
    low, high = interval or (nan, nan)
    return GapFigure(by_subject, by_slice, float(once.mean()), low, high)


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
