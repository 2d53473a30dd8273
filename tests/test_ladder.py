"""The ablation ladder: each rung on phantoms, what reaches whole slices, runs and their record."""

import json
import shutil

import numpy as np
import pytest

import headscope as hs
import headscope.training.features as features
from headscope.analysis.explanations.ladder import read_ladder
from headscope.record import Run
from headscope.reporting.explanations.ladder import ladder_chapter, ladder_sentences
from headscope.slicing import rungs
from headscope.slicing.store import open_slices
from tests.conftest import shared_copy
from tests.support.commands import headscope_here
from tests.support.grid import Elsewhere
from tests.support.ladders import REACHING, make_ladder
from tests.support.leakage_runs import run_by_torch

pytestmark = pytest.mark.usefixtures("few_trees")
RADIUS = np.hypot(*np.mgrid[-64:64, -64:64])  # of 128 × 128 pixels of 1.5 mm
MM = 1.5


def head(stripped=False):
    """A brain with ventricles; around it, unless it is stripped, dark skull and bright scalp."""
    slice_ = np.zeros(RADIUS.shape, dtype=np.uint8)
    if not stripped:
        slice_[RADIUS < 50] = 220  # scalp, 6 mm
        slice_[RADIUS < 46] = 5  # skull, 6 mm
    slice_[RADIUS < 42] = 150
    slice_[RADIUS < 8] = 10  # ventricle
    return slice_


def one(change, slice_, pixel_mm=MM):
    return change(slice_[None], pixel_mm)[0]


def test_foreground_and_silhouette_are_found_on_black_and_on_white():
    slice_ = head()
    expected = (RADIUS < 50) & ~((RADIUS >= 42) & (RADIUS < 46)) & ~(RADIUS < 8)
    np.testing.assert_array_equal(rungs.foreground(slice_), expected)
    np.testing.assert_array_equal(rungs.silhouette(slice_), RADIUS < 50)
    white = np.where(RADIUS < 50, slice_, 250).astype(np.uint8)
    assert rungs.level(white) == 250 and rungs.level(slice_) == 0
    np.testing.assert_array_equal(rungs.silhouette(white), RADIUS < 50)
    noise = np.random.default_rng(0).integers(0, 12, RADIUS.shape).astype(np.uint8)
    noisy = np.maximum(slice_, noise)
    noisy[3, 3] = 200  # a speck
    assert (rungs.silhouette(noisy) == (RADIUS < 50)).mean() > 0.999


def test_a_blur_spreads_by_four_millimetres():
    point = np.zeros((65, 65), dtype=np.uint8)
    point[28:37, 28:37] = 255
    blurred = one(rungs.blur, point, 2.0).astype(float)
    places = np.arange(65) - 32.0
    across = blurred.sum(axis=0) / blurred.sum()
    variance = (across * places**2).sum()
    assert variance == pytest.approx((9**2 - 1) / 12 + (4 / 2) ** 2, rel=0.05)


def test_binary_silhouette_rim_and_histogram_keep_what_they_say():
    slice_ = head()
    np.testing.assert_array_equal(one(rungs.binarise, slice_) == 255, rungs.foreground(slice_))
    np.testing.assert_array_equal(one(rungs.fill, slice_), np.where(RADIUS < 50, 255, 0))
    rim = one(rungs.keep_rim, slice_)
    deep = RADIUS < 50 - 10 / MM - 1
    assert not rim[deep].any()
    shallow = (RADIUS > 50 - 10 / MM + 1) & (RADIUS < 50)
    np.testing.assert_array_equal(rim[shallow], slice_[shallow])
    greys = one(rungs.shuffle, slice_)
    inside = RADIUS < 50
    assert (greys != slice_).any() and not greys[~inside].any()
    np.testing.assert_array_equal(np.sort(greys[inside]), np.sort(slice_[inside]))
    both = rungs.shuffle(np.stack([head(stripped=True), slice_]), MM)
    np.testing.assert_array_equal(both[1], greys)  # whatever slices are beside it


def test_the_brain_is_removed_from_heads_and_fills_stripped_ones():
    slice_ = head()
    outside = one(rungs.remove_brain, slice_)
    assert not outside[RADIUS < 42].any()
    scalp = (RADIUS >= 46) & (RADIUS < 50)
    assert (outside[scalp] == 220).mean() > 0.99
    share = rungs.brain_share(np.stack([slice_] * 3), MM)
    assert share == pytest.approx((42 / 50) ** 2, abs=0.03) and share < rungs.STRIPPED
    assert rungs.brain_share(head(stripped=True)[None], MM) > 0.97


