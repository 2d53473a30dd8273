"""How long the figures of a run take: 2,000 draws of subjects, every figure, both levels.

python bench/bootstrap.py [--rounds 5]
"""

import argparse
import time

import numpy as np

from headscope.metrics import DRAWS, SCORES, subset_scores

CASES = ((56, 30, 2), (28, 30, 2), (403, 30, 2), (56, 30, 3), (56, 30, 10), (120, 15, 30))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{DRAWS:,} draws, {len(SCORES)} figures, slices and subjects")
    print("| subjects | slices | classes | best of rounds, s |")
    print("|---|---|---|---|")
    for subjects, each, classes in CASES:
        rng = np.random.default_rng(0)
        owner = np.repeat(np.arange(subjects), each)
        labels = owner % classes
        logits = rng.normal(size=(len(owner), classes)) + np.eye(classes)[labels]
        ids = owner.astype(str)
        spent = []
        for _ in range(options.rounds):
            start = time.perf_counter()
            subset_scores(labels, logits, ids)
            spent.append(time.perf_counter() - start)
        print(f"| {subjects} | {len(owner):,} | {classes} | {min(spent):.2f} |", flush=True)


if __name__ == "__main__":
    main()
