"""The first screen of a report, its data and its script: what they say and hold."""

import base64
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w

from headscope.analysis.results.settings import Majority, setting_results
from headscope.errors import InputError
from headscope.files import write_json
from headscope.record import read_experiment
from headscope.reporting import write_report
from headscope.reporting.answer import _headline, forest, larger_class
from headscope.reporting.plots import DotRow, Dots, Line, Mark
from headscope.reporting.render import _template
from tests.support.records import reseal
from tests.support.synthetic import write_experiment, write_synthetic_run

pytestmark = pytest.mark.usefixtures("undrawn")


def top(page):
    """The words of the first screen."""
    text = page.read_text(encoding="utf-8")
    header = text[text.index("<header>") : text.index("</header>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", header))


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def decode(text, kind):
    return np.frombuffer(base64.b64decode(text), dtype=kind)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    return write_experiment(tmp_path_factory.mktemp("answer") / "demo", width=48)


def with_slices(experiment, side=20):
    """Put made slices beside the records."""
    count = len(read_experiment(experiment)[0].predictions)
    pixels = np.arange(count * side * side, dtype=np.uint64) % 251
    folder = experiment / "slices"
    folder.mkdir(exist_ok=True)
    np.save(folder / "slices.npy", pixels.astype(np.uint8).reshape(count, side, side))
    write_json(folder / "slices.json", {"notes": []})
    return folder


def test_a_strong_signal_is_better_than_chance_and_beside_the_larger_class(tmp_path):
    write_synthetic_run(tmp_path, width=32, signal=8.0, subjects=60)
    words = top(write_report(tmp_path))
    assert "of 18 unseen subjects correctly, better than chance" in words
    assert "for all gives" in words and "Too few" not in words


def test_noise_beats_nothing(tmp_path):
    for regime in ("frozen", "finetune"):
        write_synthetic_run(
            tmp_path, regime=regime, width=8, epochs=1, signal=0.0, subjects=60, same_split=True
        )
    words = top(write_report(tmp_path))
    assert "No network is shown to beat chance on" in words
    assert "the one that validation chose predicts" in words


def test_of_two_splits_that_keep_subjects_apart_each_is_named(tmp_path):
    splits = [{"split": "subject"}, *({"split": "site", "fold": (k, 3)} for k in (0, 1))]
    small = {"width": 8, "epochs": 1, "signal": 0.0, "subjects": 40, "name": "frozen"}
    write_experiment(tmp_path, splits, **small)
    results = setting_results(read_experiment(tmp_path))
    (row,) = forest(results).rows
    words = re.sub("<[^>]*>", "", row.words)
    assert words.count(" subject") == words.count(" site") == 1
    headline = _headline(results, crossed=False)[0]
    # the only setting of its split: validation chose nothing
    assert "(frozen) is not shown to beat chance" in headline and "it predicts" in headline


def test_one_class_networks_are_counted_and_have_no_skill(tmp_path):
    run = write_synthetic_run(tmp_path, width=8, epochs=1, subjects=40)
    _call_all(run, "NC")
    words = top(write_report(tmp_path))
    assert "predicts one class for all" in words and "no skill" in words
    assert "1 of 1 runs predicts one class for every test slice" in words


def _call_all(run, name):
    """Rewrite a run so that it predicts one class for every slice."""
    rows = run.predictions.copy()
    other = next(label for label in run.class_names if label != name)
    rows[f"logit_{name}"], rows[f"logit_{other}"] = 3.0, -3.0
    rows["predicted"] = name
    rows.to_csv(run.path / "predictions.tsv", sep="\t", index=False)
    with np.load(run.path / "features.npz") as stored:
        arrays = dict(stored)
    row = run.class_names.index(name)
    arrays["logits"] = np.tile(np.where(np.arange(2) == row, 3.0, -3.0), (len(rows), 1)).astype(
        np.float32
    )
    np.savez(run.path / "features.npz", **arrays)
    reseal(run.path)


def test_any_one_class_is_said_only_where_all_are_as_large():
    """Of 4, 4 and 3 subjects it said that any one class gives 36.4%: the third gives 27.3%."""
    three = SimpleNamespace(class_names=["AD", "CV", "NC"])
    best = SimpleNamespace(majority=Majority("", 0.4, 4 / 11), runs=[three])
    assert larger_class(best, 4 / 11) == "a largest class"
    assert larger_class(best, 1 / 3) == "any one class"
    assert larger_class(best, 1 / 3, 0.4) == "a largest class"  # of slices one is larger
    best.majority = Majority("AD", 0.4, 5 / 11)
    assert larger_class(best, 5 / 11) == "the larger class"


def test_only_mixed_splits_claim_no_unseen_subject(tmp_path):
    write_synthetic_run(tmp_path, width=16, split="slice")
    words = top(write_report(tmp_path))
    assert "No accuracy here is that of unseen subjects" in words
    assert "Every split here shares subjects" in words


def test_random_weights_in_place_of_pretrained_ones_are_said(tmp_path):
    for regime in ("frozen", "scratch"):
        run = write_synthetic_run(tmp_path, regime=regime, width=8, epochs=1, subjects=40)
        settings = tomli_w.dumps(dict(run.settings) | {"weights_setting": "random"})
        (run.path / "run.toml").write_text(settings)
        reseal(run.path)
    assert "1 of 1 frozen or fine-tuned networks began with them" in top(write_report(tmp_path))


def test_two_test_subjects_are_too_few(tmp_path):
    write_synthetic_run(tmp_path, width=8, epochs=1, subjects=8)
    words = top(write_report(tmp_path))
    assert "too few to tell" in words and "Too few test subjects to tell" in words


