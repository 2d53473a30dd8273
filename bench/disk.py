"""Disk of a k-fold of frozen runs, against that of one run's stored files plus heads.

    python bench/disk.py [--architecture googlenet] [--size 64] [--slices 1920]
                         [--folds 5] [--seeds 3]

The cohort and the weights are drawn at random: no score counts here, only bytes. Every run is also
exported, so that the figures say what the same runs take where each stands alone.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.experiments import write_cohort

import headscope as hs
from figure import Figure
from headscope.console import console
from headscope.manifest import stored_entries
from headscope.models.zoo import find_architecture
from headscope.record import FEATURES

PER_SCAN = 20


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def short(place) -> list[Figure]:
    """Return the ratio of three folds on 240 slices."""
    given = argparse.Namespace(
        architecture="googlenet", size=64, slices=240, folds=3, seeds=1, epochs=1
    )
    console.quiet = True
    ratio = measure(place.folder, given)
    return [Figure("frozen runs over one's stored files and all heads", ratio, "×", at_most=1.3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="googlenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--slices", type=int, default=1920)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    console.quiet = True
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), given)


def measure(folder: Path, given: argparse.Namespace) -> float:
    """Train the runs and print what they take; return what all take over one and the heads."""
    torch.manual_seed(0)
    state = find_architecture(given.architecture).build().state_dict()
    save_file({key: part.contiguous() for key, part in state.items()}, folder / "w.safetensors")
    experiment = hs.run(
        hs.Config(
            data=write_cohort(folder / "scans", given.slices // PER_SCAN // 2),
            out=folder / "out",
            count=PER_SCAN,
            size=given.size,
            architectures=[given.architecture],
            weights=str(folder / "w.safetensors"),
            regimes=["frozen"],
            splits=["subject"],
            folds=given.folds,
            seeds=[*range(given.seeds)],
            epochs=given.epochs,
            rivals=[],
            workers=1,
        )
    )
    return show(experiment, folder / "alone")


def show(experiment: Path, alone: Path) -> float:
    """Print what the runs of an experiment take, and what they take apart from each other."""
    runs = hs.read_experiment(experiment)
    names = stored_entries(runs[0].path)
    parts = {name: runs[0].place(name).stat().st_size for name in names}
    features, one = parts[FEATURES], sum(parts.values())
    heads = sum((run.path / "head.npz").stat().st_size for run in runs)
    own, store = size_of(experiment / "runs"), size_of(experiment / "store")
    whole = own + store + size_of(experiment / "cache")
    for run in runs:
        hs.export(run.path, alone)
    rows = {
        **{f"{name} of one run": size for name, size in parts.items()},
        "one run's stored files plus the heads of all": one + heads,
        "one run's features plus the heads of all": features + heads,
        "all else in the folders of the runs (predictions, history, scores)": own - heads,
        "store": store,
        f"the {len(runs)} runs in all (runs, store, cache)": whole,
        f"the {len(runs)} runs, each alone": size_of(alone),
    }
    for text, size in rows.items():
        print(f"| {text} | {size / 1e6:.2f} |")
    for text, size in column_bytes(runs[0].path / "predictions.tsv").items():
        print(f"predictions.tsv of one run, {text}: {size:.1f} bytes a slice")
    print(f"runs in all / (stored files + heads): {whole / (one + heads):.3f} (aim: 1.3)")
    strict = (whole - one + features) / (features + heads)
    print(f"without backbone, stage means and maps, over features + heads: {strict:.3f}")
    print(f"features on disk / features of one run: {count_features(runs) / features:.3f}")
    print(f"runs in all / each alone: {whole / size_of(alone):.3f}")
    return whole / (one + heads)


def column_bytes(path: Path) -> dict[str, float]:
    """Return the bytes that each column of a table takes in a row, its separator among them."""
    lines = path.read_text(encoding="utf-8").splitlines()
    names, *rows = (line.split("\t") for line in lines)
    sizes = {
        name: sum(len(row[place].encode()) + 1 for row in rows) / len(rows)
        for place, name in enumerate(names)
    }
    return sizes | {"in all": sum(sizes.values())}


def count_features(runs: list[hs.Run]) -> int:
    """Return the bytes of all files of features of the runs, each file once."""
    return sum(path.stat().st_size for path in {run.place(FEATURES) for run in runs})


if __name__ == "__main__":
    main()
