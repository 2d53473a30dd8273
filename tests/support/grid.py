"""Runs that are counted, and stop at the end of an epoch while there is a file `hold`.

    python -m tests.support.grid SCANS EXPERIMENT [SETTING=VALUE ...]

runs an experiment in a process of its own.
"""

import os
import pickle
import sys
import time
from pathlib import Path

import pytest

import headscope.experiment.run as module
from headscope.experiment.config import parse_change
from headscope.experiment.engines.claims import is_free
from headscope.experiment.engines.engine import Here
from headscope.experiment.run import train_run
from headscope.training import resume
from tests.support.experiments import settings

saved = resume.ResumeFile.save
GRID = {"regimes": ["frozen", "finetune"], "threads": 1}  # 4 runs of 2 epochs


def counted(plan, shared, known, **options):
    """Train a run; when it can resume after an epoch, note that, and stop while there is `hold`."""
    folder = shared.config.out.parent

    def save(file, model, optimizer, progress):
        saved(file, model, optimizer, progress)
        with (folder / "log").open("a") as log:
            log.write(f"{plan.name} {len(progress.history)} {os.getpid()}\n")
        while (folder / "hold").exists():
            time.sleep(0.02)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "SHARE", float("inf"))  # after every epoch, however short
        patch.setattr(resume.ResumeFile, "save", save)
        return train_run(plan, shared, known, **options)


class Elsewhere(Here):
    """An engine that hands over bytes alone, as to another process, and trains here."""

    here = False

    def submit(self, function, *args):
        return super().submit(*pickle.loads(pickle.dumps((function, *args))))


def epochs(out):
    """Return the lines of the log: name of the run, epoch, process."""
    path = out.parent / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(true, seconds=240):
    """Wait for something to become true."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


def held(out):
    """Return how many runs a process trains."""
    return sum(not is_free(out / "runs" / lock.name) for lock in (out / ".locks").iterdir())


if __name__ == "__main__":
    module.train_run = counted
    changes = dict(parse_change(text) for text in sys.argv[3:])
    module.run(settings(Path(sys.argv[1]), Path(sys.argv[2]), **GRID | changes))
