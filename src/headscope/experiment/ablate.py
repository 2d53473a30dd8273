"""`ablate`: frozen heads trained again on slices that keep less and less of the brain."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from headscope.analysis.explanations.ladder import Ladder, read_ladder
from headscope.analysis.retrain import FROZEN
from headscope.cohort.tables import listed
from headscope.console import console, track
from headscope.errors import InputError
from headscope.experiment.config import WEIGHT_WORDS, Config, make_config, read_config
from headscope.experiment.engines.engine import SETTINGS as ENGINE
from headscope.experiment.engines.engine import Engine, find_engine
from headscope.experiment.engines.grid import train_all
from headscope.experiment.inputs import split_name
from headscope.experiment.plan import Plan
from headscope.experiment.run import RunsFailed, check_records, plan_settings, train_run
from headscope.experiment.shared import Shared
from headscope.files import atomic_path, clear_leftovers, json_text, locked, sha256
from headscope.manifest import write_last
from headscope.models.regimes import find_regime
from headscope.models.tensors import split_network
from headscope.models.zoo import find_architecture
from headscope.record import BACKBONE, MODEL, Run, read_experiment, write_failures
from headscope.record.ablation import (
    FOLDER,
    Ablation,
    read_ablation,
    rung_folder,
    write_ablation,
)
from headscope.scans.volume import PLANES, read_scan
from headscope.slicing.inferred import Sets, read_inferred, sets_of, write_inferred
from headscope.slicing.rungs import COARSE_MM, RUNGS, SIDE_MM, STRIPPED, brain_share, silhouette
from headscope.slicing.store import CHECKED, SliceSet, open_slices, pixels_hash
from headscope.training.device import find_device
from headscope.training.features import spread
from headscope.training.recipe import Recipe

OURS: Final = {"files", "sha256"}  # settings of a store that are its own, not its rung's
VERSION: Final = 1  # of the rungs: raised when the same slices come to give others
TOGETHER: Final = 64  # slices that are changed at once
SAMPLED: Final = 48  # slices by which a stripped brain is recognised
MEASURED: Final = 9  # scans whose voxels give the millimetres of a pixel


def ablate(
    experiment: Path | str,
    runs: Sequence[str] | None = None,
    *,
    architectures: Sequence[str] | None = None,
    rungs: Sequence[str] | None = None,
    device: str = "auto",
    **engine: Any,
) -> Ladder:
    """Train the frozen heads of an experiment again on slices that keep less and less.

    Splits, recipe and seeds are those of the runs; of each rung the slices pass once through each
    backbone. The same call continues where it was stopped. Source: docs/ablation.md.

    Parameters
    ----------
    experiment
        Its folder; `EXPERIMENT/ablation/` gets the rungs, each with ordinary runs.
    runs, architectures
        Which frozen runs, by their names, or those of some networks; by default all.
    rungs
        Names of rungs: blurred, binary, silhouette, rim, no-brain, histogram; by default all.
    device
        "auto", "cpu" or "cuda".
    **engine
        Where heads train, as in `Config`: engine, workers, threads, address, num_cpus, num_gpus.

    Returns
    -------
    Ladder
        Accuracy of each rung beside that of whole slices, and which reaches it.

    Raises
    ------
    InputError
        There is no such experiment, run or rung, no frozen run, or its slices are gone.
    RunsFailed
        Some heads could not be trained; the others were.

    Examples
    --------
    >>> ladder = hs.ablate("other", rungs=["silhouette"])
    >>> [rung.name for rung in ladder.settings[0].rungs]
    ['whole', 'silhouette']
    """
    folder = Path(experiment)
    sources = _sources(folder, runs, architectures)
    wanted = _rungs(rungs)
    slices = open_slices(folder / "slices")
    slices.check_pixels()
    for name in {*engine} - {*ENGINE}:
        raise InputError(f"Unknown setting {name!r} of ablate: choose {listed(ENGINE)}.")
    settings = {"device": device, **engine}
    config = make_config(data=folder, out=folder / FOLDER, **settings)
    target = find_device("auto" if config.engine == "ray" else device)
    failures: dict[str, str] = {}
    with find_engine(config) as started:
        with locked(folder / FOLDER, wait=True):
            clear_leftovers(folder / FOLDER)
            ablation = _ablation(folder, slices, sources, wanted)
        for note in [*ablation.notes, *ablation.omitted.values()]:
            console.print(note, soft_wrap=True)
        chosen = [name for name in wanted if name in ablation.rungs]
        for number, name in enumerate(chosen, start=1):
            console.print(f"Rung {number} of {len(chosen)}: {ablation.rungs[name]}")
            with locked(folder / FOLDER, wait=True):
                store = store_rung(slices, rung_folder(folder, name), name, ablation.pixel_mm)
                groups = [*_groups(folder, name, store, sources, target, settings)]
            for shared, plans in groups:
                failed = _train(plans, shared, started)
                failures |= {f"{name}/{run}": reason for run, reason in failed.items()}
        write_failures(folder / FOLDER, failures)
    if failures:
        raise RunsFailed(folder / FOLDER, failures, len(chosen) * len(sources))
    ladder = read_ladder(folder)
    assert ladder is not None
    return ladder


def _train(plans: Sequence[Plan], shared: Shared, engine: Engine) -> dict[str, str]:
    changed, todo = check_records(plans, shared, partial(plan_settings, shared=shared))
    return train_all(plans, todo, changed, shared, engine, train_run)


def _sources(
    experiment: Path, runs: Sequence[str] | None, architectures: Sequence[str] | None
) -> list[Run]:
    """Return the frozen runs that are asked for."""
    frozen = [run for run in read_experiment(experiment) if run.setting.regime in FROZEN]
    if not frozen:
        raise InputError(
            f"{experiment} has no finished frozen run, whose head could be trained again: "
            "'headscope run … --regimes frozen' adds one."
        )
    for what, names, of in (
        ("frozen run", runs, lambda run: run.name),
        ("frozen network", architectures, lambda run: run.setting.architecture),
    ):
        present = list(dict.fromkeys(map(of, frozen)))
        for name in names or ():
            if name not in present:
                raise InputError(f"{experiment} has no {what} {name!r}: choose {listed(present)}.")
        frozen = [run for run in frozen if not names or of(run) in names]
    if not frozen:
        raise InputError(f"{experiment}: none of these runs is of {listed(architectures or ())}.")
    return frozen


def _rungs(names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in RUNGS:
            raise InputError(f"Unknown rung {name!r}: choose {', '.join(RUNGS)}.")
    return [name for name in RUNGS if names is None or name in names]


def _ablation(
    experiment: Path, slices: SliceSet, sources: Sequence[Run], wanted: Sequence[str]
) -> Ablation:
    """Return the ladder's facts, those of an earlier call where the slices are the same."""
    stored = read_ablation(experiment)
    if stored is not None and stored.slices_sha256 != slices.sha256:
        console.print("The slices have changed: the ablation of earlier ones is deleted.")
        for folder in (experiment / FOLDER).iterdir():
            if folder.is_dir():
                shutil.rmtree(folder)
        stored = None
    if stored is None:
        pixel_mm, note = _pixel_mm(experiment, slices)
        stored = Ablation(slices.sha256, pixel_mm, _example(slices, sources[0]), {}, {}, [note])
    omitted = dict(stored.omitted)
    if "no-brain" in wanted and "no-brain" not in {*stored.rungs, *omitted}:
        share = brain_share(slices.batch(spread(len(slices.pixels), SAMPLED)), stored.pixel_mm)
        if not share < STRIPPED:
            omitted["no-brain"] = _without_brain(share, stored.pixel_mm)
    names = {*stored.rungs, *wanted} - omitted.keys()
    rungs = {name: title for name, (title, _) in RUNGS.items() if name in names}
    ablation = replace(stored, rungs=rungs, omitted=omitted)
    write_ablation(experiment, ablation)
    return ablation


