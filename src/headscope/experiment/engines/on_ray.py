"""Ray: runs as tasks of a cluster, each with its share of CPUs and GPUs."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Final, Self

from headscope.console import busy
from headscope.errors import InputError, RunError
from headscope.experiment.config import Config
from headscope.experiment.engines.engine import Engine, prepare

WAITING: Final = 64  # runs handed over that wait for room, by which a cluster knows what is wanted

RETRIES: Final = 3
ANSWER_S: Final = 10  # seconds for the node at an address to answer
KILLED: Final = (
    "A process of Ray that took slices was killed several times, perhaps for lack of memory. The "
    "slices taken so far are kept."
)


class OnRay(Engine):
    """A cluster of Ray: the one at `address`, the one that runs here, or one of this machine.

    A task that is lost with its process or node is not repeated by Ray but by who submits it.
    """

    queues = True

    def __init__(self, config: Config) -> None:
        """Take the settings."""
        self._config, self._ray, self.share = config, _import_ray(), self._share

    def __enter__(self) -> Self:
        """Join the cluster, and see what it has."""
        self._joined = not self._ray.is_initialized()
        if self._joined:
            self._join()
        try:
            self._divide()
        except InputError:
            self.__exit__()
            raise
        return self

    def _join(self) -> None:
        """Join the cluster, or start one."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        address = self._config.address
        if address in (None, "auto"):
            address = os.environ.get("RAY_ADDRESS") or address
        try:
            with busy("Joining the cluster of Ray"), _restored_sigterm():
                _look_for(address or "")
                self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError, OSError, OverflowError) as error:
            text = getattr(error, "strerror", None) or str(error)
            reason = text.strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(
                f"The cluster of Ray at {address or 'this machine'} cannot be joined: {reason}. "
                "--address takes auto or HOST:PORT, as 'ray start' prints it."
            ) from None

    def _divide(self) -> None:
        """Divide the cluster among the runs, as the settings say."""
        config, total = self._config, self._ray.cluster_resources()
        gpus = config.num_gpus
        if gpus is None:
            gpus = 1.0 if total.get("GPU") and config.device != "cpu" else 0.0
        cpus = float(config.threads or 1) if config.num_cpus is None else config.num_cpus
        self._threads = config.threads or max(1, int(cpus))
        share = {"CPU": cpus, "GPU": gpus}
        self._check(share)
        self.slots = WAITING + _room(total, share)
        self._call = self._ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(call)
        threads = f"{self._threads} thread{'s' * (self._threads > 1)}"
        self.text = (
            f"Ray: num_cpus {cpus:g} and num_gpus {gpus:g} for each run, of a cluster with "
            f"{total.get('CPU', 0):g} and {total.get('GPU', 0):g}; {threads} each."
        )

    def __exit__(self, *error: object) -> None:
        """Leave the cluster, which ends what is still running for this process."""
        if self._joined:
            self._ray.shutdown()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function on some node."""
        return self._hear(self._call.remote(str(Path.cwd()), self._threads, function, *args))

    def _share(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call a function that may be called again; RunError where its process is always lost."""
        task = self._call.options(max_retries=RETRIES, num_cpus=1, num_gpus=0)
        return self._hear(task.remote(str(Path.cwd()), 1, function, *args), RunError(KILLED))

    def _hear(self, reference: Any, lost: Exception | None = None) -> Future[Any]:
        """Return the future of a task: with the error that its function raised, not Ray's of it.

        `lost` is the error where its process ended.
        """
        here: Future[Any] = Future()

        def pass_on(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                here.set_result(done.result())
            elif self.is_lost(error):
                here.set_exception(lost or error)
            else:
                cause = getattr(error, "cause", error)
                here.set_exception(cause if isinstance(cause, BaseException) else error)

        reference.future().add_done_callback(pass_on)
        return here

    def is_lost(self, error: BaseException) -> bool:
        """Whether process or node ended; what a function raises is no such error."""
        errors = self._ray.exceptions
        return isinstance(error, errors.RayError) and not isinstance(error, errors.RayTaskError)

    def _check(self, wanted: dict[str, float]) -> None:
        """Refuse what Ray does not divide, and what no node has: a run would wait for ever."""
        for name, count in wanted.items():
            if count > 1 and count != int(count):
                raise InputError(
                    f"num_{name.lower()}s is {count:g}: above 1, Ray takes whole numbers."
                )
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for name, count in wanted.items():
            most = max((node.get(name, 0) for node in nodes), default=0)
            if count > most:
                raise InputError(
                    f"num_{name.lower()}s is {count:g}, and no node of the cluster has more than "
                    f"{most:g}: a run takes its share from one node."
                )


def call(folder: str, threads: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of Ray, in the folder of the process that submitted it."""
    with suppress(OSError):  # absolute paths do without
        os.chdir(folder)
    prepare(threads)
    return function(*args)


@contextmanager
def _restored_sigterm() -> Iterator[None]:
    """Give SIGTERM back to who had it: Ray ends the process with a trace and exit code 15."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and current_thread() is main_thread():
            signal.signal(signal.SIGTERM, before)


def _look_for(address: str) -> None:
    """Refuse a HOST:PORT where nothing answers (OSError): Ray would try it for ten minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def _room(total: dict[str, float], wanted: dict[str, float]) -> int:
    """Return how many runs the cluster trains at once, about."""
    return int(min(total.get(name, 0) / count for name, count in wanted.items() if count))


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError(
            "engine 'ray' needs the package ray: install headscope[ray] (pip install "
            "'headscope[ray]'), or choose engine here or processes."
        ) from None
    return ray
