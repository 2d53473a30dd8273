"""The run directory: written by training, read by everything after it, and by nothing else.

Each file opens with numpy, pandas or a TOML or JSON reader alone:

    run.toml            every setting that made the run
    history.jsonl       one row per epoch: losses, slice accuracies, learning rate, seconds
    predictions.tsv     one row per slice: subset, ids, label, predicted, probabilities, logits
    metrics.json        scores with intervals, training seconds, freeze certificate
    head.npz            weight (K, D), bias (K,), initial_weight, initial_bias, class_names
    features.npz        features (N, D), logits (N, K), label, subject_id, subset, slice
    layers.npz          mean activation (n, C) of each stage, and the rows ("slice") they come from
    maps.npz            last feature maps (n, C, h, w) of test slices, and their rows ("slice")
    model.safetensors   every parameter and buffer of the trained network

`metrics.json` is written last: a directory without it is a run that has not ended.
"""

import json
import shutil
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tomli_w
from numpy.typing import NDArray
from safetensors.numpy import save_file

from headscope.errors import InputError
from headscope.files import NO_ID, atomic_path, read_table, write_json, write_table, write_text

Arrays = dict[str, NDArray[Any]]
SUBSETS = ("train", "val", "test")
# what of run.toml is known only once the network is built
NETWORK_FACTS = frozenset({"weights", "weights_sha256", "classifier", "map_layer", "tail", "note"})

# names of regimes in records of earlier versions, and what these regimes are named now
RENAMED_REGIMES = {"frozen-bn": "frozen-adabn", "scratch-moments": "scratch-meanvar"}


@dataclass(frozen=True)
class Setting:
    """What tells the runs of an experiment apart: written to `run.toml`, read back from there.

    variant is the name of the config's row, or else the regime. fold (from 0) is one of folds,
    both None without cross-validation.
    """

    architecture: str
    variant: str
    regime: str
    split: str
    seed: int
    fold: int | None = None
    folds: int | None = None

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        part = "" if self.fold is None else f"-fold{self.fold}of{self.folds}"
        network, variant = (
            text.replace("/", "-").replace(":", "-") for text in (self.architecture, self.variant)
        )
        return f"{network}-{variant}{part}-{self.split}-seed{self.seed}"

    @property
    def row(self) -> tuple[str, str, str, str]:
        """What is the same for all seeds and folds: the row of the table."""
        return self.architecture, self.variant, self.regime, self.split

    @property
    def fit(self) -> tuple[int, int | None]:
        """Seed and fold, which tell the runs of a row apart."""
        return self.seed, self.fold

    @property
    def fold_text(self) -> str:
        """Say which fold of a cross-validation it is: '0 of 5'; else ''."""
        if self.fold is None:
            return ""
        return str(self.fold) if self.folds is None else f"{self.fold} of {self.folds}"

    @property
    def title(self) -> str:
        """Say what sets a run apart from others of its network: 'frozen, subject split'."""
        fold = f", fold {self.fold_text}" if self.fold_text else ""
        return f"{self.variant}{fold}, {self.split} split"

    @property
    def network(self) -> str:
        """Say which network it is: 'resnet101, seed 0'."""
        return f"{self.architecture}, seed {self.seed}"


