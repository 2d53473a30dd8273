"""How often the interval over seeds holds the mean over splits and new cohorts, by simulation.

    python bench/repeats.py [--rounds 500] [--only NAME] [--seeds 1,2,3,5,10]

A round draws a new cohort: subjects of two classes, each with its own place among the features,
and slices about it. A linear classifier (ridge, or the difference of the class means) is trained
for each seed under a split by subject and one by slice, 5:2:3 within class; some get noise of
their own, as training by noisy steps has it. The truth is the mean over thousands of cohorts, a
split each: what a new cohort of this size would reach on average. Beside the interval of
`repeated_interval` stands what draws of subjects alone give (before), which holds the networks
fixed, and Nadeau and Bengio's own, from the variance between seeds alone.
"""

import argparse
from math import sqrt

import numpy as np
from scipy import stats

from figure import Figure
from headscope.metrics import (
    SHARED,
    SHARED_GAP,
    bootstrap_interval,
    repeated_interval,
    resample,
)

RATIO, DRAWS, COHORTS = 0.6, 500, 3000
MEASURES = {"slice accuracy": "expanded", "subject accuracy": "percentile", "subject AUC": "bca"}
DESIGNS = {
    "40 subjects, weak": {"subjects": 40, "width": 32, "effect": 0.3},
    "40 subjects, strong": {"subjects": 40, "width": 32, "effect": 1.5},
    "60 subjects, narrow": {"subjects": 60, "width": 16, "effect": 1.0, "identity": 1.0},
    "60 subjects, noisy weights": {"subjects": 60, "width": 32, "effect": 0.8, "noise": 1.0},
    "60 subjects, noisy, biased": {
        "subjects": 60, "width": 32, "effect": 1.5, "noise": 0.7, "bias": 0.7,
    },
    "60 subjects, class means": {"subjects": 60, "width": 32, "effect": 1.0, "means": True},
    "40 subjects, means, biased": {
        "subjects": 40, "width": 32, "effect": 1.0, "means": True, "bias": 0.6,
    },
    "136 subjects": {"subjects": 136, "width": 48, "effect": 0.5, "slices": 6},
    "136 subjects, noisy": {
        "subjects": 136, "width": 48, "effect": 0.5, "slices": 6, "noise": 0.5, "bias": 0.5,
    },
}  # fmt: skip


def draw_cohort(rng, subjects, width, effect, identity=1.5, slices=8, **_):
    """Return features (S, m, D) and the label of each subject (S,)."""
    label = np.arange(subjects) % 2
    places = rng.normal(0, identity, (subjects, 1, width))
    features = rng.normal(size=(subjects, slices, width)) + places
    features[:, :, 0] += effect * (2 * label[:, None] - 1)
    return features, label


def draw_split(rng, label, slices, kind):
    """Return 0 (train), 1 (val) or 2 (test) for each slice (S, m): 5:2:3 within class."""
    code = np.zeros((len(label), slices), dtype=int)
    for k in (0, 1):
        members = np.flatnonzero(label == k)
        count = len(members) * (slices if kind == "slice" else 1)
        marks = np.repeat([0, 1, 2], np.diff([0, round(0.5 * count), round(0.7 * count), count]))
        marks = rng.permutation(marks)
        code[members] = marks.reshape(len(members), -1)
    return code


def scores(rng, features, label, code, noise=0.0, bias=0.0, means=False, **_):
    """Train on the slices of code 0 and return the score of every slice (S, m)."""
    sign = np.repeat(2.0 * label[:, None] - 1, features.shape[1], axis=1)
    x, y = features[code == 0], sign[code == 0]
    if means:
        up, down = x[y > 0].mean(axis=0), x[y < 0].mean(axis=0)
        score = (features - (up + down) / 2) @ (up - down)
    else:
        centre, width = x.mean(axis=0), x.shape[1]
        x = x - centre
        weight = np.linalg.solve(x.T @ x + 0.1 * len(x) * np.eye(width), x.T @ (y - y.mean()))
        weight = weight + rng.normal(0, noise * sqrt((weight**2).mean()), width)
        score = (features - centre) @ weight + y.mean()
    return score + rng.normal(0, bias * score.std()) if bias else score


def measures(score, label, code, counts):
    """Return each figure of the test (code 2) for draws of subjects, counts (B, S): (B,) each."""
    tested = code == 2
    slices = tested.sum(axis=1)
    inside = (slices > 0).astype(float)
    right = (((score > 0) == (label[:, None] == 1)) & tested).sum(axis=1)
    mean = (score * tested).sum(axis=1) / np.maximum(slices, 1)
    ups, downs = (np.flatnonzero((label == k) & (slices > 0)) for k in (1, 0))
    above = (mean[ups][:, None] > mean[downs]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "slice accuracy": counts @ right / (counts @ slices),
            "subject accuracy": counts @ (inside * ((mean > 0) == (label == 1)))
            / (counts @ inside),
            "subject AUC": ((counts[:, ups] @ above) * counts[:, downs]).sum(axis=1)
            / (counts[:, ups].sum(axis=1) * counts[:, downs].sum(axis=1)),
        }  # fmt: skip


