"""Analyses run small products with one BLAS thread, and several small runs at once."""

from threading import Barrier

import numpy as np
import pytest
import threadpoolctl

from headscope.analysis import parallel
from headscope.record import Run
from headscope.threads import one_blas_thread


def blas_threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"}  # fmt: skip


def test_a_function_runs_with_one_thread_and_the_others_come_back():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = blas_threads()

    @one_blas_thread
    def count(extra):
        """Say how many."""
        return blas_threads(), extra

    assert count(extra=3) == ({1}, 3) or not before
    assert blas_threads() == before
    assert count.__doc__ == "Say how many."


def small_runs(tmp_path, monkeypatch, size=2**20):
    monkeypatch.setattr(parallel, "cpu_count", lambda: 2)
    for name in "abcd":
        (tmp_path / name).mkdir()
        with (tmp_path / name / "features.npz").open("wb") as file:
            file.truncate(size)
    return [Run(tmp_path / name) for name in "abcd"]


@one_blas_thread
def test_two_small_runs_are_analysed_at_once_in_turn_and_with_one_blas_thread(
    tmp_path, monkeypatch
):
    runs, both = small_runs(tmp_path, monkeypatch), Barrier(2, timeout=30)

    def analysed(run):
        both.wait()  # passes where two are at work
        return run.name, blas_threads()

    assert [name for name, _ in parallel.at_once(analysed, runs)] == list("abcd")
    assert all(count <= {1} for _, count in parallel.at_once(analysed, runs))


def test_what_an_analysis_raises_comes_in_the_turn_of_its_run(tmp_path, monkeypatch):
    runs = small_runs(tmp_path, monkeypatch)

    def analysed(run):
        if run.name == "b":
            raise ValueError(run.name)
        return run.name

    results = parallel.at_once(analysed, runs)
    assert next(results) == "a"
    with pytest.raises(ValueError, match="b"):
        next(results)


def test_runs_of_many_features_are_analysed_one_after_the_other(tmp_path, monkeypatch):
    runs = small_runs(tmp_path, monkeypatch, parallel.AT_ONCE_BYTES // 2 + 1)
    assert parallel.thread_count(runs) == 1
    assert list(parallel.at_once(lambda run: run.name, runs)) == list("abcd")
