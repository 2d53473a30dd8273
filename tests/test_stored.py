"""Results of single runs stand until a run, the code or an argument changes."""

import json
import shutil
from dataclasses import asdict, dataclass
from math import inf, isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import headscope.analysis.stored as module
from headscope.analysis import analyse_collapse, analyse_head
from headscope.analysis.leakage.split_gap import nearest_neighbours
from headscope.analysis.representation.features import analyse_features
from headscope.analysis.stored import FILE, stored, storing
from headscope.files import encode_nan
from headscope.record import Run, read_experiment
from headscope.reporting import write_report
from headscope.verification.verify import verify
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

ANALYSES = (
    analyse_head,
    analyse_collapse,
    analyse_features,
    nearest_neighbours,
)


@dataclass(frozen=True)
class Inner:
    """Part of a result."""

    points: np.ndarray
    size: float


@dataclass(frozen=True)
class Outer:
    """A result."""

    parts: tuple[Inner, ...]
    named: dict[str, Inner]
    table: pd.DataFrame
    nothing: float | None
    pair: tuple[int, str]


CALLS: list[str] = []


@stored
def measure(run: Run, factor: float = 1.0) -> Outer:
    """Make one of everything."""
    CALLS.append(run.name)
    inner = Inner(np.array([[1.0, nan], [inf, 0.1 + 0.2]]), factor)
    table = pd.DataFrame({"name": ["a", "b"], "count": np.array([1, 2])})
    return Outer((inner,), {"one": Inner(np.arange(3), nan)}, table, None, (1, "x"))


@pytest.fixture
def experiment(tmp_path):
    for seed in (0, 1):
        write_synthetic_run(tmp_path, width=16, epochs=2, seed=seed)
    CALLS.clear()
    return tmp_path


def test_a_result_comes_back_as_it_was_and_is_made_once(experiment):
    run = read_experiment(experiment)[0]
    with storing(experiment):
        first = measure(run)
        assert measure(run, factor=1.0) is first
    with storing(experiment):
        again = measure(Run(run.path))
    assert [run.name] == CALLS
    np.testing.assert_array_equal(again.parts[0].points, first.parts[0].points)
    assert again.parts[0].size == 1.0 and again.named["one"].points.dtype == np.arange(3).dtype
    assert isnan(again.named["one"].size) and again.nothing is None and again.pair == (1, "x")
    pd.testing.assert_frame_equal(again.table, first.table)
    measure(run)
    assert [run.name] * 2 == CALLS  # outside of `storing` nothing is looked up


def test_other_runs_arguments_and_code_are_other_results(experiment, monkeypatch):
    one, two = read_experiment(experiment)
    with storing(experiment):
        measure(one), measure(two), measure(one, 2.0)
    (one.path / "history.jsonl").write_text((one.path / "history.jsonl").read_text() + "\n")
    reseal(one.path)
    with storing(experiment):
        measure(Run(one.path)), measure(two)
    assert [one.name, two.name, one.name, one.name] == CALLS
    entries = json.loads((experiment / FILE).read_text())["results"].values()
    assert sorted(name for entry in entries for name in entry["runs"]) == [one.name, two.name]
    shutil.rmtree(one.path)
    monkeypatch.setattr(module, "code_hash", lambda: "other")
    with storing(experiment):
        measure(two)
    assert CALLS[-1] == two.name and len(CALLS) == 5


def test_stored_analyses_are_those_computed(experiment):
    run = read_experiment(experiment)[0]
    computed = [analyse(run) for analyse in ANALYSES]
    for _ in range(2):
        with storing(experiment):
            results = [analyse(Run(run.path)) for analyse in ANALYSES]
    for one, other in zip(computed, results, strict=True):
        assert type(one) is type(other)
        one, other = ({**asdict(result), "wrong": None} for result in (one, other))
        assert encode_nan(one) == encode_nan(other)


def test_a_page_of_stored_analyses_is_the_same_to_the_byte_and_damage_is_made_again(experiment):
    page = Path(write_report(experiment))
    first = page.read_bytes()
    for damage in (None, '{"sha256": 3', '"count": 1'):
        (experiment / "report.json").unlink()
        if damage == '"count": 1':
            text = (experiment / FILE).read_text()
            (experiment / FILE).write_text(text.replace('"of"', '"off"', 1))
        elif damage:
            (experiment / FILE).write_text(damage)
        if damage:
            assert any("analysis.json" in problem for problem in verify(experiment).problems)
        assert write_report(experiment).read_bytes() == first
    assert not any("analysis.json" in problem for problem in verify(experiment).problems)


def test_the_report_of_a_record_without_a_manifest_stands_until_a_file_changes(experiment):
    for run in read_experiment(experiment):
        metrics = json.loads((run.path / "metrics.json").read_text())
        metrics.pop("record", None)
        (run.path / "metrics.json").write_text(json.dumps(metrics))
        (run.path / "manifest.json").unlink()
    page = write_report(experiment)
    made = page.stat().st_mtime_ns
    assert write_report(experiment).stat().st_mtime_ns == made
    (run.path / "history.jsonl").write_text((run.path / "history.jsonl").read_text() + "\n")
    assert write_report(experiment).stat().st_mtime_ns > made
