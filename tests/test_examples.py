"""Every public name has an example in its docstring, and it runs: on scans and an experiment."""

import doctest
import shutil

import numpy as np
import pytest

import headscope as hs
from headscope.figures.style import COLUMN
from headscope.supplement.export import METADATA
from tests.conftest import shared_copy
from tests.support.leakage_runs import run_by_torch

pytestmark = pytest.mark.usefixtures("few_trees")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with scans/ and first/, an experiment on them; other/ is a copy of it."""
    folder = shared_copy(tmp_path_factory, "trained", run_by_torch)
    (folder / "out").rename(folder / "first")
    shutil.copytree(folder / "first", folder / "other")
    return folder


@pytest.mark.parametrize("name", hs.__all__)
def test_the_example_of_a_public_name_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("headscope.supplement.export.WIDTHS", {"85mm": COLUMN})
    monkeypatch.setattr("headscope.supplement.export.DPI", 72)
    monkeypatch.setattr("headscope.supplement.export.METADATA", {"pdf": METADATA["pdf"]})
    documented = getattr(hs, name)
    names = {"hs": hs, "np": np}
    finder = doctest.DocTestFinder(recurse=False)
    examples = [test for test in finder.find(documented, name, globs=names) if test.examples]
    assert examples, f"headscope.{name} has no example in its docstring"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    for test in examples:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
