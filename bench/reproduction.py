"""The paper reproduced: what the records say, for the tables and figures of docs/reproduction.md.

    python bench/reproduction.py FOLDER    # of the experiments that the page's commands make
    python bench/reproduction.py           # renders the page again from bench/results/reproduction

The measures are headscope's (docs/science.md, sections 2 to 7), of whatever has finished; the same
command again takes what has finished since. bench/reproduction_page.py makes tables and verdicts.
"""

import argparse
import itertools
import json
import sys
from math import exp, log, nan, sqrt
from pathlib import Path

import numpy as np
import pandas as pd

import headscope as hs
from headscope.analysis import analyse_flattening, logit_scatter
from headscope.analysis.leakage.split_gap import leak_gap, nearest_neighbours
from headscope.analysis.representation.separation import scatter
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.results.settings import setting_results
from headscope.audit_record import read_audit
from headscope.errors import InputError
from headscope.files import write_table
from headscope.metrics.draws import resample
from headscope.threads import one_blas_thread

sys.path.insert(0, str(Path(__file__).parent))
from reproduction_page import EXPERIMENTS, IMAGES, RESULTS, write_page

FEATURE_DRAWS = 1000
LOCATION = ("nichart-frozen", "nichart-finetune", "nichart-many")
FIG2 = (  # experiment, architecture, variant: frozen, fine-tuned, few epochs, many
    ("nichart-finetune", "tf_efficientnet_lite0", "frozen"),
    ("nichart-finetune", "tf_efficientnet_lite0", "finetune"),
    ("nichart-few", "googlenet", "scratch"),
    ("nichart-many", "googlenet", "scratch"),
)
FIG3 = (  # from scratch with many epochs, or else few
    ("resnet101", "scratch"),
    ("googlenet", "scratch"),
    ("vgg19", "scratch"),
    ("resnet50_v1", "frozen-long"),
)


def read_runs(folder):
    """Return the finished runs of every experiment that is there, by its name."""
    runs = {}
    for name in EXPERIMENTS:
        try:
            runs[name] = hs.read_experiment(folder / name)
        except InputError:
            runs[name] = []  # not begun, or nothing finished
    few = {run.name: run.epochs for run in runs["nichart-few"]}  # copied, and not continued yet
    runs["nichart-many"] = [it for it in runs["nichart-many"] if it.epochs != few.get(it.name)]
    return runs


def by_setting(runs):
    """Return runs by (architecture, variant, split), in order of their seeds."""
    groups = {}
    for run in sorted(runs, key=lambda run: run.setting.seed):
        key = run.setting.architecture, run.setting.variant, run.setting.split
        groups.setdefault(key, []).append(run)
    return groups


def seed_zero(runs):
    """Return the run of seed 0 of every setting, by (architecture, variant, split)."""
    return {key: group[0] for key, group in by_setting(runs).items()}


# The tables


def write_tables(folder, runs):
    """Copy what `headscope run` calls table.tsv, of what has finished, one file per experiment."""
    for name, finished in runs.items():
        if finished:
            rivals = [it for it in hs.read_experiment(folder / name, rivals=True) if it.is_rival]
            results = setting_results([*finished, *rivals])
            table, _ = marked_tables(results, read_audit(folder / name))
            write_table(RESULTS / f"{name}.tsv", table)


def experiment_rows(folder, runs):
    """Yield what was run: counts, training time, machine and versions."""
    for name, finished in runs.items():
        row = {"experiment": name, "runs": len(finished), "train_seconds": 0.0}
        if finished:
            made = json.loads((folder / name / "environment.json").read_text("utf-8"))
            row["train_seconds"] = sum(run.metrics["train_seconds"] for run in finished)
            row |= {"threads": made["threads"], "device": made["device"], "python": made["python"]}
            row |= made["packages"]
        yield row


