"""ROC and precision–recall curves of subjects against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from headscope.analysis.results.curves import GRID, _read, subject_curves
from headscope.analysis.results.pooled import pool_runs
from headscope.files import NO_ID
from headscope.metrics.subjects import Units
from tests.support.synthetic import write_synthetic_run


def units(rng, n=60, ties=False):
    labels = rng.integers(0, 2, n)
    margin = rng.normal(size=n) + labels
    margin = np.round(margin) if ties else margin
    logs = np.stack([-np.logaddexp(0, margin), -np.logaddexp(0, -margin)], axis=1)
    return Units(labels, logs, np.arange(n)), margin


@pytest.mark.parametrize("ties", [False, True])
def test_curves_are_those_of_scikit_learn_on_drawn_subjects(ties):
    rng = np.random.default_rng(3)
    made, margin = units(rng, ties=ties)
    counts = np.stack([np.ones(60), rng.multinomial(60, np.full(60, 1 / 60))])
    roc, precision = _read(made, 1, counts)
    for b in range(2):
        weight = counts[b]
        kept = weight > 0
        x, y, _ = roc_curve(
            made.labels[kept], margin[kept], sample_weight=weight[kept], drop_intermediate=False
        )
        inside = ~np.isin(np.round(GRID, 9), np.round(x, 9))  # at a step both ends are right
        assert np.allclose(roc[b][inside], np.interp(GRID[inside], x, y))
        p, r, _ = precision_recall_curve(
            made.labels[kept], margin[kept], sample_weight=weight[kept]
        )
        for k, recall in enumerate(GRID[1:], start=1):
            reached = np.flatnonzero(r >= recall - 1e-9)[-1]  # the highest threshold with it
            assert precision[b, k] == pytest.approx(p[reached])


def test_the_area_under_the_curve_is_the_recorded_one(tmp_path):
    run = write_synthetic_run(tmp_path, width=16, subjects=60)
    pool = pool_runs([run])
    curves = subject_curves(pool, 1)
    (test,) = pool.tests
    auc = roc_auc_score(test.subjects.labels, test.subjects.margin(1))
    assert np.trapezoid(curves.roc.y, GRID) == pytest.approx(auc, abs=0.03)
    assert (curves.roc.low <= curves.roc.y + 1e-9).all()
    assert (curves.roc.high >= curves.roc.y - 1e-9).all()
    assert curves.prevalence == (test.subjects.labels == 1).mean()


def test_three_classes_are_averaged_each_against_the_rest(tmp_path):
    run = write_synthetic_run(tmp_path, width=16, subjects=60, class_names=("NC", "MCI", "AD"))
    curves = subject_curves(pool_runs([run]), 0)
    assert curves.roc.y[-1] == pytest.approx(1.0) and curves.prevalence == pytest.approx(
        1 / 3, abs=0.2
    )


def test_pictures_without_ids_have_no_curve(tmp_path):
    pool = pool_runs([write_synthetic_run(tmp_path, width=8, epochs=1)])
    nameless = replace(pool, ids=np.full(len(pool.ids), NO_ID))
    assert subject_curves(pool, 1) is not None and subject_curves(nameless, 1) is None
