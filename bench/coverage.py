"""How often 95% intervals hold the truth, by simulation: over subjects, and naively over slices.

    python bench/coverage.py [--rounds 1000] [--figure docs/images/coverage.png]

A round draws new subjects, half of each class, with 30 slices each. A slice's logit is ±d for its
class, plus what its subject adds, plus what the slice adds; the intraclass correlation is the
subject's share of the noise. The truth is what the same classifier would reach on all people whom
the law could draw: over slices, the chance that a slice of a new subject is called rightly, and
that a slice of a new subject of one class outranks one of the other; over subjects, the same with
the mean of their slices' logits. d is set so that the true accuracy is 75%, of slices or of
subjects, whatever the correlation. The naive interval resamples slices as if each were a subject.
"""

import argparse
from math import sqrt
from pathlib import Path

import numpy as np
from scipy import stats

from figure import Figure
from headscope.metrics import bootstrap_interval, resample, scores, slice_units, way_of, wilson

SLICES, ACCURACY, DRAWS = 30, 0.75, 1000
COLUMNS = ("subjects", "none", "Wilson", "slices")
SUBJECTS, CORRELATIONS = (20, 30, 40, 60), (0.0, 0.3, 0.6, 0.9)


def draw_logits(rng, subjects, correlation, level, accuracy=ACCURACY):
    """Return logits (S, m) of as many subjects, their labels (S,), and the true figures."""
    spread = 1.0 if level == "slice" else sqrt(correlation + (1 - correlation) / SLICES)
    distance = stats.norm.ppf(accuracy) * spread
    label = np.arange(subjects) % 2
    logits = (
        (2 * label[:, None] - 1) * distance
        + sqrt(correlation) * rng.normal(size=(subjects, 1))
        + sqrt(1 - correlation) * rng.normal(size=(subjects, SLICES))
    )
    truth = {"accuracy": accuracy, "auc": stats.norm.cdf(sqrt(2) * distance / spread)}
    return logits if level == "slice" else logits.mean(axis=1, keepdims=True), label, truth


def pair_shares(logits, label):
    """Return, for each pair of a subject of class 1 and one of class 0, (S, S): how often a slice
    of the first outranks one of the second; 0 for other pairs."""
    above = np.zeros((len(label), len(label)))
    rest = np.sort(logits, axis=1)[label == 0]
    for s in np.flatnonzero(label == 1):
        above[s, label == 0] = (logits[s][:, None, None] > rest).mean(axis=(0, 2))
    return above


def drawn_figures(right, above, label, counts):
    """Return accuracy and AUC (B,) of draws of subjects: the figures of headscope.metrics, from
    each subject's share of right slices (S,) and `pair_shares`, as all have as many slices."""
    ups, downs = counts * (label == 1), counts * (label == 0)
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    return {
        "accuracy": counts @ right / counts.sum(axis=1),
        "auc": ((ups @ above) * downs).sum(axis=1) / pairs,
    }


def intervals(logits, label, seed):
    """Return the intervals of both figures by a bootstrap over subjects; None where it has none."""
    people = len(label)
    resampled = resample(label, np.arange(people), people, DRAWS, seed)
    right = ((logits > 0) == label[:, None]).mean(axis=1)  # (S,)
    above = pair_shares(logits, label)
    whole, drawn, left_out = (
        drawn_figures(right, above, label, counts.astype(float))
        for counts in (np.ones((1, people)), resampled.drawn, resampled.left_out)
    )
    return {
        name: bootstrap_interval(
            whole[name][0],
            drawn[name],
            left_out[name],
            resampled.stratum,
            way_of(f"{'slice' if logits.shape[1] > 1 else 'subject'}_{name}"),
        )
        for name in whole
    }


def check():
    """Make sure that the quick figures of this study are those of headscope.metrics."""
    logits, label, _ = draw_logits(np.random.default_rng(0), 20, 0.5, "slice")
    counts = resample(label, np.arange(20), 20, 50).drawn
    right = ((logits > 0) == label[:, None]).mean(axis=1)
    quick = drawn_figures(right, pair_shares(logits, label), label, counts.astype(float))
    score = logits.ravel()
    owner = np.repeat(np.arange(20), SLICES)
    units = slice_units(label[owner], np.stack([-score, score], axis=1), owner)
    for name, drawn in scores(units, counts, names=tuple(quick)).items():
        assert np.allclose(drawn, quick[name], atol=1e-6), name


def naive_intervals(logits, label, rng):
    """Return the intervals of both figures that take every slice for a subject of its own."""
    scores, labels = logits.ravel(), np.repeat(label, logits.shape[1])
    right = (scores > 0) == labels
    ups, downs = scores[labels == 1], np.sort(scores[labels == 0])
    accuracy, auc = [], []
    for _ in range(200):
        accuracy.append(right[rng.integers(0, len(right), len(right))].mean())
        drawn = np.sort(downs[rng.integers(0, len(downs), len(downs))])
        chosen = ups[rng.integers(0, len(ups), len(ups))]
        auc.append(np.searchsorted(drawn, chosen).mean() / len(drawn))
    return {
        "accuracy": np.quantile(accuracy, [0.025, 0.975]),
        "auc": np.quantile(auc, [0.025, 0.975]),
    }


