"""Results of the leakage analysis made up for its figures."""

import numpy as np

from headscope.analysis.leakage.dose_response import SHARES, DoseResponse
from headscope.analysis.leakage.permutation import PermutationTest, PermutedScore
from headscope.analysis.leakage.reidentification import Probe, Reidentification
from headscope.analysis.leakage.split_gap import SCORES, Gap, GapScore

NAN = float("nan")


def permutation_tests():
    rng = np.random.default_rng(0)
    tests = []
    for split, middle in (("subject", 0.5), ("slice", 0.8)):
        for seed in (0, 1):
            null = PermutedScore(middle + 0.1, tuple(rng.normal(middle, 0.05, 40).clip(0, 1)))
            figures = {"slice_balanced_accuracy": null, "subject_accuracy": null}
            tests.append(PermutationTest("r", "net", "frozen", split, seed, 2, 40, "", figures))
    return tests


def dose(paper=0.9):
    values = tuple((0.6 + 0.03 * n, 0.62 + 0.03 * n) for n in range(11))
    return DoseResponse("net", "frozen", (0, 1), 100, SHARES, values, paper)


def gap(variant="frozen", low=0.1):
    figure = GapScore((0.6, 0.7), (0.9, 0.95), 0.275, low, 0.4 if np.isfinite(low) else NAN)
    return Gap("net", variant, (0, 1), 30, dict.fromkeys(SCORES, figure))


def identity(variant="frozen", seed=0, known=0.9):
    parts = (Probe(known, 0.1), Probe(0.8, 0.1), Probe(0.55, 0.5), Probe(NAN, NAN))
    return Reidentification("r", "net", variant, "subject", seed, "slices", 10, 100, *parts)
