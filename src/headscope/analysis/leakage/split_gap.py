"""The leak gap: what the same network reaches by slice and by subject, and what carries it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from headscope.analysis.blocks import sample_slices
from headscope.analysis.probes import nearest_standardised
from headscope.analysis.results.pooled import Pool, pool_sides
from headscope.analysis.stored import stored
from headscope.analysis.units import read_samples, run_facts
from headscope.metrics import SHARED_GAP
from headscope.record import Run

MEASURES = ("accuracy", "balanced_accuracy", "auc")
SCORES = tuple(f"{level}_{name}" for level in ("slice", "subject") for name in MEASURES)
FEWEST_SUBJECTS = 2  # of a class in a test, for an interval
MOST_QUERIES = 3000  # test slices whose neighbours are sought: the share is then known within 2%
Pair = tuple[Run, Run]


@dataclass(frozen=True)
class GapScore:
    """A test score under both splits, one for each seed, and the gap: slice less subject split.

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
    """The same network, regime and seeds under both splits; scores by name, of `SCORES`.

    subjects counts those in a test subset of either split. The folds of a seed make
    one test. constant says of each recorded seed whether the networks by subject, and those by
    slice, predict one class for all of their test slices: such a seed has no part in the scores,
    as the accuracy of a constant is the share of a class, not what was learned. seeds are the
    others, or all of them where there is no other; then no score has a gap.
    """

    architecture: str
    variant: str
    seeds: tuple[int, ...]
    subjects: int
    scores: dict[str, GapScore]
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


def clearest_gap(gaps: Sequence[Gap]) -> Gap | None:
    """Return the measurable gap of slice accuracy most certain to be above 0; None without."""
    measurable = [gap for gap in gaps if gap.measurable]
    return max(measurable, key=lambda gap: _order(gap.scores["slice_accuracy"]), default=None)


def _order(score: GapScore) -> tuple[float, float]:
    return score.clearness, float("-inf") if isnan(score.gap) else score.gap


@dataclass(frozen=True)
class Neighbours:
    """How many test slices have a slice of the same subject nearest in training.

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


@stored
def leak_gap(pairs: Sequence[Pair]) -> Gap:
    """Compare runs by subject with the same runs by slice, in pairs of a seed (and fold).

    The two tests hold different slices of partly the same subjects. So the subjects of all of
    them are drawn together, within class, and each draw gives every test its score: what a
    subject adds to both sides of the gap is paired, the rest is not. The folds of a seed are
    pooled to one test (areas of ranks within folds). With one seed the interval
    holds these networks fixed; with several the variance between them is in it
    (`repeated_interval`). It is not given where a test has fewer than two subjects in a class.
    """
    by_seed: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_seed.setdefault(int(pair[0].settings["seed"]), []).append(pair)
    constant = [_constant(folds) for folds in by_seed.values()]
    varied = [seed for seed, sides in zip(by_seed, constant, strict=True) if not any(sides)]
    seeds = varied or list(by_seed)
    pools = _pools([pair for seed in seeds for pair in by_seed[seed]])
    first = pairs[0][0]
    return Gap(
        architecture=str(first.settings["architecture"]),
        variant=first.setting.variant,
        seeds=tuple(seeds),
        subjects=len(pools[0].ids),
        scores={name: _gap(name, pools, bool(varied)) for name in SCORES},
        constant=tuple(constant),
    )


def _constant(folds: Sequence[Pair]) -> tuple[bool, bool]:
    """Say of both sides of a seed whether each network predicts one class for all test slices."""
    by_subject, by_slice = (pool.constant[0] for pool in _pools(folds))
    return by_subject, by_slice


def _pools(pairs: Sequence[Pair]) -> list[Pool]:
    """Return the tests by subject, and those by slice, over the subjects of both."""
    return pool_sides([[pair[side] for pair in pairs] for side in (0, 1)])


def _gap(name: str, pools: Sequence[Pool], varied: bool) -> GapScore:
    by_subject, by_slice = (pool.draw(name) for pool in pools)
    values = tuple(by_subject.once.tolist()), tuple(by_slice.once.tolist())
    if not varied:
        return GapScore(*values, nan, nan, nan)
    gap, ends = by_slice - by_subject, (nan, nan)
    if min(pool.fewest_per_class for pool in pools) >= FEWEST_SUBJECTS:
        ratio = float(np.mean([pool.ratio for pool in pools]))
        ends = gap.interval(ratio=ratio, shared=SHARED_GAP, bounds=(-1.0, 1.0))
    return GapScore(*values, gap.mean, *ends)


@stored
def nearest_neighbours(run: Run) -> Neighbours | None:
    """Return how many test slices have their subject's slice nearest in training.

    By Euclidean distance of the features that the head reads, each standardised over the training
    slices. Of more than 3,000 test slices so many are asked, drawn at random. None without subject
    ids.
    """
    samples = read_samples(run)
    train, test = samples.rows("train"), samples.rows("test")
    if not samples.named:
        return None
    test = test[sample_slices(len(test), MOST_QUERIES)]
    neighbour = nearest_standardised(samples.features, test, train)
    same = samples.subject[neighbour] == samples.subject[test]
    right = samples.logits[test].argmax(axis=1) == samples.label[test]
    return Neighbours(
        **run_facts(run),
        slices=len(test),
        share=float(same.mean()),
        same_accuracy=float(right[same].mean()) if same.any() else nan,
        other_accuracy=float(right[~same].mean()) if (~same).any() else nan,
    )
