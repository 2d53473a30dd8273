"""Whether covariates raise a flag where they were planted, and only there; size and power of tests.

    python bench/confounders.py [--rounds 1000] [--seeds 20] [--only tests|interval|planted]

tests: a score and a covariate of subjects are drawn, with and without what the tests look for, and
each null is tested at 5%. interval: how often the interval of the adjusted AUC covers the true one.
planted: cohorts are simulated (6 mm, 80 subjects), an ImageNet EfficientNet-Lite0, frozen, reads
three axial slices of each scan, a logistic regression on their mean features is tested in three
folds of subjects, and its predictions are held against age or site as the report does.
"""

import argparse
import sys
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

from figure import Figure
from headscope.analysis.explanations.adjusted import adjusted_auc
from headscope.analysis.explanations.confounders import full_test, partial_test
from headscope.analysis.explanations.confounding import Confounding, hold_against
from headscope.analysis.explanations.covariates import covariates_of
from headscope.analysis.results.chance import against_chance
from headscope.analysis.results.pooled import Pool, Test
from headscope.grouping import deal_folds
from headscope.metrics import slice_units
from headscope.simulation.cohort import plan_cohort
from headscope.simulation.confounders import SITES, plant_confounders, shade
from headscope.simulation.head import Atrophy, draw_head, draw_visit, load_template, scan_head

COHORT = 200  # subjects of a cohort, of whom some are tested
PERMUTATIONS = 199
SUBJECTS, FOLDS, SIDE = 80, 3, 96
SPACING, INDIVIDUALITY = 6.0, 0.5  # mm; of 1 in a cohort as `headscope simulate` makes it
PLANTED = {  # name: covariate, effect of the class, what is planted
    "age differs by 9 years, atrophy follows age alone": ("age", 0.0, (9.0, 2.0, 0.0, 0.0)),
    "age alike, atrophy follows age and class": ("age", 2.2, (0.0, 2.0, 0.0, 0.0)),
    "site differs (80 and 20%), bias field, no atrophy": ("site", 0.0, (0.0, 0.0, 0.6, 0.5)),
    "site alike, bias field, atrophy by class": ("site", 2.2, (0.0, 0.0, 0.0, 0.5)),
}


def draw(rng, tested, number, classes, of_label, of_covariate):
    """Return scores, labels and covariate of test subjects, and labels and covariate of all."""
    labels = rng.integers(0, classes, COHORT)
    if number:
        amount = labels + rng.normal(size=COHORT)
        covariate = amount
    else:
        amount = (rng.random(COHORT) < 1 / (1 + np.exp(-1.5 * (labels - (classes - 1) / 2)))) + 0.0
        covariate = np.where(amount > 0, "F", "M")
    columns = [1] if classes == 2 else range(classes)
    scores = np.stack(
        [of_label * (labels == k) + of_covariate * amount * (1 if k else -1) for k in columns],
        axis=1,
    ) + rng.normal(size=(COHORT, len(columns)))
    ranks = rankdata(scores[:tested], axis=0) / tested
    return ranks, labels[:tested], covariate[:tested], (labels, covariate)


def rejected_shares(tested, number, classes, effects, rounds):
    """Return how often the partial and the full test reject at 5%."""
    rejected = np.zeros(2)
    for seed in range(rounds):
        rng = np.random.default_rng([seed, tested])
        scores, labels, covariate, all_ = draw(rng, tested, number, classes, *effects)
        options = {"permutations": PERMUTATIONS, "seed": seed}
        partial = partial_test(scores, labels, covariate, **options)
        full = full_test(scores, labels, covariate, reference=all_, **options)
        rejected += [partial.p <= 0.05, full.p <= 0.05]
    return rejected / rounds


def rejections(rounds):
    """Print how often each test rejects at 5%."""
    print("| test subjects | covariate | classes | prediction follows | partial | full |")
    print("|--:|---|--:|---|--:|--:|")
    for tested, number, classes, effects in product(
        (20, 40, 80), (True, False), (2, 3), ((0, 0), (0, 1), (1, 0))
    ):
        rejected = rejected_shares(tested, number, classes, effects, rounds)
        kind = "number" if number else "two categories"
        what = {(0, 0): "neither", (0, 1): "the covariate", (1, 0): "the label"}[effects]
        shares = " | ".join(f"{100 * share:.1f}%" for share in rejected)
        print(f"| {tested} | {kind} | {classes} | {what} | {shares} |", flush=True)


def coverage(rounds):
    """Print how often the interval of the adjusted AUC holds the true one."""
    truth = norm.cdf(1 / np.sqrt(2))
    print("| test subjects | covariate | adjusted AUC, mean | true | covered | AUC, mean |")
    print("|--:|---|--:|--:|--:|--:|")
    for tested, number in product((30, 80), (True, False)):
        values, plain, inside = [], [], 0
        for seed in range(rounds):
            rng = np.random.default_rng([seed, tested])
            labels = np.arange(tested) % 2
            amount = labels + rng.normal(size=tested)
            if not number:
                amount = (rng.random(tested) < 0.3 + 0.4 * labels) + 0.0
            pool = pool_of([(labels, labels + amount + rng.normal(size=tested))])
            covariate = amount if number else np.where(amount > 0, "F", "M")
            score = adjusted_auc(pool, covariate, 1)
            values.append(score.value)
            plain.append(pool.score("subject_auc", np.ones((1, tested)), 1).item())
            inside += score.low <= truth <= score.high
        kind = "number" if number else "two categories"
        means = f"{np.mean(values):.3f} | {truth:.3f} | {100 * inside / rounds:.1f}%"
        print(f"| {tested} | {kind} | {means} | {np.mean(plain):.3f} |", flush=True)


