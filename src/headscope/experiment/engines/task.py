"""One run as any process can train it: its plan and settings, and what it shares by its path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headscope.errors import InputError, RunError
from headscope.experiment.engines.claims import Claim, claim
from headscope.experiment.plan import Plan
from headscope.experiment.shared import Shared
from headscope.record import Run, check_run, discard_run, tidy_run
from headscope.training.device import NoRoomError, is_out_of_memory
from headscope.training.loop import Watch, ignore

Train = Callable[..., Run]


@dataclass(frozen=True)
class Task:
    """A run to be trained.

    settings are those of its run.toml before the network is built; shared holds its split alone.
    failed is what was noted of its last failure when this start began.
    """

    plan: Plan
    settings: Mapping[str, Any]
    shared: Shared
    title: str
    failed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How an attempt at a run ended.

    state: "finished", "failed", "finished elsewhere" (by another process) or "held" (another
    process trains it); reason says why it failed, row is the last of its history.
    """

    state: str
    reason: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)


def attempt(task: Task, train: Train, watch: Watch = ignore) -> Ended:
    """Train a run that no other process trains and none has finished or failed at meanwhile."""
    folder = task.shared.folder(task.plan)
    with claim(folder) as mine:
        if mine is None:
            return Ended("held")
        if "failed" in mine.facts and mine.facts != task.failed:
            return Ended("failed", str(mine.facts["failed"]))
        try:
            if check_run(folder, task.settings):
                mine.clear()
                return Ended("finished elsewhere")
            mine.begin()
            tidy_run(folder)
            return _train(task, train, mine, watch)
        except (InputError, RuntimeError, MemoryError) as error:
            reason = reason_of(error, task).removeprefix(f"{task.title}: ")
            mine.fail(task.shared.config.for_record({"": reason})[""])
            return Ended("failed", reason)


def _train(task: Task, train: Train, mine: Claim, watch: Watch) -> Ended:
    last: dict[str, Any] = {}

    def note(row: Mapping[str, Any]) -> None:
        last.update(row)
        mine.watch(row)
        watch(row)

    train(task.plan, task.shared, task.settings, title=task.title, watch=note)
    mine.clear()
    return Ended("finished", row=last)


def reason_of(error: Exception, task: Task) -> str:
    """Return why a run failed, and remove its half record; an unforeseen error is raised.

    The record stays where an InputError is about it, or where training had left a resume file
    before the memory ran out.
    """
    folder = task.shared.folder(task.plan)
    if isinstance(error, InputError):
        return str(error)
    no_room = isinstance(error, NoRoomError)
    if isinstance(error, RunError) and not no_room:
        discard_run(folder)
        return str(error)
    if not (no_room or is_out_of_memory(error)):
        raise error
    if not (folder / "checkpoint").exists():
        discard_run(folder)
    if no_room:
        return str(error)
    return "Out of memory; a smaller batch_size, or ending other work, may help."
