"""The runs of a grid, handed to an engine until each has ended, here or elsewhere."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Final

from headscope.console import console
from headscope.experiment.engines.claims import claim_of, is_free
from headscope.experiment.engines.engine import Engine
from headscope.experiment.engines.task import Ended, Task, Train, attempt
from headscope.experiment.live import Board
from headscope.experiment.plan import Plan
from headscope.experiment.shared import Shared
from headscope.record import tidy_run
from headscope.tracking.track import Followers

LOOK_S: Final = 0.5  # seconds between two looks at what other processes do
TRIES: Final = 3  # so often a run is begun whose process is killed
LOST: Final = (
    f"its process was killed {TRIES} times, perhaps for lack of memory: fewer runs at once "
    "(workers, num_cpus) need less. Its resume file stays."
)


class Grid:
    """The runs of a grid: which wait, which train here and which elsewhere, and why some failed.

    Parameters
    ----------
    plans, settings
        The runs, and for those that are to be trained what their run.toml will say, by name.
    shared
        What they share.
    engine, train
        Where they are trained, and the function that trains one.
    followers
        The trackers that hear of them.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        settings: Mapping[str, Mapping[str, object]],
        shared: Shared,
        engine: Engine,
        train: Train,
        followers: Followers | None = None,
    ) -> None:
        """Let all wait."""
        self.plans, self.settings, self.shared = plans, settings, shared
        self.engine, self.train, self.board = engine, train, Board(plans, followers)
        self.failures: dict[str, str] = {}
        self.running: dict[Future[Ended], int] = {}
        self.held: set[int] = set()
        self.queue = deque(n for n, plan in enumerate(plans) if plan.name in settings)
        self.tries: Counter[int] = Counter()
        # what was noted of failures so far: the runs are tried again, but for those of later ones
        self.failed = {n: claim_of(shared.folder(plans[n])) for n in self.queue}

    def finish(self) -> dict[str, str]:
        """Train every run that is to be trained; return the reasons of those that failed."""
        while self.queue or self.running or self.held:
            while self.queue and len(self.running) < self.engine.slots:
                self._submit(self.queue.popleft())
            if self.running:
                done, _ = wait(self.running, LOOK_S, FIRST_COMPLETED)
                for future in done:
                    self._hear(self.running.pop(future), future)
            elif self.held and not self.queue:
                time.sleep(LOOK_S)
            self._look()
        return self.failures

    def _submit(self, number: int) -> None:
        """Hand a run to the engine."""
        plan = self.plans[number]
        task = Task(
            plan,
            self.settings[plan.name],
            self.shared.of_run(plan),
            self.board.title(number),
            self.failed[number],
        )
        if self.engine.queues:
            self.board.lines[number].start = time.perf_counter()
        else:
            self.board.begin(number)
        if self.engine.here:
            watch = partial(self.board.watch, number=number)
            future = self.engine.submit(attempt, task, self.train, watch)
        else:
            future = self.engine.submit(attempt, task, self.train)
        self.running[future] = number

    def _hear(self, number: int, future: Future[Ended]) -> None:
        """Note how an attempt at a run has ended."""
        error = future.exception()
        if error is not None:
            if not self.engine.is_lost(error):
                raise error
            self.tries[number] += 1
            if self.tries[number] < TRIES:
                self.board.lose(number)
                self.queue.appendleft(number)
                return
        ended = Ended("failed", LOST) if error is not None else future.result()
        if ended.row:
            self.board.watch(ended.row, number)
        if ended.state == "held":
            self.held.add(number)
            claim = claim_of(self.shared.folder(self.plans[number]))
            who = f" ({claim['host']}, process {claim['process']})" if "host" in claim else ""
            self.board.leave(number, f"another headscope{who}")
        elif ended.state == "failed":
            self.fail(number, ended.reason)
        else:
            self.board.end(number, ended.state)

    def fail(self, number: int, reason: str) -> None:
        """Note why a run failed; a reason is printed once."""
        alike = next((name for name, said in self.failures.items() if said == reason), None)
        outcome = f"failed, as {alike}." if alike else f"failed. {reason}"
        self.board.end(number, "failed", outcome)
        self.failures[self.plans[number].name] = reason

    def _look(self) -> None:
        """Read how far other processes are, and try the runs again that none holds any more."""
        for number in [*self.held, *([] if self.engine.here else self.running.values())]:
            folder = self.shared.folder(self.plans[number])
            facts = claim_of(folder)
            waiting = self.board.lines[number].state == "waiting"
            if "host" in facts and waiting and number not in self.held:
                self.board.begin(number)
            if "row" in facts:
                self.board.watch(facts["row"], number)
            if number in self.held and is_free(folder):
                self.held.remove(number)
                self.queue.append(number)


def train_all(
    plans: Sequence[Plan],
    settings: Mapping[str, Mapping[str, object]],
    changed: Mapping[str, str],
    shared: Shared,
    engine: Engine,
    train: Train,
    followers: Followers | None = None,
) -> dict[str, str]:
    """Train every run that has `settings`; return the reasons of those that failed, by name.

    Those whose record has `changed` since it was written have failed; the others had finished.
    """
    grid = Grid(plans, settings, shared, engine, train, followers)
    board = grid.board
    finished = [n for n, plan in enumerate(plans) if plan.name not in {*settings, *changed}]
    for number in finished:
        board.lines[number].state = "already finished"
    if settings and engine.text:
        console.print(engine.text, soft_wrap=True)
    with board.shown(said=not engine.here):  # a run of this process says how far it is
        for number, plan in enumerate(plans):
            if plan.name not in settings:
                tidy_run(shared.folder(plan))
            if plan.name in changed:
                grid.failures[plan.name] = changed[plan.name]
                board.end(number, "failed", changed[plan.name])
            elif number in finished:
                board.end(number, "already finished")
        return grid.finish()
