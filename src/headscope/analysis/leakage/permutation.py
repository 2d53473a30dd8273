"""A run's accuracy beside that of the same training on labels without meaning.

Labels are permuted by subject, so that slices of one subject stay alike: a split by subject falls
back to chance, while under a split by slice the network still recognises the subject by its other
slices. Source: Yagis et al. 2021, Scientific Reports 11, 22544 (96% under a slice split with
random labels, 50% under a subject split).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.blocks import row_blocks
from headscope.analysis.permute import NoLeak, holds_classes, no_leak, permute_labels
from headscope.analysis.retrain import train_again, trains_again
from headscope.analysis.stored import stored
from headscope.analysis.units import Samples, read_samples, run_facts
from headscope.errors import InputError
from headscope.metrics import slice_units, subject_level
from headscope.record import Run

Array = NDArray[Any]
SCORES = (
    "slice_accuracy",
    "slice_balanced_accuracy",
    "subject_accuracy",
    "subject_balanced_accuracy",
)
AGAIN = "classifier trained again on stored features"


@dataclass(frozen=True)
class PermutedScore:
    """A score of the test subset as observed, and with permuted labels."""

    observed: float
    permuted: tuple[float, ...]

    @cached_property
    def mean(self) -> float:
        """Centre of the permuted scores: the chance level of this design."""
        return float(np.mean(self.permuted)) if self.permuted else float("nan")

    @property
    def low(self) -> float:
        """Their 2.5% quantile."""
        return float(np.quantile(self.permuted, 0.025)) if self.permuted else float("nan")

    @property
    def high(self) -> float:
        """Their 97.5% quantile."""
        return float(np.quantile(self.permuted, 0.975)) if self.permuted else float("nan")

    @property
    def p(self) -> float:
        """(b + 1) / (R + 1), b of R permutations reaching what was observed.

        Source: Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9(1), 39.
        """
        reached = sum(value >= self.observed - 1e-12 for value in self.permuted)
        return (reached + 1) / (len(self.permuted) + 1)


@dataclass(frozen=True)
class PermutationTest:
    """A run beside the same training on permuted labels; scores by name, of `SCORES`.

    source says how those were trained: the classifier on stored features, or all of it.
    labels are keys of the permutations, the same for two runs where all their labels are; no_leak
    says where the mean balanced slice accuracy is to be expected if nothing leaks.
    """

    run: str
    architecture: str
    variant: str
    split: str
    seed: int
    classes: int
    draws: int
    source: str
    scores: dict[str, PermutedScore]
    labels: tuple[str, ...] = ()
    no_leak: NoLeak | None = None


@stored
def permutation_test(
    run: Run, *, permutations: int = 200, permuted: Sequence[Run] = ()
) -> PermutationTest | None:
    """Test a run's scores against permuted labels; None where there are none.

    Of a frozen run the classifier is trained `permutations` times on its stored features, by the
    run's own recipe; of any other, the runs of `permuted` are read, which were trained whole.
    Those of them whose test lacks a class are left out.
    """
    samples = read_samples(run)
    if not samples.named:
        return None
    rows, aggregate = samples.rows("test"), str(run.settings.get("aggregate", "mean"))
    classes = np.unique(samples.label)
    if not holds_classes(samples.label, [(rows, classes)]):
        raise InputError("The test subset lacks a class, so it has no balanced accuracy.")
    permuted = [
        other for other in permuted if holds_classes(other.features["label"], [(rows, classes)])
    ]
    if trains_again(run):
        labels = permute_labels(
            samples.label, samples.subject, samples.session, permutations, subset=samples.subset
        )
        logits = retrained_logits(run, samples, labels)
        source = AGAIN
    elif permuted:
        labels = np.stack([other.features["label"] for other in permuted], axis=1)  # (N, R)
        logits = np.stack([other.features["logits"][rows] for other in permuted])  # (R, n, K)
        source = f"trained again whole, {len(permuted)} times"
    else:
        return None
    null = [
        accuracies(logits[r], labels[rows, r].astype(int), samples.subject[rows], aggregate)
        for r in range(labels.shape[1])
    ]
    calls = np.stack([part.argmax(axis=1).astype(np.int16) for part in logits])  # (R, n)
    observed = accuracies(
        samples.logits[rows], samples.label[rows], samples.subject[rows], aggregate
    )
    return PermutationTest(
        **run_facts(run),
        classes=samples.classes,
        draws=labels.shape[1],
        source=source,
        scores={
            name: PermutedScore(observed[name], tuple(values[name] for values in null))
            for name in SCORES
        },
        labels=tuple(_key(column) for column in labels.T),
        no_leak=no_leak(calls, labels[rows], samples.subject[rows], samples.session[rows]),
    )


def _key(label: Array) -> str:
    return hashlib.sha256(label.astype("<i4").tobytes()).hexdigest()[:12]


def retrained_logits(run: Run, samples: Samples, labels: Array) -> Array:
    """Return logits (R, n, K) of the test slices after training again on each of labels (N, R)."""
    weight, bias = train_again(run, labels)
    test = samples.rows("test")
    logits = np.empty((len(weight), len(test), samples.classes), dtype=np.float32)
    for part, block in row_blocks(samples.features, test, np.float32):
        logits[:, part] = np.einsum("nd,rkd->rnk", block, weight, optimize=True)
    logits += bias[:, None, :]
    return logits


def accuracies(
    logits: Array, label: Array, subject: Array, aggregate: str = "mean"
) -> dict[str, float]:
    """Return accuracy and balanced accuracy of n slices and of their subjects."""
    slices = slice_units(label, logits, subject)
    scores = {}
    for level, units in (("slice", slices), ("subject", subject_level(slices, aggregate))):
        correct, counts = units.correct, np.bincount(units.labels)
        scores[f"{level}_accuracy"] = float(correct.mean())
        recalls = np.bincount(units.labels, correct)[counts > 0] / counts[counts > 0]
        scores[f"{level}_balanced_accuracy"] = float(np.mean(recalls))
    return scores
