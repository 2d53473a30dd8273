"""Permuted labels of a frozen run: 200 permutations under each split.

    python bench/permutations.py [--slices 1003] [--width 2048] [--epochs 30] [--permutations 200]

Features are random, of the size of a ResNet-50's on OASIS-2; the time does not depend on them.
"""

import argparse
import time

import numpy as np

from figure import Figure
from headscope.analysis.leakage.permutation import accuracies, permute_labels
from headscope.analysis.retrain import HeadRecipe, train_heads


def measure(slices=1003, width=2048, epochs=30, permutations=200):
    """Return the seconds of all permutations under each split."""
    rng = np.random.default_rng(0)
    features = rng.gamma(1, 0.4, (slices, width)).astype(np.float32)
    subject = np.sort(rng.integers(0, 136, slices))
    label = subject % 2
    start = rng.uniform(-0.05, 0.05, (2, width)).astype(np.float32)
    recipe = HeadRecipe((0.01,) * epochs, 32, 0.9, 1e-4, 0, start, np.zeros(2, np.float32))
    by_subject = rng.permutation(136)[subject] < 68  # half of the subjects train
    seconds = {}
    for split, train in (("subject", by_subject), ("slice", rng.random(slices) < 0.5)):
        begin = time.process_time()
        labels = permute_labels(label, subject, subject, permutations, 0)
        weight, bias = train_heads(features, labels, np.flatnonzero(train), recipe)
        read = features[~train]
        for r in range(permutations):
            accuracies(read @ weight[r].T + bias[r], labels[~train, r], subject[~train])
        seconds[split] = time.process_time() - begin
    return seconds


def short(place):
    """Return the seconds of as many permutations as a run has, of one tenth of the epochs."""
    seconds = sum(measure(epochs=3).values())
    return [
        Figure(
            "200 permutations × 2 splits, 3 of 30 epochs", seconds, "s of a processor", at_most=6
        )
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("slices", 1003), ("width", 2048), ("epochs", 30), ("permutations", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    known = parser.parse_args()
    whole = time.process_time()
    for split, seconds in measure(**vars(known)).items():
        print(f"split by {split}: {seconds:.1f} s")
    print(
        f"{known.permutations} permutations × 2 splits, {known.slices:,} × {known.width:,} "
        f"features, {known.epochs} epochs: {time.process_time() - whole:.1f} s"
    )


if __name__ == "__main__":
    main()
