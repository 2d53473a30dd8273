"""A run directory is begun, written, tidied and discarded."""

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd
import tomli_w
from safetensors.numpy import save

from headscope.errors import InputError
from headscope.files import atomic_path, json_text, write_table, write_text
from headscope.manifest import STORE, Entry, keep, keep_file, stored_entries, write_last
from headscope.record.longer import obstacle, wants_more
from headscope.record.run import ADDED, BACKBONE, FEATURES, MODEL, NETWORK, STATE, Arrays, Run
from headscope.record.whole import FILES, FORMAT

# what of run.toml is known only once the network is built
NETWORK_FACTS: Final = frozenset(
    {"weights", "weights_sha256", "classifier", "map_layer", "tail", "note"}
)


def write_run(
    path: Path,
    *,
    history: Sequence[Mapping[str, Any]],
    predictions: pd.DataFrame,
    metrics: Mapping[str, Any],
    head: Arrays,
    features: Arrays,
    layers: Arrays,
    maps: Arrays,
    model: Arrays | None,
    state: Arrays | None = None,
    backbone: Arrays | None = None,
    share: bool = False,
    ready: Mapping[str, Path] = MappingProxyType({}),
) -> Run:
    """Write everything that analysis will want; `metrics.json` last, which marks the end.

    Before it the manifest is written, by which every reader tells whether the files are these.
    `run.toml` is there since `start_run`; the resume file is removed. Without
    `model` the network is not saved, without `state` (the tensors of the last epoch, the
    optimiser's too) the run cannot continue to more epochs. A `backbone` is a network without its
    classifier.

    share: whether features, stage means, maps and the backbone go into the experiment's store, as
    runs of one frozen backbone have the same. `ready` are those that a store holds already.
    """
    write_history(path, history)
    write_table(path / "predictions.tsv", predictions)
    small = {name: values for name, values in features.items() if name != "features"}
    _write(path / "head.npz", partial(np.savez, **head))  # type: ignore[arg-type]
    _write(path / "features.npz", partial(np.savez_compressed, **small))  # type: ignore[arg-type]
    shared: dict[str, Callable[[Path], Any]] = {
        FEATURES: partial(np.save, arr=features["features"]),
        "layers.npz": partial(np.savez, **layers),  # type: ignore[arg-type]
        "maps.npz": partial(np.savez, **maps),  # type: ignore[arg-type]
    }
    if backbone is not None:
        shared[BACKBONE] = partial(_save_tensors, backbone)
    stored: dict[str, Entry] = {}
    store = path.parent.parent / STORE
    for name, write in shared.items():
        if not share:
            _write(path / name, write)
        elif name in ready:
            stored[name] = keep_file(store, ready[name])
        else:
            stored[name] = keep(store, name, write)
    for name, tensors in ((MODEL, model), (STATE, state)):
        if tensors is not None:
            _write(path / name, partial(_save_tensors, tensors))
    seal_run(path, metrics, stored)
    shutil.rmtree(path / "checkpoint", ignore_errors=True)
    return Run(path)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    with atomic_path(path) as temporary:
        write(temporary)


def _save_tensors(tensors: Arrays, path: Path) -> None:
    """Write tensors into the file that stands there; `save_file` would put one without its lock."""
    path.write_bytes(save(dict(tensors)))


def seal_run(
    path: Path, metrics: Mapping[str, Any], stored: Mapping[str, Entry] | None = None
) -> None:
    """Write the manifest of a run's files, then `metrics.json`, which marks the end.

    `stored` are the entries of those in the store, by default as the manifest has them; a file in
    the run's folder wins.
    """
    stored = stored_entries(path) if stored is None else stored
    present = [name for name in (*FILES, FEATURES, *NETWORK) if (path / name).is_file()]
    elsewhere = {name: entry for name, entry in stored.items() if name not in present}
    text = json_text({**metrics, "record": FORMAT})
    write_last(path / "metrics.json", text, present, stored=elsewhere)


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write `history.jsonl`, one row per epoch."""
    lines = [json.dumps(row, allow_nan=False) for row in history]
    write_text(path / "history.jsonl", "".join(line + "\n" for line in lines))


def start_run(path: Path, settings: Mapping[str, Any]) -> bool:
    """Write `run.toml` if the run is new; return whether the run is already finished.

    Settings that are None are left out, as TOML knows no null.

    Raises
    ------
    InputError
        The directory was begun with other settings; they are named.
    """
    if not (path / "run.toml").is_file():
        write_text(path / "run.toml", tomli_w.dumps(_present(settings)))
        return False
    return _held(Run(path), settings, but=frozenset())


def check_run(path: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a run of these settings is finished, before its network is built.

    A finished one that has fewer epochs, and else the same settings, continues: it is not finished.

    What only the built network shows (`NETWORK_FACTS`) may be missing in `settings`, so that a
    finished run is recognised without its weights.

    Raises
    ------
    InputError
        The directory was begun with other settings, which are named, or cannot continue to more
        epochs.
    """
    if not (path / "run.toml").is_file():
        return False
    return _held(Run(path), settings, but=NETWORK_FACTS - settings.keys())


def _held(run: Run, settings: Mapping[str, Any], but: Set[str]) -> bool:
    """Hold settings, but for some, against those of a run; return whether it is finished."""
    wanted = ADDED | _present(settings)
    differing = [
        f"{name} {run.settings.get(name, 'unset')!r} instead of {wanted.get(name, 'unset')!r}"
        for name in sorted((wanted | run.settings).keys() - but)
        if run.settings.get(name) != wanted.get(name)
    ]
    if len(differing) == 1 and wants_more(run, wanted.get("epochs", 0)):
        problem = obstacle(run)
        if problem:
            raise InputError(
                f"{run.path} cannot continue from {run.settings['epochs']} to {wanted['epochs']} "
                f"epochs: {problem}. Choose another --out, or delete that folder to train it from "
                "the start."
            )
        return False
    if differing:
        raise InputError(
            f"{run.path} was begun with other settings ({', '.join(differing[:4])}): choose "
            f"another --out, or delete that folder."
        )
    return run.finished


def _present(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that have a value, with lists as TOML gives them back."""
    present = {name: value for name, value in settings.items() if value is not None}
    return tomllib.loads(tomli_w.dumps(present))


def tidy_run(path: Path) -> None:
    """Remove what a killed process left: temporary files, and the resume file of a finished run."""
    for left in path.glob("**/.tmp-*"):
        left.unlink(missing_ok=True)
    if Run(path).finished:
        shutil.rmtree(path / "checkpoint", ignore_errors=True)


def discard_run(path: Path) -> None:
    """Remove the directory of a run that failed; a finished one is left as it is."""
    if not Run(path).finished:
        shutil.rmtree(path, ignore_errors=True)
