"""How often the interval of the residual covers the truth, over simulated heads.

The truth is the residual of the population: features are drawn independently from a known law of
the rows of a head, and the residual r − r_null of that law follows in closed form from its
variances and covariances. A head is D such features; its interval covers or misses.

    python bench/interval.py [--heads 1000] > bench/results/interval.md
"""

import argparse
from itertools import product

import numpy as np

from figure import Figure
from headscope.analysis.final_layer.null import residual_interval

WIDTHS = (64, 512, 2048)
LAWS = ("normal", "uniform and t")
# correlation of the conserved and the learned part, and their ratio of spreads
TWO = ((0.0, 3.0), (0.1, 3.0), (0.3, 3.0), (0.6, 2.0), (0.3, 10.0))
MANY = ((0.0, 3.0), (0.3, 3.0))


def draw(rng, law, width):
    """Return two independent variables of variance 1, (2, D)."""
    if law == "normal":
        return rng.normal(size=(2, width))
    kept = rng.uniform(-1, 1, (2, width)).sum(axis=0) * np.sqrt(1.5)  # two Glorot rows
    return np.stack([kept, rng.standard_t(8, width) * np.sqrt(6 / 8)])


def head(rng, law, width, classes, rho, ratio):
    """Return weight (K, D) and its mean row (D,), of sum s and learned parts along d."""
    s, rest = draw(rng, law, width)
    d = ratio * (rho * s + np.sqrt(1 - rho**2) * rest)
    return np.outer(np.ones(classes), s / 2) + np.outer(directions(classes), d / 2), s / 2


def directions(classes):
    """Return what d adds to each row, summing to 0: ± 1 for two classes."""
    return np.array([1.0, -1.0]) if classes == 2 else np.array([1.0, -0.6, -0.4])


def truth(classes, rho, ratio):
    """Return r − r_null of the law, for the first two rows."""
    u, v = directions(classes)[:2]
    kept, learned, both = 1.0, ratio**2, rho * ratio
    r = (kept + u * v * learned + (u + v) * both) / np.sqrt(
        (kept + u * u * learned + 2 * u * both) * (kept + v * v * learned + 2 * v * both)
    )
    null = (kept + u * v * learned) / np.sqrt((kept + u * u * learned) * (kept + v * v * learned))
    return r - null


def coverage(law, width, classes, rho, ratio, heads, seed=0):
    """Return the share of heads whose interval holds the truth."""
    rng, known = np.random.default_rng(seed), truth(classes, rho, ratio)
    hits = 0
    for _ in range(heads):
        weight, mean_row = head(rng, law, width, classes, rho, ratio)
        low, high = residual_interval(weight, mean_row, (0, 1))
        hits += low - 1e-12 <= known <= high + 1e-12  # an intact head's interval ends at 0 itself
    return hits / heads


def short(place, heads=150):
    """Return the coverage of one law, with room for the scatter."""
    share = coverage("normal", 512, 2, 0.1, 3.0, heads)
    return [Figure("interval of the residual covers", 100 * share, "%", 90, 99)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)))
    options = parser.parse_args()
    print(f"# Coverage of the 95% interval of the residual, {options.heads:,} heads a row\n")
    print("| classes | law | corr(s, d) | sd d / sd s | true residual | D | covered |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    cases = [(2, *case) for case in TWO] + [(3, *case) for case in MANY]
    for width, law, (classes, rho, ratio) in product(
        map(int, options.widths.split(",")), LAWS, cases
    ):
        share = coverage(law, width, classes, rho, ratio, options.heads)
        known = truth(classes, rho, ratio)
        print(
            f"| {classes} | {law} | {rho} | {ratio} | {known:.5f} | {width} | {100 * share:.1f}% |",
            flush=True,
        )


if __name__ == "__main__":
    main()
