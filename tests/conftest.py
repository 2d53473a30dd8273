import os
from pathlib import Path

import pytest

# Before anything imports torch: threads as on the command line, and one a process, of which
# there are as many as cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parents[1]


def _real_data() -> Path:
    folder = Path(os.environ.get("HEADSCOPE_TEST_DATA", "../shared/data"))
    return (REPOSITORY / folder).resolve()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans; ask for it in tests marked `real_data`."""
    return _real_data()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = _real_data()
    if folder.is_dir():
        return
    skip = pytest.mark.skip(
        reason=f"needs the real scans: there is no {folder} (set HEADSCOPE_TEST_DATA)"
    )
    for item in items:
        if item.get_closest_marker("real_data") is not None:
            item.add_marker(skip)
