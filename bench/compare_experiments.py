"""Compare the values of two experiments, run by run, and print what differs.

    python bench/compare_experiments.py BEFORE AFTER [--tolerance 0] [--rename OLD=NEW]

Compared are `leakage.json` and `audit.json` of the experiment, and `metrics.json`,
`predictions.tsv`, `head.npz` and the features of each run, by its name, wherever its record has
them. Values count, not bytes: rows of a table keep their order, keys of JSON need not. Seconds,
versions and keys of caches are left out. Ends with exit code 1 where anything differs.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from headscope.record import Run

ASIDE = {
    "train_seconds",
    "seconds",
    "record",
    "sha256",
    "environment",
    "versions",
    "format",
    "key",
    "page",
    "path",
}
OF_EXPERIMENT = ("leakage.json", "audit.json")
OF_RUN = ("metrics.json", "predictions.tsv", "head.npz", "features.npz")
MOST_SHOWN = 20  # differences per file


def values_of(path: Path) -> dict[str, object]:
    """Return the values of a file by the place where they are: arrays, or single values."""
    if path.suffix == ".json":
        return dict(flatten(json.loads(path.read_text(encoding="utf-8"))))
    if path.name == "features.npz":  # of which newer records have the features elsewhere
        return dict(Run(path.parent).features)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a"])
    return {name: table[name].to_numpy() for name in table.columns}


def flatten(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested JSON with their places, such as test.subject_auc.value."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in ASIDE:
                yield from flatten(part, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(part, dict | list) for part in value):
        for number, part in enumerate(value):
            yield from flatten(part, f"{place}[{number}]")
    else:
        yield place, np.array(value) if isinstance(value, list) else value


def difference(before: object, after: object, tolerance: float) -> str:
    """Say how two values differ; nothing where they do not."""
    one, two = np.asarray(before), np.asarray(after)
    if one.shape != two.shape:
        return f"shape {one.shape} became {two.shape}"
    if one.dtype.kind in "fiub" and two.dtype.kind in "fiub":
        far = ~np.isclose(one, two, rtol=0, atol=tolerance, equal_nan=True)
        if not far.any():
            return ""
        if one.ndim == 0:
            return f"{before} became {after}"
        largest = np.nanmax(np.abs(one.astype(float) - two.astype(float))[far])
        return f"{far.sum()} of {far.size} values differ, by up to {largest:.3g}"
    unequal = one.astype(str) != two.astype(str)
    if not unequal.any():
        return ""
    if one.ndim == 0:
        return f"{before!r} became {after!r}"
    first = np.flatnonzero(unequal.ravel())[0]
    return (
        f"{unequal.sum()} of {unequal.size} values differ, the first "
        f"{one.ravel()[first]!r} became {two.ravel()[first]!r}"
    )


def compare_files(before: Path, after: Path, tolerance: float) -> list[str]:
    """Return what differs between two files."""
    if not before.is_file() or not after.is_file():
        absent = [str(path) for path in (before, after) if not path.is_file()]
        return [] if len(absent) == 2 else [f"there is no {absent[0]}"]
    one, two = values_of(before), values_of(after)
    lines = [f"{place}: only before" for place in one.keys() - two.keys()]
    lines += [f"{place}: only after" for place in two.keys() - one.keys()]
    for place in one.keys() & two.keys():
        text = difference(one[place], two[place], tolerance)
        lines += [f"{place}: {text}"] if text else []
    return sorted(lines)


def runs_of(experiment: Path, renames: dict[str, str]) -> dict[str, Path]:
    """Return the finished runs by name, old regimes under their new names."""
    runs = {}
    for folder in sorted((experiment / "runs").glob("*/metrics.json")):
        name = folder.parent.name
        for old, new in renames.items():
            name = name.replace(f"-{old}-", f"-{new}-")
        runs[name] = folder.parent
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="largest difference that is none"
    )
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW")
    given = parser.parse_args()
    renames = dict(text.split("=", 1) for text in given.rename)
    before, after = (runs_of(folder, renames) for folder in (given.before, given.after))
    compared = [(name, given.before / name, given.after / name) for name in OF_EXPERIMENT]
    for run in sorted(before.keys() & after.keys()):
        compared += [(f"{run}/{name}", before[run] / name, after[run] / name) for name in OF_RUN]
    differing = 0
    for run in sorted(before.keys() ^ after.keys()):
        print(f"{run}: only {'before' if run in before else 'after'}")
        differing += 1
    for title, one, two in compared:
        lines = compare_files(one, two, given.tolerance)
        differing += bool(lines)
        for line in lines[:MOST_SHOWN]:
            print(f"{title}: {line}")
        if len(lines) > MOST_SHOWN:
            print(f"{title}: … and {len(lines) - MOST_SHOWN} more")
    print(f"{len(before.keys() & after.keys())} runs compared, {differing} files or runs differ.")
    return 1 if differing or not before else 0


if __name__ == "__main__":
    sys.exit(main())
