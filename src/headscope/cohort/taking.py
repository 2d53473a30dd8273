"""Many scan files → the slices of each, in order, by one process or several."""

import shutil
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
from numpy.typing import NDArray

from headscope.cohort.midslices import planes_of, take_planes
from headscope.cohort.pictures import is_picture, take_picture
from headscope.cohort.scans import PLANES, Scan, ScanError, read_scan

SCANS_PER_WORKER: Final = 48  # starting a process costs about as much as so many scans
Taken = tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]] | ScanError


def take_files(
    todo: list[tuple[Path, str]], options: dict[str, Any], workers: int | None, spool: Path
) -> Generator[Taken, None, None]:
    """Yield what each scan gives, in order; processes work ahead by a few scans, no more.

    Processes hand their pixels over as files in the folder `spool`: pickled through a pipe, as
    results are, they would cost a quarter of all time.
    """
    shutil.rmtree(spool, ignore_errors=True)  # of a process that was killed
    if workers is None:
        workers = max(1, min(joblib.cpu_count(), len(todo) // SCANS_PER_WORKER))
    if workers == 1:
        yield from (take_file(path, plane, options) for path, plane in todo)
        return
    spool.mkdir()
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator", pre_dispatch="2*n_jobs")
    results = parallel(
        joblib.delayed(_spooled)(path, plane, options, spool / str(n))
        for n, (path, plane) in enumerate(todo)
    )
    try:
        for taken in results:
            yield _fetched(taken)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that work done ahead is thrown away
            results.close()
        shutil.rmtree(spool, ignore_errors=True)


def _spooled(
    path: Path, plane: str, options: dict[str, Any], file: Path
) -> tuple[Path, tuple[int, ...], dict[str, NDArray[np.int64]]] | ScanError:
    """Take a scan's slices and leave their pixels in `file`."""
    taken = take_file(path, plane, options)
    if isinstance(taken, ScanError):
        return taken
    pixels, indices = taken
    pixels.tofile(file)
    return file, pixels.shape, indices


def _fetched(
    left: tuple[Path, tuple[int, ...], dict[str, NDArray[np.int64]]] | ScanError,
) -> Taken:
    """Read what `_spooled` left, and remove its file."""
    if isinstance(left, ScanError):
        return left
    file, shape, indices = left
    pixels = np.fromfile(file, dtype=np.uint8).reshape(shape)
    file.unlink()
    return pixels, indices


def take_file(path: Path, plane: str, options: dict[str, Any]) -> Taken:
    """Return the slices (n, size, size) of a file and their indices by plane, or why it gave none.

    options: count, size, centre, spacing_mm, volume, analyze_orientation, as of `write_slices`.
    """
    try:
        if is_picture(path.name):
            return take_picture(path, options["size"]), {plane: np.zeros(1, dtype=np.int64)}
        scan = read_scan(
            path,
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


def _planes_in(scan: Scan, plane: str) -> tuple[str, ...]:
    """Return the planes to take of a scan: of a grid of one slice, the one in which it lies."""
    thin = [name for name, axis in PLANES.items() if scan.volume.shape[axis] == 1]
    return (thin[0],) if plane == "all" and thin else planes_of(plane)
