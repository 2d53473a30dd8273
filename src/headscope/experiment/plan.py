"""The grid of an experiment: which runs there will be, and in which order."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from headscope.errors import InputError
from headscope.experiment.config import WEIGHT_WORDS, Config, Row
from headscope.models.classifier import find_head_init
from headscope.models.regimes import find_regime
from headscope.models.zoo import find_architecture
from headscope.record import Setting
from headscope.training.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """One run to be: what trains on which split with which seed.

    weights: "pretrained", "random" or a file. permutation: None, or which permutation of the
    labels it trains on, from 1.
    """

    setting: Setting
    recipe: Recipe
    weights: str = "pretrained"
    head_init: str = "glorot"
    permutation: int | None = None

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        part = "" if self.permutation is None else f"-permuted{self.permutation}"
        return f"{self.setting.name}{part}"

    @property
    def architecture(self) -> str:
        """The setting's architecture."""
        return self.setting.architecture

    @property
    def regime(self) -> str:
        """The setting's regime."""
        return self.setting.regime

    @property
    def split(self) -> str:
        """The setting's split."""
        return self.setting.split

    @property
    def seed(self) -> int:
        """The setting's seed."""
        return self.setting.seed

    @property
    def fold(self) -> int | None:
        """The setting's fold."""
        return self.setting.fold

    @property
    def needs_weights(self) -> bool:
        """Whether its network starts from pretrained weights."""
        return find_regime(self.regime).pretrained and self.weights != "random"

    @property
    def weights_file(self) -> str | None:
        """The file of weights that it starts from, if it is one."""
        return self.weights if self.needs_weights and self.weights not in WEIGHT_WORDS else None

    @property
    def features_of(self) -> tuple[str, ...] | None:
        """What its stored features depend on beside the slices; None where its backbone trains.

        Runs of which this is the same share one pass of the slices through the backbone.
        """
        regime = find_regime(self.regime)
        if regime.trains_backbone:
            return None
        drawn = "" if self.needs_weights else str(self.seed)
        part = f"{self.split} {self.fold} {self.seed}" if regime.restat else ""
        return (self.architecture, self.regime, self.weights, drawn, part)


def plan_runs(config: Config) -> list[Plan]:
    """Return every run of the grid: rows × architectures × splits × folds × seeds.

    Seed by seed, so that the first table is whole early; but runs that share the features of a
    frozen backbone follow one another. Where labels are permuted too, those runs come last.

    Raises
    ------
    InputError
        An architecture, a regime or a start of the classifier is unknown, or two rows make the
        same run.
    """
    rows = config.rows or tuple(Row(regime=regime) for regime in config.regimes)
    plans = [
        _plan(config, row, architecture, split, seed, fold)
        for seed in config.seeds
        for fold in (range(config.folds) if config.folds else [None])
        for row in rows
        for architecture in ([row.architecture] if row.architecture else config.architectures)
        for split in (row.splits or config.splits)
    ]
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Two rows make the run {twice[0]}: give one of them a name of its own.")
    for plan in plans:
        find_architecture(plan.architecture)
        find_head_init(plan.head_init)
    return [*_neighbours(plans), *_permuted(plans, config.permutations)]


def _plan(
    config: Config, row: Row, architecture: str, split: str, seed: int, fold: int | None
) -> Plan:
    folds = None if fold is None else config.folds
    setting = Setting(architecture, row.name or row.regime, row.regime, split, seed, fold, folds)
    recipe = Recipe(**{field.name: _setting(field.name, row, config) for field in fields(Recipe)})
    return Plan(
        setting,
        recipe.applied(find_regime(row.regime)),
        _setting("weights", row, config),
        _setting("head_init", row, config),
    )


def _setting(name: str, row: Row, config: Config) -> Any:
    """Return a setting: the row's own, or else the experiment's."""
    own = getattr(row, name, None)
    return getattr(config, name) if own is None else own


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

    A frozen run needs none: its stored features serve as many permutations as one likes.
    """
    for number in range(1, permutations + 1):
        for plan in plans:
            if find_regime(plan.regime).trains_backbone:
                yield replace(plan, permutation=number)
