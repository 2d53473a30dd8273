"""How often pooled folds are called better than chance: at an AUC of 0.5, and with signal.

python bench/claims.py [--rounds 1000] [--trained]

Five folds of 24 or of 8 subjects of two classes; each fold's scores have a scale and a shift of
their own, as trainings have. Claims are those of the verdict (`against_chance`). Coverage is that
of the pooled subject accuracy's interval, of folds whose subjects are predicted by margins.
With --trained, scores are instead those of ridge heads trained over folds, or over repeated random
splits, on features of noise and with signal; claims by permuted labels, and as stretched
(`shared_training`).
"""

import argparse
from dataclasses import replace

import numpy as np
from scipy import stats

from figure import Figure
from headscope.analysis.results.chance import against_chance
from headscope.analysis.results.pooled import Pool, Test, shared_training
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
        interval = pool.draw("subject_accuracy").interval(way_of("subject_accuracy"))
        held += interval[0] <= truth <= interval[1]
    return held / rounds


def folds_of(rng, labels, folds, share):
    """Divide subjects into folds: which are tested, and a share of the others, by class, trains."""
    place = np.arange(len(labels)) % (len(labels) // folds * folds) // (len(labels) // folds)
    for fold in range(folds):
        sides = [rng.permutation(np.flatnonzero((labels == k) & (place != fold))) for k in (0, 1)]
        trains = np.concatenate([side[: round(share * len(side))] for side in sides])
        yield np.flatnonzero(place == fold), trains


def repeats_of(rng, labels, repeats, share):
    """Draw that many tests of 30% of the subjects, by class; a share of the others trains."""
    for _ in range(repeats):
        sides = [rng.permutation(np.flatnonzero(labels == k)) for k in (0, 1)]
        cuts = [round(0.3 * len(side)) for side in sides]
        trains = [
            side[n : n + round(share * (len(side) - n))]
            for side, n in zip(sides, cuts, strict=True)
        ]
        tests = [side[:n] for side, n in zip(sides, cuts, strict=True)]
        yield np.concatenate(tests), np.concatenate(trains)


def trained(subjects, networks, split, signal, rounds, share=0.7, width=500, seed=0):
    """Return how often ridge heads are called better and worse: by permuted labels, and stretched.

    split is `folds_of`, whose networks are one seed, or `repeats_of`, whose networks have one each.
    """
    rng = np.random.default_rng(seed)
    standings = {"permuted": [], "stretched": []}
    labels = np.arange(subjects) % 2
    for _ in range(rounds):
        features = rng.normal(size=(subjects, width))
        features[:, 0] += signal * (labels - 0.5)
        tests, ids = [], []
        for tested, trains in split(rng, labels, networks, share):
            X, y = features[trains], 2.0 * labels[trains] - 1
            scores = features[tested] @ X.T @ np.linalg.solve(X @ X.T + 100 * np.eye(len(X)), y)
            units = slice_units(labels[tested], np.stack([-scores, scores], axis=1), tested)
            tests.append(Test(units, units))
            ids.append((tested.astype(str), trains.astype(str)))
        seeds = (tuple(tests),) if split is folds_of else tuple((test,) for test in tests)
        pool = Pool(seeds, np.arange(subjects).astype(str), labels, 0.3)
        stretched = replace(pool, stretch=shared_training(ids))
        standings["permuted"].append(against_chance(pool).standing)
        standings["stretched"].append(against_chance(stretched).standing)
    return stretched.stretch, {
        name: [np.mean(np.array(side) == word) for word in ("above", "below")]
        for name, side in standings.items()
    }


TRAINED = (  # how subjects are divided, networks, subjects, distance of the classes
    (folds_of, 5, 120, 0.0),
    (folds_of, 3, 24, 0.0),
    (repeats_of, 5, 120, 0.0),
    (folds_of, 5, 120, 2.0),
    (folds_of, 5, 120, 4.0),
    (folds_of, 3, 24, 6.0),
)


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
        print("| networks | subjects | signal | stretch | above, permuted labels | below ", end="")
        print("| above, stretched | below |")
        print("|---|---|---|---|---|---|---|---|")
        for split, networks, subjects, signal in TRAINED:
            stretch, shares = trained(subjects, networks, split, signal, options.rounds)
            cells = " | ".join(f"{share:.1%}" for pair in shares.values() for share in pair)
            name = "folds" if split is folds_of else "repeats"
            print(
                f"| {networks} {name} | {subjects} | {signal} | {stretch:.2f} | {cells} |",
                flush=True,
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