def leakage_rows(runs):
    """Yield the gap between the splits of every network, and how many test slices have siblings."""
    for name, finished in runs.items():
        groups = by_setting(finished)
        for (architecture, variant, split), mixed in groups.items():
            apart = groups.get((architecture, variant, "subject"))
            if split != "slice" or not apart:
                continue
            pairs = list(zip(apart, mixed, strict=False))
            gap = leak_gap(pairs).scores["slice_accuracy"]
            shares = [siblings(run) for run in mixed]
            nearest = [nearest_neighbours(run).share for run in mixed]
            yield {
                "experiment": name, "architecture": architecture, "name": variant,
                "seeds": len(pairs), "gap": gap.gap, "low": gap.low, "high": gap.high,
                "siblings": float(np.mean(shares)), "nearest": float(np.mean(nearest)),
            }  # fmt: skip


def siblings(run):
    """Return the share of the test slices whose subject has slices in training."""
    trained = set(run.predicted("train")["subject_id"])
    return float(run.predicted("test")["subject_id"].isin(trained).mean())


def rival_rows(folder, runs):
    """Yield how far every network is above the simple rivals, subjects apart."""
    for name in ("nichart-frozen", "nichart-sex-frozen", "oasis2-frozen"):
        if not runs[name]:
            continue
        everything = hs.read_experiment(folder / name, rivals=True)
        apart = [run for run in everything if run.setting.split == "subject"]
        for row in hs.compare_runs(apart).rivals:
            it = row.subject_accuracy
            yield {"experiment": name, "network": row.first, "rival": row.second,
                   "value": it.value, "low": it.low, "high": it.high,
                   "p_holm": it.p_holm}  # fmt: skip


def confounder_rows(folder, runs):
    """Yield the confounder tests of every network, subjects apart."""
    for name in ("nichart-frozen", "nichart-sex-frozen", "oasis2-frozen"):
        for made in hs.analyse_confounders(folder / name) if runs[name] else ():
            for item in made.confounders:
                yield {"experiment": name, "network": made.title, "covariate": item.covariate,
                       "label_p": item.label_p, "partial_p": item.partial_p,
                       "full_p": item.full.p}  # fmt: skip


# The measures of the paper's claims: value, interval


def differences(runs, first, second):
    """Yield slice accuracy of one variant less that of another, over the same test slices."""
    for architecture in dict.fromkeys(run.setting.architecture for run in runs):
        those = [
            run
            for run in runs
            if run.setting.architecture == architecture and run.setting.variant in (first, second)
        ]
        for row in hs.compare_runs(those).rows:
            sign = 1 if row.first == first else -1
            it = row.slice_accuracy
            ends = sorted((sign * it.low, sign * it.high))
            yield architecture, row.split, (sign * it.value, *ends)


def ratio_of_spread(run, reference, what="within"):
    """Return a run's dispersion of test logits over the reference's, and its interval.

    `within`: roots of the scatter within classes; `fisher`: ratios of between to within. Subjects
    are drawn, within class, alike for both.
    """
    if is_constant(run) or is_constant(reference):
        return nan, nan, nan  # as dense as can be, and no finding
    one, two = (_log_scatter(of, what) for of in (run, reference))
    labels, owner = _subjects(run)
    drawn = resample(labels, owner, int(owner.max()) + 1)
    made = drawn.apply(lambda counts: {"ratio": one(counts) - two(counts)})["ratio"]
    low, high = made.interval("expanded")
    return exp(made.mean), exp(low), exp(high)


def is_constant(run):
    """Say whether a network predicts one class for all of its test slices."""
    return len(set(run.predicted("test")["predicted"])) == 1


def _subjects(run):
    test = run.features["subset"] == "test"
    owner = np.unique(run.features["subject_id"][test], return_inverse=True)[1]
    return run.features["label"][test].astype(int), owner


