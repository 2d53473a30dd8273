"""How sure a test of so many subjects can be: formulas against draws and against scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest

import headscope as hs
from headscope.analysis.results.paired import mcnemar
from headscope.metrics.precision import (
    auc_error,
    paired_difference,
    precisions,
    wilson_width,
)
from tests.support.commands import headscope_here
from tests.support.experiments import write_cohort


def test_the_error_of_an_auc_is_that_of_exponential_scores():
    rng = np.random.default_rng(0)
    auc = 0.8  # of scores that are exponential with means 4 and 1, as the formula assumes
    cases = rng.exponential(4, (4000, 12, 1))
    others = rng.exponential(1, (4000, 1, 20))
    areas = (cases > others).mean(axis=(1, 2))
    assert areas.mean() == pytest.approx(auc, abs=0.01)
    assert auc_error(auc, 12, 20) == pytest.approx(areas.std(), rel=0.05)


@pytest.mark.parametrize(("right", "count"), [(24, 30), (63, 90)])
def test_the_width_is_that_of_wilsons_interval(right, count):
    interval = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_width(right / count, count) == pytest.approx(interval.high - interval.low)


def test_mcnemar_finds_the_difference_in_four_of_five_draws():
    rng, first, count = np.random.default_rng(1), 0.8, 150
    second = first - paired_difference(first, count)
    both = first * second + 0.5 * np.sqrt(first * (1 - first) * second * (1 - second))
    shares = [both, first - both, second - both, 1 - first - second + both]
    detected = 0
    for cells in rng.multinomial(count, shares, size=400):
        right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], cells, axis=0)
        detected += mcnemar(*right.T).p <= 0.05
    assert detected / 400 == pytest.approx(0.8, abs=0.07)


def test_what_cannot_be_told_is_undefined():
    made = precisions([0, 3])
    assert np.isnan(made.rows[0].auc_width) and np.isnan(paired_difference(0.8, 3))
    assert "no difference of two networks would be found" in made.sentence
    assert made.as_dict()["rows"][0]["auc_width"] is None
    few, many = precisions([10, 10, 10]), precisions([100, 100, 100])
    for part in ("accuracy_width", "accuracy_difference", "auc_width", "auc_difference"):
        assert getattr(many.rows[1], part) < getattr(few.rows[1], part)


def test_inspect_and_dry_run_say_it(tmp_path, monkeypatch, capsys):
    data = write_cohort(tmp_path / "data", subjects=10)
    inspection = hs.inspect(data)
    assert inspection.tested.subjects == (3, 3)
    assert "A test of 3 and 3 subjects" in repr(inspection)
    assert inspection.as_dict()["tested"]["subjects"] == [3, 3]
    options = "--architectures timm/test_resnet --weights random --regimes frozen --folds 3"
    options += " --dry-run --size 32 --count 2"
    done = headscope_here(monkeypatch, capsys, "run", data, *options.split())
    assert "A test of 10 and 10 subjects" in done.stdout