def _example(slices: SliceSet, run: Run) -> int:
    """Return the row of the test slice, of some, that shows most."""
    rows = np.flatnonzero(run.features["subset"] == "test")
    rows = rows[spread(len(rows), SAMPLED)]
    return int(rows[np.argmax([silhouette(slice_).sum() for slice_ in slices.batch(rows)])])


def _without_brain(share: float, pixel_mm: float) -> str:
    """Say why there is no rung without the brain, by the brain's share of the silhouette."""
    why = "they look skull-stripped"
    if pixel_mm > COARSE_MM:
        why = f"they are skull-stripped, or pixels of {pixel_mm:.1f} mm are too coarse for a skull"
    return (
        f"The rung 'brain removed' is left out: the brain fills {100 * share:.0f}% of what the "
        f"slices show, so that {why}, and nothing would be left."
    )


def _pixel_mm(experiment: Path, slices: SliceSet) -> tuple[float, str]:
    """Return the millimetres of a pixel and a sentence on where they come from.

    By the voxels of some scans, where these are at hand; else the side of a slice is taken as that
    of a usual field of view.
    """
    size = slices.pixels.shape[1]
    measured = [*_measure(experiment, slices)]
    if measured:
        pixel_mm = float(np.median(measured)) / size
        return pixel_mm, (
            f"A pixel is {pixel_mm:.2f} mm: the median over the voxels of {len(measured)} scans."
        )
    pixel_mm = SIDE_MM / size
    return pixel_mm, (
        "What a pixel is in mm is not known (pictures, or scans that are not at hand): the side of "
        f"a slice, {size} pixels, is taken as {SIDE_MM:.0f} mm."
    )


