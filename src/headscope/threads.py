"""How many threads small products of matrices run with, and how helper processes end."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

LOOK_EVERY_S: Final = 0.5
QUIET: Final = "ignore:resource_tracker:UserWarning"
_LIMITED: Final = ContextVar("limited", default=False)
P = ParamSpec("P")
R = TypeVar("R")


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's products of matrices run with one BLAS thread.

    They are small: several threads gain little on a quiet machine, and beside other work they wait
    for each other so that minutes become hours. Within such a function another costs nothing.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if _LIMITED.get():
            return function(*args, **kwargs)
        token = _LIMITED.set(True)
        try:
            with threadpool_limits(limits=1, user_api="blas"):
                return function(*args, **kwargs)
        finally:
            _LIMITED.reset(token)

    return limited


def end_with(parent: int) -> None:
    """Let this helper process end within a second of the process that started it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    names = [thread.name for thread in threading.enumerate()]
    if os.getpid() != parent and end_with.__name__ not in names:
        threading.Thread(target=watch, name=end_with.__name__, daemon=True).start()


@contextmanager
def starting_helpers() -> Iterator[None]:
    """Start helper processes that Ctrl-C leaves alone; here it is answered after the block.

    The process that looks after their semaphores does not report those that a kill left to it.
    """
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{before},{QUIET}" if before else QUIET
    block = getattr(signal, "pthread_sigmask", None)  # Windows has none
    signals = block(signal.SIG_BLOCK, {signal.SIGINT}) if block else None
    try:
        yield
    finally:
        if block:
            block(signal.SIG_SETMASK, signals)
        del os.environ["PYTHONWARNINGS"]
        os.environ |= {} if before is None else {"PYTHONWARNINGS": before}
