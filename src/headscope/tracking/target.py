"""Which tool shows an experiment, and where: 'mlflow', 'mlflow:URI', 'tensorboard:FOLDER'."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from headscope.errors import InputError

TOOLS: Final = {"mlflow": "MLflow", "tensorboard": "TensorBoard"}


@dataclass(frozen=True)
class Target:
    """A tool of `TOOLS` and its place, a URI or a path; empty: in the experiment's folder."""

    tool: str
    place: str = ""

    @property
    def is_path(self) -> bool:
        """Whether the place is a path: of an SQLite file, or of a folder."""
        return bool(self.place) and ":" not in self.place and self.place != "databricks"

    def beside(self, folder: Path) -> "Target":
        """Return the target with a relative path taken from a folder."""
        return Target(self.tool, str(folder / self.place)) if self.is_path else self

    def __str__(self) -> str:
        """Return it as `--track` takes it."""
        return f"{self.tool}:{self.place}" if self.place else self.tool


def parse_target(text: str) -> Target:
    """Read 'TOOL' or 'TOOL:PLACE'; InputError where the tool is unknown."""
    tool, colon, place = text.strip().partition(":")
    if tool not in TOOLS or (colon and not place):
        raise InputError(f"Unknown tracker {text!r}: choose mlflow[:URI] or tensorboard[:FOLDER].")
    return Target(tool, place)


def check_installed(target: Target) -> None:
    """Say which extra is missing (InputError), before anything is trained."""
    if find_spec(target.tool) is None:
        raise InputError(
            f"{TOOLS[target.tool]} is not installed: pip install 'headscope[{target.tool}]'."
        )