def _measure(experiment: Path, slices: SliceSet) -> Iterator[float]:
    """Yield what the side of a slice is in mm, of some scans that can be read."""
    try:
        data = read_config(experiment / "experiment.toml", {}).data
    except InputError:  # under pseudonyms it names no data
        return
    first = slices.table.drop_duplicates("scan")
    for row in first.iloc[spread(len(first), MEASURED)].itertuples():
        try:
            scan = read_scan(data / str(row.scan), plane=str(row.plane))
        except (InputError, OSError):
            continue
        axis = PLANES[str(row.plane)]
        sides = zip(scan.volume.shape, scan.spacing_mm, strict=True)
        yield max(n * mm for other, (n, mm) in enumerate(sides) if other != axis)


def store_rung(slices: SliceSet, folder: Path, rung: str, pixel_mm: float) -> SliceSet:
    """Write the slices of a rung as a store, slice by slice as in `slices`; return it open.

    A finished one of the same slices stays; another is deleted with its runs.
    """
    out = folder / "slices"
    settings = slices.settings | {
        "rung": rung,
        "rung_version": VERSION,
        "pixel_mm": pixel_mm,
        "of": slices.sha256,
    }
    if (out / "slices.json").is_file():
        stored = open_slices(out)
        if all(stored.settings.get(key) == settings[key] for key in settings.keys() - OURS):
            return stored
        shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name in CHECKED:
        with atomic_path(out / name) as temporary:
            shutil.copyfile(slices.path / name, temporary)
    _, change = RUNGS[rung]
    count, shape = len(slices.pixels), slices.pixels.shape
    starts = range(0, count, TOGETHER)
    with atomic_path(out / "slices.npy") as temporary:
        pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape, version=(1, 0))
        for start in track(starts, "Taking away", len(starts)):
            rows = np.arange(start, min(start + TOGETHER, count))
            pixels[rows] = change(slices.batch(rows), pixel_mm)
        pixels.flush()
        del pixels
    hashes = {name: sha256(out / name) for name in CHECKED}
    whole = "".join([pixels_hash(out / "slices.npy"), *hashes.values()])
    digest = hashlib.sha256(whole.encode()).hexdigest()
    written = settings | {"files": hashes, "sha256": digest}
    write_last(out / "slices.json", json_text(written), ["slices.npy", *CHECKED])
    return open_slices(out)


