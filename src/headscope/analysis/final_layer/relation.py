"""Whether the learned parts of two class rows are related beyond what labels without meaning give.

The D entries of a class row are no independent draws: features correlate, and a few directions
carry most of their variance, so a row trained on random labels points along those few. How far two
such rows correlate by chance depends on the features, the subjects and the training, and no
number of effective features that was tried describes it (`bench/weight_tests.py`). So the head is
trained again, by its recipe and from its start, on labels permuted by subject.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.final_layer.null import Array, Pair
from headscope.analysis.permute import label_type, permute_labels
from headscope.analysis.retrain import HeadRecipe, head_recipe, train_heads, trains_again
from headscope.analysis.units import Samples, read_samples
from headscope.record import Run
from headscope.threads import one_blas_thread

ALPHA = 0.05  # over all pairs of a head
MOST_HEADS, FEWEST_HEADS = 99, 39
WORK = 1e11  # multiplications of one reference: a few seconds
STREAM = 0x5E1F  # sets these permutations apart from those of `permutation_test`
SAME_R, SAME_SPREADS = 0.01, 0.1  # how near a retrained head comes to the recorded one
ROUNDING = 1e-6

TWO_CLASSES = "Of two classes the learned parts are opposite whatever was learned: −1 says nothing."
NO_FEATURES = (
    "Whether two classes are related is not judged from weights alone: how far unrelated rows "
    "correlate by chance depends on the features that the head was trained on."
)


@dataclass(frozen=True, eq=False)
class LearnedNull:
    """Correlations of learned parts in heads retrained on true and on permuted labels.

    Attributes
    ----------
    correlations
        (1 + R, K, K): of the true labels, then of R labellings permuted by subject. Empty where
        there is no reference.
    reason
        Why there is none; '' where there is.
    """

    correlations: Array
    reason: str = ""

    @property
    def heads(self) -> int:
        """R."""
        return max(len(self.correlations) - 1, 0)


@dataclass(frozen=True)
class Relation:
    """A pair's correlation of learned parts beside that of permuted labels.

    `expected`, `low` and `high` are the mean, the 2.5% and the 97.5% quantile of the permuted;
    `p` is adjusted for all pairs of the head.
    """

    expected: float
    low: float
    high: float
    p: float


def no_reference(reason: str) -> LearnedNull:
    """Return a null without heads, and why."""
    return LearnedNull(np.empty((0, 0, 0)), reason)


@one_blas_thread
def learned_null(run: Run) -> LearnedNull:
    """Retrain a frozen run's head on labels permuted by subject, up to 99 times.

    The labels are permuted among the subjects of each subset, so that training keeps its number
    of subjects per class. The number of heads is 99, or what 10¹¹ multiplications pay for;
    the permutations are those of the run's seed. Source: Winkler et al. 2014, NeuroImage 92:381
    (permutation of exchangeable blocks).
    """
    weight = run.head["weight"]
    K = len(weight)
    if K == 2:
        return no_reference(TWO_CLASSES)
    reason = _obstacle(run)
    if reason:
        return no_reference(reason)
    samples, recipe = read_samples(run, examples=True), head_recipe(run)
    heads = head_count(len(samples.rows("train")), recipe)
    if heads < FEWEST_HEADS:
        return no_reference(
            f"Retraining {FEWEST_HEADS} heads of {K} classes on labels permuted by subject would "
            "take too long, so whether two classes are related is not judged."
        )
    labels = permuted_within_subsets(samples, heads, int(run.settings["seed"]))
    labels = np.column_stack([samples.label, labels])
    val = samples.rows("val") if recipe.validates else None
    weights, _ = train_heads(samples.features, labels, samples.rows("train"), recipe, val)
    null = LearnedNull(learned_correlations(weights))
    return null if _reproduces(null, weight) else no_reference(NOT_REPRODUCED)


def head_count(train_slices: int, recipe: HeadRecipe) -> int:
    """Return how many heads are retrained: 99, or fewer where that takes too long."""
    K, D = recipe.weight.shape
    work = 2.0 * train_slices * K * (D + 1) * max(len(recipe.learning_rates), 1)
    return int(min(MOST_HEADS, WORK / max(work, 1.0)))


def learned_correlations(weights: NDArray[np.floating]) -> Array:
    """Correlate the rows of R heads (R, K, D) less their mean row: (R, K, K).

    NaN where a row equals the mean row but for a constant.
    """
    W = np.asarray(weights, dtype=np.float64)
    W = W - W.mean(axis=1, keepdims=True)
    W = W - W.mean(axis=2, keepdims=True)
    gram = W @ W.swapaxes(1, 2)  # (R, K, K)
    variance = np.diagonal(gram, axis1=1, axis2=2)  # (R, K)
    product = variance[:, :, None] * variance[:, None, :]
    correlations = np.full(gram.shape, nan)
    np.divide(gram, np.sqrt(product), out=correlations, where=product > 0)
    return correlations.clip(-1, 1)


def relation(null: LearnedNull, pair: Pair, pairs: Sequence[Pair]) -> Relation:
    """Return how a pair's learned correlation stands among those of permuted labels.

    Each pair's correlation is standardised by its mean and standard deviation over all
    labellings, the true one among them; p is the share of labellings whose largest distance over
    `pairs` reaches this pair's. Exact whatever the features are if the labels of subjects are
    exchangeable. Source: Westfall & Young 1993, Resampling-Based Multiple Testing (single-step
    maxT); Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9(1), 39.
    """
    if not null.heads:
        return Relation(nan, nan, nan, nan)
    rows, columns = zip(*dict.fromkeys([*pairs, pair]), strict=True)
    r = null.correlations[:, rows, columns]  # (1 + R, pairs)
    permuted = null.correlations[1:, pair[0], pair[1]]
    if np.isnan(r).any():
        return Relation(nan, nan, nan, nan)
    spread = r.std(axis=0)
    moved = spread > ROUNDING  # a correlation that no labelling changes carries no information
    distance = np.zeros_like(r)
    np.divide(np.abs(r - r.mean(axis=0)), spread, out=distance, where=moved)
    at = list(dict.fromkeys([*pairs, pair])).index(pair)
    reached = distance.max(axis=1) >= distance[0, at] - ROUNDING
    low, high = np.quantile(permuted, [0.025, 0.975])
    return Relation(float(permuted.mean()), float(low), float(high), float(reached.mean()))


NOT_REPRODUCED = (
    "Whether two classes are related is not judged: training again as recorded does not give "
    "this head, so heads retrained on permuted labels are no reference for it."
)


def _obstacle(run: Run) -> str:
    """Say why a run's head cannot be retrained on permuted labels; '' if it can."""
    if not {"regime", "batch_size", "momentum", "weight_decay", "seed"} <= run.settings.keys():
        cause = "the record does not say how the head was trained"
    elif not {"initial_weight", "initial_bias"} <= run.head.keys():
        cause = "the head before training is not recorded, so it cannot be trained again"
    elif not trains_again(run):
        cause = (
            f"in the regime '{run.settings['regime']}' the features were trained on the true "
            "labels, so no head retrained on them stands for chance"
        )
    elif not read_samples(run).named:
        cause = "the slices name no subjects by which labels could be permuted"
    else:
        return ""
    return f"Whether two classes are related is not judged: {cause}."


