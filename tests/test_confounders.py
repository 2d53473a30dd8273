"""Confounder tests against enumeration, the adjusted AUC against scikit-learn, and what is said."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

import headscope as hs
from headscope.analysis.explanations import confounders
from headscope.analysis.explanations.adjusted import adjusted_auc
from headscope.analysis.explanations.confounders import (
    differs_by_class,
    full_test,
    partial_test,
)
from headscope.analysis.explanations.confounding import hold_against, pooled_ranks
from headscope.analysis.explanations.covariates import covariates_of, read_covariates
from headscope.analysis.results import pooled
from headscope.analysis.results.settings import setting_results
from headscope.metrics import slice_units
from headscope.record import read_experiment
from headscope.reporting.explanations.confounders import (
    confounder_flags,
    confounder_sentences,
    confounders_chapter,
    read_confounding,
)
from tests.support.synthetic import write_experiment

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
AGES = np.array([61.0, 66, 70, 74, 68, 72, 79, 83])
SEXES = np.array(["F", "F", "M", "M", "F", "M", "M", "F"])


def drawn_scores(seed=0, columns=1):
    return np.random.default_rng(seed).normal(size=(len(LABELS), columns)) + 0.1 * AGES[:, None]


def statistic(scores, covariate):
    """The squared covariance of scores and covariate within classes, by its definition."""
    centred = scores - np.stack([scores[k == LABELS].mean(axis=0) for k in LABELS])
    if covariate.dtype.kind == "f":
        ranks = np.argsort(np.argsort(covariate)) - 3.5
        return ((ranks @ centred) ** 2).sum() / (ranks**2).sum()
    levels = [covariate == name for name in np.unique(covariate)]
    return sum((centred[rows].sum(axis=0) ** 2).sum() / rows.sum() for rows in levels)


@pytest.mark.parametrize("covariate", [AGES, SEXES], ids=["age", "sex"])
@pytest.mark.parametrize("columns", [1, 3])
def test_the_partial_test_is_that_of_all_permutations_within_class(covariate, columns):
    scores = drawn_scores(3, columns)
    observed, beyond, total = statistic(scores, covariate), 0, 0
    for first in permutations(range(4)):
        for second in permutations(range(4, 8)):
            beyond += statistic(scores, covariate[[*first, *second]]) >= observed - 1e-12
            total += 1
    result = partial_test(scores, LABELS, covariate, permutations=4000)
    assert result.p == pytest.approx(beyond / total, abs=0.02)
    assert result.permutations == 4000


def arrangements():
    """Every way to label four of the eight subjects as class 1, (70, 8)."""
    rows = [list(chosen) for chosen in combinations(range(8), 4)]
    return np.stack([np.isin(np.arange(8), chosen).astype(int) for chosen in rows])


@pytest.mark.parametrize("number", [True, False], ids=["age", "sex"])
def test_the_full_test_is_that_of_all_labels_by_their_probability(number):
    scores = drawn_scores(5) + LABELS[:, None]
    if number:
        design = np.vander((AGES - AGES.mean()) / AGES.std(), 3)
        odds = confounders._label_odds(LABELS, AGES, (LABELS, AGES))
        covariate = AGES
    else:
        design = np.eye(2)[(SEXES == "M").astype(int)]
        odds, covariate = np.zeros((8, 2)), SEXES
    residual = scores[:, 0] - design @ np.linalg.lstsq(design, scores[:, 0], rcond=None)[0]
    labels = arrangements()
    if not number:  # as many of each label among women and among men
        labels = labels[(labels[:, SEXES == "F"]).sum(axis=1) == LABELS[SEXES == "F"].sum()]
    weight = np.exp(odds[np.arange(8), labels].sum(axis=1))
    exact = weight[labels @ residual >= LABELS @ residual - 1e-12].sum() / weight.sum()
    result = full_test(scores, LABELS, covariate, permutations=4000)
    assert result.p == pytest.approx(exact, abs=0.03)


def cohort(seed, of_label, of_age, subjects=60):
    """Scores of test subjects whose age differs by class, and the cohort that they are part of."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    ages = 70 + 6 * (labels + rng.normal(size=200))
    scores = of_label * labels + of_age * (ages - 70) / 6 + rng.normal(size=200)
    tested = slice(0, subjects)
    return scores[tested, None], labels[tested], ages[tested], (labels, ages)


