"""What MLflow, TensorBoard and a notebook show of an experiment, read back by their own readers."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from PIL import Image
from tensorboard.summary.writer import event_file_writer

import headscope as hs
from headscope.record import write_history
from headscope.tracking import track as module
from headscope.tracking.track import Followers
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

pytestmark = [
    pytest.mark.usefixtures("few_trees"),
    pytest.mark.filterwarnings("default"),  # of the tools about each other
]
RUN = "tf_efficientnet_lite0-frozen-subject-seed0"
MIXED = "tf_efficientnet_lite0-frozen-slice-seed0"
SMALL = {"subjects": 12, "slices_each": 4, "width": 16, "epochs": 4}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Two runs, and slices to look at."""
    folder = tmp_path_factory.mktemp("trackers") / "first"
    for split in ("subject", "slice"):
        write_synthetic_run(folder, split=split, **SMALL)
    (folder / "slices").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 32, 40), dtype=np.uint8)
    np.save(folder / "slices" / "slices.npy", pixels)
    return folder


@pytest.fixture(scope="module")
def history(experiment):
    """The rows of the history of the run on unseen subjects."""
    return hs.Run(experiment / "runs" / RUN).phase_rows(None)


def losses_of(rows):
    return [(row["epoch"], row["train_loss"]) for row in rows]


@pytest.fixture(scope="module")
def client(experiment):
    """MLflow's client on the SQLite file, after the runs were written twice."""
    from mlflow.tracking import MlflowClient

    first, second = (hs.track(experiment) for _ in range(2))
    assert (len(first.written), len(first.unchanged)) == (2, 0)
    assert (len(second.written), len(second.unchanged)) == (0, 2)
    return MlflowClient(f"sqlite:///{experiment / 'mlflow.db'}")


def mlflow_runs(client, name):
    place = client.get_experiment_by_name(name)
    return {run.info.run_name: run for run in client.search_runs([place.experiment_id])}


def losses(client, run):
    history = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    return sorted((metric.step, metric.value) for metric in history)


def test_mlflow_holds_settings_curves_scores_figures_and_record(experiment, client, history):
    runs = mlflow_runs(client, experiment.name)
    assert set(runs) == {RUN, MIXED}
    tracked, record = runs[RUN], hs.Run(experiment / "runs" / RUN)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["regime"] == "frozen" and tracked.data.params["batch_size"] == "32"
    assert losses(client, tracked) == losses_of(history)
    for name in ("subject_accuracy", "slice_auc"):
        assert tracked.data.metrics[f"test_{name}"] == record.score("test", name)
        assert tracked.data.metrics[f"test_{name}_low"] == record.score("test", name, "low")
    assert "both sides" in runs[MIXED].data.tags["headscope.marker"]
    figures = [file.path for file in client.list_artifacts(tracked.info.run_id, "figures")]
    assert figures == ["figures/logits.png", "figures/weights.png"]
    folder = Path(client.download_artifacts(tracked.info.run_id, "record"))
    for name in ("run.toml", "history.jsonl", "predictions.tsv", "metrics.json", "head.npz"):
        assert (folder / name).read_bytes() == (record.path / name).read_bytes()


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def curve(folder, name="epoch/train_loss"):
    from tensorboard.util.tensor_util import make_ndarray

    reader = events(folder)
    if name in reader.Tags()["scalars"]:
        return [(event.step, event.value) for event in reader.Scalars(name)]
    return [(e.step, float(make_ndarray(e.tensor_proto))) for e in reader.Tensors(name)]


