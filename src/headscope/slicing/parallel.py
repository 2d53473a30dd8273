"""Many scan files → a file of slices for each, by one process or several.

Each scan's slices become one file, written whole: a line of JSON (`Part`), then the pixels. Such a
file is what a process hands over, and what a later call finds done.
"""

import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from joblib.externals.loky import ProcessPoolExecutor, cpu_count
from joblib.externals.loky.process_executor import BrokenProcessPool
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headscope.errors import InputError
from headscope.scans.discovery import ScanFile
from headscope.scans.volume import ScanError, read_scan
from headscope.slicing.extract import count_empty, take_slices
from headscope.slicing.picture import take_picture
from headscope.slicing.spec import SliceSpec
from headscope.threads import end_with, starting_helpers

SCANS_PER_WORKER: Final = 32  # starting a process costs about as much as so many scans
QUEUED: Final = 2048  # scans handed to the helpers at once: what waits takes memory
IDLE_S: Final = 5  # a helper without work for so long ends
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
Submit = Callable[..., Future[Any]]
Task = tuple[ScanFile, str, Path]  # a scan, the plane to take, and the file for its slices


class Taken(NamedTuple):
    """The slices (n, size, size) of a scan, their indices by plane, and notes on the scan."""

    pixels: NDArray[np.uint8]
    indices: dict[str, NDArray[np.int64]]
    notes: Sequence[str] = ()


class Part(NamedTuple):
    """What a scan gave: the indices of its slices by plane, or the reason why it gave none.

    `notes` say what was assumed of it or repaired, `empty` counts the slices that show nothing.
    """

    indices: dict[str, list[int]]
    problem: str = ""
    transient: bool = False
    notes: Sequence[str] = ()
    empty: int = 0

    @property
    def slices(self) -> int:
        """How many slices there are."""
        return sum(map(len, self.indices.values()))


def take_parts(
    tasks: list[Task], spec: SliceSpec, workers: int | None, submit: Submit | None = None
) -> Generator[Part, None, None]:
    """Write the part of each scan and yield what it gave, in the order of the tasks.

    The plane is that of the task, not of `spec`. workers: processes, this one among them; by
    default as many as cores, fewer for few scans. submit calls a function elsewhere, in place of
    processes of this machine.
    """
    if submit is not None:
        yield from _take_elsewhere(submit, tasks, spec)
        return
    if workers is None:
        workers = min(cpu_count(), len(tasks) // SCANS_PER_WORKER)
    helpers = min(workers, len(tasks)) - 1
    with threadpool_limits(1, user_api="blas"):
        if helpers < 1:
            yield from (_take_part(*task, spec) for task in tasks)
            return
        with starting_helpers():
            end = {"initializer": end_with, "initargs": (os.getpid(),)}
            executor = ProcessPoolExecutor(helpers, env=ONE_THREAD, timeout=IDLE_S, **end)
        ended = False
        try:
            for start in range(0, len(tasks), QUEUED):
                yield from _take_together(executor, tasks[start : start + QUEUED], spec)
            ended = True
        except BrokenProcessPool:
            raise InputError(
                "A process that took slices was killed, perhaps for lack of memory: --workers 1 "
                "needs the least. The slices taken so far are kept."
            ) from None
        finally:
            # helpers that are killed with tasks in the queue let loky's thread end in a traceback
            executor.shutdown(kill_workers=ended)


def _take_elsewhere(submit: Submit, tasks: list[Task], spec: SliceSpec) -> Iterator[Part]:
    """Yield the parts in order, of shares of scans that are taken on other machines."""
    for start in range(0, len(tasks), QUEUED):
        last = min(start + QUEUED, len(tasks))
        places = range(start, last, SCANS_PER_WORKER)
        shares = [tasks[first : min(first + SCANS_PER_WORKER, last)] for first in places]
        for future in [submit(_take_share, share, spec) for share in shares]:
            yield from future.result()


def _take_share(tasks: list[Task], spec: SliceSpec) -> list[Part]:
    """Write the parts of some scans; return what they gave."""
    with threadpool_limits(1, user_api="blas"):
        return [_take_part(*task, spec) for task in tasks]


def _take_together(
    executor: ProcessPoolExecutor, tasks: list[Task], spec: SliceSpec
) -> Iterator[Part]:
    """Yield the parts in order; where the next one is not done yet, this process works too.

    It takes back the first task that no helper has begun. Parts are files, so that it may run
    ahead of a slow helper as far as it likes.
    """
    with starting_helpers():
        futures: list[Future[Part]] = [executor.submit(_take_part, *task, spec) for task in tasks]
    mine: dict[int, Part] = {}
    waiting = iter(range(len(tasks)))
    try:
        for number, future in enumerate(futures):
            while not future.done():
                taken_back = next((n for n in waiting if futures[n].cancel()), None)
                if taken_back is None:
                    break
                mine[taken_back] = _take_part(*tasks[taken_back], spec)
            yield mine.pop(number) if future.cancelled() else future.result()
    finally:
        for future in futures:  # of none where all are done
            future.cancel()


def _take_part(scan: ScanFile, plane: str, target: Path, spec: SliceSpec) -> Part:
    """Take a scan's slices and write its part."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    pixels: Any = b""
    try:
        taken = take_file(scan, plane, spec)
        pixels = taken.pixels.data
        indices = {name: positions.tolist() for name, positions in taken.indices.items()}
        part = Part(indices, notes=taken.notes, empty=count_empty(taken.pixels))
    except ScanError as error:
        part = Part({}, error.reason, error.transient)
    with temporary.open("wb") as file:
        file.write(json.dumps(part._asdict()).encode() + b"\n")
        file.write(pixels)
    temporary.replace(target)
    return part


def open_part(file: BinaryIO) -> Part:
    """Read what a scan gave; its pixels follow in the file."""
    return Part(**json.loads(file.readline()))


def read_part(path: Path, size: int) -> Part | None:
    """Return what a scan gave, or None where its file is absent, not whole, or worth another try.

    A system that crashed may have kept a file's name without all of its pixels.
    """
    try:
        with path.open("rb") as file:
            part = open_part(file)
            whole = path.stat().st_size == file.tell() + part.slices * size**2
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return part if whole and not part.transient else None


def take_file(file: ScanFile, plane: str, spec: SliceSpec) -> Taken:
    """Return the slices of a scan or picture; ScanError where it cannot be used."""
    try:
        if file.kind == "picture":
            pictured: list[str] = []
            pixels = take_picture(file.path, spec.size, spec.window, pictured)
            return Taken(pixels, {plane: np.zeros(1, dtype=np.int64)}, pictured)
        scan = read_scan(
            file,
            plane="axial" if plane == "all" else plane,
            volume=spec.volume,
            analyze_orientation=spec.orientation,
        )
        notes = list(scan.notes)
        pixels, indices = take_slices(scan, replace(spec, plane=plane), notes)
        return Taken(pixels, indices, notes)
    except MemoryError:
        reason = "cannot be sliced: it does not fit into memory"
        raise ScanError(file.path, reason, transient=True) from None
