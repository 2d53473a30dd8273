"""The ablation ladder of an experiment: which rungs there are, and where their runs lie.

ablation/ablation.json       rungs, their titles, what was left out and assumed
ablation/RUNG/slices/        a slice store of the same slices, with less in them
ablation/RUNG/cache/, runs/  features and runs, as of any experiment
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headscope.errors import InputError
from headscope.files import write_json
from headscope.manifest import DAMAGE, content_hash, reason_of

FOLDER: Final = "ablation"
NAME: Final = "ablation.json"


@dataclass(frozen=True)
class Ablation:
    """The rungs of a ladder, most kept first.

    rungs are titles by name, omitted reasons by name. pixel_mm is the millimetres of a pixel,
    `notes` say where they come from. slices_sha256 names the slices that were ablated, example is
    the row of the slice that shows each rung.
    """

    slices_sha256: str
    pixel_mm: float
    example: int
    rungs: Mapping[str, str]
    omitted: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def rung_folder(experiment: Path, rung: str) -> Path:
    """Return the folder of a rung, which is that of an experiment."""
    return experiment / FOLDER / rung


def write_ablation(experiment: Path, ablation: Ablation) -> None:
    """Write `ablation.json`, with a hash of its content."""
    values = asdict(ablation) | {"notes": list(ablation.notes)}
    write_json(experiment / FOLDER / NAME, values | {"sha256": content_hash(values)})


def read_ablation(experiment: Path) -> Ablation | None:
    """Return what a ladder is made of, None: there is none; InputError where it has changed."""
    path = experiment / FOLDER / NAME
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest = values.pop("sha256")
        if digest != content_hash(values):
            raise InputError(f"{path} has changed since it was written: delete it.")
        return Ablation(**values)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({reason_of(error)}): delete it.") from None


def rung_picture(folder: Path, row: int) -> NDArray[np.uint8] | None:
    """Return one slice (H, W) of an experiment or rung; None where its pixels are gone."""
    path = folder / "slices" / "slices.npy"
    if not path.is_file():
        return None
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[row])
    except DAMAGE:
        return None
