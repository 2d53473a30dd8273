"""The tests of one setting taken together: folds of a seed pooled to one, seeds side by side.

Disjoint folds of one seed test every subject once, so they are one test: all subjects for shares,
ranks within folds for areas under the curve. Repeats over seeds stay apart, as rows (R, …).
Source: docs/science.md, sections 18 and 20.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from headscope.analysis.results.table import SHARES
from headscope.analysis.units import Array, run_units
from headscope.files import NO_ID
from headscope.metrics import (
    Drawn,
    Resampled,
    Units,
    class_scores,
    deal_subjects,
    resample,
    scores,
    strata,
    wilson,
)
from headscope.record import Run

PERMUTATIONS = 9_999
_BLOCK = 500_000  # permuted labels that are counted at once
_CELLS = 20_000_000  # of permuted labels at once: fewer permutations of very many subjects


class Test(NamedTuple):
    """One run's test: slices and subjects as units, whose owners count all subjects of the pool."""

    slices: Units
    subjects: Units

    def level(self, name: str) -> Units:
        """Return the units of "slice" or "subject"."""
        return self.slices if name == "slice" else self.subjects


@dataclass(frozen=True, eq=False)
class Pool:
    """The tests of a setting: one list per seed, of one test per fold.

    ids (S,) are all subjects, which pools that are compared share; labels (S,) the class of each
    by its first slice; ratio is that of tested to training slices; stretch is how much farther
    areas spread without signal than permuted labels say (`shared_training`).
    """

    seeds: tuple[tuple[Test, ...], ...]
    ids: Array
    labels: Array
    ratio: float
    stretch: float = 1.0

    @cached_property
    def tests(self) -> list[Test]:
        """The tests of all seeds and folds."""
        return [test for folds in self.seeds for test in folds]

    @property
    def class_count(self) -> int:
        """K."""
        return self.tests[0].slices.class_count

    @property
    def named(self) -> bool:
        """Whether every slice has a subject id."""
        return NO_ID not in self.ids

    @cached_property
    def once_each(self) -> bool:
        """Whether each subject was tested once and under one label."""
        owners = np.concatenate([test.subjects.owner for test in self.tests])
        return len(np.unique(owners)) == len(owners)

    @property
    def ranked_once(self) -> bool:
        """Whether one test ranked each subject once, of two classes, as DeLong needs it."""
        return self.once_each and self.class_count == 2 and len(self.tests) == 1

    @cached_property
    def one_label_each(self) -> bool:
        """Whether each subject has one label."""
        return all(
            len(np.unique(test.subjects.owner)) == len(test.subjects.owner) for test in self.tests
        )

    def restrict(self, inside: Array) -> "Pool":
        """Return the tests of those subjects alone that are `inside` (S,); none that are empty."""
        place = np.cumsum(inside) - 1

        def part(units: Units) -> Units:
            rows = inside[units.owner]
            labels, logs, owner = (column[rows] for column in units)
            return Units(labels, logs, place[owner])

        seeds = (
            tuple(
                Test(part(test.slices), part(test.subjects))
                for test in folds
                if inside[test.subjects.owner].any()
            )
            for folds in self.seeds
        )
        return Pool(
            tuple(folds for folds in seeds if folds),
            self.ids[inside],
            self.labels[inside],
            self.ratio,
            self.stretch,
        )

    @cached_property
    def dealt(self) -> Array:
        """What is drawn of each subject (S,): itself, or a group of very many (`deal_subjects`)."""
        return deal_subjects(self.labels, np.arange(len(self.ids)), len(self.ids))[0]

    @cached_property
    def grouped(self) -> "Pool":
        """The same tests, whose units belong to what is drawn."""
        groups = int(self.dealt.max(initial=-1)) + 1
        if groups == len(self.ids):
            return self
        seeds = tuple(
            tuple(
                Test(*(units._replace(owner=self.dealt[units.owner]) for units in test))
                for test in folds
            )
            for folds in self.seeds
        )
        labels = strata(self.labels, self.dealt, groups)
        return Pool(seeds, np.arange(groups), labels, self.ratio, self.stretch)

    @cached_property
    def resampled(self) -> Resampled:
        """What is drawn again within class, the same draws for every pool of these subjects."""
        labels = self.grouped.labels
        return resample(labels, np.arange(len(labels)), len(labels))

    @cached_property
    def fewest_per_class(self) -> int:
        """The fewest subjects of any class of the pool in the test of any seed."""
        classes = np.unique(self.labels)
        owners = [
            np.unique(np.concatenate([test.slices.owner for test in folds])) for folds in self.seeds
        ]
        return min(int((self.labels[owner] == k).sum()) for owner in owners for k in classes)

    @cached_property
    def constant(self) -> tuple[bool, ...]:
        """Whether each network of a seed predicts one class for all of its test slices."""
        return tuple(
            all(len(np.unique(test.slices.predicted)) == 1 for test in folds)
            for folds in self.seeds
        )

    def score(self, name: str, counts: Array, positive: int = 0) -> Array:
        """Return a score, as "subject_auc", of each seed over draws (R, B).

        counts (B, S): how often each subject of the pool is drawn.
        """
        level, quantity = name.split("_", 1)
        rows = []
        for folds in self.seeds:
            parts = [test.level(level) for test in folds]
            if quantity == "auc" and len(parts) > 1:
                rows.append(pooled_auc(parts, counts, positive))
            else:
                rows.append(scores(concatenate(parts), counts, positive, (quantity,))[quantity])
        return np.stack(rows)

    def draw(self, name: str, positive: int = 0) -> Drawn:
        """Return a score, as "subject_auc", of each seed over draws of subjects."""

        def score(counts: Array) -> dict[str, Array]:
            return {name: self.grouped.score(name, counts, positive)}

        return self.resampled.apply(score)[name]

    def wilson(self, name: str, positive: int) -> tuple[float, float]:
        """Return Wilson's interval of a share of subjects that were each tested once; else NaN."""
        shares = SHARES if self.class_count == 2 else ("subject_accuracy",)
        if name not in shares or not self.once_each:
            return np.nan, np.nan
        units = concatenate([test.subjects for test in self.tests])
        inside = np.ones(len(units.labels), dtype=bool)
        if name != "subject_accuracy":
            inside = (units.labels == positive) == (name == "subject_sensitivity")
        return wilson(int(units.correct[inside].sum()), int(inside.sum()))


