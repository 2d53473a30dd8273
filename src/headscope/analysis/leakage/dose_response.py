"""Dose–response of leakage: slice accuracy as test subjects leak into training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from headscope.analysis.blocks import row_blocks
from headscope.analysis.retrain import head_recipe, inner_products, train_heads
from headscope.analysis.stored import stored
from headscope.analysis.units import Array, Samples, read_samples
from headscope.console import track
from headscope.record import Run

SHARES = tuple(n / 10 for n in range(11))
DRAWS = 10  # at each share, over all runs
STREAM = 0xD05E


@dataclass(frozen=True)
class DoseResponse:
    """Slice accuracy on test slices as a growing share of their subjects leaks into training.

    shares (11,) of the test subjects; accuracies[share][draw]. slices counts the judged ones of
    the first run. paper is the mean slice accuracy of the runs under the split by slice, NaN if
    there are none.
    """

    architecture: str
    variant: str
    seeds: tuple[int, ...]
    slices: int
    shares: tuple[float, ...]
    accuracies: tuple[tuple[float, ...], ...]
    paper: float

    @property
    def means(self) -> tuple[float, ...]:
        """Mean over the draws, by share."""
        return tuple(float(np.mean(drawn)) for drawn in self.accuracies)

    @property
    def spreads(self) -> tuple[float, ...]:
        """Standard deviation over the draws (n − 1), 0 for a single one."""
        return tuple(float(np.std(d, ddof=1)) if len(d) > 1 else 0.0 for d in self.accuracies)


@stored
def dose_response(runs: Sequence[Run], by_slice: Sequence[Run] = ()) -> DoseResponse | None:
    """Let test subjects into training, from none to all; None where no subject has two slices.

    runs are frozen ones under the split by subject, one per seed. In each draw one half of every
    test subject's slices is judged, the same at every share; of the chosen subjects the other
    half goes into training, where it takes the place of as many slices of the same class, drawn
    at random, so that the training set neither grows nor changes its balance. Subjects with one
    slice stay judged and cannot leak. The classifier is trained by the run's own recipe.
    """
    draws = -(-DRAWS // len(runs))
    curves, judged = [], 0
    for run in track(runs, "dose–response", total=len(runs)):
        samples = read_samples(run)
        gram = inner_products(samples.features)
        for draw in range(draws):
            leak, seen, order = _halves(samples, np.random.default_rng((draw, STREAM, *_seed(run))))
            if not len(leak):
                return None
            judged = judged or len(seen)
            curves.append(_curve(run, samples, gram, leak, seen, order, draw))
    first = runs[0]
    paper = [run.score("test", "slice_accuracy") for run in by_slice]
    return DoseResponse(
        architecture=str(first.settings["architecture"]),
        variant=first.setting.variant,
        seeds=tuple(int(run.settings["seed"]) for run in runs),
        slices=judged,
        shares=SHARES,
        accuracies=tuple(zip(*curves, strict=True)),
        paper=float(np.mean(paper)) if paper else nan,
    )


def _seed(run: Run) -> tuple[int, ...]:
    return (int(run.settings["seed"]), int(run.settings.get("fold") or 0))


def _halves(samples: Samples, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return rows that may leak, rows that are judged, and the test subjects in random order."""
    rows = samples.rows("test")
    order = rng.permutation(np.unique(samples.subject[rows]))
    subject = samples.subject[rows]
    by_subject = np.argsort(subject, kind="stable")
    ends = np.searchsorted(subject[by_subject], order, side="right")
    starts = np.searchsorted(subject[by_subject], order)
    leak = [
        _half(rows[by_subject[start:end]], rng) for start, end in zip(starts, ends, strict=True)
    ]
    leaking = np.concatenate(leak)
    return leaking, np.setdiff1d(rows, leaking), order


def _half(rows: Array, rng: np.random.Generator) -> Array:
    return rng.permutation(rows)[: len(rows) // 2]


def _curve(
    run: Run,
    samples: Samples,
    gram: Array | None,
    leak: Array,
    judged: Array,
    order: Array,
    draw: int,
) -> list[float]:
    """Return the slice accuracy at each share of the test subjects, in one order of them."""
    train, recipe = samples.rows("train"), head_recipe(run)
    displaced = np.random.default_rng((draw, STREAM + 1, *_seed(run))).permutation(train)
    taught = []
    for share in SHARES:
        chosen = order[: round(share * len(order))]
        new = leak[np.isin(samples.subject[leak], chosen)]
        taught.append(np.sort(np.concatenate([_staying(samples, displaced, new), new])))
    accuracies: dict[int, float] = {}
    for size in {len(rows) for rows in taught}:  # one, but where a class has too few to displace
        places = [k for k, rows in enumerate(taught) if len(rows) == size]
        weights, biases = train_heads(
            samples.features, samples.label[:, None], np.stack([taught[k] for k in places]),
            recipe, samples.rows("val"), gram,
        )  # fmt: skip
        correct = [
            (block @ weights.swapaxes(1, 2) + biases[:, None]).argmax(axis=2)
            == samples.label[judged[part]]
            for part, block in row_blocks(samples.features, judged, np.float32)
        ]  # (S, B) of each block
        means = np.concatenate(correct, axis=1).mean(axis=1)
        accuracies |= dict(zip(places, means.tolist(), strict=True))
    return [accuracies[k] for k in range(len(SHARES))]


def _staying(samples: Samples, displaced: Array, new: Array) -> Array:
    """Return the training rows that stay: those of each class, less as many as are new of it."""
    staying: list[Any] = []
    for k in range(samples.classes):
        of_class = displaced[samples.label[displaced] == k]
        staying.append(of_class[int((samples.label[new] == k).sum()) :])
    return np.concatenate(staying)