def test_tensorboard_holds_curves_tables_and_a_projector(experiment, history, tmp_path):
    tracked = hs.track(experiment, f"tensorboard:{tmp_path}")
    again = hs.track(experiment, f"tensorboard:{tmp_path}")
    assert len(tracked.written) == len(again.unchanged) == 2
    folder, run = tmp_path / experiment.name / RUN, hs.Run(experiment / "runs" / RUN)
    assert curve(folder) == [(step, pytest.approx(value)) for step, value in losses_of(history)]
    (scores,) = events(folder).Tensors("scores")
    (text,) = scores.tensor_proto.string_val
    assert "test_subject_accuracy" in text.decode()
    test = run.features["subset"] == "test"
    features = np.loadtxt(folder / "features.tsv", delimiter="\t")
    np.testing.assert_allclose(features, run.features["features"][test], rtol=1e-6)
    slices = pd.read_csv(folder / "slices.tsv", sep="\t")
    assert len(slices) == test.sum() and {"label", "predicted", "subject_id"} <= set(slices)
    config = (folder / "projector_config.pbtxt").read_text()
    assert 'image_path: "slices.png"' in config and config.count("single_image_dim: 64") == 2
    sprite = np.asarray(Image.open(folder / "slices.png"))
    pixels = np.load(experiment / "slices" / "slices.npy")[test]
    assert sprite.shape == (64 * -(-len(pixels) // min(64, len(pixels))), 64 * min(64, len(pixels)))
    np.testing.assert_array_equal(sprite[16:48, 12:52], pixels[0])


def test_the_projector_shows_no_subject_under_pseudonyms_unless_asked(experiment, tmp_path):
    copy = shutil.copytree(experiment, tmp_path / "copy")
    shutil.rmtree(copy / "runs" / MIXED)
    run = copy / "runs" / RUN
    (run / "run.toml").write_text("pseudonymised = true\n" + (run / "run.toml").read_text())
    reseal(run)
    folder = copy / "tensorboard" / RUN
    for thumbnails, shown in ((None, False), ("errors", True), ("none", False)):
        hs.track(copy, "tensorboard", thumbnails)
        assert (folder / "slices.png").exists() == shown
        assert ("sprite" in (folder / "projector_config.pbtxt").read_text()) == shown
    with pytest.raises(hs.InputError, match="Unknown thumbnails 'some': choose test"):
        hs.track(copy, "tensorboard", "some")


def begin(experiment, seed):
    """Begin a run of another seed; return its folder and its settings."""
    path = experiment / "runs" / RUN.replace("seed0", f"seed{seed}")
    path.mkdir()
    text = (experiment / "runs" / RUN / "run.toml").read_text()
    text = text.replace("seed = 0", f"seed = {seed}").replace("seed0", f"seed{seed}")
    (path / "run.toml").write_text(text)
    return path, text


def end(path, text, rows):
    """Let a run have ended with that history."""
    shutil.rmtree(path)
    shutil.copytree(path.parent / RUN, path)
    (path / "run.toml").write_text(text)
    write_history(path, rows)
    reseal(path)


def test_a_run_that_continues_after_a_kill_has_each_step_once(
    experiment, client, history, monkeypatch
):
    monkeypatch.setattr(module, "EVERY_S", 0)
    monkeypatch.setattr("headscope.tracking.mlflow.draw_figures", lambda run: ())
    # names of files of events that one second gives are out of order: 9 comes after 10
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    path, text = begin(experiment, seed=7)
    for first, last in ((0, 3), (2, 4)):  # the third epoch is trained again
        followers = Followers(["mlflow", "tensorboard"], experiment)
        for row in history[first:last]:
            followers.epoch(path.name, row)
    training = mlflow_runs(client, experiment.name)[path.name]
    assert training.info.status == "RUNNING" and losses(client, training) == losses_of(history)
    folder = experiment / "tensorboard" / path.name
    assert [step for step, _ in curve(folder)] == [1, 2, 3, 4]
    # its record, the record of more epochs, and one that was trained again otherwise
    longer = [*history, history[-1] | {"epoch": 5}]
    other = [row | {"train_loss": 0.3} for row in history]
    for rows, same in ((history, True), (longer, True), (other, False)):
        end(path, text.replace("epochs = 4", f"epochs = {len(rows)}"), rows)
        followers.ended(path.name, "finished")
        tracked = mlflow_runs(client, experiment.name)[path.name]
        assert tracked.info.status == "FINISHED" and losses(client, tracked) == losses_of(rows)
        assert (tracked.info.run_id == training.info.run_id) == same
        assert [step for step, _ in curve(folder)] == [row["epoch"] for row in rows]
    shutil.rmtree(path)


def test_a_failed_run_is_marked_as_one(experiment, client, history, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0)
    path, _ = begin(experiment, seed=8)
    followers = Followers(["mlflow"], experiment)
    followers.epoch(path.name, history[0])
    shutil.rmtree(path)  # as the record of a run that failed
    followers.ended(path.name, "failed")
    assert mlflow_runs(client, experiment.name)[path.name].info.status == "FAILED"


def test_run_tracks_and_a_tracker_that_fails_loses_no_run(tmp_path, monkeypatch, capsys):
    class Broken:
        place = look = ""

        def write(self, run, rows=()):
            raise OSError("the server is gone\nwith a long trace")

        add_epochs = write

    opened = module.open_tracker
    monkeypatch.setattr(
        module, "open_tracker", lambda t, *a: Broken() if t.tool == "mlflow" else opened(t, *a)
    )
    changes = {"regimes": ["frozen"], "seeds": [0, 1], "splits": ["subject"], "count": 2}
    track = ["mlflow", "tensorboard"]
    data = write_cohort(tmp_path / "scans")
    out = hs.run(settings(data, tmp_path / "out", track=track, rivals=["majority"], **changes))
    said = capsys.readouterr().err
    assert said.count("MLflow shows no more of these runs (the server is gone).") == 1
    assert f"'headscope track {out} --to mlflow' writes the rest" in said
    runs = hs.read_experiment(out, rivals=True)
    assert len(runs) == 4
    for run in runs:
        values = list(run.history["train_loss"])
        assert [x for _, x in curve(out / "tensorboard" / run.name)] == pytest.approx(values)
    assert "track" not in (out / "experiment.toml").read_text()


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_missing_extra_is_named_before_anything_is_done(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("headscope.tracking.target.find_spec", lambda name: None)
    write_cohort(tmp_path / "scans")
    arguments = ("run", "scans", "--weights", "random", "--architectures", "timm/test_resnet")
    done = headscope_here(monkeypatch, capsys, *arguments, "--track", tool, folder=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "headscope-experiment").exists()
    assert f"is not installed: pip install 'headscope[{tool}]'.\n" in done.stderr


def test_two_processes_wait_for_each_other(experiment, tmp_path):
    with ThreadPoolExecutor(1) as other:
        with module.alone(experiment):
            waiting = other.submit(hs.track, experiment, f"tensorboard:{tmp_path}")
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert len(waiting.result(60).written) == 2


@pytest.mark.parametrize("text", ["wandb", "mlflow:", ""])
def test_an_unknown_tracker_is_met_with_those_there_are(text, tmp_path, experiment):
    for call in (lambda: hs.track(experiment, text), lambda: settings("x", "y", track=[text])):
        with pytest.raises(hs.InputError, match=r"choose mlflow\[:URI\] or tensorboard\[:FOLDER\]"):
            call()


def test_a_place_that_is_something_else_is_refused(experiment, tmp_path):
    (tmp_path / "notes.db").write_text("mine")
    with pytest.raises(hs.InputError, match=r"notes.db cannot be the SQLite file of MLflow"):
        hs.track(experiment, f"mlflow:{tmp_path / 'notes.db'}")
    assert (tmp_path / "notes.db").read_text() == "mine"
    with pytest.raises(hs.InputError, match=r"notes.db cannot be the folder of TensorBoard: "):
        hs.track(experiment, f"tensorboard:{tmp_path / 'notes.db'}")


def test_places_in_a_toml_file_are_beside_it(tmp_path):
    from headscope.experiment.config import read_config

    targets = ["mlflow", "mlflow:http://host:5000", "tensorboard:logs"]
    (tmp_path / "first.toml").write_text(f"data = 'scans'\ntrack = {json.dumps(targets)}\n")
    config = read_config(tmp_path / "first.toml", {})
    assert config.track == (*targets[:2], f"tensorboard:{tmp_path / 'logs'}")


def test_the_command_prints_what_to_look_at(experiment, monkeypatch, capsys, tmp_path):
    arguments = ("track", experiment, "--to", f"tensorboard:{tmp_path}", "--json")
    done = headscope_here(monkeypatch, capsys, *arguments)
    (result,) = json.loads(done.stdout)
    assert result["look"] == f"tensorboard --logdir {tmp_path}" and len(result["written"]) == 2
    done = headscope_here(monkeypatch, capsys, *arguments[:-1])
    assert result["look"] in done.stdout and "Already there" in done.stdout


def test_an_experiment_shows_itself(experiment):
    opened = hs.open(str(experiment))
    assert [run.name for run in opened] == [*opened.runs] and len(opened) == 2
    assert opened[RUN].setting.split == "subject"
    with pytest.raises(hs.InputError, match=f"no finished run 'net': choose .*{RUN}"):
        opened["net"]
    html = opened._repr_html_()
    for text in (RUN, "Test subject % [95%]", "hs.report("):
        assert text in repr(opened) or text == "Test subject % [95%]"
        assert text in html
    assert "report.html" not in html and "No report shows these runs yet" in html


def test_the_headline_is_that_of_a_report_that_stands(experiment, tmp_path, undrawn):
    copy = shutil.copytree(experiment, tmp_path / "copy")
    page = Markup(hs.report(copy).read_text()).striptags()
    opened = hs.open(copy)
    assert opened.headline and opened.headline in page
    assert opened.headline in " ".join(repr(opened).split())
    assert 'report.html#fig3"' in opened._repr_html_()
    shutil.rmtree(copy / "runs" / MIXED)
    opened = hs.open(copy)
    said = " ".join(repr(opened).split())
    assert opened.headline == "" and "The report is older than what is here now" in said
    assert "No report shows" not in said


def test_a_half_finished_experiment_opens_and_a_bad_path_does_not(experiment, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(experiment / "runs" / RUN, half / "runs" / RUN)
    shutil.copytree(experiment / "runs" / RUN, half / "runs" / "begun")
    (half / "runs" / "begun" / "checkpoint").mkdir()
    (half / "runs" / "begun" / "metrics.json").unlink()
    (half / "failures.tsv").write_text("run\treason\nother\tOut of memory.\n")
    said = repr(hs.open(half))
    assert "Not finished: begun; 'headscope run'" in said and "other failed: Out of memory." in said
    (half / "runs" / RUN / "metrics.json").unlink()
    assert len(hs.open(half)) == 0 and "0 finished runs" in hs.open(half)._repr_html_()
    with pytest.raises(hs.InputError, match="has no finished run yet"):
        hs.track(half, "tensorboard")
    (tmp_path / "file").write_text("")
    for path, words in (("none", "does not exist"), ("file", "no experiment"), (".", "no exp")):
        with pytest.raises(hs.InputError, match=words):
            hs.open(tmp_path / path)


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[1].glob("docs/notebooks/*.ipynb")))
def test_a_notebook_runs(path, experiment, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    shutil.copytree(experiment, tmp_path / "headscope-demo")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    ran = NotebookClient(notebook, timeout=120, resources=resources).execute()
    outputs = [output for cell in ran.cells for output in cell.get("outputs", ())]
    shown = "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert RUN in shown and any("image/png" in output.get("data", {}) for output in outputs)
