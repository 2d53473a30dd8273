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
from headscope.manifest import DAMAGE, problem_of, reason_of
from headscope.record.setting import RIVAL, Setting

Arrays = dict[str, NDArray[Any]]
SUBSETS = ("train", "val", "test")
MODEL = "model.safetensors"
STATE = "state.safetensors"

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

    def phase_rows(self, phase: str) -> list[dict[str, Any]]:
        """Return the rows of the history of a phase, with all digits."""
        with self._readable("history.jsonl") as path:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row.get("phase", "train") == phase]

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
        """What the final layer read and wrote for every slice."""
        return self._arrays("features.npz")

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
        """Last feature maps of some test slices."""
        return self._arrays("maps.npz")

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

    def checked(self, name: str) -> Path:
        """Return the path of a file; InputError where it is missing or has changed."""
        path = self.path / name
        if not path.is_file():
            raise InputError(f"{path} does not exist: {self.path} is no finished run.")
        problem = problem_of(path)
        if problem:
            raise InputError(f"{path} {problem}: delete {self.path} and train it again.")
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