@pytest.mark.parametrize(
    ("of_label", "of_age", "partial", "full"),
    [(0, 0, "size", "size"), (0, 1, "power", "size"), (1, 0, "size", "power")],
)
def test_size_and_power(of_label, of_age, partial, full):
    rejected = np.zeros(2)
    for seed in range(60):
        scores, labels, ages, reference = cohort(seed, of_label, of_age)
        options = {"permutations": 59, "seed": seed}
        rejected += [
            partial_test(scores, labels, ages, **options).p <= 0.05,
            full_test(scores, labels, ages, reference=reference, **options).p <= 0.05,
        ]
    for share, wanted in zip(rejected / 60, (partial, full), strict=True):
        assert share > 0.8 if wanted == "power" else share < 0.14


def test_where_nothing_is_free_there_is_no_p():
    sites = np.where(LABELS == 1, "A", "B")
    assert partial_test(drawn_scores(), LABELS, sites).permutations == 0
    assert np.isnan(full_test(drawn_scores(), LABELS, sites).p)
    assert differs_by_class(LABELS, sites) < 0.1
    assert np.isnan(differs_by_class(LABELS, np.full(8, "A")))


def test_subjects_are_exchanged_within_their_group_alone():
    groups = np.array([0, 1] * 4)
    cells = confounders._cells(LABELS, groups)
    order = confounders._permute(cells, 50, np.random.default_rng(0))
    assert (groups[order] == groups).all() and (LABELS[order] == LABELS).all()
    swapped = confounders._swap(
        LABELS, np.zeros((8, 2)), confounders._cells(0 * LABELS, groups), 50,
        np.random.default_rng(0),
    )  # fmt: skip
    for group in (0, 1):
        assert (swapped[:, groups == group].sum(axis=1) == 2).all()


def pool_of(labels, logits, folds=1):
    """Tests of subjects, each a slice, as one pool of folds."""
    tests = []
    for fold in range(folds):
        rows = np.arange(fold, len(labels), folds)
        units = slice_units(labels[rows], logits[rows], rows)
        tests.append(pooled.Test(units, units))
    ids = np.array([f"s{n:03d}" for n in range(len(labels))])
    return pooled.Pool((tuple(tests),), ids, labels, 0.6)


def with_margin(scores):
    return np.column_stack([np.zeros(len(scores)), scores])


@pytest.fixture(scope="module")
def sixty():
    rng = np.random.default_rng(4)
    labels = np.arange(60) % 2
    ages = 70 + 6 * (labels + rng.normal(size=60))
    scores = labels + (ages - 70) / 6 + rng.normal(size=60)
    return labels, ages, scores


def residual_auc(labels, ages, scores):
    rest = labels == 0
    line = LinearRegression().fit(ages[rest, None], scores[rest])
    return roc_auc_score(labels, scores - line.predict(ages[:, None]))


def test_the_auc_given_a_quantity_is_that_of_residuals(sixty):
    labels, ages, scores = sixty
    score = adjusted_auc(pool_of(labels, with_margin(scores)), ages, 1)
    assert score.value == pytest.approx(residual_auc(labels, ages, scores), abs=1e-12)
    assert score.low < score.value < score.high < roc_auc_score(labels, scores) + 0.1
    folds = adjusted_auc(pool_of(labels, with_margin(scores), folds=3), ages, 1)
    parts = [residual_auc(*(part[fold::3] for part in sixty)) for fold in range(3)]
    assert folds.value == pytest.approx(np.mean(parts), abs=1e-12)