def coverage(level, subjects, correlation, rounds, seed=0, naive=True, accuracy=ACCURACY):
    """Return the share of intervals that hold the truth, by figure and way; under (figure,
    "none") the share of rounds in which the bootstrap gave none."""
    rng = np.random.default_rng([seed, subjects, round(100 * correlation)])
    held = {}
    for number in range(rounds):
        logits, label, truth = draw_logits(rng, subjects, correlation, level, accuracy)
        found = {"subjects": intervals(logits, label, number)}
        if level == "subject":
            right = ((logits > 0) == label[:, None]).sum()
            found["Wilson"] = {"accuracy": wilson(int(right), subjects)}
        elif naive:
            found["slices"] = naive_intervals(logits, label, rng)
        for way, known in found.items():
            for name, interval in known.items():
                if way == "subjects":
                    held.setdefault((name, "none"), []).append(interval is None)
                if interval is not None:
                    within = interval[0] - 1e-9 <= truth[name] <= interval[1] + 1e-9
                    held.setdefault((name, way), []).append(within)
    return {key: float(np.mean(each)) for key, each in held.items()}


def draw_figure(results, rounds, path):
    """Draw the coverage of both ways against the correlation, a panel a figure and level."""
    from headscope.figures.style import COLOURS, FAINT, INK, PAGE, apply_style, new_figure

    @apply_style
    def plot():
        figure = new_figure(PAGE, 0.42 * PAGE)
        panels = figure.subplots(1, 4, sharey=True)
        cells = [(level, name) for level in ("slice", "subject") for name in ("accuracy", "auc")]
        shades = dict(zip(SUBJECTS, (0.35, 0.55, 0.75, 1.0), strict=True))
        for ax, (level, name) in zip(panels, cells, strict=True):
            ax.axhspan(92, 97, color=COLOURS[2], alpha=0.15, linewidth=0)
            ax.axhline(95, color=INK, linewidth=0.6)
            for subjects in SUBJECTS:
                for way, colour, marker in (
                    ("subjects", COLOURS[0], "o"),
                    ("slices", COLOURS[1], "^"),
                ):
                    known = [
                        (c, 100 * results[level, subjects, c][name, way])
                        for c in CORRELATIONS
                        if (name, way) in results[level, subjects, c]
                    ]
                    if known:
                        ax.plot(*zip(*known, strict=True), color=colour, marker=marker,
                                markersize=3, alpha=shades[subjects])  # fmt: skip
            title = "AUC" if name == "auc" else name
            ax.set(title=f"{title.capitalize() if name != 'auc' else title}, {level}s",
                   xlabel="Intraclass correlation", ylim=(0, 102), xticks=CORRELATIONS)  # fmt: skip
        panels[0].set_ylabel("Intervals that hold the truth (%)")
        panels[0].annotate("slices resampled", (0.02, 24), color=COLOURS[1])
        panels[0].annotate("subjects resampled", (0.1, 85), color=COLOURS[0])
        counts = ", ".join(map(str, SUBJECTS))
        notes = (f"{rounds:,} rounds a point", f"{counts} subjects,\nfaint to full",
                 "shaded: 92 to 97%")  # fmt: skip
        panels[3].annotate("\n".join(notes), (0.0, 8), color=FAINT).set_in_layout(False)
        return figure

    plot().savefig(path, dpi=160)


def short(place, rounds=100):
    """Return the coverage at 40 subjects of correlated slices, with room for the scatter."""
    held = coverage("slice", 40, 0.6, rounds)
    return [
        Figure("interval over subjects covers", 100 * held["accuracy", "subjects"], "%", 90, 100),
        Figure("naive interval over slices covers", 100 * held["accuracy", "slices"], "%"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--accuracy", type=float, default=ACCURACY)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    check()
    results = {}
    print("| figure | subjects | correlation | over subjects | none given | Wilson | over slices |")
    print("|---|---|---|---|---|---|---|")
    for level in ("slice", "subject"):
        for subjects in SUBJECTS:
            for correlation in CORRELATIONS:
                found = coverage(
                    level, subjects, correlation, options.rounds, accuracy=options.accuracy
                )
                results[level, subjects, correlation] = found
                for name in ("accuracy", "auc"):
                    ways = [found.get((name, way)) for way in COLUMNS]
                    cells = ["" if each is None else f"{100 * each:.1f}%" for each in ways]
                    row = [f"{level} {name}", subjects, correlation, *cells]
                    print(f"| {' | '.join(map(str, row))} |", flush=True)
    if options.figure:
        draw_figure(results, options.rounds, options.figure)


if __name__ == "__main__":
    main()
