"""How often permuted labels are called a leak where there is none, at few subjects of a class.

    python bench/false_alarms.py [--rounds 1000] [--rare 3] [--rest 60] [--seeds 1] [--plain]

A round draws a cohort of random features, each subject with its own place, splits it 5:2:3 by
subject within class, trains heads on permuted labels by the recipe of a frozen run, and judges
them as the analysis does: serious beyond a false alarm in 1,000. --plain judges as before: tests
may lack a class, and the tail is normal with the scatter of the permutations themselves. The lean
is added to the logit of the rare class: as drawn, heads call nearly all subjects the other class.
"""

import argparse
import time

import numpy as np
from scipy import stats

from figure import Figure
from headscope.analysis.leakage.findings import ALARM, centre
from headscope.analysis.leakage.permutation import PermutationTest, PermutedScore, permute_labels
from headscope.analysis.permute import no_leak
from headscope.analysis.retrain import HeadRecipe, train_heads

WIDTH, SLICES, EPOCHS = 24, 2, 5


def draw_cohort(rng, rare, rest):
    """Return features (N, D), the label (N,) and subject (N,) of each slice."""
    subject = np.repeat(np.arange(rare + rest), SLICES)
    places = rng.normal(0, 2, (rare + rest, WIDTH))
    features = places[subject] + rng.normal(size=(len(subject), WIDTH))
    return features.astype(np.float32), (subject >= rare).astype(int), subject


def draw_split(rng, label, subject):
    """Return the subset of each slice (N,): 5:2:3 of the subjects of each class."""
    subset = np.empty(len(label), dtype="<U5")
    for k in (0, 1):
        people = rng.permutation(np.unique(subject[label == k]))
        train, test = max(1, round(0.5 * len(people))), max(1, round(0.3 * len(people)))
        marks = ["train"] * train + ["val"] * (len(people) - train - test) + ["test"] * test
        for person, mark in zip(people, marks, strict=True):
            subset[subject == person] = mark
    return subset


def balanced(calls, labels):
    """Return the balanced accuracy of each row, over the classes that its labels hold."""
    with np.errstate(invalid="ignore"):
        recalls = [
            ((calls == k) & (labels == k)).sum(axis=1) / (labels == k).sum(axis=1) for k in (0, 1)
        ]
    return np.nanmean(recalls, axis=0)


def clean_test(rng, features, label, subject, draws, lean, plain):
    """Return the permutation test of one run under a split by subject, which leaks nothing."""
    subset = draw_split(rng, label, subject)
    train, test = np.flatnonzero(subset == "train"), np.flatnonzero(subset == "test")
    labels = permute_labels(
        label, subject, subject, draws, int(rng.integers(2**31)), None if plain else subset
    )
    start = rng.uniform(-0.3, 0.3, (2, WIDTH)).astype(np.float32)
    recipe = HeadRecipe((0.05,) * EPOCHS, 8, 0.9, 1e-4, 0, start, np.zeros(2, np.float32))
    weight, bias = train_heads(features, labels, train, recipe)
    logits = np.einsum("nd,rkd->rnk", features[test], weight) + bias[:, None]
    logits[:, :, 0] += lean
    calls, labels = logits.argmax(axis=2), labels[test]  # (R, n), (n, R)
    expected = None if plain else no_leak(calls, labels, subject[test], subject[test])
    null = {"slice_balanced_accuracy": PermutedScore(0.5, tuple(balanced(calls, labels.T)))}
    return PermutationTest("", "", "", "subject", 0, 2, draws, "", null, no_leak=expected)


def alarms(rounds, rare, rest, draws=200, seeds=1, lean=0.0, plain=False, first=0):
    """Return the mean figure, and the shares of rounds above the limits at ALARM and at 5%."""
    means, above = [], {ALARM: [], 0.05: []}
    for number in range(first, first + rounds):
        rng = np.random.default_rng([number, rare, rest])
        features, label, subject = draw_cohort(rng, rare, rest)
        found = centre(
            [clean_test(rng, features, label, subject, draws, lean, plain) for _ in range(seeds)]
        )
        means.append(found.mean)
        for alarm, hits in above.items():
            normal = 0.5 + stats.norm.isf(alarm) * found.error
            limit = normal if plain else found.limit(alarm)
            hits.append(found.mean > limit + 1e-9)
    return float(np.mean(means)), {alarm: float(np.mean(hits)) for alarm, hits in above.items()}


def short(place, rounds=60):
    """Return the alarms of 20 permutations where nothing leaks."""
    mean, shares = alarms(rounds, 3, 60, 20)
    return [
        Figure("mean of permuted labels", 100 * mean, "%", 48, 52),
        Figure("alarms at 1 in 1,000", 100 * shares[ALARM], "%", at_most=2),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--rare", type=int, default=3)
    parser.add_argument("--rest", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    print("| permutations | lean to the rare class | mean | alarms at 1 in 1,000 | at 5% |")
    print("|---|---|---|---|---|")
    for draws, lean in ((200, 0.0), (200, 12.0), (20, 0.0), (20, 12.0)):
        begin = time.perf_counter()
        mean, shares = alarms(
            options.rounds, options.rare, options.rest, draws, options.seeds, lean, options.plain
        )
        cells = [draws, lean, f"{100 * mean:.1f}%", f"{100 * shares[ALARM]:.2f}%",
                 f"{100 * shares[0.05]:.1f}%"]  # fmt: skip
        seconds = time.perf_counter() - begin
        print(f"| {' | '.join(map(str, cells))} | {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