def test_the_auc_given_categories_is_the_mean_of_theirs_by_their_cases(sixty):
    labels, ages, scores = sixty
    level = np.where(ages > 78, "old", np.where(ages > 70, "mid", "young"))
    level[labels == 1] = np.where(level[labels == 1] == "old", "mid", level[labels == 1])
    areas, cases = [], []
    for name in ("mid", "young"):  # of the old there is no case
        rows = level == name
        areas.append(roc_auc_score(labels[rows], scores[rows]))
        cases.append(labels[rows].sum())
    score = adjusted_auc(pool_of(labels, with_margin(scores)), level, 1)
    assert score.value == pytest.approx(np.average(areas, weights=cases), abs=1e-12)


def test_of_three_classes_the_adjusted_auc_is_the_mean_of_each_against_the_rest(sixty):
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 3
    logits = np.eye(3)[labels] + rng.normal(size=(60, 3))
    pool = pool_of(labels, logits)
    units = pool.tests[0].subjects
    areas = [residual_auc((labels == k).astype(int), sixty[1], units.margin(k)) for k in range(3)]
    assert adjusted_auc(pool, sixty[1]).value == pytest.approx(np.mean(areas), abs=1e-12)


def test_ranks_are_taken_within_folds(sixty):
    labels, _, scores = sixty
    ranks = pooled_ranks(pool_of(labels, with_margin(scores), folds=2))[:, 0]
    moved = scores + 100 * (np.arange(60) % 2)
    assert np.array_equal(ranks, pooled_ranks(pool_of(labels, with_margin(moved), folds=2))[:, 0])
    assert ranks[::2].sum() == pytest.approx(0)
    within = pooled_ranks(pool_of(labels, with_margin(scores), folds=3), by_class=True)[:, 0]
    assert within[labels == 1].sum() == pytest.approx(0)


