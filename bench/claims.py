"""How often pooled folds are called better than chance: at an AUC of 0.5, and with signal.

python bench/claims.py [--rounds 1000] [--trained]

Five folds of 24 or of 8 subjects of two classes; each fold's scores have a scale and a shift of
their own, as trainings have. Claims are those of the verdict (`against_chance`). Coverage is that
of the pooled subject accuracy's interval, of folds whose subjects are predicted by margins.
With --trained, scores are instead those of ridge heads trained over the folds on noise.
"""

import argparse

import numpy as np
from scipy import stats

from figure import Figure
from headscope.analysis.results.chance import against_chance
from headscope.analysis.results.pooled import Pool, Test
from headscope.metrics import slice_units, subject_level, way_of

FOLDS, SLICES = 5, 10


def draw_pool(rng, per_fold, auc):
    """Return folds of one seed: 10 slices per subject, half of a slice's noise its subject's."""
    distance = np.sqrt(2) * stats.norm.ppf(auc) * np.sqrt(0.5 + 0.5 / SLICES)
    tests = []
    for fold in range(FOLDS):
        owner = np.repeat(np.arange(per_fold), SLICES)
        labels = owner % 2
        noise = np.sqrt(0.5) * (rng.normal(size=per_fold)[owner] + rng.normal(size=len(owner)))
        margin = (noise + distance * (labels - 0.5)) * rng.uniform(0.5, 2)
        logits = np.stack([-margin / 2, margin / 2], axis=1)
        slices = slice_units(labels, logits, fold * per_fold + owner)
        tests.append(Test(slices, subject_level(slices, "logits")))
    subjects = np.arange(FOLDS * per_fold)
    return Pool((tuple(tests),), subjects.astype(str), subjects % per_fold % 2, 0.25)


def claims(per_fold, auc, rounds, seed=0):
    """Return the share of rounds called better than chance."""
    rng = np.random.default_rng([seed, per_fold, round(100 * auc)])
    return np.mean([against_chance(draw_pool(rng, per_fold, auc)).better for _ in range(rounds)])


def coverage(per_fold, auc, rounds, seed=1):
    """Return the share of rounds whose interval of subject accuracy holds the truth."""
    rng = np.random.default_rng([seed, per_fold, round(100 * auc)])
    truth = stats.norm.cdf(stats.norm.ppf(auc) / np.sqrt(2))  # of a subject's mean margin
    held = 0
    for _ in range(rounds):
        pool = draw_pool(rng, per_fold, auc)
        interval = pool.draw("subject", "accuracy").interval(way_of("subject", "accuracy"))
        held += interval[0] <= truth <= interval[1]
    return held / rounds


def trained(per_fold, folds, rounds, share=0.7, width=500, seed=0):
    """Return how often heads trained on noise rank above and below chance, and the spread of z."""
    rng, z = np.random.default_rng(seed), []
    labels = np.arange(per_fold * folds) % 2
    place = np.arange(len(labels)) // per_fold
    for _ in range(rounds):
        features, total, variance = rng.normal(size=(len(labels), width)), 0.0, 0.0
        for fold in range(folds):
            sides = [
                rng.permutation(np.flatnonzero((labels == k) & (place != fold))) for k in (0, 1)
            ]
            inside = np.concatenate([side[: int(share * len(side))] for side in sides])
            X, tested = features[inside], place == fold
            kernel = X @ X.T + 100 * np.eye(len(X))
            scores = features[tested] @ X.T @ np.linalg.solve(kernel, 2.0 * labels[inside] - 1)
            ranks = stats.rankdata(scores) - (per_fold + 1) / 2
            total += ranks[labels[tested] == 1].sum()
            variance += ranks.var(ddof=1) * per_fold / 4
        z.append(total / np.sqrt(variance))
    above, below = np.mean(np.array(z) > 1.96), np.mean(np.array(z) < -1.96)
    return above, below, np.std(z)


def short(place, rounds=200):
    """Return the figures of 200 rounds: of chance, with room for the scatter of as many."""
    share, held = claims(24, 0.5, rounds), coverage(24, 0.5, rounds)
    return [
        Figure("chance called better than chance", 100 * share, "%", at_most=9),
        Figure("interval of pooled accuracy covers", 100 * held, "%", at_least=91),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--trained", action="store_true")
    options = parser.parse_args()
    if options.trained:
        print("| folds × subjects | above chance | below | spread of z |\n|---|---|---|---|")
        for folds, per_fold in ((5, 24), (3, 8)):
            above, below, spread = trained(per_fold, folds, options.rounds)
            print(
                f"| {folds} × {per_fold} | {above:.1%} | {below:.1%} | {spread:.2f} |", flush=True
            )
        return
    print("| folds × subjects | true AUC | called better than chance | coverage of accuracy |")
    print("|---|---|---|---|")
    for per_fold in (24, 8):
        for auc in (0.5, 0.74):
            share = claims(per_fold, auc, options.rounds)
            held = coverage(per_fold, auc, options.rounds)
            print(f"| {FOLDS} × {per_fold} | {auc} | {share:.1%} | {held:.1%} |", flush=True)


if __name__ == "__main__":
    main()
