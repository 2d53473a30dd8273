"""A cohort from elsewhere: scores, the drop, calibration and planted heads, against oracles."""

import json
import re
import shutil
import warnings
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

import headscope as hs
from headscope.analysis.explanations.cohorts import (
    _known,
    drop_between,
    read_cohorts,
    swap_doubts,
)
from headscope.analysis.explanations.external import External
from headscope.analysis.explanations.recalibration import recalibrate
from headscope.analysis.novelty import training_scans, usual_limit
from headscope.errors import InputError
from headscope.experiment.new_scans.overlap import find_overlap
from headscope.files import NO_ID, read_table, write_table
from headscope.metrics import Drawn, resample
from headscope.record import read_experiment
from headscope.record.evaluation import Overlap, SharedHead
from headscope.reporting.blocks import TableBlock
from headscope.reporting.explanations.cohorts import _drop, cohort_flags, cohorts_chapter
from headscope.slicing.store import open_slices
from tests.conftest import quick_search
from tests.support.commands import headscope_here
from tests.support.experiments import settings
from tests.support.heads import write_store

SEEDS = (0, 1)


def write_scans(folder, subjects, rng, *, contrast=1.0, planted=(), side=24):
    """Class folders of balls in noise, whose inner ball tells the class; `planted` files beside.

    contrast is the exponent of a change of all intensities; side the voxels of an edge.
    """
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(axis=0))

    def write(path, volume):
        changed = 1000 * np.clip(volume / 1000, 0, 1) ** contrast
        path.parent.mkdir(parents=True, exist_ok=True)
        spacing = 190 / side
        nib.save(nib.Nifti1Image(changed.astype(np.int16), np.diag([spacing] * 3 + [1])), path)

    for k, name in enumerate(("AD", "NC")):
        for subject in range(subjects):
            volume = 400 * (radius < 0.9) + 250 * (radius < 0.35 + 0.15 * k)
            volume = volume + rng.normal(0, 60, radius.shape) * (radius < 0.9)
            write(folder / name / f"sub-{folder.name}{name}{subject}_T1w.nii.gz", volume)
    for n, source in enumerate(planted):
        name = source.parent.name
        write(folder / name / f"sub-planted{n}_T1w.nii.gz", nib.load(source).get_fdata())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment of two seeds, and a cohort of another contrast with two of its heads."""
    folder, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    home = write_scans(folder / "home", 6, rng)
    planted = [home / "AD" / "sub-homeAD0_T1w.nii.gz", home / "NC" / "sub-homeNC1_T1w.nii.gz"]
    write_scans(folder / "away", 5, rng, contrast=0.7, planted=planted)
    options = {"regimes": ["frozen"], "splits": ["subject"], "seeds": SEEDS, "size": 64}
    with quick_search():
        hs.run(settings(home, folder / "out", learning_rate=0.5, epochs=8, **options))
    return folder


@pytest.fixture(scope="module")
def result(made):
    return hs.evaluate(made / "out", made / "away", workers=1)


def test_recalibration_is_that_of_logistic_regression():
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 3, 60)
    present = rng.random(60) < expit(0.4 * margins - 0.7)
    counts = np.concatenate([np.ones((1, 60)), rng.multinomial(60, np.full(60, 1 / 60), 5)])
    large, slope = recalibrate(margins, present, counts)
    for weights, a, b in zip(counts, large, slope, strict=True):
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        model.fit(margins[:, None], present, weights)
        assert b == pytest.approx(model.coef_[0, 0], abs=1e-5)

        def error(a, weights=weights):
            return (weights * (expit(a + margins) - present)).sum()

        assert a == pytest.approx(brentq(error, -50, 50), abs=1e-9)


def test_recalibration_of_what_cannot_be_told_is_undefined():
    margins = np.array([-40.0, -1, 2, 300])
    large, slope = recalibrate(margins, np.array([0, 0, 1, 1]), np.array([[1, 1, 1, 1]]))
    assert np.isfinite(large).all() and np.isnan(slope).all()  # a threshold separates the classes
    alone = recalibrate(margins, np.ones(4), np.ones((1, 4)))
    assert np.isnan(np.concatenate(alone)).all()
    assert np.isnan(recalibrate(np.ones(4), np.array([0, 1, 0, 1]), np.ones((1, 4)))[1]).all()
    mixed = recalibrate(margins, np.array([0, 1, 0, 1]), np.array([[1, 1, 1, 1], [1, 0, 0, 1]]))
    assert np.isfinite(mixed[1][0]) and np.isnan(mixed[1][1])


def test_a_drop_has_the_variance_of_both_samples():
    def sample(count, share, seed):
        rng = np.random.default_rng(seed)
        right = (rng.random(count) < share).astype(float)
        labels = np.arange(count) % 2
        resampled = resample(labels, np.arange(count), count, seed=seed)
        return resampled.apply(lambda counts: {"a": counts @ right / counts.sum(axis=1)})["a"]

    inside, there = sample(80, 0.9, 0), sample(80, 0.6, 1)
    drop = drop_between(inside, there)
    assert isinstance(drop, Drawn)
    assert drop.mean == pytest.approx(inside.mean - there.mean)
    expected = inside.drawn.var() + there.drawn.var()
    assert drop.drawn.var() == pytest.approx(expected, rel=0.1)
    low, high = drop.interval("percentile", shared=0.0)
    assert low == pytest.approx(drop.mean - 1.96 * expected**0.5, abs=0.03)
    assert high == pytest.approx(drop.mean + 1.96 * expected**0.5, abs=0.03)


def test_the_limit_is_the_largest_distance_to_another_subject():
    rng = np.random.default_rng(0)
    centre, subject = rng.normal(size=(9, 5)), np.array([0, 0, 1, 1, 2, 3, 3, 4, 4])
    nearest = [
        NearestNeighbors(n_neighbors=1)
        .fit(centre[subject != subject[n]])
        .kneighbors(centre[n : n + 1])[0][0, 0]
        for n in range(9)
    ]
    assert usual_limit(centre, subject) == pytest.approx(max(nearest))
    assert np.isnan(usual_limit(centre[:4], subject[:4]))


def test_a_new_subject_of_the_same_kind_is_beyond_the_limit_once_in_n_plus_one():
    rng, beyond = np.random.default_rng(0), 0
    for _ in range(1500):
        points = rng.standard_t(3, size=(10, 4))
        nearest = np.linalg.norm(points[:9] - points[9], axis=1).min()
        beyond += nearest > usual_limit(points[:9], np.arange(9))
    assert beyond / 1500 == pytest.approx(1 / 10, abs=0.025)


def test_scores_are_those_of_the_predictions(made, result):
    runs = read_experiment(made / "out")
    (row,) = result.rows
    tables = [
        read_table(result.path / "runs" / run.name / "predictions.tsv").groupby("subject_id")
        for run in runs
    ]
    accuracy, area = [], []
    for table in tables:
        truth = table["label"].first() == "AD"
        probability = table["probability_AD"].mean()
        accuracy.append(accuracy_score(truth, probability > 0.5))
        area.append(roc_auc_score(truth, probability))
    assert row.scores["subject_accuracy"].value == pytest.approx(np.mean(accuracy))
    assert row.scores["subject_auc"].value == pytest.approx(np.mean(area))
    own = np.mean([run.score("test", "subject_accuracy") for run in runs])
    assert row.scores["subject_accuracy"].inside == pytest.approx(own)
    assert row.scores["subject_accuracy"].drop == pytest.approx(own - np.mean(accuracy))
    assert row.subjects == 12 and row.slices == 48 and row.prevalence["AD"] == (0.5, 0.5)
    for run in runs:
        metrics = json.loads((result.path / "runs" / run.name / "metrics.json").read_text())
        assert metrics["subjects"] == 12


def test_calibration_there_is_that_of_logistic_regression(made, result):
    (part,) = result.rows[0].calibration
    slopes = []
    for run in read_experiment(made / "out"):
        table = read_table(result.path / "runs" / run.name / "predictions.tsv")
        p = table.groupby("subject_id")["probability_AD"].mean()
        truth = table.groupby("subject_id")["label"].first() == "AD"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=20_000)
            model.fit(np.log(p / (1 - p)).to_numpy()[:, None], truth)
        separated = model.score(np.log(p / (1 - p)).to_numpy()[:, None], truth) == 1
        slopes.append(np.nan if separated else model.coef_[0, 0])
    assert part.class_name == "AD" and part.observed == 0.5
    assert part.slope == pytest.approx(np.mean(slopes), rel=1e-3, nan_ok=True)


def test_planted_heads_are_found_and_told(made, result, undrawn):
    assert result.overlap.new_subjects == ["sub-planted0", "sub-planted1"]
    assert {head.subjects for head in result.overlap.heads} == {
        ("sub-homeAD0", "sub-planted0"),
        ("sub-homeNC1", "sub-planted1"),
    }
    assert "2 of 12 subjects show a head" in result.notes[0]
    copy = shutil.copytree(made / "out", made / "shown")
    page = hs.report(copy, "none").read_text(encoding="utf-8")
    (copy / "evaluations.tsv").unlink()  # a report that lacks a table does not stand
    hs.report(copy, "none")
    assert "Not a cohort from elsewhere:" in page and "a cohort from elsewhere, timm" in page
    assert page.count('alt="Middle slice of ') >= 4
    table = read_table(copy / "evaluations.tsv")
    assert table["subjects_known"].tolist() == [result.rows[0].known_heads]
    assert hs.verify(copy).whole, hs.verify(copy).problems
    (_, *blocks) = cohorts_chapter([result], [], None).blocks
    captions = [block.table.title for block in blocks if isinstance(block, TableBlock)]
    assert "The experiment’s slices are no longer there." in captions[-1]


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("overlap.json", '"scans": 12', '"scans": 13', "overlap.json has changed"),
        ("runs/RUN/metrics.json", '"subjects": 12', '"subjects": 13', "metrics.json has changed"),
        ("runs/RUN/predictions.tsv", "NC", "AD", "predictions.tsv has changed"),
    ],
)
def test_a_change_is_named_and_nothing_is_drawn_from_it(
    made, result, tmp_path, file, old, new, said
):
    out = shutil.copytree(made / "out", tmp_path / "out")
    path = out / "evaluations" / "away" / file.replace("RUN", read_experiment(out)[0].name)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert any(said in problem for problem in hs.verify(out).problems)
    results, notes = read_cohorts(out)
    assert results == [] and said in notes[0]


def test_the_same_command_continues_and_does_nothing_twice(
    made, result, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(made / "out", tmp_path / "out")
    folder = out / "evaluations" / "away"
    (folder / "overlap.json").unlink()
    shutil.rmtree(next((folder / "runs").iterdir()))
    done = headscope_here(monkeypatch, capsys, "evaluate", out, made / "away", "--json")
    assert done.returncode == 0 and done.stderr.count("already evaluated") == 1
    printed = json.loads(done.stdout)
    assert (
        printed["settings"][0]["subject_accuracy"]
        == result.rows[0].scores["subject_accuracy"].value
    )
    assert printed["subjects_in_both"] == ["sub-planted0", "sub-planted1"]
    before = {path: path.read_bytes() for path in (made / "out" / "evaluations").rglob("*.*")}
    hs.evaluate(made / "out", made / "away", workers=1)
    assert before == {path: path.read_bytes() for path in before}
    done = headscope_here(
        monkeypatch, capsys, "evaluate", out, made / "home", "--out", "away", "--where", "x > 1"
    )
    assert done.returncode == 2


def test_one_run_alone_is_scored(made, tmp_path):
    out = shutil.copytree(made / "out", tmp_path / "out")
    path = read_experiment(out)[1].path
    result = hs.evaluate(path, made / "away", out="alone", workers=1)
    assert [row.key for row in result.rows] == [path.name]
    lone = shutil.move(hs.export(path, tmp_path / "whole"), tmp_path / "lone")
    with pytest.raises(InputError, match="is not in an experiment"):
        hs.evaluate(lone, made / "away")


def test_what_does_not_fit_is_one_sentence(made, tmp_path, monkeypatch, capsys):
    out, away = made / "out", made / "away"
    renamed = shutil.copytree(away, tmp_path / "renamed")
    (renamed / "AD").rename(renamed / "patients")
    three = shutil.copytree(away, tmp_path / "three")
    shutil.copytree(away / "NC", three / "MCI")
    for path in (three / "MCI").iterdir():
        path.rename(path.with_name(path.name.replace("sub-", "sub-mci")))
    for folder, said in (
        (renamed, r"are NC, patients, those of .* AD, NC: name the values .* --classes AD=VALUE"),
        (three, r"tells 2 classes \(AD, NC\), and .* has 3 \(AD, MCI, NC\)"),
    ):
        with pytest.raises(InputError, match=said):
            hs.evaluate(out, folder)
    other = tmp_path / "planes"
    shutil.copytree(away, other / "files")
    table = [
        (path.relative_to(other).as_posix(), str(n), path.parent.name)
        for n, path in enumerate((other / "files").rglob("*.nii.gz"))
    ]
    frame = pd.DataFrame(table, columns=["path", "subject_id", "label"]).assign(plane="coronal")
    write_table(other / "scans.tsv", frame)
    with pytest.raises(InputError, match=r"holds coronal slices, and .* was trained on axial ones"):
        hs.evaluate(out, other)
    # slices of two axes without orientation, in a table that names no planes: their names do
    flat = nib.Nifti1Image(np.zeros((24, 24), np.int16), None)
    names = [f"sub-{n}_cor.nii.gz" for n in range(4)]
    for name in names:
        nib.save(flat, other / name)
    frame = pd.DataFrame({"path": names, "subject_id": range(4), "label": ["AD", "NC"] * 2})
    write_table(other / "scans.tsv", frame)
    with pytest.raises(InputError, match=r"coronal slices \(4 of 4 scans\), and .* axial ones"):
        hs.evaluate(out, other)
    done = headscope_here(monkeypatch, capsys, "evaluate", out, away, "--out", "a/b")
    assert done.returncode == 2 and "Unknown name 'a/b' of an evaluation" in done.stderr
    assert not (out / "evaluations" / "renamed").exists()


@pytest.mark.real_data
def test_coronal_slices_are_refused_by_an_axial_run(made, real_data, tmp_path):
    folder = real_data / "oasis2"
    (tmp_path / "cor").symlink_to(folder / "cor")
    shutil.copy(folder / "oasis_longitudinal_demographic.csv", tmp_path)
    with pytest.raises(InputError, match=r"holds coronal slices, and .* was trained on axial ones"):
        hs.evaluate(made / "out", tmp_path)


def test_a_head_at_another_visit_is_found_across_stores(tmp_path):
    """And none within a cohort, nor where heads differ."""
    first = write_store(tmp_path / "a", subjects=12)

    def plant(table, stack):
        planted = table.iloc[:4].assign(
            subject_id=["new1"] * 2 + ["new2"] * 2, scan=["x"] * 2 + ["y"] * 2
        )
        pictures = brighter(np.load(first / "slices.npy")[:4], np.random.default_rng(0))
        return pd.concat([table, planted]), np.concatenate([stack, pictures])

    second = write_store(tmp_path / "b", subjects=10, seed=5, alter=plant)
    overlap = find_overlap(open_slices(first), open_slices(second), ["P01", "Q"])
    assert {head.subjects for head in overlap.heads} == {("P00", "new1"), ("P01", "new2")}
    assert {head.kind for head in overlap.heads} <= {"copy", "alike"} and overlap.note == ""
    assert overlap.same_ids == ("P01",) and overlap.scans == overlap.subjects == 12
    gone = find_overlap(None, open_slices(second), [])
    assert gone.heads == () and "no longer in the experiment" in gone.note


def brighter(head, rng):
    return np.clip(head * 0.8 + 20 + rng.normal(0, 3, head.shape), 0, 255).astype(np.uint8)


def test_training_scans_are_the_means_of_their_slices(made):
    run = read_experiment(made / "out")[0]
    reference = training_scans(run)
    assert (
        reference.subjects == int(run.predicted("train")["subject_id"].nunique())
        and reference.fewest_slices == 4
    )
    rows = reference.rows[0]
    assert len(set(run.predictions["subject_id"].iloc[rows])) == 1
    assert reference.distances(run.features["features"][rows]).min() == pytest.approx(0, abs=1e-5)
    assert np.isnan(reference.share_of_limit(run.features["features"][rows][:2]))


def test_pictures_that_trained_are_counted_where_subjects_were_inferred():
    ids = ["inferred-loose-001", "inferred-loose-002"]
    predictions = pd.DataFrame(
        {"subset": ["train", "test"], "scan": ["a.png", "b.png"], "subject_id": ids,
         "session_id": "1"}
    )  # fmt: skip
    heads = tuple(
        SharedHead("identical", (name, name), (NO_ID, NO_ID), ("1", "1"), ("F", "F"), (0, 0), 1.0)
        for name in ("a.png", "b.png")
    )
    overlap = Overlap(scans=2, subjects=0, heads=heads, same_ids=())
    assert _known(overlap, [SimpleNamespace(predictions=predictions)]) == {"a.png"}


def test_classes_that_may_be_swapped_are_named():
    def row(value, low, high):
        inside = SimpleNamespace(architecture="net", name="frozen", split="subject")
        areas = {"subject_auc": External(value, low, high, 0.8, *[np.nan] * 3)}
        return SimpleNamespace(scores=areas, subjects=9, inside=inside)

    named = {"class_names": ["F", "M"], "classes": {"F": ["female"], "M": ["M"]}}
    likely, sure = row(0.2, 0.05, 0.6), row(0.1, 0.02, 0.4)
    assert swap_doubts(named, [likely]) == () == swap_doubts({"class_names": ["F", "M"]}, [likely])
    (against,) = swap_doubts(named, [likely, sure])
    assert "1 of 2 settings rank that cohort against its labels" in against
    assert "AUC 0.100, 95% 0.020 to 0.400" in against
    assert swap_doubts(named, [row(0.0, np.nan, np.nan)])  # of which draws give no interval
    crossed = named | {"classes": {"F": ["M"], "M": ["F"]}}
    (doubt,) = swap_doubts(crossed, [likely])
    assert "M counts as F, F counts as M there" in doubt
    cohort = SimpleNamespace(name="there", doubts=(doubt,), overlap=SimpleNamespace(heads=()))
    assert "Swapped classes?</b> there: By --classes M" in cohort_flags([cohort])[0]


def test_of_pictures_without_ids_no_drop_is_claimed():
    none = External(0.8, 0.7, 0.9, *[np.nan] * 4)
    assert _drop(none, "evaluations/there", "subject_accuracy") == (
        "where its own test names no subjects"
    )
    slices = External(0.5, np.nan, np.nan, 0.6, 0.1, np.nan, np.nan)
    words = re.sub("<[^>]*>", "", _drop(slices, "evaluations/there", "slice_accuracy"))
    assert words == "10.0 points below its own test (no interval can be given)"