def permuted_within_subsets(samples: Samples, draws: int, seed: int) -> NDArray[np.int64]:
    """Return labels (N, draws), permuted among subjects that are in the same subsets.

    Splits are stratified by class: permuted among all subjects, training would have other numbers
    of subjects per class than it was assigned.
    """
    membership = np.zeros(samples.subjects, dtype=np.int64)  # bits: the subsets of each subject
    for bit, name in enumerate(np.unique(samples.subset)):
        membership[np.unique(samples.subject[samples.subset == name])] |= 1 << bit
    label = samples.label.astype(label_type(samples.label))
    labels = np.repeat(label[:, np.newaxis], draws, axis=1)
    for group in np.unique(membership).tolist():
        rows = np.flatnonzero(membership[samples.subject] == group)
        subject = np.unique(samples.subject[rows], return_inverse=True)[1]
        session = np.unique(samples.session[rows], return_inverse=True)[1]
        stream = STREAM + 2**32 * (64 * seed + group)
        labels[rows] = permute_labels(samples.label[rows], subject, session, draws, stream)
    return labels


def _reproduces(null: LearnedNull, weight: NDArray[np.floating]) -> bool:
    """Whether the head retrained on the true labels is the recorded one, by its correlations."""
    recorded = learned_correlations(weight[np.newaxis])[0]
    distance = np.abs(null.correlations[0] - recorded)
    allowed = np.maximum(SAME_R, SAME_SPREADS * null.correlations[1:].std(axis=0))
    return bool((distance <= allowed).all() or np.isnan(recorded).all())