def pool_of(tests):
    """Return tests, each the labels and scores of class 1 of its subjects, as one pool."""
    labels = np.concatenate([labels for labels, _ in tests])
    folds, start = [], 0
    for of_test, scores in tests:
        logits = np.column_stack([np.zeros(len(scores)), scores])
        units = slice_units(of_test, logits, np.arange(start, start + len(scores)))
        folds.append(Test(units, units))
        start += len(scores)
    return Pool((tuple(folds),), np.array([f"{n:05d}" for n in range(len(labels))]), labels, 0.5)


def encoder():
    """Return a function from slices (n, H, W) to features by a frozen EfficientNet-Lite0."""
    import torch

    from headscope.models.network import build_network
    from headscope.models.zoo import find_architecture

    architecture = find_architecture("tf_efficientnet_lite0")
    model = build_network(architecture, "frozen", "pretrained", classes=2, size=SIDE, seed=0).model
    model.eval()

    @torch.inference_mode()
    def read(slices):
        pixels = torch.from_numpy(slices)[:, None].expand(-1, 3, -1, -1) * 2 - 1
        pixels = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear")
        maps = [model.forward_features(part).mean((2, 3)) for part in pixels.split(60)]
        return torch.cat(maps).numpy().astype(np.float64)

    return read


@lru_cache(SUBJECTS)
def head_of(seed, subject):
    """Return the head of a subject, which all cohorts of a seed share."""
    return draw_head(np.random.default_rng([seed, subject]), INDIVIDUALITY)


def simulate(seed, effect, planted):
    """Return the plan of a simulated cohort and three axial slices of each scan, (S, 3, H, W)."""
    names = ("age_gap", "age_effect", "site_gap", "site_bias")
    settings = dict(zip(names, planted, strict=True))
    plan = plan_cohort(SUBJECTS, seed, 0.0, effect, "nifti")
    plan, template, scans = plant_confounders(plan, seed, settings), load_template(), []
    for row in plan:
        severity = row["severity"]
        atrophy = Atrophy(1.15 * severity, 0.2 * severity, 1 - np.exp(-0.06 * severity))
        rng = np.random.default_rng([seed, row["subject"], 1])
        visit = draw_visit(rng, INDIVIDUALITY, 0.02)
        head = head_of(seed, row["subject"])
        volume = scan_head(template, head, atrophy, visit, rng, SPACING)[0]
        if row["site"] == SITES[1]:
            volume = shade(volume, settings["site_bias"])
        middle = volume.shape[2] // 2
        taken = np.moveaxis(volume[:, :, middle - 1 : middle + 2], 2, 0).astype(np.float32)
        scans.append(np.clip(taken / np.percentile(volume[volume > 0], 99), 0, 1))
    return pd.DataFrame(plan), np.stack(scans).astype(np.float32)


def flags(seed, covariate, effect, planted, read):
    """Return the finding on the covariate (or '') and the AUC of one cohort."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    plan, scans = simulate(seed, effect, planted)
    features = read(scans.reshape(-1, *scans.shape[2:])).reshape(len(plan), 3, -1).mean(axis=1)
    labels = (plan["label"] == "AD").to_numpy().astype(int)
    fold = deal_folds(labels, FOLDS, np.random.default_rng(seed).permutation(len(labels)))
    tests, order = [], []
    for part in range(FOLDS):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=500))
        model.fit(features[fold != part], labels[fold != part])
        tests.append((labels[fold == part], model.decision_function(features[fold == part])))
        order.append(np.flatnonzero(fold == part))
    pool = pool_of(tests)
    rows = plan.iloc[np.concatenate(order)].assign(subject_id=pool.ids)
    chance = against_chance(pool)
    covariates = covariates_of(rows, [covariate])
    tested, _ = hold_against(pool, covariates, ["NC", "AD"], better=chance.better)
    result = Confounding("", "", chance.better, tuple(tested), (), (), ())
    return (result.flagged[0].finding if result.flagged else ""), chance.value


def planted_cohorts(seeds, names=tuple(PLANTED)):
    """Print in how many simulated cohorts each confounder raises a flag."""
    read = encoder()
    outcomes = {name: [] for name in names}
    for seed, name in product(range(seeds), names):  # the cohorts of a seed share their heads
        outcomes[name].append(flags(seed, *PLANTED[name], read))
        print(seed, name, *outcomes[name][-1], file=sys.stderr, flush=True)
    print("| cohort | flag | of them 'could explain' | AUC, mean |")
    print("|---|--:|--:|--:|")
    for name, rows in outcomes.items():
        raised = [finding for finding, _ in rows if finding]
        explains, area = raised.count("explains"), np.mean([auc for _, auc in rows])
        print(f"| {name} | {len(raised)} of {seeds} | {explains} | {area:.2f} |")


def short(place, rounds=100):
    """Return the size and the power of both tests at 40 subjects."""
    size = rejected_shares(40, True, 2, (0, 0), rounds)
    read = rejected_shares(40, True, 2, (0, 1), rounds)
    return [
        Figure("partial test rejects where nothing is read", 100 * size[0], "%", at_most=11),
        Figure("full test rejects where nothing is read", 100 * size[1], "%", at_most=11),
        Figure("partial test rejects where the covariate is read", 100 * read[0], "%", at_least=90),
    ]


def main():
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=["tests", "interval", "planted"])
    options = parser.parse_args()
    if options.only in (None, "planted"):
        planted_cohorts(options.seeds)
    if options.only in (None, "interval"):
        coverage(options.rounds)
    if options.only in (None, "tests"):
        rejections(options.rounds)


if __name__ == "__main__":
    main()
