"""How long the figures of a run take: 2,000 draws of subjects, every figure, both levels.

python bench/bootstrap.py [--rounds 5]
"""

import argparse
import time

import numpy as np

from figure import Figure
from headscope.metrics import DRAWS, SCORES, subset_scores

CASES = ((56, 30, 2), (28, 30, 2), (403, 30, 2), (56, 30, 3), (56, 30, 10), (120, 15, 30))


def measure(subjects, slices, classes, rounds):
    """Return the least seconds of a round."""
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(subjects), slices)
    labels = owner % classes
    logits = rng.normal(size=(len(owner), classes)) + np.eye(classes)[labels]
    ids, spent = owner.astype(str), []
    for _ in range(rounds):
        start = time.process_time()
        subset_scores(labels, logits, ids)
        spent.append(time.process_time() - start)
    return min(spent)


def short(place):
    """Return the figures of one case."""
    spent = measure(*CASES[0], rounds=3)
    return [Figure("scores of 1,680 slices with intervals", spent, "s of a processor", at_most=5)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{DRAWS:,} draws, {len(SCORES)} figures, slices and subjects")
    print("| subjects | slices | classes | best of rounds, s |")
    print("|---|---|---|---|")
    for subjects, slices, classes in CASES:
        spent = measure(subjects, slices, classes, options.rounds)
        print(f"| {subjects} | {subjects * slices:,} | {classes} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main()