def test_the_forest_sets_every_setting_under_both_splits(experiment):
    page = write_report(experiment)
    text = page.read_text(encoding="utf-8")
    forest = text[text.index('id="forest"') : text.index("</figure>", text.index('id="forest"'))]
    body = forest[forest.index("<tbody>") :]
    assert body.count('<th scope="row">') == 3  # frozen by both splits, finetune and scratch
    assert body.count('class="apart') == 3 and body.count('class="mixed') == 1
    assert "The cohort is simulated:" in top(page)


def test_the_script_draws_the_very_slices_of_the_record(experiment):
    folder = with_slices(experiment)
    page = write_report(experiment)
    data, runs = data_of(page), read_experiment(experiment)
    pixels = np.load(folder / "slices.npy")
    tests = {run.name: np.flatnonzero(run.features["subset"] == "test") for run in runs}
    rows = np.unique(np.concatenate(list(tests.values())))
    assert len(data["slices"]["title"]) == len(rows) <= len(pixels)
    owner = decode(data["slices"]["subject"], "<i4")
    for stored in data["runs"]:
        run = next(run for run in runs if run.name == stored["name"])
        place = decode(stored["place"], "<i4")
        assert np.array_equal(rows[place], tests[run.name])
        points = decode(stored["points"], "<f4").reshape(-1, 2)
        assert np.array_equal(points, run.features["logits"][tests[run.name]])
        names = np.array(data["subjects"])[owner[place]]
        assert names.tolist() == run.features["subject_id"][tests[run.name]].tolist()
        weights = decode(stored["weights"], "<f4").reshape(-1, 2)
        assert np.array_equal(weights, run.head["weight"].T)
        initial = decode(stored["initial"], "<f4").reshape(-1, 2)
        assert np.array_equal(initial, run.head["initial_weight"].T)
    thumbnails = data["thumbnails"]
    assert decode(thumbnails["place"], "<i4").tolist() == list(range(len(rows)))
    assert f"It holds {len(rows)} test slices" in page.read_text(encoding="utf-8")


def test_thumbnails_may_be_errors_or_none_and_are_none_under_pseudonyms(tmp_path):
    write_synthetic_run(tmp_path, width=16, epochs=2)
    with_slices(tmp_path)
    run = read_experiment(tmp_path)[0]
    test = run.features["subset"] == "test"
    wrong = (run.features["logits"].argmax(axis=1) != run.features["label"])[test]
    shown = data_of(write_report(tmp_path, "errors"))["thumbnails"]
    assert len(decode(shown["place"], "<i4")) == wrong.sum() > 0
    assert data_of(write_report(tmp_path, "none"))["thumbnails"] is None
    with pytest.raises(InputError, match=r"Unknown thumbnails 'all': choose test, errors, none\."):
        write_report(tmp_path, "all")
    settings = run.path / "run.toml"
    settings.write_text("pseudonymised = true\n" + settings.read_text(), encoding="utf-8")
    reseal(run.path)
    page = write_report(tmp_path)
    assert data_of(page)["thumbnails"] is None
    assert "It holds no slice as a picture." in page.read_text(encoding="utf-8")


def test_a_slice_of_three_classes_stands_once_and_errors_above_the_diagonal(tmp_path):
    run = write_synthetic_run(tmp_path, width=16, class_names=("NC", "MCI", "AD"))
    (stored,) = data_of(write_report(tmp_path))["runs"]
    test = run.features["subset"] == "test"
    logits, label = run.features["logits"][test], run.features["label"][test]
    x, y = decode(stored["points"], "<f4").reshape(-1, 2).T
    assert np.array_equal(x, logits[np.arange(len(label)), label])
    assert ((y > x) == (logits.argmax(axis=1) != label)).all()


def test_a_band_without_an_interval_is_empty():
    nan = float("nan")
    assert Line("a", [(0.0, 0.0, nan, nan)]).band == ""
    assert Line("a", [(0.5, 0.5, 0.25, 0.75)]).band == "50.0,25.0 50.0,75.0"


def test_a_report_stands_until_a_record_the_page_or_what_is_asked_changes(tmp_path, monkeypatch):
    run = write_synthetic_run(tmp_path, width=16, epochs=2)
    page = write_report(tmp_path)
    first = page.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("headscope.reporting.page.analyse_head", None)  # what is not called
        assert write_report(tmp_path) == page and page.read_bytes() == first
    page.write_text("altered", encoding="utf-8")
    assert write_report(tmp_path).read_bytes() == first
    assert write_report(tmp_path, "none").read_bytes() == first  # there are no slices to show
    write_synthetic_run(tmp_path, width=16, epochs=2, regime="finetune")
    assert b"finetune, subject split" in write_report(tmp_path).read_bytes()
    history = run.path / "head.npz"
    history.write_bytes(history.read_bytes()[:-9])
    assert "1 of 2 runs" in top(write_report(tmp_path)) or "has changed" in top(page)


def test_a_value_that_is_not_there_has_no_mark_and_keeps_its_place():
    none = float("nan")
    row = DotRow("net", "frozen", [Mark(none, none, none), Mark(60, 50, 70, 1)])
    environment = _template().environment
    source = environment.loader.get_source(environment, "page.html.j2")[0]
    macros = source[source.index("{% set forms") : source.index("{% macro set_rows")]
    drawn = str(environment.from_string(macros).module.set_marks(row, Dots([row], "of two")))
    assert "nan" not in drawn and drawn.count("<path") == 1
    assert '<svg x="60.00%" y="15"' in drawn  # of the second mark
