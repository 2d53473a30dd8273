"""The whole path on one screen: scans → slices → splits → networks → records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file

from headscope.console import busy, console
from headscope.errors import RunError
from headscope.experiment.config import Config
from headscope.experiment.engines.engine import find_engine
from headscope.experiment.engines.grid import train_all
from headscope.experiment.inputs import (
    count_sites,
    find_scans,
    store_findings,
    store_slices,
    store_splits,
    store_subjects,
)
from headscope.experiment.plan import Plan, plan_runs
from headscope.experiment.preflight import (
    check_networks,
    check_places,
    choose_runs,
    unfinished,
)
from headscope.experiment.pretraining import pretraining
from headscope.experiment.rivals import NO_COVARIATES, Material, fit_rivals, plan_rivals
from headscope.experiment.shared import (
    Shared,
    environment,
    shared_facts,
    slice_features,
    slice_predictions,
    stored_network,
)
from headscope.files import any_names, clear_leftovers, locked, sha256, utf8_path, write_json
from headscope.metrics import run_scores
from headscope.models.network import Network, build_network
from headscope.models.tensors import split_network
from headscope.record import (
    STATE,
    Run,
    Setting,
    begin_longer,
    check_run,
    clear_store,
    find_runs,
    finish_longer,
    read_failures,
    replace_run,
    start_run,
    wants_more,
    write_failures,
    write_run,
)
from headscope.splits.sites import SITE
from headscope.tracking.track import Followers
from headscope.training.device import find_device
from headscope.training.loader import batches
from headscope.training.loop import Watch, ignore
from headscope.training.resume import last_state, restart
from headscope.training.train import Outcome, train

Named = TypeVar("Named", Plan, Setting)
NAMED = 4  # so many runs a summary names
RESUME = Path("checkpoint", "last.pt")  # in the folder of a run


class RunsFailed(RunError):  # noqa: N818 (it says what happened)
    """Some runs of a grid failed and the others continued; `failures` holds the reasons."""

    def __init__(self, experiment: Path, failures: Mapping[str, str], runs: int) -> None:
        """Keep what is needed to report on the finished runs."""
        self.experiment = experiment
        self.failures = dict(failures)
        self.runs = runs
        super().__init__(experiment, failures, runs)

    @property
    def finished(self) -> bool:
        """Whether there are finished networks to report on."""
        return bool(find_runs(self.experiment).runs)

    @property
    def summary(self) -> str:
        """The failed runs in one sentence; their reasons were printed as they failed."""
        names = [*self.failures]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return (
            f"{len(names)} of {self.runs} runs failed: {', '.join(names[:NAMED])}{more}. The same "
            f"command tries them again; {self.experiment / 'failures.tsv'} keeps the reasons."
        )

    def __str__(self) -> str:
        """Return a line of summary and each reason once, with its runs."""
        runs: dict[str, list[str]] = {}
        for name, reason in self.failures.items():
            runs.setdefault(reason, []).append(name)
        reasons = "".join(f"\n  {', '.join(names)}: {reason}" for reason, names in runs.items())
        return (
            f"{len(self.failures)} of {self.runs} runs failed; the same command tries them "
            f"again.{reasons}"
        )


@any_names
def run(config: Config, *, only: Sequence[str] | None = None) -> Path:
    """Run an experiment, continuing where an earlier start stopped; return its folder.

    Several processes may run the same experiment at once, on one machine or on several that share
    its folder: one makes what all need, and each run is trained by one of them. Each returns when
    its runs have ended, whoever trained them.

    Parameters
    ----------
    config
        Every setting; `data` and `out` are folders.
    only
        Names of runs, as `list_runs` returns them; by default all are trained.

    Returns
    -------
    Path
        The folder of the experiment, `config.out`.

    Raises
    ------
    InputError
        Something in the settings or the data is wrong, or the folder holds another experiment.
    RunError
        As `RunsFailed`, after the other runs: training diverged, the memory ran out, or a frozen
        backbone changed.

    Examples
    --------
    >>> network = {"architectures": ["timm/test_resnet"], "weights": "random"}
    >>> small = {"count": 2, "size": 32, "epochs": 1, "workers": 1}
    >>> experiment = hs.run(
    ...     hs.Config(data="scans", out="second", regimes=["frozen"], **network, **small)
    ... )
    >>> len(hs.read_experiment(experiment))
    1
    """
    # 1. what will run; impossible settings are refused before any work
    plans = plan_runs(config)
    device = find_device("auto" if config.engine == "ray" else config.device)
    followers = Followers(config.track, config.out)
    check_places(config, plans)
    if all(plan.setting.split != SITE for plan in plans):  # of which scans tell the names of runs
        choose_runs(plans, only)
    # 2. the scans, and whether they can be split as asked; then the networks
    cohort = find_scans(config, plans)
    plans = plan_runs(config, count_sites(cohort))
    chosen = choose_runs(plans, only)
    check_networks(unfinished(config, chosen), config.size)
    with find_engine(config, needed=bool(unfinished(config, plans))) as engine:
        with locked(config.out, wait=True):
            clear_leftovers(config.out)
            finish_longer(config.out)
            followers.open()
            clear_store(config.out)
            # 3. slices and splits; a finished run must be whole, and of these settings
            slices = store_slices(cohort, config, engine.share)
            sets = store_subjects(config, slices)
            splits = store_splits(plans, config, sets, cohort)
            shared = Shared(config, cohort, slices, sets, splits, device)
            material = Material(shared)
            rivals = plan_rivals(config, plans, described=material.covariates is not None)
            changed, settings = check_records(chosen, shared, partial(plan_settings, shared=shared))
            of_rivals = check_records(rivals, shared, material.settings)
            config.save(config.out / "experiment.toml")
            write_json(config.out / "environment.json", environment(device))
            # 4. what in slices and splits could flatter the accuracy; what is no network
            store_findings(config, slices, cohort)
            _say_units(plans, material)
            failures = of_rivals[0] | fit_rivals(
                [rival for rival in rivals if rival.name in of_rivals[1]], material
            )
        # 5. the runs; one that fails does not stop the others
        failures |= train_all(chosen, settings, changed, shared, engine, train_run, followers)
    # 6. the failures
    with locked(config.out, wait=True):
        _write_failures(config, failures, [*rivals, *chosen], plans)
        followers.write_all()
    if failures:
        raise RunsFailed(config.out, failures, len(rivals) + len(chosen))
    return config.out


def check_records(
    runs: Sequence[Named], shared: Shared, settings_of: Callable[[Named], dict[str, Any]]
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return what is wrong with records, and the settings of the runs that are still to do."""
    todo = {}
    with busy("Checking records"):
        changed = {run.name: problem for run in runs if (problem := shared.problem(run))}
        for run in runs:
            if run.name not in changed:
                settings = settings_of(run)
                if not check_run(shared.folder(run), settings):
                    todo[run.name] = settings
    return changed, todo


