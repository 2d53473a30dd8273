"""Analyses of several runs at once, by threads: large arrays are computed without Python's lock.

What works on small arrays is slower so: heads trained again, fits beside shuffles.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, TypeVar

from joblib.externals.loky import cpu_count

from headscope.record import FEATURES, Run

MOST_THREADS: Final = 4
AT_ONCE_BYTES: Final = 2**27  # of the records of the runs at once; copies take several times that
R = TypeVar("R")


def at_once(function: Callable[[Run], R], runs: Sequence[Run]) -> Iterator[R]:
    """Yield the result of each run in turn; several are computed at once where memory allows.

    What a function raises is raised in the turn of its run.
    """
    threads = min(thread_count(runs), len(runs))
    if threads < 2:
        yield from map(function, runs)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            # a context each: that they compute with one BLAS thread, and where results are stored
            made = [pool.submit(copy_context().run, function, run) for run in runs]
            yield from (result.result() for result in made)
        finally:
            pool.shutdown(cancel_futures=True)


def thread_count(runs: Sequence[Run]) -> int:
    """Return how many runs are analysed at once: one where they fill much of a memory."""
    largest = max((_bytes(run) for run in runs), default=0)
    return min(cpu_count(), MOST_THREADS, AT_ONCE_BYTES // max(largest, 1))


def _bytes(run: Run) -> int:
    paths = map(run.place, (FEATURES, "features.npz", "predictions.tsv"))
    return sum(path.stat().st_size for path in paths if path.is_file())
