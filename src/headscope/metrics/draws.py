"""From draws of subjects to intervals: one way for scores, gaps and comparisons."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, nan
from typing import NamedTuple, TypeVar

import numpy as np

from headscope.metrics.intervals import Way, bootstrap_interval
from headscope.metrics.repeats import SHARED, repeated_draws, repeated_interval
from headscope.metrics.subjects import Array

DRAWS = 2000
EXTERNAL_SEED = 1  # of draws of a cohort from elsewhere, so that they are independent of the test's
MOST_DRAWN = 1000  # subjects that are drawn one by one; of more, groups of them
GROUPS = 500
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A score of R repeats, over draws of subjects.

    once (R,) of all subjects, drawn (R, B) over B draws, left_out (R, S) with each subject left
    out; stratum (S,) the class of each subject. The difference of two is that of paired draws.
    """

    once: Array
    drawn: Array
    left_out: Array
    stratum: Array

    @property
    def mean(self) -> float:
        """The mean over the repeats."""
        return float(self.once.mean())

    def __sub__(self, other: "Drawn") -> "Drawn":
        """Return the difference, draw by draw."""
        return Drawn(
            self.once - other.once,
            self.drawn - other.drawn,
            self.left_out - other.left_out,
            self.stratum,
        )

    def bootstrap_interval(
        self, way: Way, among: Array | None = None
    ) -> tuple[float, float] | None:
        """Return the interval of a single repeat; `among` (S,) says whose influence counts."""
        among = np.ones(len(self.stratum), dtype=bool) if among is None else among
        return bootstrap_interval(
            self.once[0], self.drawn[0], self.left_out[0][among], self.stratum[among], way
        )

    def interval(
        self,
        way: Way = "expanded",
        ratio: float = 0.6,
        shared: float = SHARED,
        bounds: tuple[float, float] = (-inf, inf),
    ) -> tuple[float, float]:
        """Return the interval of the mean over repeats (`repeated_interval`); NaN without one."""
        ends = repeated_interval(
            self.once, self.drawn, self.left_out, self.stratum, way, ratio, shared, bounds
        )
        return ends or (nan, nan)

    def spread(self, ratio: float) -> Array:
        """Return draws of the mean (B,), spread as `interval` spreads them."""
        return repeated_draws(self.once, self.drawn, self.stratum, ratio)


class Resampled(NamedTuple):
    """Counts of S subjects in draws (B, S) and with each left out (S, S); their classes (S,)."""

    drawn: Array
    left_out: Array
    stratum: Array

    def apply(self, score: Callable[[Array], Mapping[Key, Array]]) -> dict[Key, Drawn]:
        """Return scores over all subjects, over the draws and with each subject left out.

        score takes counts (B, S) and returns scores (B,), or (R, B) of R repeats, by name.
        """
        whole = np.ones((1, len(self.stratum)))
        once, drawn, left_out = (
            {name: np.atleast_2d(values) for name, values in score(counts).items()}
            for counts in (whole, self.drawn, self.left_out)
        )
        return {
            name: Drawn(values[:, 0], drawn[name], left_out[name], self.stratum)
            for name, values in once.items()
        }


def resample(
    labels: Array, owner: Array, subjects: int, draws: int = DRAWS, seed: int = 0
) -> Resampled:
    """Return what intervals are made of: counts of a bootstrap and of a jackknife of subjects."""
    drawn = draw_subjects(labels, owner, subjects, draws, seed)
    return Resampled(drawn, 1 - np.eye(subjects), strata(labels, owner, subjects))


def draw_subjects(
    labels: Array, owner: Array, subjects: int, draws: int = DRAWS, seed: int = 0
) -> Array:
    """Return how often each subject is in each draw, (draws, S): with replacement, by class.

    labels (N,) of slices; owner (N,) the subject of each. A subject belongs to the class of its
    first slice. Counts are whole numbers in single precision.
    """
    return _draw(strata(labels, owner, subjects).tobytes(), draws, seed)


@lru_cache(maxsize=4)  # several analyses of a run draw its test
def _draw(strata: bytes, draws: int, seed: int) -> Array:
    rng, stratum = np.random.default_rng(seed), np.frombuffer(strata, dtype=np.int64)
    counts = np.zeros((draws, len(stratum)), dtype=np.float32)
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), share, size=draws)
    counts.setflags(write=False)
    return counts


def deal_subjects(labels: Array, owner: Array, subjects: int, seed: int = 0) -> tuple[Array, int]:
    """Return to which unit that is drawn each subject (S,) belongs, and how many there are.

    Each is one; above `MOST_DRAWN` subjects, whose jackknife would need memory by the square, they
    are dealt at random, within class, to some `GROUPS` groups that are drawn as wholes.
    The variance is the same in expectation (Davison & Hinkley 1997, section 2.3); a class has at
    least 50 groups, where it has the subjects.
    """
    if subjects <= MOST_DRAWN:
        return np.arange(subjects), subjects
    rng, stratum = np.random.default_rng(seed), strata(labels, owner, subjects)
    group, groups = np.empty(subjects, dtype=np.int64), 0
    for k in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == k))
        count = min(len(members), max(50, round(GROUPS * len(members) / subjects)))
        group[members] = groups + np.arange(len(members)) % count
        groups += count
    return group, groups


def strata(labels: Array, owner: Array, subjects: int) -> Array:
    """Return each subject's class (S,): the label of its first slice."""
    stratum = np.empty(subjects, dtype=np.int64)
    stratum[owner[::-1]] = labels[::-1]
    return stratum
