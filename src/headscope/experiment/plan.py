"""The grid of an experiment: which runs there will be, and in which order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from headscope.cohort.joining.listed import INFERRED
from headscope.errors import InputError
from headscope.experiment.config import WEIGHT_WORDS, Config, Row
from headscope.models.classifier import find_head_init
from headscope.models.regimes import REGIMES, Regime, find_regime
from headscope.models.zoo import Architecture, find_architecture
from headscope.record import Setting
from headscope.slicing.inferred import PARTITIONS
from headscope.splits.sites import SITE
from headscope.training.recipe import Recipe

MOST_RUNS: Final = 100_000


@dataclass(frozen=True)
class Plan:
    """One run to be: what trains on which split with which seed.

    recipe is what acts in the regime. weights: "pretrained", "random" or a file.
    pretraining_cohorts: those that the weights are said to have seen. permutation: None,
    or the number (from 1) of the permutation of the labels that it trains on.
    """

    setting: Setting
    architecture: Architecture
    regime: Regime
    recipe: Recipe
    weights: str = "pretrained"
    pretraining_cohorts: tuple[str, ...] = ()
    head_init: str = "glorot"
    permutation: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the architecture, whose functions no other process gets as they are."""
        values = [getattr(self, field.name) for field in fields(self)[2:]]
        return _plan_of, (self.setting, self.architecture.name, *values)

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        part = "" if self.permutation is None else f"-permuted{self.permutation}"
        return f"{self.setting.name}{part}"

    @property
    def needs_weights(self) -> bool:
        """Whether its network starts from pretrained weights."""
        return self.regime.pretrained and self.weights != "random"

    @property
    def weights_file(self) -> str | None:
        """The file of weights that it starts from, if it is one."""
        return self.weights if self.needs_weights and self.weights not in WEIGHT_WORDS else None

    @property
    def features_of(self) -> tuple[str, ...] | None:
        """What its stored features depend on beside the slices; None where its backbone trains.

        Runs of which this is the same share one pass of the slices through the backbone.
        """
        if self.regime.trains_backbone:
            return None
        seed = self.setting.seed
        drawn = "" if self.needs_weights else str(seed)
        part = f"{self.setting.split} {self.setting.fold} {seed}" if self.regime.restat else ""
        return (self.architecture.name, self.regime.name, self.weights, drawn, part)


def _plan_of(setting: Setting, architecture: str, *values: Any) -> Plan:
    return Plan(setting, find_architecture(architecture), *values)


def plan_runs(config: Config, sites: int = 1) -> list[Plan]:
    """Return every run of the grid: rows × architectures × splits × folds × seeds.

    Seed by seed, so that the first table is whole early; but runs that share the features of a
    frozen backbone follow one another. Where labels are permuted too, those runs come last. A split
    by site has one fold per site; `sites` counts them once the scans are known.
    """
    rows = config.rows or [Row(regime=name) for name in config.regimes]
    regimes = {row.regime: find_regime(row.regime) for row in rows}
    _check_size(config, rows, regimes)
    _check_units(config, rows, regimes)
    grid = [
        (row, _setting(row, config, name, split, seed, *part))
        for seed in config.seeds
        for fold in range(max(config.folds or 1, sites))
        for row in rows
        for name in ([row.architecture] if row.architecture else config.architectures)
        for split in (row.splits or config.splits)
        for part in _fold(fold, sites if split == SITE else config.folds)
    ]
    if config.infers_subjects:
        names = [f"{INFERRED}-{name}" for name in PARTITIONS]
        grid = [(row, under_subjects(setting, name)) for row, setting in grid for name in names]
    names = [setting.name for _, setting in grid]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise InputError(f"Two rows make the run {twice[0]}: give one of them a name of its own.")
    used = dict.fromkeys(setting.architecture for _, setting in grid)
    architectures = {name: find_architecture(name) for name in used}
    for row in rows:
        find_head_init(row.head_init or config.head_init)
    plans = [
        Plan(
            setting,
            architectures[setting.architecture],
            regimes[row.regime],
            (row.recipe or config.recipe).applied(regimes[row.regime]),
            weights=row.weights or config.weights,
            pretraining_cohorts=row.pretraining_cohorts or config.pretraining_cohorts,
            head_init=row.head_init or config.head_init,
        )
        for row, setting in grid
    ]
    return [*_neighbours(plans), *_permuted(plans, config.permutations)]


def under_subjects(setting: Setting, subjects: str | None) -> Setting:
    """Return a setting whose subjects are inferred, as its variant says; None leaves it."""
    if subjects is None:
        return setting
    return replace(setting, variant=f"{setting.variant}-{subjects}", subjects=subjects)


def _fold(fold: int, folds: int | None) -> list[tuple[int | None, int | None]]:
    """Return a fold and of how many it is, where there are so many; else none of none, once."""
    if folds is None:
        return [(None, None)] if fold == 0 else []
    return [(fold, folds)] if fold < folds else []


def _setting(
    row: Row,
    config: Config,
    architecture: str,
    split: str,
    seed: int,
    fold: int | None,
    folds: int | None,
) -> Setting:
    """Return what tells a run of a row apart; a head that trains on scans is named so."""
    unit = row.unit or config.unit
    variant = f"{row.name or row.regime}{'-scan' * (unit == 'scan')}"
    return Setting(architecture, variant, row.regime, split, seed, fold, folds, unit)


def _check_units(config: Config, rows: Sequence[Row], regimes: Mapping[str, Regime]) -> None:
    """Refuse a head that trains on scans while its backbone trains on slices."""
    for row in rows:
        if (row.unit or config.unit) == "scan" and regimes[row.regime].trains_backbone:
            frozen = " and ".join(name for name in REGIMES if not REGIMES[name].trains_backbone)
            raise InputError(
                f"unit = 'scan' trains the head on the mean of a scan's stored features, and the "
                f"regime {row.regime!r} trains the backbone on slices: give it to {frozen}, by "
                "regimes or in a row of its own."
            )


def _check_size(config: Config, rows: Sequence[Row], regimes: Mapping[str, Regime]) -> None:
    """Refuse a grid that would take long to list, and for ever to train."""
    runs = 0
    for row in rows:
        permuted = config.permutations if regimes[row.regime].trains_backbone else 0
        networks = 1 if row.architecture else len(config.architectures)
        runs += networks * len(row.splits or config.splits) * (1 + permuted)
    runs *= len(config.seeds) * (config.folds or 1)
    runs *= len(PARTITIONS) if config.infers_subjects else 1
    if runs > MOST_RUNS:
        raise InputError(
            f"These settings make {runs:,} runs, and an experiment holds at most {MOST_RUNS:,}: "
            "choose fewer folds, seeds, permutations or rows."
        )


def _neighbours(plans: list[Plan]) -> list[Plan]:
    """Move runs that share features up to the first of them."""
    first: dict[tuple[str, ...], int] = {}
    for place, plan in enumerate(plans):
        if plan.features_of is not None:
            first.setdefault(plan.features_of, place)
    places = [
        place if plan.features_of is None else first[plan.features_of]
        for place, plan in enumerate(plans)
    ]
    return [plans[n] for n in sorted(range(len(plans)), key=places.__getitem__)]


def _permuted(plans: list[Plan], permutations: int) -> Iterator[Plan]:
    """Yield the runs on permuted labels, for each whose backbone trains.

    A frozen run needs none: its stored features serve any number of permutations.
    """
    trained = [plan for plan in plans if plan.regime.trains_backbone]
    for number in range(1, permutations + 1 if trained else 1):
        for plan in trained:
            yield replace(plan, permutation=number)
