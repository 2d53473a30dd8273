"""Records that are changed on purpose, and sealed again so that they count as written."""

import json
import shutil

import numpy as np
from safetensors.numpy import save_file

from headscope.manifest import stored_entries
from headscope.record import BACKBONE, FEATURES, Run, open_network, seal_run


def reseal(path):
    """Write a run's manifest again, after one of its files was changed; return the run."""
    seal_run(path, json.loads((path / "metrics.json").read_text()))
    return Run(path)


def unshare(path):
    """Put the files that a run has in the store into its folder too; return the run."""
    for name in stored_entries(path):
        if not (path / name).is_file():
            shutil.copyfile(Run(path).place(name), path / name)
    return Run(path)


def forget(path):
    """Make a run one of an earlier version, which has no manifest and no store; return it."""
    run = unshare(path)
    if run.keeps_network and not (path / "model.safetensors").is_file():
        with open_network(run) as tensors:
            save_file(dict(tensors), path / "model.safetensors")
    metrics, arrays = json.loads((path / "metrics.json").read_text()), dict(run.features)
    metrics.pop("record")
    for name in ("metrics.json", "manifest.json", "features.npz", FEATURES, BACKBONE):
        (path / name).unlink(missing_ok=True)  # some are links to those of another record
    (path / "metrics.json").write_text(json.dumps(metrics))
    np.savez(path / "features.npz", **arrays)
    return Run(path)
