"""The engines: this process, several processes of this machine, Ray."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Self

import torch
from joblib.externals.loky import ProcessPoolExecutor, cpu_count
from joblib.externals.loky.process_executor import BrokenProcessPool

from headscope.console import console
from headscope.experiment.config import Config
from headscope.threads import end_with, starting_helpers

SETTINGS: Final = ("engine", "workers", "threads", "address", "num_cpus", "num_gpus")
OF_RAY: Final = ("address", "num_cpus", "num_gpus")
CORES: Final = 4  # for each process on a machine without GPU, where neither number is given


class Engine:
    """What takes runs and says when they have ended; it ends with the block.

    `slots` is how many it takes at once. here: they are trained while they are submitted. queues:
    some of them wait in it for room. text says what it divides. share calls a function that may be
    called again where its process is lost, as slicing does; None: slicing has its own processes.
    """

    slots: int = 1
    here: bool = False
    queues: bool = False
    text: str = ""
    share: Callable[..., Future[Any]] | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *error: object) -> None:
        """End what it has begun."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function somewhere; the future has its result."""
        raise NotImplementedError

    def is_lost(self, error: BaseException) -> bool:
        """Whether the error of a future says that the process ended before the function did."""
        return False


def find_engine(config: Config, *, needed: bool = True) -> Engine:
    """Return the engine of the settings, which ends with the block; this process if none is needed.

    Raises
    ------
    InputError
        Ray is asked for and not installed, or its cluster cannot be reached.
    """
    unused = [name for name in OF_RAY if getattr(config, name) is not None]
    if needed and unused and config.engine != "ray":
        names = " and ".join([", ".join(unused[:-1]), unused[-1]] if unused[1:] else unused)
        console.print(f"{names}: of the engine ray, and not used by the engine {config.engine}.")
    if config.engine == "processes" and needed:
        return Processes(config)
    if config.engine == "ray" and needed:
        from headscope.experiment.engines.on_ray import OnRay

        return OnRay(config)
    return Here(config)


class Here(Engine):
    """This process: one run after the other."""

    here = True

    def __init__(self, config: Config) -> None:
        """Train with so many threads as are set."""
        self._threads = config.threads

    def __enter__(self) -> Self:
        """Take the threads."""
        self._before = torch.get_num_threads()
        if self._threads:
            torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the threads back."""
        if self._threads:
            torch.set_num_threads(self._before)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function; what it raises is raised."""
        future: Future[Any] = Future()
        future.set_result(function(*args))
        return future


class Processes(Engine):
    """Several processes of this machine, each with its device and its share of the cores.

    A process that is killed takes no other along: each is the only one of its pool.
    """

    def __init__(self, config: Config) -> None:
        """Divide devices and cores; a process starts with its first run."""
        devices = visible_devices(config.device)
        workers, self.threads = divide(config.workers, config.threads, len(devices), cpu_count())
        self.devices = assign(workers, devices)
        self.slots = workers
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._last: dict[int, Future[Any]] = {}
        names = [f"GPU {name}" for name in dict.fromkeys(self.devices) if name is not None]
        where = f" on {', '.join(names)}" if names else ""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        self.text = f"{workers} processes{where}, {threads} each."

    def __exit__(self, *error: object) -> None:
        """End the processes."""
        for pool in self._pools.values():
            pool.shutdown(kill_workers=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function in a process that is free, a new one where the last was killed."""
        last = self._last
        place = next(k for k in range(self.slots) if k not in last or last[k].done())
        if place in last and isinstance(last[place].exception(), BrokenProcessPool):
            self._pools.pop(place).shutdown(wait=False)
        with starting_helpers():
            try:
                pool = self._pools.get(place) or self._start(place)
                last[place] = pool.submit(function, *args)
            except BrokenProcessPool:  # it was killed while it waited
                self._pools.pop(place).shutdown(wait=False)
                last[place] = self._start(place).submit(function, *args)
        return last[place]

    def is_lost(self, error: BaseException) -> bool:
        """Whether the process was killed."""
        return isinstance(error, BrokenProcessPool)

    def _start(self, place: int) -> ProcessPoolExecutor:
        env = {"OMP_NUM_THREADS": str(self.threads)}
        if self.devices[place] is not None:
            env["CUDA_VISIBLE_DEVICES"] = str(self.devices[place])
        begin = {"initializer": begin_process, "initargs": (os.getpid(), self.threads)}
        pool = ProcessPoolExecutor(1, env=env, timeout=None, **begin)
        self._pools[place] = pool
        return pool


def begin_process(parent: int, threads: int) -> None:
    """Prepare a process of this machine, which ends with the one that started it."""
    end_with(parent)
    prepare(threads)


def prepare(threads: int) -> None:
    """Train with so many threads, and leave what is said to the process that submits runs."""
    torch.set_num_threads(threads)
    console.quiet = True


def visible_devices(device: str) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if device == "cpu" or not torch.cuda.is_available():
        return []
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return [name for name in named if name] or [str(k) for k in range(torch.cuda.device_count())]


def assign(workers: int, devices: Sequence[str]) -> list[str | None]:
    """Return the device of each process, in turn, so that each device has as many or one more."""
    return [devices[k % len(devices)] if devices else None for k in range(workers)]


def divide(workers: int | None, threads: int | None, devices: int, cores: int) -> tuple[int, int]:
    """Return how many processes there are, and the threads of each.

    One per device; without devices as many as `threads` divide the cores into, or else one for
    every four cores and at least two.
    """
    if workers is None:
        by_cores = cores // threads if threads else max(2, cores // CORES)
        workers = devices or max(1, by_cores)
    return workers, threads or max(1, cores // workers)
