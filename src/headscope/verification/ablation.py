"""The ablation ladder held against the slices and runs of its experiment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from headscope.errors import InputError
from headscope.record import Run, find_runs
from headscope.record.ablation import FOLDER, Ablation, read_ablation, rung_folder
from headscope.slicing.rungs import RUNGS
from headscope.slicing.store import SliceSet, open_slices

SAMPLED: Final = 24  # slices of a rung that are made again


def find_ablation(experiment: Path, problems: list[str]) -> Ablation | None:
    """Return the record of the ladder, if there is one that is whole."""
    try:
        return read_ablation(experiment)
    except InputError as error:
        problems.append(f"{FOLDER}: {error}")
        return None


def rung_problems(
    experiment: Path, rung: str, ablation: Ablation, slices: SliceSet | None
) -> Iterator[str]:
    """Yield how a rung's slices do not follow from the whole ones, nor its runs from the runs."""
    folder = rung_folder(experiment, rung)
    place = f"{FOLDER}/{rung}"
    if rung not in RUNGS:
        yield f"{place}: there is no such rung"
        return
    if slices is not None and (folder / "slices" / "slices.json").is_file():
        try:
            yield from (
                f"{place}/slices: {text}" for text in _pixels(folder, rung, ablation, slices)
            )
        except InputError:
            return  # said by the check of the rung's own files
    runs = experiment / "runs"
    for run in find_runs(folder).runs if (folder / "runs").is_dir() else []:
        whole = Run(runs / run.name)
        if not whole.finished:
            continue
        for name in ("split_sha256", "seed", "epochs", "learning_rate", "aggregate"):
            if run.settings.get(name) != whole.settings.get(name):
                yield f"{place}/runs/{run.name}: its {name} is not that of the run on whole slices"


def _pixels(folder: Path, rung: str, ablation: Ablation, slices: SliceSet) -> Iterator[str]:
    """Make some slices of a rung again."""
    store = open_slices(folder / "slices")
    if ablation.slices_sha256 != slices.sha256 or store.settings.get("of") != slices.sha256:
        yield "they were made of other slices than those of this experiment"
        return
    if not store.table.equals(slices.table):
        yield "its rows are not those of the slices"
        return
    rows = np.unique(np.linspace(0, len(slices.pixels) - 1, SAMPLED).round().astype(np.int64))
    made = RUNGS[rung][1](slices.batch(rows), ablation.pixel_mm)
    if not np.array_equal(made, store.batch(rows)):
        yield "they are not what the slices of the experiment give"
