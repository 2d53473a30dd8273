"""One finished run, read lazily from its directory; a file that has changed is not read."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.files import LOCKS, NO_ID, read_table
from headscope.manifest import DAMAGE, located, problem_of, reason_of, stored_entries
from headscope.record.setting import RIVAL, Setting

Arrays = dict[str, NDArray[Any]]
SUBSETS = ("train", "val", "test")
FEATURES = "features.npy"
MODEL = "model.safetensors"
BACKBONE = "backbone.safetensors"  # of a frozen run, whose classifier is in head.npz
STATE = "state.safetensors"
NETWORK = (MODEL, BACKBONE, STATE)  # what may be deleted to save room

# names of regimes in records of earlier versions, and what these regimes are named now
RENAMED = {"frozen-bn": "frozen-adabn", "scratch-moments": "scratch-meanvar"}

# settings of a training that records of earlier versions lack, and what these trained by
ADDED = {
    "unit": "slice",
    "optimizer": "sgd",
    "class_weights": "none",
    "label_smoothing": 0.0,
    "sampling": "shuffle",
}


def moved(*names: str) -> str:
    """Say that a run is away from the store that holds its files, and what helps."""
    some = ", ".join(names)
    return (
        f"{some} {'is' if len(names) == 1 else 'are'} in the store of the experiment in which it "
        "was trained, and not here: 'headscope export RUN OUT', where the experiment is, writes a "
        "record that stands alone"
    )


class Settings(dict[str, Any]):
    """The settings of a run; one that is asked for and missing is named (InputError)."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        """Take the settings of a file."""
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        """Name the setting that the file lacks."""
        raise InputError(f"{self.path} lacks the setting {name!r}.")


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
    def lock(self) -> Path:
        """The file that a process holds while it trains the run; not in the run, which may go."""
        return self.path.parent.parent / LOCKS / self.name

    @property
    def finished(self) -> bool:
        """Whether the run ended and all of its files are there."""
        return (self.path / "metrics.json").is_file()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Every setting that made the run (`run.toml`), regimes by their present names.

        What records of earlier versions lack has the value that it had then.
        """
        with self._readable("run.toml") as path:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        present = {
            key: RENAMED.get(settings[key], settings[key])
            for key in ("regime", "variant")
            if key in settings
        }
        return Settings(self.path / "run.toml", ADDED | settings | present)

    @cached_property
    def setting(self) -> Setting:
        """What tells it apart from the other runs; earlier versions lack a variant and a unit."""
        settings = self.settings
        with self._readable("run.toml"):
            return Setting(
                architecture=str(settings["architecture"]),
                variant=str(settings.get("variant", settings["regime"])),
                regime=str(settings["regime"]),
                split=str(settings["split"]),
                seed=int(settings["seed"]),
                fold=settings.get("fold"),
                folds=settings.get("folds"),
                unit=str(settings["unit"]),
                subjects=settings.get("subjects"),
            )

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        with self._readable("history.jsonl") as path:
            return pd.read_json(path, lines=True)

    def phase_rows(self, phase: str | None) -> list[dict[str, Any]]:
        """Return the rows of the history of a phase, None: of all, with all digits."""
        with self._readable("history.jsonl") as path:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if phase is None or row.get("phase", "train") == phase]

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
    def is_rival(self) -> bool:
        """Whether it is no network but one of `RIVALS`."""
        return bool(self.settings.get("regime") == RIVAL)

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
        """What the final layer read and wrote for every slice.

        `features` (N, D) is read-only and memory-mapped, so that what is indexed is what is read;
        records of earlier versions hold it in `features.npz`, which is read whole.
        """
        arrays = self._arrays("features.npz")
        if "features" not in arrays:
            with self._readable(FEATURES) as path:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
                arrays["features"] = mapped.view(np.ndarray)
        return arrays

    def rows(self, subset: str) -> NDArray[np.int64]:
        """Return the rows of a subset's slices, in ascending order."""
        return np.flatnonzero(self.features["subset"] == subset)

    def feature_blocks(
        self, subset: str | None = None, *, size: int = 4096
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield the rows and features (at most `size`, D) of a subset, or of all slices, in turn.

        Of no more than one block are there copies in memory.
        """
        features = self.features["features"]
        rows = np.arange(len(features)) if subset is None else self.rows(subset)
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            yield block, features[block]

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The logits of every slice (N, K), as `predictions.tsv` holds it.

        Records of earlier versions hold it in `features.npz` alone.
        """
        columns = [f"logit_{name}" for name in self.class_names]
        if set(columns) <= set(self.predictions):
            with np.errstate(over="ignore"):  # a damaged table then differs from the features
                return self.predictions[columns].to_numpy(np.float32)
        return self.features["logits"]

    @cached_property
    def layers(self) -> Arrays:
        """Mean activation of each stage for some slices."""
        return self._arrays("layers.npz")

    @cached_property
    def maps(self) -> Arrays:
        """Last feature maps of some test slices.

        The file of a fold may hold those of other folds' test slices too.
        """
        arrays = self._arrays("maps.npz")
        if self.setting.fold is None:
            return arrays
        subset = self.features["subset"]
        with self._readable("maps.npz"):
            test = subset[arrays["slice"]] == "test"
            return {name: array[test] for name, array in arrays.items()}

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return [str(name) for name in self.head["class_names"]]

    def _arrays(self, name: str) -> Arrays:
        with (
            self._readable(name) as path,
            path.open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            return dict(stored)

    def place(self, name: str) -> Path:
        """Return where a file is: in the run's folder or in the store of its experiment."""
        return located(self.path / name)

    @property
    def keeps_network(self) -> bool:
        """Whether the trained network is on record."""
        return any(self.place(name).is_file() for name in (MODEL, BACKBONE))

    def absent(self) -> list[str]:
        """Return which files it names of the store of its experiment, if none of them is there."""
        names = [name for name in stored_entries(self.path) if name not in NETWORK]
        return names if names and not any(self.place(name).is_file() for name in names) else []

    def checked(self, name: str) -> Path:
        """Return where a file is; InputError where it is missing or has changed."""
        path = self.place(name)
        if not path.is_file():
            if name in stored_entries(self.path):
                raise InputError(f"{self.path}: {moved(name)}.")
            raise InputError(f"{path} does not exist: {self.path} is no finished run.")
        problem = problem_of(self.path / name)
        if problem:
            also = "" if path.parent == self.path else f" and {path}"
            raise InputError(f"{path} {problem}: delete {self.path}{also} and train it again.")
        return path

    @contextmanager
    def _readable(self, name: str) -> Iterator[Path]:
        """Yield the path of a file; say which it is where it is missing, changed or damaged."""
        path = self.checked(name)
        try:
            yield path
        except DAMAGE as error:
            raise InputError(
                f"{path} is damaged ({reason_of(error)}): delete {self.path} and train it again."
            ) from None
