"""Records that are changed on purpose, and sealed again so that they count as written."""

import json

from headscope.record import Run, seal_run


def reseal(path):
    """Write a run's manifest again, after one of its files was changed; return the run."""
    seal_run(path, json.loads((path / "metrics.json").read_text()))
    return Run(path)


def forget(path):
    """Make a run one of an earlier version, which has no manifest; return it."""
    metrics = json.loads((path / "metrics.json").read_text())
    metrics.pop("record")
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "manifest.json").unlink()
    return Run(path)
