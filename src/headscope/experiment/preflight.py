"""Checks before any work: the folders, files and networks that an experiment names."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from headscope.console import console, track
from headscope.errors import InputError
from headscope.experiment.config import Config
from headscope.experiment.inputs import count_sites, find_scans
from headscope.experiment.plan import Plan, plan_runs
from headscope.models.network import build_network
from headscope.models.pretrained import find_published
from headscope.models.regimes import trained_paths
from headscope.models.tensors import check_file, split_network
from headscope.record import Run, Setting, wants_more
from headscope.splits.sites import SITE

Named = TypeVar("Named", Plan, Setting)


def check_places(config: Config, plans: Iterable[Plan]) -> None:
    """Refuse folders that are none, and files that do not exist."""
    if config.out.exists() and not config.out.is_dir():
        raise InputError(f"{config.out} is a file: --out names a folder.")
    if config.out.resolve() == config.data.resolve():
        raise InputError(f"{config.out} holds the data: --out names another folder.")
    plans = list(plans)
    _check_folds(config.out / "runs", plans)
    for plan in unfinished(config, plans):
        if plan.weights_file is not None:
            check_file(split_network(plan.weights_file)[0])
    if config.split_file is not None and not Path(config.split_file).is_file():
        raise InputError(f"{config.split_file} does not exist, or is no file.")
    if config.subjects_file is not None and not config.subjects_file.is_file():
        raise InputError(
            f"The subjects {config.subjects_file} do not exist, or are no file: choose ids, "
            "inferred, or a table with path and subject_id."
        )


def _check_folds(runs: Path, plans: list[Plan]) -> None:
    """Refuse other folds beside those that are there: a row would count its subjects twice."""
    folds = {plan.setting.row: plan.setting.folds for plan in plans}
    for run in map(Run, sorted(runs.glob("*"))):
        try:
            other = run.setting
        except InputError:  # damaged, which is said where it is read
            continue
        wanted = folds.get(other.row, other.folds)
        unknown = other.fold is not None and other.folds is None  # of an earlier version
        if wanted != other.folds and not unknown:
            raise InputError(
                f"{run.path} is of a split into {_folds(other.folds)}. Beside {_folds(wanted)} "
                "some subjects would count twice in one row of the table: choose another --out."
            )


def _folds(folds: int | None) -> str:
    return "train, val and test" if folds is None else f"{folds} folds"


def list_runs(config: Config) -> list[str]:
    """Return the names of the runs of a grid, in the order in which they are trained.

    Parameters
    ----------
    config
        Every setting of the experiment.

    Returns
    -------
    list of str
        What `run` takes as `only`. Where a split is by site, scans are looked for to count sites.

    Raises
    ------
    InputError
        The settings make no grid.

    Examples
    --------
    >>> network = {"architectures": ["timm/test_resnet"], "weights": "random"}
    >>> hs.list_runs(hs.Config(data="scans", regimes=["frozen"], seeds=[0, 1], **network))
    ['timm-test_resnet-frozen-subject-seed0', 'timm-test_resnet-frozen-subject-seed1']
    """
    return [plan.name for plan in find_plans(config)]


def find_plans(config: Config) -> list[Plan]:
    """Return the runs of a grid; where a split is by site, its scans tell how many sites are."""
    plans = plan_runs(config)
    if any(plan.setting.split == SITE for plan in plans):
        plans = plan_runs(config, count_sites(find_scans(config, plans, write=False)))
    return plans


def choose_runs(plans: list[Plan], only: Iterable[str] | None) -> list[Plan]:
    """Return the runs of the names in `only` (None: all); InputError where there is no such run."""
    if only is None:
        return plans
    names = [only] if isinstance(only, str) else [*only]
    present = [plan.name for plan in plans]
    for name in names:
        if name not in present:
            close = difflib.get_close_matches(name, present, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InputError(
                f"There is no run {name!r}: {hint}'headscope run … --list' lists the names of all "
                f"{len(present)} runs."
            )
    return [plan for plan in plans if plan.name in names]


def unfinished(config: Config, plans: Iterable[Named]) -> list[Named]:
    """Return the runs that have not ended yet, or continue to more epochs."""
    return [plan for plan in plans if not _is_done(Run(config.out / "runs" / plan.name), plan)]


def _is_done(run: Run, plan: Plan | Setting) -> bool:
    try:
        longer = isinstance(plan, Plan) and wants_more(run, plan.recipe.epochs)
        return run.finished and not longer
    except InputError:  # its record is damaged, which is said where it is read
        return True


def check_networks(plans: list[Plan], size: int, *, fetch: bool = True) -> None:
    """Build every network of the plans once, from its weights, and check that its regimes fit it.

    This takes a second or two per network, where slicing takes minutes. Without `fetch` no
    published weights are downloaded, and those that are not on this machine are not checked.
    """
    by_name: dict[str, list[Plan]] = {}
    for plan in plans:
        by_name.setdefault(plan.architecture.name, []).append(plan)
    problems: list[str] = []
    for group in track(by_name.values(), "Checking networks", len(by_name)) if plans else []:
        problems += _network_problems(group, size, fetch)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _network_problems(plans: list[Plan], size: int, fetch: bool) -> Iterator[str]:
    """Yield what is wrong with the starts and the regimes of one architecture."""
    architecture = plans[0].architecture
    starts = dict.fromkeys(plan.weights if plan.needs_weights else "random" for plan in plans)
    published = find_published(architecture) if "pretrained" in starts else None
    if not fetch and published is not None and published.file is None:
        starts["random"] = starts.pop("pretrained")
    if len(starts) > 1:  # a network that takes weights also works without
        starts.pop("random", None)
    for start in starts:
        try:
            network = build_network(architecture, "finetune", start, classes=2, size=size, seed=0)
            if network.source.note:
                console.print(network.source.note, soft_wrap=True, markup=False)
            for regime in dict.fromkeys(plan.regime for plan in plans):
                trained_paths(network.model, network.classifier, regime, architecture.name)
        except InputError as error:
            yield str(error)