@pytest.mark.parametrize("name", rungs.RUNGS)
def test_a_slice_of_nothing_stays_one(name):
    empty = np.zeros((2, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(rungs.RUNGS[name][1](empty, 2.0), empty)
    assert rungs.RUNGS[name][1](empty[:0], 2.0).shape == (0, 32, 32)
    assert np.isnan(rungs.brain_share(empty, 2.0))


def test_the_rung_that_keeps_least_of_those_that_reach_is_named():
    (setting,) = make_ladder().settings
    assert setting.reached.name == "binary"  # histogram's difference is wide, and beats no share
    assert "The rung ‘binarised at the foreground’ already reaches" in setting.sentence
    (setting,) = make_ladder(REACHING[:1] + REACHING[3:4]).settings
    assert setting.reached is None
    assert "No rung of the ladder reaches" in setting.sentence
    (setting,) = make_ladder(share=0.72).settings
    assert setting.reached is None and "Nothing can be said" in setting.sentence
    (setting,) = make_ladder(nameless=True).settings
    assert "name no subjects" in setting.sentence


def test_chapter_and_verdict_say_what_is_reached(undrawn):
    ladder = make_ladder()
    assert ladder_chapter(ladder).result == "reached by: binarised at the foreground"
    assert ladder_chapter(make_ladder(share=0.72)).result == "nothing can be said"
    assert ladder_chapter(None) is None and ladder_sentences(None) == []


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A trained experiment with two rungs, and how many slices its ladder passed."""
    folder = shared_copy(tmp_path_factory, "trained", run_by_torch) / "out"
    passed = []
    extract = features.extract

    def counting(model, inputs, rows, *args, **options):
        for batch in extract(model, inputs, rows, *args, **options):
            passed.append(len(batch[0]))
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "extract", counting)
        ladder = hs.ablate(folder, rungs=["silhouette", "blurred"])
    return folder, ladder, sum(passed)


def test_each_rung_is_of_ordinary_runs_and_of_one_pass(experiment):
    folder, ladder, passed = experiment
    slices = open_slices(folder / "slices")
    assert passed == 2 * len(slices.pixels)  # two rungs, whatever the number of heads
    for run in hs.read_experiment(folder):
        (setting,) = [s for s in ladder.settings if s.full.split == run.setting.split]
        assert [rung.name for rung in setting.rungs] == ["whole", "blurred", "silhouette"]
        rung = Run(folder / "ablation" / "silhouette" / "runs" / run.name)
        for name in ("seed", "epochs", "learning_rate", "split_sha256", "aggregate"):
            assert rung.settings[name] == run.settings[name]
        assert rung.settings["rung"] == "silhouette"
        np.testing.assert_array_equal(rung.head["initial_weight"], run.head["initial_weight"])
    expected = rungs.fill(slices.pixels, json.loads(
        (folder / "ablation" / "ablation.json").read_text()
    )["pixel_mm"])  # fmt: skip
    stored = open_slices(folder / "ablation" / "silhouette" / "slices")
    np.testing.assert_array_equal(stored.pixels, expected)


def test_the_same_call_trains_nothing_and_reads_the_same(experiment, monkeypatch):
    folder, ladder, _ = experiment
    monkeypatch.setattr("headscope.experiment.run.train", None)
    again = hs.ablate(folder, rungs=["silhouette"])
    assert again.sentences == ladder.sentences


def test_heads_train_elsewhere_as_they_do_here(experiment, tmp_path, monkeypatch):
    folder = shutil.copytree(experiment[0], tmp_path / "copy")
    runs = folder / "ablation" / "silhouette" / "runs"
    before = {path.parent.name: path.read_bytes() for path in runs.glob("*/manifest.json")}
    shutil.rmtree(runs)
    monkeypatch.setattr("headscope.experiment.ablate.find_engine", Elsewhere)
    hs.ablate(folder, rungs=["silhouette"], engine="processes")
    after = {path.parent.name: path.read_bytes() for path in runs.glob("*/manifest.json")}
    assert before and after == before
    with pytest.raises(hs.InputError, match="Unknown setting 'epochs' of ablate: choose engine,"):
        hs.ablate(folder, epochs=3)


def test_a_changed_rung_is_noticed(experiment, tmp_path):
    folder = shutil.copytree(experiment[0], tmp_path / "copy")
    assert hs.verify(folder).problems == ()
    (folder / "ablation" / "blurred" / "slices" / "labels.npy").write_bytes(b"x")
    (problem, *_) = hs.verify(folder).problems
    assert problem.startswith("ablation/blurred/slices")
    record = folder / "ablation" / "ablation.json"
    record.write_text(record.read_text().replace('"pixel_mm": ', '"pixel_mm": 1'))
    with pytest.raises(hs.InputError, match="has changed since it was written"):
        read_ladder(folder)


def test_nothing_is_removed_from_brains_without_a_skull(experiment, monkeypatch):
    monkeypatch.setattr("headscope.experiment.ablate.brain_share", lambda *_: 0.97)
    ladder = hs.ablate(experiment[0], rungs=["no-brain"])
    assert any("fills 97% of what the slices show" in note for note in ladder.notes)
    assert not (experiment[0] / "ablation" / "no-brain").exists()


def test_what_cannot_be_ablated_has_its_sentence(experiment, tmp_path, monkeypatch, capsys):
    folder = str(experiment[0])
    for arguments, sentence in (
        (["--rungs", "x"], "Unknown rung 'x': choose blurred, binary"),
        (["--run", "x"], "has no frozen run 'x': choose timm-test_resnet"),
        (["--architectures", "vgg"], "has no frozen network 'vgg': choose timm/test_resnet"),
    ):
        done = headscope_here(monkeypatch, capsys, "ablate", folder, *arguments)
        assert done.returncode == 2 and sentence in done.stderr
    done = headscope_here(monkeypatch, capsys, "ablate", str(tmp_path))
    assert done.returncode == 2 and "no experiment" in done.stderr
    done = headscope_here(monkeypatch, capsys, "ablate", folder, "--rungs", "blurred", "--json")
    assert json.loads(done.stdout)["settings"][0]["rungs"][1]["name"] == "blurred"