def pool_runs(runs: Sequence[Run]) -> Pool:
    """Pool the tests of runs of one setting, by seed and fold."""
    (pool,) = pool_sides([runs])
    return pool


def pool_sides(sides: Sequence[Sequence[Run]]) -> list[Pool]:
    """Pool the tests of several settings, each by seed and fold, over the subjects of them all."""
    read = [
        [(int(run.settings["seed"]), *run_units(run, "test")) for run in runs] for runs in sides
    ]
    ids = np.unique(np.concatenate([part[3] for side in read for part in side]))
    labels = np.zeros(len(ids), dtype=np.int64)
    pools = []
    for runs, side in zip(sides, read, strict=True):
        seeds: dict[int, list[Test]] = {}
        for seed, slices, subjects, names in side:
            place = np.searchsorted(ids, names)
            moved = (units._replace(owner=place[units.owner]) for units in (slices, subjects))
            test = Test(*moved)
            labels[test.slices.owner[::-1]] = test.slices.labels[::-1]
            seeds.setdefault(seed, []).append(test)
        ratio = float(np.mean([_ratio(run) for run in runs]))
        stretch = shared_training([_tested_and_training(run) for run in runs])
        pools.append(Pool(tuple(map(tuple, seeds.values())), ids, labels, ratio, stretch))
    return pools


