import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

# Before anything imports torch: one thread a process, of which there are as many as cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parents[1]


def _real_data() -> Path:
    folder = Path(os.environ.get("HEADSCOPE_TEST_DATA", "../shared/data"))
    return (REPOSITORY / folder).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; ask for it in tests marked `real_data`."""
    return _real_data()


@pytest.fixture(scope="session", autouse=True)
def unflushed():
    """Leave files to the system to write: a flush to the disk takes long and shows in no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


QUICK_SEARCH = {"TREES": 2, "FOLDS": 2, "DRAWS": 20}


@contextmanager
def quick_search() -> Iterator[None]:
    """Let the audit's search for shortcuts take a moment, where its result is not asked for."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK_SEARCH.items():
            patch.setattr(f"headscope.auditing.shortcuts.{name}", value)
        yield


@pytest.fixture(scope="module")
def few_trees():
    """Search quickly for shortcuts from here to the end of the module."""
    with quick_search():
        yield


@pytest.fixture
def short_search():
    """Search quickly for shortcuts in one test."""
    with quick_search():
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Leave Fig. 1 undrawn and permute few labels where words are read."""
    from headscope.analysis.leakage.stored import stored_leakage

    monkeypatch.setattr("headscope.reporting.pictures.flattened", lambda *_: ((), ()))
    few = partial(stored_leakage, permutations=20)
    monkeypatch.setattr("headscope.reporting.page.stored_leakage", few)
    monkeypatch.setattr("headscope.analysis.leakage.dose_response.DRAWS", 1)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, one for a module."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("HEADSCOPE_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium: install one or name it in HEADSCOPE_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Slow files first: workers take one file after another, and the last should be a short one.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    folder = _real_data()
    if folder.is_dir():
        return
    skip = pytest.mark.skip(
        reason=f"needs the real scans: there is no {folder} (set HEADSCOPE_TEST_DATA)"
    )
    for item in items:
        if item.get_closest_marker("real_data") is not None:
            item.add_marker(skip)


def shared_copy(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of a folder that is made once, whichever worker process asks first.

    Tests write into it (`leakage.json`, a damaged file), so each module gets a copy.
    """
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    source = root / "shared" / name
    source.parent.mkdir(exist_ok=True)
    with FileLock(source.with_suffix(".lock")):
        if not source.exists():
            unfinished = source.with_suffix(".unfinished")
            make(unfinished)
            unfinished.rename(source)
    return Path(shutil.copytree(source, factory.mktemp("copy") / name))


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """An experiment on made features under both splits, two seeds."""
    from tests.support.leakage_runs import write_both

    return shared_copy(tmp_path_factory, "both", write_both)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """An experiment that torch trained: frozen, both splits."""
    from tests.support.leakage_runs import run_by_torch

    with quick_search():
        return shared_copy(tmp_path_factory, "trained", run_by_torch) / "out"