def _write_failures(
    config: Config,
    failures: Mapping[str, str],
    tried: Sequence[Plan | Setting],
    plans: Sequence[Plan],
) -> None:
    """Write why runs failed, beside the failures of other processes that run other parts."""
    others = {plan.name for plan in unfinished(config, plans)} - {run.name for run in tried}
    earlier = read_failures(config.out)
    elsewhere = {name: earlier[name] for name in earlier if name in others}
    write_failures(config.out, elsewhere | config.for_record(failures))


def _say_units(plans: Sequence[Plan], material: Material) -> None:
    """Say which rival is left out, and where a split divides the scans on which heads train."""
    if "covariates" in material.shared.config.rivals and material.covariates is None:
        console.print(NO_COVARIATES, soft_wrap=True)
    for note in dict.fromkeys(filter(None, map(material.shared.divided_note, plans))):
        console.print(note, soft_wrap=True)


def train_run(
    plan: Plan, shared: Shared, settings: Mapping[str, Any], *, title: str, watch: Watch = ignore
) -> Run:
    """Train one network and write its run directory, continuing an interrupted training.

    settings are those of `plan_settings`; `watch` gets the row of each epoch.
    """
    slices = shared.slices_of(plan.setting)
    slices.check_pixels()
    labels, subsets = shared.labels(plan), shared.subsets(plan.setting)
    # 1. the network as its regime wants it, and every setting that makes the run
    network = build_network(
        plan.architecture,
        plan.regime,
        plan.weights,
        classes=len(slices.class_names),
        size=slices.pixels.shape[1],
        seed=plan.setting.seed,
        head_init=plan.head_init,
    )
    path = _begin(plan, shared, {**settings, **_network_facts(network)})
    # 2. training, from where an earlier start stopped
    outcome = train(
        network,
        slices.pixels,
        labels,
        subsets,
        plan.recipe,
        seed=plan.setting.seed,
        device=shared.device,
        resume_path=path / RESUME,
        cache=shared.config.cache_folder,
        shared=shared.config.pass_store,
        slices_key=slices.sha256,
        title=title,
        scans=shared.scans(plan),
        map_rows=shared.map_rows(plan),
        watch=watch,
    )
    # 3. the record, from which everything after this reads
    with busy(f"{title}: record"):
        _write(path, plan, shared, outcome, settings["aggregate"])
    if path != shared.folder(plan):
        replace_run(path, shared.folder(plan))
    return Run(shared.folder(plan))


