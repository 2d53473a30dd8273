"""Whether a finished run is whole: its files are those that were written, and fit together."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from headscope.errors import InputError
from headscope.manifest import DAMAGE, MISSING, NAME, folder_problems, read_manifest, reason_of
from headscope.record.run import FEATURES, NETWORK, SUBSETS, Run, moved

# of the record, in metrics.json: 2 has features in features.npz, an earlier one no manifest
FORMAT = 3
FILES = (
    *("run.toml", "history.jsonl", "predictions.tsv"),
    *("head.npz", "features.npz", "layers.npz", "maps.npz"),
)


def finished_run(path: Path, aim: str = "predicted") -> Run:
    """Return the run at `path`, or say what `path` is instead, so that nothing is `aim`."""
    run = Run(path)
    if (path / "runs").is_dir():
        finished = [run for run in map(Run, (path / "runs").iterdir()) if run.finished]
        runs = [run.name for run in sorted(finished, key=lambda run: (_is_rival(run), run.name))]
        named = f": {', '.join(runs[:6])}{', …' if len(runs) > 6 else ''}" if runs else ""
        raise InputError(f"{path} is an experiment: name one of its runs, {path / 'runs'}/…{named}")
    if not (path / "run.toml").is_file():
        raise InputError(f"{path} is no run: it has no run.toml.")
    if not run.finished:
        raise InputError(f"{path} is a run that has not ended; 'headscope run' continues it.")
    problem = run_problem(run)
    if problem:
        raise InputError(f"{path} is not whole, so nothing is {aim}: {problem}.")
    return run


def _is_rival(run: Run) -> bool:
    """Whether a run is no network, as far as its settings can be read."""
    with suppress(InputError):
        return run.setting.is_rival
    return False


def run_problem(run: Run) -> str:
    """Say why a finished run is not whole; nothing where it is. Its network is not read.

    A run without a manifest, of an earlier version, is held against itself (`structure_problem`).
    """
    problems = manifest_problems(run, quick=NETWORK)
    if problems:
        return "; ".join(problems)
    return "" if (run.path / NAME).is_file() else structure_problem(run)


def manifest_problems(run: Run, quick: tuple[str, ...] = ()) -> list[str]:
    """Say which files of a run differ from its manifest; of `quick` ones their size counts."""
    try:
        names = read_manifest(run.path)
        if names is None:
            return [f"{NAME} is missing"] if "record" in run.metrics else []
    except InputError as error:
        return [f"{NAME} is damaged" if (run.path / NAME).is_file() else str(error)]
    absent = run.absent()
    if absent:
        return [moved(*absent)]
    needed = (*FILES, "metrics.json", *([FEATURES] if _version(run) > 2 else []))
    unlisted = [name for name in needed if name not in names]
    unlisted += [
        name for name in (FEATURES, *NETWORK) if (run.path / name).is_file() and name not in names
    ]
    problems = [
        f"{name} {problem}"
        for name, problem in folder_problems(run.path, quick).items()
        if not (name in quick and problem == MISSING)  # deleted to save room
    ]
    return [f"{name} is not in {NAME}" for name in unlisted] + problems


def _version(run: Run) -> int:
    """Return the version of a record; 0 where `metrics.json` does not say, or has changed."""
    try:
        return int(run.metrics.get("record", 0))
    except DAMAGE:
        return 0


def structure_problem(run: Run) -> str:
    """Say what does not fit together in a run's files; nothing where all does."""
    try:
        return _misfit(run)
    except DAMAGE as error:
        return reason_of(error)


def _misfit(run: Run) -> str:
    """Hold a run's files against each other; they may lack what earlier versions did not write."""
    _ = run.setting, run.history, run.layers, run.maps
    names, table, stored = run.class_names, run.predictions, run.features
    weight, features, logits = run.head["weight"], stored["features"], stored["logits"]
    label, count = stored["label"], len(table)
    if weight.ndim != 2 or weight.shape != (len(names), *features.shape[1:]):
        return "head.npz does not fit the classes or features.npz"
    if run.head["bias"].shape != weight.shape[:1]:
        return "head.npz does not fit itself"
    if features.ndim != 2 or logits.shape != (len(features), len(names)) or len(logits) != count:
        return f"features.npz and predictions.tsv do not have the same {count} slices"
    if not all(np.isfinite(array).all() for array in (weight, features, logits)):
        return "features.npz or head.npz holds values that are no numbers"
    if run.history.empty:
        return "history.jsonl has no epoch"
    if not run.metrics.keys() & set(SUBSETS):
        return "metrics.json has no scores"
    if label.min() < 0 or label.max() >= len(names):
        return "features.npz has labels without a class"
    columns = {"label": np.array(names)[label], "predicted": np.array(names)[logits.argmax(axis=1)]}
    columns |= {name: stored[name].astype(str) for name in ("subject_id", "subset")}
    for name, values in columns.items():
        if (table[name].to_numpy(str) != values).any():
            return f"the column {name} of predictions.tsv differs from features.npz"
    if not np.array_equal(run.logits, logits.astype(np.float32)):
        return "the logits of predictions.tsv differ from those of features.npz"
    return ""