@dataclass(frozen=True)
class Run:
    """One finished run, read lazily from its directory.

    Examples
    --------
    >>> run = hs.Run("first/runs/timm-test_resnet-frozen-subject-seed0")
    >>> run.setting.regime, run.class_names, run.head["weight"].shape
    ('frozen', ['AD', 'NC'], (2, 96))
    """

    path: Path

    def __post_init__(self) -> None:
        """Take a path as text too."""
        object.__setattr__(self, "path", Path(self.path))

    @property
    def name(self) -> str:
        """The directory's name: architecture, regime, split and seed."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether the run ended and all of its files are there."""
        return (self.path / "metrics.json").is_file()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting that made the run (`run.toml`), regimes by their present names."""
        with self._readable("run.toml") as path:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        present = {
            key: RENAMED_REGIMES.get(settings[key], settings[key])
            for key in ("regime", "variant")
            if key in settings
        }
        return settings | present

    @cached_property
    def setting(self) -> Setting:
        """What tells it apart from the other runs; records of earlier versions lack a variant."""
        settings = self.settings
        return Setting(
            architecture=str(settings["architecture"]),
            variant=str(settings.get("variant", settings["regime"])),
            regime=str(settings["regime"]),
            split=str(settings["split"]),
            seed=int(settings["seed"]),
            fold=settings.get("fold"),
            folds=settings.get("folds"),
        )

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        with self._readable("history.jsonl") as path:
            return pd.read_json(path, lines=True)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per slice, in the order of the slice table."""
        with self._readable("predictions.tsv") as path:
            return read_table(path)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Slice and subject scores with intervals, seconds, freeze certificate."""
        with self._readable("metrics.json") as path:
            return json.loads(path.read_text(encoding="utf-8"))

    @property
    def epochs(self) -> int:
        """The number of epochs trained."""
        return int(self.metrics.get("epochs") or self.settings.get("epochs") or 0)

    @property
    def named(self) -> bool:
        """Whether every slice has a subject id."""
        return bool((self.predictions["subject_id"] != NO_ID).all())

    def predicted(self, subset: str) -> pd.DataFrame:
        """Return the predictions of a subset, one row per slice."""
        return self.predictions[self.predictions["subset"] == subset]

    def score(self, subset: str, name: str, part: str = "value") -> float:
        """Return a score of a subset, or an end of its interval; NaN where undefined or unknown."""
        value = ((self.metrics.get(subset) or {}).get(name) or {}).get(part)
        return float("nan") if value is None else float(value)

    @cached_property
    def head(self) -> Arrays:
        """The final layer before and after training."""
        return self._arrays("head.npz")

    @cached_property
    def features(self) -> Arrays:
        """What the final layer read and wrote for every slice."""
        return self._arrays("features.npz")

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The logits of every slice (N, K), as `predictions.tsv` holds it.

        Records of earlier versions hold it in `features.npz` alone.
        """
        columns = [f"logit_{name}" for name in self.class_names]
        if set(columns) <= set(self.predictions):
            return self.predictions[columns].to_numpy(np.float32)
        return self.features["logits"]

    @cached_property
    def layers(self) -> Arrays:
        """Mean activation of each stage for some slices."""
        return self._arrays("layers.npz")

    @cached_property
    def maps(self) -> Arrays:
        """Last feature maps of some test slices."""
        return self._arrays("maps.npz")

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return [str(name) for name in self.head["class_names"]]

    def _arrays(self, name: str) -> Arrays:
        with self._readable(name) as path, np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    @contextmanager
    def _readable(self, name: str) -> Iterator[Path]:
        """Yield the path of a file; say which it is where it is missing or damaged."""
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{path} does not exist: {self.path} is no finished run.")
        try:
            yield path
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise InputError(
                f"{path} is damaged ({reason}): delete {self.path} and train it again."
            ) from None


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
) -> Run:
    """Write everything that analysis will want; `metrics.json` last, which marks the end.

    `run.toml` is there since `start_run`; the resume file is removed. Without
    `model` the network is not saved.
    """
    write_history(path, history)
    write_table(path / "predictions.tsv", predictions)
    for name, arrays in (
        ("head", head),
        ("features", features),
        ("layers", layers),
        ("maps", maps),
    ):
        with atomic_path(path / f"{name}.npz") as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    if model is not None:
        with atomic_path(path / "model.safetensors") as temporary:
            save_file(model, temporary)
    write_json(path / "metrics.json", metrics)
    shutil.rmtree(path / "checkpoint", ignore_errors=True)
    return Run(path)


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

    What only the built network shows (`NETWORK_FACTS`) may be missing in `settings`, so that a
    finished run is recognised without its weights.

    Raises
    ------
    InputError
        The directory was begun with other settings; they are named.
    """
    if not (path / "run.toml").is_file():
        return False
    return _held(Run(path), settings, but=NETWORK_FACTS - settings.keys())


def _held(run: Run, settings: Mapping[str, Any], but: Set[str]) -> bool:
    """Hold settings, but for some, against those of a run; return whether it is finished."""
    wanted = _present(settings)
    differing = [
        f"{name} {run.settings.get(name, 'unset')!r} instead of {wanted.get(name, 'unset')!r}"
        for name in sorted((wanted | run.settings).keys() - but)
        if run.settings.get(name) != wanted.get(name)
    ]
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


def write_failures(experiment: Path, failures: Mapping[str, str]) -> None:
    """Write `failures.tsv`, the runs of the latest start that failed and why; none: no file."""
    path = experiment / "failures.tsv"
    if failures:
        write_table(path, pd.DataFrame(failures.items(), columns=["run", "reason"]))
    else:
        path.unlink(missing_ok=True)


def read_failures(experiment: Path) -> dict[str, str]:
    """Return which runs failed at the latest start, and why."""
    path = experiment / "failures.tsv"
    if not path.is_file():
        return {}
    table = read_table(path)
    return dict(zip(table["run"], table["reason"], strict=True))


def read_experiment(experiment: Path | str, *, permuted: bool = False) -> list[Run]:
    """Return the finished runs of an experiment, by name.

    permuted: those trained on permuted labels (`settings["permutation"]` numbers them, from 1)
    in place of those on the true ones.

    Raises
    ------
    InputError
        The folder does not exist or holds no such finished run.

    Examples
    --------
    >>> [run.setting.split for run in hs.read_experiment("first")]
    ['slice', 'subject']
    """
    folder = Path(experiment) / "runs"
    if not folder.is_dir():
        raise InputError(f"{experiment} is no experiment: it has no folder 'runs'.")
    finished = [run for run in map(Run, sorted(folder.iterdir())) if run.finished]
    runs = [run for run in finished if ("permutation" in run.settings) == permuted]
    if not runs:
        kind = " on permuted labels" if permuted else ""
        raise InputError(
            f"{experiment} has no finished run{kind} yet; 'headscope run' continues it."
        )
    return runs
