"""The library in use: names that complete, paths as text, results that show themselves."""

import ast
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import headscope as hs
from headscope.cli.app import RENAMED as RENAMED_OPTIONS
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort

pytestmark = pytest.mark.usefixtures("few_trees")


def test_tab_completion_lists_the_names_of_the_stub():
    tree = ast.parse(Path(hs.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert names == hs.__all__
    assert set(names) <= set(dir(hs))
    assert all(getattr(hs, name) is not None for name in names)
    assert Path(hs.__file__).with_name("py.typed").is_file()


def test_importing_the_library_imports_nothing_heavy():
    code = (
        "import sys, headscope\n"
        "dir(headscope)\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_comes_at_once():
    best = min(timed([sys.executable, "-m", "headscope", "--help"]) for _ in range(3))
    assert best < 0.4 or best < 8 * timed([sys.executable, "-c", "pass"])  # a busy machine


def timed(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("name", hs.RENAMED)
def test_an_old_name_is_met_with_the_new_one(name):
    with pytest.raises(AttributeError, match=rf"^headscope.{name} is now headscope.\w+\.$"):
        getattr(hs, name)
    assert hs.RENAMED[name] in hs.__all__


def test_a_name_that_never_was_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        hs.nonsense  # noqa: B018


@pytest.mark.parametrize("option", RENAMED_OPTIONS)
@pytest.mark.parametrize("form", ["{} x", "{}=x"])
def test_an_old_option_is_met_with_the_new_one(monkeypatch, capsys, option, form):
    done = headscope_here(monkeypatch, capsys, "run", "scans", *form.format(option).split())
    assert done.returncode == 2
    assert done.stderr == f"The option {option} is now {RENAMED_OPTIONS[option]}.\n"


def test_an_old_setting_is_met_with_the_new_one(tmp_path):
    with pytest.raises(hs.InputError, match="'pseudonymise' is now 'pseudonym_key'"):
        settings(tmp_path, tmp_path / "out", pseudonymise=tmp_path / "study.key")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("library") / "scans")


@pytest.fixture(scope="module")
def experiment(scans, tmp_path_factory):
    """One run on the scans, and what of it takes no path is asked of synthetic records."""
    out = tmp_path_factory.mktemp("library") / "out"
    changes = {"regimes": ["frozen"], "splits": ["subject"], "epochs": 1, "count": 2}
    return hs.run(settings(scans, out, **changes))


SMALL = {"count": 2, "workers": 1}


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(
    "call",
    [
        lambda path, scans, experiment, out: hs.inspect(path(scans), count=2).subjects == 12,
        lambda path, scans, experiment, out: hs.audit(path(scans), out=path(out), **SMALL).scans,
        lambda path, scans, experiment, out: len(hs.slice(path(scans), path(out), **SMALL).pixels),
        lambda path, scans, experiment, out: hs.Config(data=path(scans)).data == scans,
        lambda path, scans, experiment, out: hs.read_experiment(path(experiment))[0].metrics,
        lambda path, scans, experiment, out: hs.read_head(path(run_of(experiment))).weight.size,
        lambda path, scans, experiment, out: hs.Run(path(run_of(experiment))).finished,
        lambda path, scans, experiment, out: hs.report(path(experiment)).is_file(),
        lambda path, scans, experiment, out: hs.open(path(experiment)).runs,
        lambda path, scans, experiment, out: (
            hs.track(path(experiment), f"tensorboard:{out}").written
        ),
        lambda path, scans, experiment, out: hs.verify(path(experiment)).whole,
        lambda path, scans, experiment, out: hs.export(
            path(run_of(experiment)), path(out)
        ).is_dir(),
        lambda path, scans, experiment, out: hs.side_by_side(
            [path(experiment), path(shutil.copytree(experiment, out / "other"))],
            path(out / "page.html"),
        ).is_file(),
        lambda path, scans, experiment, out: hs.write_figures(path(experiment), path(out)).is_dir(),
        lambda path, scans, experiment, out: hs.simulate(
            path(out), subjects=6, spacing_mm=6, workers=1
        ).is_dir(),
        lambda path, scans, experiment, out: len(
            hs.predict(path(run_of(experiment)), path(next(scans.rglob("*.nii.gz")))).scans
        ),
        lambda path, scans, experiment, out: len(
            hs.predict(path(run_of(experiment)), [path(scans / "AD")]).scans
        ),
        lambda path, scans, experiment, out: (
            hs.evaluate(path(experiment), path(scans), workers=1).rows
        ),
        lambda path, scans, experiment, out: (
            hs.score(path(run_of(experiment) / "predictions.tsv")).metrics
        ),
        lambda path, scans, experiment, out: (
            hs.ablate(
                path(shutil.copytree(experiment, out / "copy")), rungs=["silhouette"]
            ).settings
        ),
    ],
    ids=[
        *["inspect", "audit", "slice", "Config", "read_experiment", "read_head", "Run", "report"],
        *["open", "track", "verify", "export", "side_by_side", "write_figures"],
        *["simulate", "predict", "predict-list", "evaluate", "score", "ablate"],
    ],
)
def test_a_path_may_be_text(call, kind, scans, experiment, monkeypatch, undrawn, tmp_path):
    # what is drawn is asked of the example and of test_supplement
    monkeypatch.setattr("headscope.supplement.write._write_pictures", lambda study, folder: None)
    assert call(kind, scans, experiment, tmp_path / "out")


@pytest.mark.parametrize("kind", [str, Path])
def test_fetch_takes_text_and_paths(kind, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(hs.InputError, match="out holds something else"):
        hs.fetch(kind(tmp_path / "out"), accept_terms=True, data_dir=kind(tmp_path))


def run_of(experiment):
    return next((experiment / "runs").iterdir())


def test_results_show_themselves_at_a_prompt_and_in_a_notebook(scans, experiment):
    inspection = hs.inspect(scans, count=2)
    assert "class folders" in repr(inspection) and "A run would take 24 slices" in repr(inspection)
    prediction = hs.predict(run_of(experiment), scans / "AD")
    assert "Slice index" in repr(prediction) and "the mean of its slices" in repr(prediction)
    audit = hs.audit(experiment)
    assert "Identical scans" in repr(audit)
    for result in (inspection, prediction, audit):
        assert result._repr_html_().startswith("<table>") and "DataFrame" not in repr(result)


def test_figures_show_themselves_in_a_notebook():
    weight = np.array([[1.0, -2.0, 0.5, 0.1], [-1.0, 2.0, -0.5, 0.2]])
    figure = hs.figures.plot_weights(hs.pair_analysis(weight))
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_progress_in_a_notebook_needs_no_widgets():
    code = (
        "import rich.console\n"
        "rich.console._is_jupyter = lambda: True\n"
        "from headscope.console import console, track\n"
        "assert list(track(range(3), 'Counting', 3)) == [0, 1, 2] and not console.is_jupyter"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0 and "Counting" in done.stderr and done.stdout == ""