def repeats(rng, design, seeds, all_counts):
    """Draw a cohort and return its labels, and each figure and gap [(R, B) for all counts]."""
    features, label = draw_cohort(rng, **design)
    parts = {}
    for _ in range(seeds):
        sides = []
        for kind in ("subject", "slice"):
            code = draw_split(rng, label, features.shape[1], kind)
            score = scores(rng, features, label, code, **design)
            sides.append([measures(score, label, code, counts) for counts in all_counts])
        for name in MEASURES:
            by_subject, by_slice = ([part[name] for part in side] for side in sides)
            gaps = [b - a for a, b in zip(by_subject, by_slice, strict=True)]
            parts.setdefault(name, []).append(by_subject)
            parts.setdefault(f"gap of {name}", []).append(gaps)
    return label, {
        name: [np.stack(columns) for columns in zip(*rows, strict=True)]
        for name, rows in parts.items()
    }


def truth(design, cohorts=COHORTS):
    """Return the mean of each figure and gap over new cohorts, a split each."""
    rng, whole = np.random.default_rng(1), [np.ones((1, design["subjects"]))]
    values = [repeats(rng, design, 1, whole)[1] for _ in range(cohorts)]
    return {name: float(np.mean([v[name][0] for v in values])) for name in values[0]}


def intervals(name, once, drawn, left_out, stratum):
    """Return the interval of the mean over seeds by each way."""
    gap = name.startswith("gap")
    way = "expanded" if gap else MEASURES[name]
    means = once.mean(), drawn.mean(axis=0), left_out.mean(axis=0)
    found = {"before": bootstrap_interval(*means, stratum, way)}
    shared = SHARED_GAP if gap else SHARED
    found["interval"] = repeated_interval(
        once, drawn, left_out, stratum, way, ratio=RATIO, shared=shared
    )
    if len(once) > 1:
        half = stats.t.ppf(0.975, len(once) - 1) * once.std(ddof=1)
        half *= sqrt(1 / len(once) + RATIO)
        found["Nadeau and Bengio"] = once.mean() - half, once.mean() + half
    return found


def coverage(design, rounds, seeds=(1, 2, 3, 5, 10), cohorts=COHORTS):
    """Return, by figure, seeds and way, the share of intervals that hold the truth, and a width."""
    expected, subjects = truth(design, cohorts), design["subjects"]
    held = {}
    for number in range(rounds):
        stratum = np.arange(subjects) % 2
        drawn = resample(stratum, np.arange(subjects), subjects, DRAWS, number)
        counts = [np.ones((1, subjects)), drawn.drawn.astype(float), drawn.left_out]
        rng = np.random.default_rng([2, number])
        _, parts = repeats(rng, design, max(seeds), counts)
        for name, (once, draws, left_out) in parts.items():
            for count in seeds:
                some = once[:count, 0], draws[:count], left_out[:count]
                for way, interval in intervals(name, *some, stratum).items():
                    if interval is not None:
                        low, high = interval
                        within = low - 1e-9 <= expected[name] <= high + 1e-9
                        held.setdefault((name, count, way), []).append((within, high - low))
    return {
        key: (float(np.mean([w for w, _ in rows])), float(np.median([w for _, w in rows])))
        for key, rows in held.items()
    }


def short(place):
    """Return the coverage of the first design over three seeds, of 30 rounds and 60 cohorts."""
    held = coverage(next(iter(DESIGNS.values())), 30, (3,), 60)
    shares = [share for (_, _, way), (share, _) in held.items() if way == "interval"]
    return [
        Figure("intervals over three seeds cover, mean of scores", 100 * np.mean(shares), "%", 85)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--only", default="", help="designs whose name holds this")
    parser.add_argument("--seeds", default="1,2,3,5,10")
    options = parser.parse_args()
    seeds = tuple(map(int, options.seeds.split(",")))
    results = {}
    for title, design in DESIGNS.items():
        if options.only in title:
            results[title] = coverage(design, options.rounds, seeds)
            print(f"{title}: done", flush=True)
    print("\n| figure | seeds | before | interval | Nadeau and Bengio | width: before | interval |")
    print("|---|---|---|---|---|---|---|")
    for name, count in dict.fromkeys(key[:2] for held in results.values() for key in held):
        cells = [name, str(count)]
        for part in (0, 1):
            for way in ("before", "interval", "Nadeau and Bengio")[: 3 - part]:
                values = [100 * h[name, count, way][part] for h in results.values()
                          if (name, count, way) in h]  # fmt: skip
                text = f"{min(values):.1f}–{max(values):.1f}" if values else ""
                cells.append(f"{np.mean(values):.0f}" if part and values else text)
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
