"""Many scan files → the slices of each, in order, by one process or several."""

import os
import shutil
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor, cpu_count
from joblib.externals.loky.process_executor import BrokenProcessPool
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headscope.errors import InputError
from headscope.scans.discovery import ScanFile
from headscope.scans.volume import PLANES, Scan, ScanError, read_scan
from headscope.slicing.extract import planes_of, take_planes
from headscope.slicing.picture import take_picture

SCANS_PER_WORKER: Final = 32  # starting a process costs about as much as so many scans
AHEAD: Final = 3  # scans that each process may be ahead by
IDLE_S: Final = 5  # a helper without work for so long ends: within a minute where this was killed
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
Taken = tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]] | ScanError
Task = tuple[ScanFile, str]  # a scan and the plane to take


def take_files(
    todo: list[Task], options: dict[str, Any], workers: int | None, spool: Path
) -> Generator[Taken, None, None]:
    """Yield what each scan gives, in order; the pixels are good until the next is asked for.

    Several processes are this one and its helpers, which hand their pixels over as files in the
    folder `spool`: pickled through a pipe, as results are, they would cost a quarter of all time.

    Raises
    ------
    InputError
        A helper was killed.
    """
    shutil.rmtree(spool, ignore_errors=True)  # of a process that was killed
    if workers is None:
        workers = min(cpu_count(), len(todo) // SCANS_PER_WORKER)
    helpers = min(workers, len(todo)) - 1
    with threadpool_limits(1, user_api="blas"):
        if helpers < 1:
            yield from (take_file(scan, plane, options) for scan, plane in todo)
            return
        spool.mkdir()
        executor = ProcessPoolExecutor(helpers, env=ONE_THREAD, timeout=IDLE_S)
        try:
            yield from _take_together(executor, helpers, iter(todo), options, spool)
        except BrokenProcessPool:
            raise InputError(
                "A process that took slices was killed, for lack of memory perhaps: --workers 1 "
                "needs the least. What was taken is kept."
            ) from None
        finally:
            executor.shutdown(kill_workers=True)
            shutil.rmtree(spool, ignore_errors=True)


def _take_together(
    executor: ProcessPoolExecutor,
    helpers: int,
    todo: Iterator[Task],
    options: dict[str, Any],
    spool: Path,
) -> Iterator[Taken]:
    """Yield what each scan gives: the helpers' queue is kept filled, and this process works too."""
    # files to leave pixels in; helpers of a process that was killed may still write into its own
    free = deque(spool / f"{os.getpid()}-{n}" for n in range(AHEAD * helpers))
    for file in free:
        file.touch()
    taken: deque[tuple[Future[Any], Path | None]] = deque()  # in order, done or under way
    started = executor.submit(_start)
    while True:
        while started.done() and free and (task := next(todo, None)):
            file = free.popleft()
            taken.append((executor.submit(_leave, *task, options, file), file))
        idle = not taken or not taken[0][0].done()
        crowded = len(taken) >= AHEAD * (helpers + 1)
        if idle and not crowded and (task := next(todo, None)):
            own: Future[Any] = Future()
            own.set_result(take_file(*task, options))
            taken.append((own, None))
        elif taken:
            result, used = taken.popleft()
            yield _fetched(result.result())
            if used is not None:
                free.append(used)
        else:
            return


class _Left(NamedTuple):
    """Slices whose pixels a helper left in a file."""

    file: Path
    shape: tuple[int, ...]
    indices: dict[str, NDArray[np.int64]]


def _start() -> None:
    """Do nothing: whoever could call this has loaded what it needs."""


def _leave(scan: ScanFile, plane: str, options: dict[str, Any], file: Path) -> _Left | ScanError:
    """Take a scan's slices and leave their pixels in `file`, over what stands there."""
    taken = take_file(scan, plane, options)
    if isinstance(taken, ScanError):
        return taken
    pixels, indices = taken
    with file.open("r+b") as stream:
        stream.write(pixels.data)
    return _Left(file, pixels.shape, indices)


def _fetched(result: Taken | _Left) -> Taken:
    """Return what was taken; pixels that were left in a file are mapped."""
    if not isinstance(result, _Left):
        return result
    return np.memmap(result.file, np.uint8, "r", shape=result.shape), result.indices


def take_file(file: ScanFile, plane: str, options: dict[str, Any]) -> Taken:
    """Return the slices (n, size, size) of a file and their indices by plane, or why it gave none.

    options: count, size, centre, spacing_mm, volume, analyze_orientation, as of `write_slices`.
    """
    try:
        if file.kind == "picture":
            return take_picture(file.path, options["size"]), {plane: np.zeros(1, dtype=np.int64)}
        scan = read_scan(
            file,
            plane="axial" if plane == "all" else plane,
            volume=options["volume"],
            analyze_orientation=options["analyze_orientation"],
        )
        return take_planes(
            scan,
            _planes_in(scan, plane),
            options["count"],
            options["size"],
            options["centre"],
            options["spacing_mm"],
        )
    except ScanError as error:
        return error
    except MemoryError:
        return ScanError(file.path, "cannot be sliced: it does not fit into memory", True)


def _planes_in(scan: Scan, plane: str) -> tuple[str, ...]:
    """Return the planes to take of a scan: of a grid of one slice, the one in which it lies."""
    thin = [name for name, axis in PLANES.items() if scan.volume.shape[axis] == 1]
    return (thin[0],) if plane == "all" and thin else planes_of(plane)
