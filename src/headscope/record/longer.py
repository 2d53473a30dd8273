"""A finished run continues to more epochs, and its longer record takes the place of the old one.

The longer record is made in `EXPERIMENT/continued/NAME` while the old one stays as it is. Once it
is whole the two change places by renames; the next start completes what a killed one left.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headscope.files import claimed
from headscope.record.run import STATE, Run

FOLDER: Final = "continued"
OLD: Final = ".old"  # ends the name of a record that a longer one replaces


def wants_more(run: Run, epochs: Any) -> bool:
    """Whether a run has finished, and more epochs than it had are wanted."""
    return run.finished and int(epochs) > int(run.settings.get("epochs", epochs))


def obstacle(run: Run) -> str:
    """Say why a finished run cannot continue to more epochs; nothing where it can."""
    if run.settings.get("schedule") == "cosine":
        return "by its cosine schedule the rate of each epoch depends on how many there are"
    if not (run.path / STATE).is_file():
        return f"{STATE}, the state after its last epoch, was not kept (keep_state = true keeps it)"
    return ""


def begin_longer(path: Path, epochs: int) -> Path:
    """Return the folder of the longer record of a run; one begun with other epochs is removed."""
    folder = path.parent.parent / FOLDER / path.name
    begun = Run(folder)
    if (folder / "run.toml").is_file() and begun.settings.get("epochs") != epochs:
        shutil.rmtree(folder)
    return folder


def replace_run(longer: Path, path: Path) -> None:
    """Put a longer record that is whole into the place of the old one, which is removed last."""
    old = longer.with_name(longer.name + OLD)
    if path.exists():
        path.rename(old)
    longer.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):  # others continue in it
        longer.parent.rmdir()


def finish_longer(experiment: Path) -> None:
    """Complete the replacements that an earlier start was killed in, unless it still runs."""
    folder = experiment / FOLDER
    for path in sorted(folder.glob("*")):
        run = experiment / "runs" / path.name.removesuffix(OLD)
        with claimed(Run(run).lock) as mine:
            if mine is None:
                continue
            if path.name == run.name and Run(path).finished:
                replace_run(path, run)
            elif path.name != run.name:
                shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
