"""stdin, stdout and stderr as a command may find them: closed, full, of any encoding."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from headscope.text import printable

NAMES: Final = ("stdin", "stdout", "stderr")  # of the file descriptors 0, 1 and 2


class PlainStream:
    """A stream whose text holds no terminal escapes; rich, which needs them, writes below it."""

    def __init__(self, stream: Any) -> None:
        """Wrap a stream."""
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write text, control characters escaped."""
        self.rich_proxied_file.write(printable(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has."""
        return getattr(self.rich_proxied_file, name)


@contextmanager
def plain_streams() -> Iterator[None]:
    """Open what is closed, write what an encoding lacks as an escape, and flush at the end.

    Raises
    ------
    OSError
        What was printed cannot be written, as on a full disk. A reader that has left is no error.
    """
    _open_closed()
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = map(PlainStream, streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for stream in streams:
            _flush(stream)


def _open_closed() -> None:
    """Open streams that are closed on nothing: else the next file would be taken for one."""
    for number, name in enumerate(NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            text = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115
            setattr(sys, name, text)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except OSError as error:  # what is left to write would be tried once more, and fail loudly
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise
