"""Size and power of what is said of final layers, on heads trained on random subject labels.

Each cohort has features of its own: 48 subjects of 8 slices, D features that are mixtures of 64
directions (variance of direction j proportional to j^−2, half of it between subjects) and a tenth
of noise, cut off at 0 as a ReLU does. Labels are random by subject. A head is trained on them by
`analysis.heads.train_heads`: softmax cross-entropy, SGD with momentum 0.9, weight decay 1e-4. A
test of size 5% calls some pair of rows related in 5% of such heads. Beside the test that is in use
stand the ones that were tried:

- Fisher's z with D degrees of freedom: features as independent draws (in use before)
- the same with the participation ratio of the covariance of the training features, and of their
  means per subject, in place of D
- the same with the effective number of directions of the learned rows themselves, weighted by what
  they carry (unbiased for normal coefficients)
- a random rotation of each learned row in the D-dimensional space, 199 per head

Power: the classes 0 and 1 share a direction that the others do not have, and are called related.
A head that has fitted that direction goes on to tell the two apart, and its rows return to
about −1 / (K − 1): then the rows hold hardly any relation to be found, and the power is near 0.

    python bench/weight_tests.py [--heads 600] > bench/results/weight_tests.md
"""

import argparse
import time
from itertools import combinations, product
from math import comb, sqrt

import numpy as np
from scipy import stats

from figure import Figure
from headscope.analysis import head_analysis, sum_shrinkage
from headscope.analysis.final_layer.relation import LearnedNull, learned_correlations, relation
from headscope.analysis.retrain import HeadRecipe, train_heads

SUBJECTS, SLICES, EPOCHS, BATCH = 48, 8, 20, 32
LATENT, NOISE = 64, 0.1
HEADS = 59  # retrained per cohort: p takes the value 0.05 itself
RATES = (0.003, 0.03)
PLANTED = (0.1, 0.3)  # of the spread of a feature
ALPHA = 0.05


def draw_features(rng, width, exponent=2.0):
    """Return features (N, D) of one cohort and the subject of each slice (N,)."""
    subject = np.repeat(np.arange(SUBJECTS), SLICES)
    spread = np.arange(1, LATENT + 1) ** (-exponent / 2)  # (64,) standard deviations
    between = rng.normal(size=(SUBJECTS, LATENT))[subject]
    scores = (between + rng.normal(size=(len(subject), LATENT))) * spread
    mixture = rng.normal(size=(LATENT, width)) / np.sqrt(2 * (spread**2).sum())
    noise = NOISE * rng.normal(size=(len(subject), width))
    return np.maximum(scores @ mixture + noise, 0).astype(np.float32), subject


def draw_labels(rng, classes, subject, draws):
    """Return labels (N, draws): as many subjects per class as possible, at random."""
    dealt = np.arange(SUBJECTS) % classes
    return np.stack([rng.permutation(dealt)[subject] for _ in range(draws)], axis=1)