def _groups(
    experiment: Path,
    rung: str,
    store: SliceSet,
    sources: Sequence[Run],
    device: Any,
    settings: Mapping[str, Any],
) -> Iterator[tuple[Shared, list[Plan]]]:
    """Yield the runs of a rung with what they share: those of equal facts together."""
    groups: dict[str, tuple[Shared, list[Plan]]] = {}
    sets = _sets(experiment, rung_folder(experiment, rung), store)
    for run in sources:
        facts = _facts(run) | {"rung": rung}
        plan = _plan(experiment, run)
        config = _config(experiment, rung, run, settings)
        key = json_text([facts, run.setting.folds, run.setting.subjects])
        shared, plans = groups.setdefault(
            key, (Shared(config, None, store, sets, {}, device, facts, maps=False), [])
        )
        shared.splits[split_name(run.setting, config)] = run.features["subset"]
        plans.append(plan)
    yield from groups.values()


def _sets(experiment: Path, folder: Path, store: SliceSet) -> Sets:
    """Return a rung's slices under the ids of names, and under those inferred in the experiment."""
    subjects = read_inferred(experiment, {"slices_sha256": str(store.settings["of"])})
    if subjects is None:
        return {None: store}
    facts = {"slices_sha256": store.sha256}
    if read_inferred(folder, facts) is None:
        write_inferred(folder, subjects, facts)
    return sets_of(folder, store)


def _facts(run: Run) -> dict[str, Any]:
    """Return what run.toml says of the cohort, and how slices make a subject."""
    names = (
        *("slicing", "simulated", "pseudonymised", "limit", "aggregate"),
        *("pretraining_cohorts", "pretraining_overlap"),
    )
    return {name: run.settings[name] for name in names if name in run.settings}


def _config(experiment: Path, rung: str, run: Run, settings: Mapping[str, Any]) -> Config:
    return make_config(
        data=experiment,
        out=rung_folder(experiment, rung),
        folds=run.setting.folds,
        splits=[run.setting.split],
        keep_model=False,
        **settings,
    )


def _plan(experiment: Path, run: Run) -> Plan:
    """Return a run to be trained again, as its record says."""
    settings: Mapping[str, Any] = run.settings
    regime = find_regime(run.setting.regime)
    names = [field.name for field in fields(Recipe)]
    recipe = Recipe(**{name: settings[name] for name in names if name in settings})
    return Plan(
        run.setting,
        find_architecture(run.setting.architecture),
        regime,
        recipe.applied(regime),
        _weights(experiment, run),
        pretraining_cohorts=tuple(settings.get("pretraining_cohorts", ())),
        head_init=str(settings.get("head_init", "glorot")),
    )


def _weights(experiment: Path, run: Run) -> str:
    """Return what the backbone starts from: the run's own network, or the weights it names."""
    named = str(run.settings.get("weights_setting", "pretrained"))
    if named == "random":
        return named
    for name in (MODEL, BACKBONE):
        if run.place(name).is_file():
            return str(run.checked(name))
    if named in WEIGHT_WORDS:
        return named
    try:
        config = read_config(experiment / "experiment.toml", {})
    except InputError:
        config = None
    paths = [config.weights, *(row.weights or "" for row in config.rows)] if config else []
    for path in paths:
        file, network = split_network(path) if path not in (*WEIGHT_WORDS, "") else (Path(), "")
        if file.is_file() and named in (file.name, f"{file.name}:{network}"):
            return path
    raise InputError(
        f"{run.path} keeps no network (keep_model = false), and its weights, {named}, are not at "
        "hand: train it again with keep_model = true."
    )