def _log_scatter(run, what):
    """Return a run's log scatter as a function of counts of its test subjects (B, S)."""
    Z = run.features["logits"][run.features["subset"] == "test"].astype(float)  # (N, 2)
    y, owner = _subjects(run)

    def score(counts):
        weight = np.asarray(counts, float)[:, owner]  # (B, N)
        total = weight.sum(axis=1)
        inside, sums = np.zeros(len(weight)), []
        for k in np.unique(y):
            share = weight * (y == k)
            n, mean = share.sum(axis=1), share @ Z / share.sum(axis=1, keepdims=True)
            inside += share @ (Z**2).sum(axis=1) - n * (mean**2).sum(axis=1)
            sums.append((n, mean))
        middle = sum(n[:, None] * mean for n, mean in sums) / total[:, None]
        between = sum(n * ((mean - middle) ** 2).sum(axis=1) for n, mean in sums)
        return 0.5 * np.log(inside / total) if what == "within" else np.log(between / inside)

    whole = exp(score(np.ones((1, int(owner.max()) + 1)))[0])
    within, between = scatter(Z, np.unique(y, return_inverse=True)[1])
    assert np.isclose(whole, sqrt(within) if what == "within" else between / within)
    return score


def ratio_of_weights(run, initial=None):
    """Return the deviation of a head's weights over another's, and its interval over features.

    Both rows at once. Without another run the head is set against its start.
    """
    W = run.head["weight"].astype(float)  # (2, D)
    V = (run.head["initial_weight"] if initial is None else initial.head["weight"]).astype(float)
    if W.shape != V.shape:
        return nan, nan, nan
    D = W.shape[1]
    drawn = np.random.default_rng(0).multinomial(D, np.full(D, 1 / D), FEATURE_DRAWS) / D

    def deviation(rows, share):
        return np.sqrt(sum(share @ row**2 - (share @ row) ** 2 for row in rows))

    value = log(deviation(W, np.full(D, 1 / D)) / deviation(V, np.full(D, 1 / D)))
    low, high = np.quantile(np.log(deviation(W, drawn) / deviation(V, drawn)), [0.025, 0.975])
    return exp(value), exp(low), exp(high)


def paired(runs, first, second):
    """Yield two variants of a network under one split: architecture, split, run, run."""
    runs = seed_zero(runs)
    for (architecture, variant, split), run in runs.items():
        other = runs.get((architecture, second, split))
        if variant == first and other is not None:
            yield architecture, split, run, other


def rows_of(claim, compared, name, triples):
    """Yield rows of measures.tsv."""
    for architecture, split, (value, low, high) in triples:
        yield {"claim": claim, "compared": compared, "experiment": name,
               "architecture": architecture, "split": split, "value": value, "low": low,
               "high": high}  # fmt: skip


def accuracy_measures(runs):
    """Yield the differences of slice accuracy that the first two claims speak of."""
    for name in ("nichart-finetune", "oasis2-finetune"):
        for second in ("frozen", "frozen-long"):
            triples = differences(runs[name], "finetune", second)
            yield from rows_of("better", f"finetune less {second}", name, triples)
        triples = differences(runs[name], "scratch", "finetune")
        yield from rows_of("matches", "scratch less finetune", name, triples)


def spread_measures(runs):
    """Yield ratios of dispersion, of separation and of the weights."""
    for name in ("nichart-finetune", "oasis2-finetune"):
        for second in ("frozen", "frozen-long"):
            pairs = list(paired(runs[name], "finetune", second))
            triples = [(a, s, ratio_of_spread(run, other)) for a, s, run, other in pairs]
            yield from rows_of("dense", f"finetune over {second}", name, triples)
            triples = [(a, s, ratio_of_weights(run, other)) for a, s, run, other in pairs]
            yield from rows_of("range", f"finetune over {second}", name, triples)
        pairs = list(paired(runs[name], "scratch", "frozen"))
        triples = [(a, s, ratio_of_weights(run, other)) for a, s, run, other in pairs]
        yield from rows_of("range", "scratch over frozen", name, triples)
    for name, finished in runs.items():
        trained = {k: r for k, r in seed_zero(finished).items() if r.setting.regime != "frozen"}
        triples = [(a, s, ratio_of_weights(run)) for (a, _, s), run in trained.items()]
        yield from rows_of("range", "trained over its start", name, triples)
    few, many = seed_zero(runs["nichart-few"]), seed_zero(runs["nichart-many"])
    pairs = [(key[0], key[2], many[key], few[key]) for key in sorted(few.keys() & many.keys())]
    for what, words in (("within", "dispersion"), ("fisher", "Fisher ratio")):
        triples = [(a, s, ratio_of_spread(run, other, what)) for a, s, run, other in pairs]
        yield from rows_of("spread", f"{words}, many over few", "nichart-many", triples)