def shared_training(runs: Sequence[tuple[Array, Array]]) -> float:
    """Return how much farther AUCs spread without signal than they do over permuted labels.

    Where subject j trains the network that tests i, and i one that tests j, the two predictions err
    together, which labels permuted under fixed predictions do not. Of heads whose scores are linear
    in the labels, score_i = Σ_j T_ij k_ij y_j with T_ij the number of networks that j trained and
    that tested i, the sum Σ_i y_i score_i has the variance Σ_{i<j} k_ij² (T_ij + T_ji)² over labels
    at random; with the scores fixed it is Σ_ij k_ij² T_ij² in expectation. The root of their ratio,
    1 + Σ T_ij T_ji / Σ T_ij², where k does not depend on T, is returned. It is 1 where no tested
    subject trains, and √(1 + s) of folds in which a share s of the other subjects train.

    runs: the ids of tested and of training subjects of each network. Source: docs/science.md,
    section 20; measured by bench/claims.py --trained.
    """
    ids = np.unique(np.concatenate([part for run in runs for part in run]))
    tested, trains = (
        np.stack([np.isin(ids, run[side]) for run in runs]).astype(np.float64) for side in (0, 1)
    )
    crossed = tested @ trains.T  # (runs, runs): subjects that one tests and the other trains on
    squares = float(((tested @ tested.T) * (trains @ trains.T)).sum())  # Σ T_ij²
    return float(np.sqrt(1 + (crossed * crossed.T).sum() / squares)) if squares else 1.0


def _tested_and_training(run: Run) -> tuple[Array, Array]:
    """Return the ids of the subjects that a run tests and trains on."""
    groups = run.predictions.groupby("subset")["subject_id"]
    by_subset = {name: ids.to_numpy(str) for name, ids in groups}
    nothing = np.empty(0, dtype=str)
    return by_subset.get("test", nothing), by_subset.get("train", nothing)


def _ratio(run: Run) -> float:
    """Return how many slices are tested for each that trains."""
    counts = run.predictions["subset"].value_counts()
    return float(counts.get("test", 0)) / max(float(counts.get("train", 0)), 1.0)


