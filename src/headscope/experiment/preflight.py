"""What an experiment names, looked at before any work: its folders, files and networks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from headscope.console import track
from headscope.errors import InputError
from headscope.experiment.config import Config
from headscope.experiment.plan import Plan
from headscope.models.network import build_network
from headscope.models.pretrained import find_published
from headscope.models.regimes import find_regime, trained_paths
from headscope.models.zoo import find_architecture
from headscope.record import Run


def check_places(config: Config, plans: Iterable[Plan]) -> None:
    """Look at what the settings name: folders that are none, files that are not there."""
    if config.out.exists() and not config.out.is_dir():
        raise InputError(f"{config.out} is a file: --out names a folder.")
    if config.out.resolve() == config.data.resolve():
        raise InputError(f"{config.out} holds the data: --out names another folder.")
    files = [config.split_file, *(plan.weights_file for plan in unfinished(config, plans))]
    for file in files:
        if file is not None and not Path(file).is_file():
            raise InputError(f"{file} does not exist, or is no file.")


def unfinished(config: Config, plans: Iterable[Plan]) -> list[Plan]:
    """Return the runs that have not ended yet."""
    return [plan for plan in plans if not Run(config.out / "runs" / plan.name).finished]


def check_networks(plans: list[Plan], size: int, *, fetch: bool = True) -> None:
    """Build every network of the plans once, from its weights, and hold its regimes against it.

    It takes a second or two a network, where slicing takes minutes. Without `fetch` no published
    weights are downloaded: those that are not on this machine are not looked at.

    Raises
    ------
    InputError
        A network cannot be built, its weights are none or do not fit, or a regime trains more
        stages than it has: a sentence for each.
    """
    names = list(dict.fromkeys(plan.architecture for plan in plans))
    problems: list[str] = []
    for name in track(names, "Checking networks", len(names)) if names else []:
        mine = [plan for plan in plans if plan.architecture == name]
        problems += _network_problems(name, mine, size, fetch)
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))


def _network_problems(name: str, plans: list[Plan], size: int, fetch: bool) -> Iterator[str]:
    """Yield what is wrong with the starts and the regimes of one architecture."""
    starts = dict.fromkeys(plan.weights if plan.needs_weights else "random" for plan in plans)
    published = find_published(find_architecture(name)) if "pretrained" in starts else None
    if not fetch and published is not None and published.file is None:
        starts["random"] = starts.pop("pretrained")
    if len(starts) > 1:  # a network that takes weights can also do without
        starts.pop("random", None)
    regimes = dict.fromkeys(plan.regime for plan in plans)
    for start in starts:
        try:
            network = build_network(name, "finetune", start, classes=2, size=size, seed=0)
            for regime in regimes:
                trained_paths(network.model, network.classifier, find_regime(regime), name)
        except InputError as error:
            yield str(error)
