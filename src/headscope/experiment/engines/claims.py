"""One process at a time trains a run: the file of its lock says which, how far, and why it failed.

A lock is the system's (`flock`): it is free again once its process has ended, however that was.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from headscope.files import claimed
from headscope.record import Run

EVERY_S: Final = 1.0  # between two rows of a history that the file gets


class Claim:
    """The right to train a run; what is noted in its file, other processes read."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        """Read what the process that held it before has noted."""
        self.path, self._file, self._noted = path, file, 0.0
        self._who = {"host": socket.gethostname(), "process": os.getpid()}
        file.seek(0)
        self.facts = _parse(file.read())

    def begin(self) -> None:
        """Say which process trains the run."""
        self._write(self._who)

    def watch(self, row: Mapping[str, Any]) -> None:
        """Note the row of the history of the epoch that has ended, if the last is a second old."""
        if time.monotonic() - self._noted >= EVERY_S:
            self._write(self._who | {"row": dict(row)})
            self._noted = time.monotonic()

    def fail(self, reason: str) -> None:
        """Note why the run failed, so that no other process that is at work tries it again."""
        self._write({"failed": reason, "at": time.time_ns()})

    def clear(self) -> None:
        """Remove the file of a run that has finished, of which nothing is left to say."""
        self.path.unlink(missing_ok=True)

    def _write(self, facts: Mapping[str, Any]) -> None:
        self._file.truncate(0)  # what is opened to append has no place to go back to
        self._file.write(json.dumps(facts).encode())
        self._file.flush()


@contextmanager
def claim(run: Path) -> Iterator[Claim | None]:
    """Claim the folder of a run; None where another process trains it."""
    with claimed(Run(run).lock) as file:
        yield None if file is None else Claim(Run(run).lock, file)


def claim_of(run: Path) -> dict[str, Any]:
    """Return what is noted of a run: host, process and row while it trains, or why it failed."""
    try:
        return _parse(Run(run).lock.read_bytes())
    except OSError:
        return {}


def is_free(run: Path) -> bool:
    """Whether no process trains a run."""
    with claimed(Run(run).lock) as file:
        return file is not None


def _parse(content: bytes) -> dict[str, Any]:
    """Return what a claim says; nothing while it is being written."""
    try:
        return dict(json.loads(content or b"{}"))
    except (ValueError, TypeError):
        return {}
