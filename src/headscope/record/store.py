"""What of an experiment's store its runs name, and what none of them does any more."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from headscope.errors import InputError
from headscope.manifest import DAMAGE, HASH, STORE, stored_entries

FRESH_S: Final = 86400.0  # a file this young may be one that a run at work is about to name


def unused(experiment: Path) -> list[Path]:
    """Return the files of an experiment's store that no run and no entry of its cache names.

    Raises
    ------
    InputError
        A manifest is damaged, so that what it names is not certain.
    """
    named = {*_named(experiment)}
    paths = sorted((experiment / STORE).glob("*.*"))
    return [path for path in paths if HASH.fullmatch(path.stem) and path.stem not in named]


def clear_store(experiment: Path) -> None:
    """Remove what has not been named for a day by any run, as after one was deleted."""
    with suppress(InputError):
        for path in unused(experiment):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > FRESH_S:
                    path.unlink()


def _named(experiment: Path) -> Iterator[str]:
    for folder in (*experiment.glob("runs/*"), *experiment.glob("continued/*")):
        yield from (entry["sha256"] for entry in stored_entries(folder).values())
    for path in experiment.glob("cache/*.json"):
        with suppress(*DAMAGE):  # what is damaged is computed again
            yield from json.loads(path.read_text(encoding="utf-8"))["files"].values()
