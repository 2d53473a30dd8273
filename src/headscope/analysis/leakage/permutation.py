"""What a run's accuracy is worth: the same training on labels that say nothing.

Labels are permuted by subject, so that slices of one head stay alike: a split by subject falls
back to chance, while under a split by slice the network still knows the head by its other slices.
Source: Yagis et al. 2021, Scientific Reports 11, 22544 (96% under a slice split with random
labels, 50% under a subject split).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.permute import NoLeak, holds_classes, no_leak, permute_labels
from headscope.analysis.retrain import head_recipe, train_heads, trains_again
from headscope.analysis.units import Slices, run_slices
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
class Null:
    """A score of the test subset as observed, and with permuted labels."""

    observed: float
    permuted: tuple[float, ...]

    @cached_property
    def mean(self) -> float:
        """Centre of the permuted scores: the chance level of this very design."""
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
    """A run beside its likes on permuted labels; scores by name, of `SCORES`.

    source says how the likes were trained: the classifier on stored features, or all of it.
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
    scores: dict[str, Null]
    labels: tuple[str, ...] = ()
    no_leak: NoLeak | None = None


def permutation_test(
    run: Run, *, permutations: int = 200, permuted: Sequence[Run] = ()
) -> PermutationTest | None:
    """Test a run's scores against permuted labels; None where there is nothing to test against.

    Of a frozen run the classifier is trained `permutations` times on its stored features, by the
    run's own recipe; of any other, the runs of `permuted` are read, which were trained whole.
    Those of them whose test lacks a class are left out.

    Raises
    ------
    InputError
        The test subset lacks a class, or no permutation leaves every class in training and test.
    """
    slices = run_slices(run)
    if not slices.named:
        return None
    rows, aggregate = slices.rows("test"), str(run.settings.get("aggregate", "mean"))
    classes = np.unique(slices.label)
    if not holds_classes(slices.label, [(rows, classes)]):
        raise InputError("The test subset lacks a class, so it has no balanced accuracy.")
    permuted = [
        each for each in permuted if holds_classes(each.features["label"], [(rows, classes)])
    ]
    if trains_again(run):
        labels = permute_labels(
            slices.label, slices.subject, slices.session, permutations, subset=slices.subset
        )
        logits = retrained_logits(run, slices, labels)
        source = AGAIN
    elif permuted:
        labels = np.stack([each.features["label"] for each in permuted], axis=1)  # (N, R)
        logits = np.stack([each.features["logits"][rows] for each in permuted])  # (R, n, K)
        source = f"trained again whole, {len(permuted)} times"
    else:
        return None
    null = [
        accuracies(logits[r], labels[rows, r], slices.subject[rows], aggregate)
        for r in range(labels.shape[1])
    ]
    observed = accuracies(slices.logits[rows], slices.label[rows], slices.subject[rows], aggregate)
    return PermutationTest(
        run=run.name,
        architecture=str(run.settings["architecture"]),
        variant=run.setting.variant,
        split=str(run.settings["split"]),
        seed=int(run.settings["seed"]),
        classes=slices.classes,
        draws=labels.shape[1],
        source=source,
        scores={name: Null(observed[name], tuple(each[name] for each in null)) for name in SCORES},
        labels=tuple(_key(column) for column in labels.T),
        no_leak=no_leak(
            logits.argmax(axis=2), labels[rows], slices.subject[rows], slices.session[rows]
        ),
    )


def _key(label: Array) -> str:
    return hashlib.sha256(label.astype("<i4").tobytes()).hexdigest()[:12]


def retrained_logits(run: Run, slices: Slices, labels: Array) -> Array:
    """Return logits (R, n, K) of the test slices after training anew on each of labels (N, R)."""
    weight, bias = train_heads(
        slices.features, labels, slices.rows("train"), head_recipe(run), slices.rows("val")
    )
    read = slices.features[slices.rows("test")]  # (n, D)
    return np.einsum("nd,rkd->rnk", read, weight, optimize=True) + bias[:, None, :]


def accuracies(
    logits: Array, label: Array, subject: Array, aggregate: str = "mean"
) -> dict[str, float]:
    """Return accuracy and balanced accuracy of n slices and of their subjects."""
    slices = slice_units(label, logits, subject)
    scores = {}
    for level, units in (("slice", slices), ("subject", subject_level(slices, aggregate))):
        scores[f"{level}_accuracy"] = float(units.correct.mean())
        recalls = [float(units.correct[units.labels == k].mean()) for k in np.unique(units.labels)]
        scores[f"{level}_balanced_accuracy"] = float(np.mean(recalls))
    return scores