def test_labels_and_their_permutations_are_exchangeable_after_one_round_too(monkeypatch):
    monkeypatch.setattr(confounders, "STEPS", 1)
    odds = np.log([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    cells, rng = [np.arange(4)], np.random.default_rng(0)
    ways = [np.isin(np.arange(4), chosen).astype(int) for chosen in combinations(range(4), 2)]
    weight = np.exp([odds[np.arange(4), way].sum() for way in ways])
    ranks = []
    for _ in range(3000):
        labels = ways[rng.choice(6, p=weight / weight.sum())]
        ends = np.vstack([labels, confounders._swap(labels, odds, cells, 4, rng)])
        values = ends @ [1.0, 2.1, 4.3, 8.7] + 1e-6 * rng.random(5)  # ties broken at random
        ranks.append((values < values[0]).sum())
    assert np.bincount(ranks, minlength=5) == pytest.approx(600, abs=90)  # 4 standard deviations


def held_against(labels, scores, better=True, folds=1, **columns):
    table = pd.DataFrame({"label": np.where(labels == 1, "AD", "NC")} | columns)
    pool = pool_of(labels, with_margin(scores), folds)
    table["subject_id"] = pool.ids
    covariates = covariates_of(table, list(columns))
    return hold_against(pool, covariates, ["NC", "AD"], better=better)


def test_what_the_tests_come_to(sixty):
    labels, ages, _ = sixty
    rng = np.random.default_rng(2)
    noise = rng.normal(size=60)
    site = np.where(labels == 1, "A", "B")
    sex = rng.choice(["F", "M"], 60)
    by_age = (ages - 70) / 6 + 0.2 * noise
    tested, notes = held_against(labels, by_age, age=ages, sex=sex, site=site, hand="R")
    assert {item.covariate: item.finding for item in tested} == {
        "age": "explains",
        "sex": "",
        "site": "coincides",
    }
    assert tested[0].read and tested[0].adjusted.value < tested[0].auc.value
    assert notes == ["hand is not tested: it is R for every test subject."]
    (both, _), _ = held_against(labels, by_age + 2 * labels, age=ages, sex=sex)
    assert both.finding == "reads" and both.full.p < 0.01
    (only_class, _), _ = held_against(labels, labels + 0.5 * noise, age=ages, sex=sex)
    assert only_class.finding == ""
    (poor, _), _ = held_against(labels, noise, better=False, age=ages, sex=sex)
    assert poor.finding == ""


def test_folds_of_one_class_do_not_let_a_covariate_decide_it(sixty):
    labels, ages, scores = sixty
    site = np.where(ages > np.median(ages), "A", "B")
    tested, notes = held_against(labels, scores, folds=60, age=ages, site=site)
    assert [item.finding for item in tested] == ["", ""]
    assert all("cannot be tested: no fold has test subjects" in note for note in notes)
    assert len(notes) == 2


def test_many_covariates_are_corrected_for(sixty):
    labels, ages, _ = sixty
    rng = np.random.default_rng(6)
    columns = {f"noise {k}": rng.normal(size=60) for k in range(2)}
    tested, _ = held_against(labels, rng.normal(size=60), age=ages, **columns)
    raw = sorted(item.partial.p for item in tested)
    assert min(item.partial_p for item in tested) == pytest.approx(min(1, 3 * raw[0]))


def test_covariates_are_read_by_subject(tmp_path):
    rows = [
        ("b", 1, "NC", 70, 1.5, 3, "x"),
        ("b", 2, "NC", 72, 3, 4, ""),
        ("a", 1, "AD", 80, "", 5, "y"),
    ]
    names = ["subject_id", "session_id", "label", "age", "field_strength", "SES", "site"]
    table = pd.DataFrame(rows, columns=names).replace("", "n/a")
    table.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    covariates = read_covariates(tmp_path)
    assert list(covariates.subjects) == ["a", "b"] and list(covariates.labels) == ["AD", "NC"]
    assert list(covariates.columns["age"]) == [80, 71]
    assert list(covariates.columns["field_strength"]) == ["", "1.5"]
    assert list(covariates.columns["SES"]) == ["5", "3"]
    assert covariates.varying["SES"] == 1
    values, given = covariates.of("field_strength", np.array(["b", "c", "a"]))
    assert values[0] == "1.5" and list(given) == [True, False, False]
    assert read_covariates(tmp_path / "none") is None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """An experiment in which age decides the class, sex does nothing, and one value is missing."""
    folder = write_experiment(
        tmp_path_factory.mktemp("confounded") / "e",
        [{"subjects": 60, "seed": seed, "signal": 4.0} for seed in (0, 1)],
    )
    table = read_experiment(folder)[0].predictions.drop_duplicates("subject_id")
    table = table[["subject_id", "session_id", "label"]].reset_index(drop=True)
    rng = np.random.default_rng(0)
    sick = (table["label"] == "AD").to_numpy()
    table["age"] = 60 + 20 * sick + 5 * rng.random(len(table))
    table["sex"] = np.where(np.arange(len(table)) // 2 % 2, "F", "M")
    table.loc[0, "sex"] = "n/a"
    table["site"] = np.where(sick, "A", "B")
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    return folder


def test_an_experiment_is_held_against_its_covariates(recorded):
    (result,) = hs.analyse_confounders(recorded)
    by_name = {item.covariate: item for item in result.confounders}
    assert result.better and by_name["sex"].full.p <= 0.05 and by_name["sex"].finding == ""
    assert by_name["site"].finding == "coincides" and by_name["age"].finding == "explains"
    sums = {name: sum(r.subjects for r in result.strata if r.covariate == name) for name in by_name}
    assert sums["sex"] == by_name["sex"].subjects
    probes = {probe.covariate: probe for probe in result.probes}
    assert probes["sex"].levels == ("F", "M") and probes["sex"].chance == 0.5
    assert abs(probes["sex"].accuracy - 0.5) < 0.3 and np.isnan(probes["site"].accuracy)
    assert "Adjusted" in repr(result)


def test_the_report_says_what_covariates_explain(recorded):
    made = read_confounding(recorded, setting_results(read_experiment(recorded)))
    flags = " ".join(confounder_flags(made))
    assert "Site decides the class" in flags and "Age could explain this accuracy" in flags
    sentences = " ".join(confounder_sentences(made))
    assert "Given sex, the predictions still tell the classes" in sentences
    chapter = confounders_chapter(made)
    assert chapter.key == "confounders" and "site, age" in chapter.result
    assert confounders_chapter([]) is None and confounder_flags([]) == []