def _begin(plan: Plan, shared: Shared, settings: Mapping[str, Any]) -> Path:
    """Begin the record of a run, or continue it; return its folder.

    A finished run continues to more epochs in another folder, from the state of its last epoch.
    """
    finished = Run(shared.folder(plan))
    if not wants_more(finished, plan.recipe.epochs):
        start_run(finished.path, settings)
        return finished.path
    path = begin_longer(finished.path, plan.recipe.epochs)
    start_run(path, settings)
    if not (path / RESUME).exists():
        with utf8_path(finished.checked(STATE)) as file:
            restart(path / RESUME, load_file(file), finished.phase_rows("train"))
    return path


def _write(path: Path, plan: Plan, shared: Shared, outcome: Outcome, aggregate: str) -> None:
    """Write the record of a run that has ended."""
    config, slices = shared.config, shared.slices_of(plan.setting)
    labels, subsets = shared.labels(plan), shared.subsets(plan.setting)
    predictions = slice_predictions(slices, labels, subsets, outcome.logits)
    write_run(
        path,
        history=outcome.history,
        predictions=predictions,
        metrics=run_scores(predictions, slices.class_names, aggregate)
        | {
            "epochs": len(outcome.history),
            "selected_epoch": outcome.selected_epoch,
            "precision": outcome.precision,
            "train_seconds": outcome.train_seconds,
            "freeze_certificate": outcome.certificate,
            "environment": environment(shared.device),
        },
        head=outcome.head | {"class_names": np.array(slices.class_names)},
        features=slice_features(
            slices, labels, subsets, outcome.extracted.features, outcome.logits
        ),
        layers=outcome.extracted.layers,
        maps=outcome.extracted.maps,
        **stored_network(outcome, plan, config, str(Run(path).settings["classifier"])),
        state=last_state(path / RESUME)
        if config.keep_state or not plan.regime.trains_backbone
        else None,
    )


def plan_settings(plan: Plan, shared: Shared) -> dict[str, Any]:
    """Return what goes into run.toml before the network is built."""
    scans, subsets = shared.scans(plan), shared.subsets(plan.setting)
    trained = np.flatnonzero((subsets if scans is None else subsets[scans.first]) == "train")
    return {
        "name": plan.name,
        "permutation": plan.permutation,
        **asdict(plan.recipe),
        "head_init": plan.head_init,
        "steps_per_epoch": len(batches(trained, plan.recipe.batch_size)),
        **_weights(plan),
        **({} if shared.cohort is None else pretraining(plan, shared.cohort)),
        **shared_facts(plan.setting, shared),
    }


def _weights(plan: Plan) -> dict[str, Any]:
    """Return the weights asked for; of a file its name, and its hash while it is at hand."""
    if plan.weights_file is None:
        return {"weights_setting": plan.weights if plan.needs_weights else "random"}
    path, network = split_network(plan.weights_file)
    setting = {"weights_setting": f"{path.name}:{network}" if network else path.name}
    if path.is_file():
        setting["weights_sha256"] = _hash(path, path.stat().st_mtime_ns)
    return setting


@cache
def _hash(path: Path, modified_ns: int) -> str:
    """Hash a file once for all runs, again where it has changed since."""
    return sha256(path)


def _network_facts(network: Network) -> dict[str, Any]:
    """Return what goes into run.toml once the network is built."""
    return {
        "weights": network.source.text,
        "weights_sha256": network.source.sha256,
        "classifier": network.classifier,
        "map_layer": network.map_layer,
        "tail": None if network.tail is None else list(network.tail),
        "note": network.architecture.note or None,
    }