def concatenate(parts: Sequence[Units]) -> Units:
    """Return the units of several tests as one."""
    return Units(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def pooled_auc(parts: Sequence[Units], counts: Array, positive: int = 0) -> Array:
    """Return the area under the ROC curve of ranks within tests, for each draw (B,).

    The share of all pairs of a unit of the class and one of the rest, both of one test, that the
    test ranks correctly: scores of different trainings are never compared. Of more than two classes
    it is the mean of each class against the rest. counts (B, S) of the subjects drawn.
    """
    classes = parts[0].class_count
    area, pairs = (np.zeros((len(counts), classes)) for _ in range(2))
    for units in parts:
        sums = np.zeros((counts.shape[1], classes))
        np.add.at(sums, (units.owner, units.labels), 1)
        held = counts.astype(np.float64) @ sums  # (B, K)
        weight = held * (held.sum(axis=1, keepdims=True) - held)
        area += weight * np.nan_to_num(class_scores(units, counts)["auc"])
        pairs += weight
    with np.errstate(invalid="ignore"):
        shares = area / pairs  # (B, K), NaN where a class has no pair
    if classes == 2:
        return shares[:, positive]
    return _mean_known(shares)


def permutation_p(pool: Pool) -> tuple[float, float]:
    """Return the p of the subject AUC being above, and below, what labels at random give.

    Labels are permuted among subjects (within folds, of one seed; among all, of several, where a
    subject keeps its label in every test), the scores stay; the area is that of `Pool.score`,
    averaged over seeds. p is (b + 1) / (P + 1) with at most 9,999 permutations. Where each subject
    was tested once this is Wilcoxon's rank sum test, stratified by fold (van Elteren 1960).
    Distances of permuted areas from 0.5 are stretched by `Pool.stretch`.
    NaN where a subject has several labels, or the tests hold one class.

    References
    ----------
    Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9(1), 39.
    """
    if not (pool.named and pool.one_label_each):
        return np.nan, np.nan
    tests = sum(len(test.subjects.labels) for test in pool.tests)
    draws = int(np.clip(_CELLS // max(tests, 1), 999, PERMUTATIONS))
    observed = _areas(pool, pool.labels[None, :])[0]
    if np.isnan(observed):
        return np.nan, np.nan
    labels = _permute(pool, draws)
    parts = np.array_split(labels, -(-labels.size // _BLOCK))  # of which a cache holds one
    permuted = np.concatenate([_areas(pool, part) for part in parts])
    permuted = 0.5 + pool.stretch * (permuted[np.isfinite(permuted)] - 0.5)
    above, below = (
        (int((sign * (permuted - observed) >= -1e-9).sum()) + 1) / (len(permuted) + 1)
        for sign in (1, -1)
    )
    return above, below


def least_p(pool: Pool) -> float:
    """Return the smallest two-sided p that permuted labels of so few subjects can give.

    Two over the number of ways in which the labels of the subjects (of each fold, of one seed) can
    be arranged.
    """
    ways = 0.0  # logarithm
    for members in _exchangeable(pool):
        counts = np.bincount(pool.labels[members])
        ways += float(gammaln(len(members) + 1) - gammaln(counts + 1).sum())
    return min(1.0, 2 * float(np.exp(-ways)))


def _exchangeable(pool: Pool) -> list[Array]:
    """Return the subjects among which labels are permuted: of a fold, or of all seeds."""
    if len(pool.seeds) == 1:
        return [test.subjects.owner for test in pool.tests]
    return [np.arange(len(pool.ids))]


def _permute(pool: Pool, draws: int) -> Array:
    """Return labels (P, S), permuted among the subjects of a fold, or of all seeds."""
    kind = np.min_scalar_type(pool.class_count).str
    groups = tuple(members.astype(np.int64).tobytes() for members in _exchangeable(pool))
    return _permuted(pool.labels.astype(kind).tobytes(), kind, groups, draws)


@lru_cache(maxsize=2)  # settings of the same split
def _permuted(labels: bytes, kind: str, groups: tuple[bytes, ...], draws: int) -> Array:
    rng = np.random.default_rng(0)
    permuted = np.tile(np.frombuffer(labels, dtype=kind), (draws, 1))
    for members in (np.frombuffer(group, dtype=np.int64) for group in groups):
        permuted[:, members] = rng.permuted(permuted[:, members], axis=1)
    permuted.setflags(write=False)
    return permuted


def _areas(pool: Pool, labels: Array) -> Array:
    """Return the subject AUC, mean over seeds, by each set of labels (P, S): (P,)."""
    classes = [1] if pool.class_count == 2 else list(range(pool.class_count))
    rows = []
    for folds in pool.seeds:
        shares = []
        for k in classes:
            ups, pairs = np.zeros(len(labels)), np.zeros(len(labels))
            for test in folds:
                ranks = _ranks(test.subjects.margin(k))
                inside = (labels[:, test.subjects.owner] == k).astype(np.float64)  # (P, n)
                count = inside.sum(axis=1)
                ups += inside @ ranks - count * (count + 1) / 2
                pairs += count * (len(ranks) - count)
            with np.errstate(invalid="ignore"):
                shares.append(ups / pairs)
        rows.append(_mean_known(np.stack(shares, axis=1)))
    return np.mean(rows, axis=0)


def _ranks(values: Array) -> Array:
    """Return the ranks (n,) of values from 1, equals sharing the mean of theirs; NaN with a NaN."""
    order = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(order[2]) - (order[2] - 1) / 2)[order[1]]
    return np.where(np.isnan(values).any(), np.nan, ranks)


def _mean_known(values: Array) -> Array:
    """Return the mean over the columns of (B, K) that are not NaN, (B,); NaN of none."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1)