def line_measures(runs):
    """Yield r of the two rows of every head, and what is left of it beside its null."""
    for name, finished in runs.items():
        for (architecture, variant, split), run in seed_zero(finished).items():
            pair = hs.analyse_pair(run)
            row = {"claim": "line", "experiment": name, "architecture": architecture,
                   "split": split}  # fmt: skip
            none = {"low": nan, "high": nan}
            yield row | none | {"compared": f"{variant}: r", "value": pair.r,
                                "departs": int(pair.departs)}  # fmt: skip
            yield row | none | {"compared": f"{variant}: displacement ratio",
                                "value": pair.displacement_ratio}  # fmt: skip
            yield row | {"compared": f"{variant}: r less its null", "value": pair.residual,
                         "low": pair.residual_low, "high": pair.residual_high}  # fmt: skip


def location_measures(runs):
    """Yield what shuffled positions do to the decision, and probes with and without positions."""
    chosen = {
        (name, *key): run
        for name in LOCATION
        for key, run in seed_zero(runs[name]).items()
        if key[1] != "frozen-long"
    }
    for (name, architecture, variant, split), run in chosen.items():
        try:
            made = analyse_flattening(run)
        except InputError as error:  # hidden layers are read from a network that was not kept
            print(error)
            continue
        row = {"claim": "location", "experiment": name, "architecture": architecture,
               "split": split, "averages": int(made.averages)}  # fmt: skip
        yield row | {"compared": f"{variant}: change of the decision", "low": nan, "high": nan,
                     "value": made.shuffles[1].relative_change}  # fmt: skip
        pooled, unpooled = (probe.slice_accuracy for probe in made.probes)
        apart = unpooled - pooled  # (repeats,), over the same folds
        value, spread = float(apart.mean()), 2 * float(apart.std(ddof=1))
        yield row | {"compared": f"{variant}: probe, positions less mean", "value": value,
                     "low": value - spread, "high": value + spread}  # fmt: skip


# The figures


def draw(runs):
    """Draw Fig. 2 and Fig. 3 as the paper has them, of the split of mixed slices."""
    from doc_images import smaller

    of = {
        (name, *key): run for name, group in runs.items() for key, run in seed_zero(group).items()
    }
    panels = [of.get((*key, "slice")) for key in FIG2]
    if None not in panels:
        figure = hs.figures.plot_logits([logit_scatter(run) for run in panels])
        smaller(figure, IMAGES / "reproduction-fig2.png")
    places = ("nichart-many", "nichart-few", "nichart-frozen")
    last = [next(filter(None, (of.get((p, *key, "slice")) for p in places)), None) for key in FIG3]
    heads = {
        f"{run.setting.network}, {run.epochs} epochs": hs.analyse_head(run)
        for run in filter(None, last)
    }
    if heads:
        figure = hs.figures.plot_weight_panels(heads)
        smaller(figure, IMAGES / "reproduction-fig3.png")


@one_blas_thread
def collect(folder):
    """Write bench/results/reproduction/*.tsv from what has finished in the experiments' folder."""
    runs = read_runs(folder)
    write_tables(folder, runs)
    tables = {
        "experiments": experiment_rows(folder, runs),
        "leakage": leakage_rows(runs),
        "rivals": rival_rows(folder, runs),
        "confounders": confounder_rows(folder, runs),
        "measures": itertools.chain(
            accuracy_measures(runs), spread_measures(runs), line_measures(runs),
            location_measures(runs),
        ),
    }  # fmt: skip
    for name, rows in tables.items():
        made = list(rows)
        if made:
            write_table(RESULTS / f"{name}.tsv", pd.DataFrame(made))
        print(f"{name}: {len(made)} rows", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the experiments")
    parser.add_argument("--figures", action="store_true", help="draw the figures alone")
    given = parser.parse_args()
    if given.folder and given.figures:
        draw(read_runs(given.folder))
    elif given.folder:
        collect(given.folder)
    write_page()


if __name__ == "__main__":
    main()