def draw_recipe(rng, classes, width, rate):
    bound = sqrt(6 / (width + classes))  # Glorot and Bengio 2010
    weight = rng.uniform(-bound, bound, (classes, width)).astype(np.float32)
    rates = tuple(rate * 0.9 ** (epoch // 10) for epoch in range(EPOCHS))
    bias = np.zeros(classes, dtype=np.float32)
    return HeadRecipe(rates, BATCH, 0.9, 1e-4, int(rng.integers(2**31)), weight, bias)


def draw_heads(rng, classes, width, rate, heads, planted=0.0):
    """Return features, subject, recipe, and weights (1 + heads, K, D), the observed head first."""
    features, subject = draw_features(rng, width)
    labels = draw_labels(rng, classes, subject, 1 + heads)
    shared = np.abs(rng.normal(size=width)).astype(np.float32)
    features = features + planted * shared * (labels[:, :1] < 2)
    recipe = draw_recipe(rng, classes, width, rate)
    weights, _ = train_heads(features, labels, np.arange(len(features)), recipe)
    return features, subject, recipe, weights


def participation(points):
    """Return (tr C)² / tr C² of the covariance C of points (n, D)."""
    centred = points - points.mean(axis=0)
    gram = (centred @ centred.T).astype(np.float64)
    return np.trace(gram) ** 2 / (gram**2).sum()


def directions_of(rows, features):
    """Return the effective number of directions of learned rows (K, D), unbiased if normal."""
    free = len(rows) - 1
    centred = (features - features.mean(axis=0)).astype(np.float64)
    value, vector = np.linalg.eigh(centred @ centred.T)
    axes = (centred.T @ vector[:, value > 1e-9 * value[-1]]).T  # (rank, D)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    energy = ((rows @ axes.T) ** 2).sum(axis=0) / free
    return energy.sum() ** 2 / ((energy**2).sum() * free / (free + 2))


def fisher(r, effective, classes):
    """Whether any of the pairs departs from −1 / (K − 1) by Fisher's z."""
    if effective <= 4:
        return False
    r = np.clip(r, -1 + 1e-12, 1 - 1e-12)
    z = np.abs(np.arctanh(r) - np.arctanh(-1 / (classes - 1))) * sqrt(effective - 3)
    return bool(z.max() > stats.norm.isf(ALPHA / 2 / comb(classes, 2)))


def rotated(rng, rows, pairs, draws=199):
    """Whether any pair is related by random rotations of each row (K, D) about the origin."""
    norms = np.linalg.norm(rows - rows.mean(axis=1, keepdims=True), axis=1)
    drawn = rng.normal(size=(draws, *rows.shape))
    drawn *= (norms / np.linalg.norm(drawn, axis=2))[:, :, None]
    r = np.concatenate([learned_correlations(rows[None]), learned_correlations(drawn)])
    null = LearnedNull(r)
    return any(relation(null, pair, pairs).p <= ALPHA for pair in pairs)


def judge(rng, classes, width, rate):
    """Return which tests call some pair of one random head related."""
    features, subject, _, weights = draw_heads(rng, classes, width, rate, HEADS)
    W = weights[0].astype(np.float64)
    pairs = list(combinations(range(classes), 2))
    null = LearnedNull(learned_correlations(weights))
    learned = W - W.mean(axis=0)
    r = learned_correlations(W[None])[0][tuple(zip(*pairs, strict=True))]
    means = np.stack([features[subject == s].mean(axis=0) for s in range(SUBJECTS)])
    return {
        "retrained": any(relation(null, pair, pairs).p <= ALPHA for pair in pairs),
        "D": fisher(r, width, classes),
        "slices": fisher(r, participation(features), classes),
        "subjects": fisher(r, participation(means), classes),
        "directions": fisher(r, directions_of(learned, features), classes),
        "rotated": rotated(rng, learned, pairs),
    }


def describe(rng, classes, width, rate):
    """Return whether some pair of one random head departs or is related, and F tests of a fit."""
    _, _, recipe, weights = draw_heads(rng, classes, width, rate, 0)
    start, shrinkage = recipe.weight.astype(np.float64), recorded_shrinkage(recipe)
    head = head_analysis(weights[0], initial=start, shrinkage=shrinkage)
    fits = head.pairs[0].fits
    return (
        {"departs": any(pair.departs for pair in head.pairs)}
        | {f"F{fit.degree}": fit.p <= ALPHA for fit in fits}
        | {f"shuffled{fit.degree}": fit.shuffled_p <= ALPHA for fit in fits}
    )


def recorded_shrinkage(recipe):
    steps = -(-SUBJECTS * SLICES // recipe.batch_size)
    rates = np.repeat(recipe.learning_rates, steps)
    return sum_shrinkage(rates, recipe.weight_decay, recipe.momentum)


def shares(ask, classes, width, rate, cohorts, seed=0):
    """Return the share of random heads of which each thing is said, by its name."""
    rng = np.random.default_rng((seed, classes, width, round(1e6 * rate)))
    results = [ask(rng, classes, width, rate) for _ in range(cohorts)]
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def power(classes, width, rate, cohorts, planted, seed=1):
    """Return the share of heads whose planted pair (0, 1) is called related."""
    rng = np.random.default_rng((seed, classes, width, round(1e6 * rate)))
    pairs, hits = list(combinations(range(classes), 2)), 0
    for _ in range(cohorts):
        *_, weights = draw_heads(rng, classes, width, rate, HEADS, planted)
        hits += relation(LearnedNull(learned_correlations(weights)), (0, 1), pairs).p <= ALPHA
    return hits / cohorts


def short(place):
    """Return how often a pair of random rows is called related, over 60 heads."""
    said = shares(judge, 3, 512, RATES[0], 60)
    return [
        Figure("called related by retrained heads", 100 * said["retrained"], "%", at_most=12),
        Figure("called related by Fisher's test", 100 * said["D"], "%"),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", type=int, default=600)
    parser.add_argument("--wide-heads", type=int, default=100)
    parser.add_argument("--said-heads", type=int, default=200)
    parser.add_argument("--power-heads", type=int, default=25)
    options = parser.parse_args()
    begun = time.perf_counter()
    print(f"# Tests on weights: {SUBJECTS} subjects of {SLICES} slices, {EPOCHS} epochs, labels "
          "random by subject\n")  # fmt: skip
    print_related(512, options.heads)
    print_related(2048, options.wide_heads)
    print_said(512, options.said_heads)
    print_power(512, options.power_heads)
    print(f"\n{time.perf_counter() - begun:.0f} s")


def print_related(width, cohorts):
    print(f"## Some pair of rows is called related, at a nominal 5%: D = {width:,}, "
          f"{cohorts:,} heads per row, seed 0, {HEADS} heads retrained for each\n")  # fmt: skip
    print("| classes | rate | retrained (in use) | Fisher, D | Fisher, ratio of slices "
          "| Fisher, ratio of subjects | Fisher, directions of the rows | rotation |")  # fmt: skip
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    names = ("retrained", "D", "slices", "subjects", "directions", "rotated")
    for K, rate in product((3, 5), RATES):
        shown = shares(judge, K, width, rate, cohorts)
        print(f"| {K} | {rate} | {cells(shown, names)}", flush=True)
    print("\nOf 2 classes nothing is called related.\n")


def print_said(width, cohorts):
    print("## Some pair departs; F tests of the first pair's fits at 5%, by their own p and by "
          f"999 shuffles: D = {width:,}, {cohorts:,} heads per row, seed 0\n")  # fmt: skip
    print("| classes | rate | departs | F, degree 2 | 3 | 4 | shuffled, degree 1 | 2 | 3 | 4 |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    names = ("departs", "F2", "F3", "F4", "shuffled1", "shuffled2", "shuffled3", "shuffled4")
    for K, rate in product((2, 3, 5), RATES):
        shown = shares(describe, K, width, rate, cohorts)
        print(f"| {K} | {rate} | {cells(shown, names)}", flush=True)


def print_power(width, cohorts):
    print(f"\n## Classes 0 and 1 share a direction, and are called related: D = {width:,}, "
          f"{cohorts:,} heads per row, seed 1\n")  # fmt: skip
    print("| classes | rate | " + " | ".join(f"{size} sd" for size in PLANTED) + " |")
    print("|--:|--:|" + "--:|" * len(PLANTED))
    for K, rate in product((3, 5), RATES):
        hits = [100 * power(K, width, rate, cohorts, size) for size in PLANTED]
        print(f"| {K} | {rate} | " + " | ".join(f"{hit:.0f}%" for hit in hits) + " |", flush=True)


def cells(shown, names):
    return " | ".join(f"{100 * shown[name]:.1f}%" for name in names) + " |"


if __name__ == "__main__":
    main()
