"""Splits as files: a small TSV, written once, never overwritten and checked at every reading.

`manifest.json` beside them holds the SHA-256 of each; a split that has changed is refused.

By subject it holds subject_id and subset; by slice (the paper's way), and by the folders of the
data, subject_id, session_id, plane, slice_index and subset.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.cohort.selection import GIVEN, SUBSETS
from headscope.cohort.tables import read_any_table
from headscope.errors import InputError
from headscope.files import NO_ID, read_table, table_text
from headscope.manifest import DAMAGE, NAME, check_file, read_manifest, reason_of, write_last
from headscope.scans.naming import subset_of
from headscope.splits.assign import (
    complete_given,
    key_of,
    make_fold,
    make_split,
)
from headscope.splits.sites import SITE
from headscope.text import unescape_formula


class LeakageError(InputError):
    """A subject is in two subsets of a split by subject."""


def ensure_split(
    path: Path,
    table: pd.DataFrame,
    *,
    kind: str,
    ratio: Sequence[float] = (5, 2, 3),
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    covariates: pd.DataFrame | None = None,
    source: Path | None = None,
    given: NDArray[Any] | None = None,
) -> NDArray[np.str_]:
    """Return the subset of each row (N,) by the split at `path`, which is made where it is absent.

    Parameters
    ----------
    path
        The file of the split.
    table
        One row per slice (N): the ids and label.
    kind, ratio, seed, covariates
        As of `make_split`.
    fold
        The number of the fold that is tested, and how many there are (`make_fold`).
    source
        A split made elsewhere, TSV or CSV, which is copied.
    given
        Of the kind "given": the subset of each row (N,) by the folders of the data; of the kind
        "site": as `make_site_split` returns it.

    Raises
    ------
    LeakageError
        The split is by subject, and a subject is in two subsets.
    InputError
        The file lacks rows of `table`, names an unknown subset, leaves a subset without a class,
        or differs from `source`.
    """
    by_folders, by_site = kind == GIVEN, kind == SITE
    kind = "slice" if by_folders else "subject" if by_site else kind
    key = key_of(kind)
    check_ids(table, kind)
    if by_folders:
        subset = complete_given(table, _given(given, table), ratio=ratio, seed=seed)
        _check_classes("The given partition", table, subset)
    elif by_site:
        subset = _given(given, table).astype("<U5")
    elif source is not None:
        subset = _assigned(source, table, kind)
        _check_classes(source, table, subset)
    elif path.exists():
        subset = _assigned(path, table, kind)
    elif fold is not None:
        subset = make_fold(table, *fold, kind=kind, ratio=ratio, seed=seed)
    else:
        subset = make_split(table, kind=kind, ratio=ratio, seed=seed, covariates=covariates)
    if not path.exists():
        split = table[key].assign(subset=subset).drop_duplicates()
        beside = path.with_suffix(".json")  # what makes the split
        files = [beside.name] if beside.is_file() else []
        write_last(path, table_text(split.sort_values(key)), files, add=True)
    stored = _assigned(path, table, kind)
    if (stored != subset).any():
        by = "the folders of the data" if by_folders else "the sites" if by_site else source
        raise InputError(f"{path} differs from {by}: choose another folder.")
    _check_classes(path, table, stored)
    for file in (path, source or path):
        check_split_file(file)
    return stored


def read_subsets(path: Path, table: pd.DataFrame) -> NDArray[np.str_]:
    """Return the subset of each row (N,) by a split file, of which it tells the kind itself."""
    return _assigned(path, table)


def subsets_by_path(path: Path, names: Sequence[str]) -> NDArray[np.object_] | None:
    """Return the subset of each path (S,) by a table of path and subset; None where it has no path.

    Subsets are named as folders are: train or Training, val, test or Testing.
    """
    table = read_any_table(path)
    if "path" not in table.columns:
        return None
    if "subset" not in table.columns:
        raise InputError(f"{path} is no split by path: it lacks the column 'subset'.")
    table = table.assign(path=table["path"].map(lambda name: Path(name).as_posix()))
    twice = table.loc[table["path"].duplicated(), "path"]
    if len(twice):
        raise InputError(f"{path} names the path {twice.iloc[0]!r} twice.")
    subsets = table["subset"].map(subset_of)
    odd = table.loc[subsets.isna(), "subset"]
    if len(odd):
        raise InputError(f"{path} names the subset {odd.iloc[0]!r}; valid are train, val and test.")
    of_path = dict(zip(table["path"], subsets.str[0], strict=True))
    lacking = [name for name in names if Path(name).as_posix() not in of_path]
    if lacking:
        raise InputError(
            f"{path} does not cover {len(lacking)} of {len(names)} paths, the first {lacking[0]!r}."
        )
    return np.array([of_path[Path(name).as_posix()] for name in names], dtype=object)


def check_given(scans: pd.DataFrame, ratio: Sequence[float]) -> None:
    """Refuse a split by the folders of the data that these do not give (InputError)."""
    subset = complete_given(scans, _given(scans.get(GIVEN), scans), ratio=ratio)
    _check_classes("The given partition", scans, subset)


def _given(given: NDArray[Any] | pd.Series | None, table: pd.DataFrame) -> NDArray[Any]:
    return np.full(len(table), "") if given is None else np.asarray(given, dtype=object)


def check_ids(table: pd.DataFrame, kind: str, named: Path | None = None) -> None:
    """Refuse a split by subject of slices that name no subjects (InputError).

    named: the table that `headscope slice` writes beside pictures, where there may be one.
    """
    if kind == "subject" and (table["subject_id"] == NO_ID).any():
        offered = GIVEN in table and (table[GIVEN] != "").any()
        given = "take the partition of the folders with --splits given, " if offered else ""
        if named is not None and named.is_file():
            given = f"take those of their table with --subjects {named}, {given}"
        raise InputError(
            "The pictures name no subjects, so they cannot be split by subject: give the place of "
            "ids in the names with --subject-pattern, infer subjects from pixels with --subjects "
            f"inferred, {given}or use --splits slice, whose accuracy says nothing about subjects "
            "that were not seen in training."
        )


def _assigned(path: Path, table: pd.DataFrame, kind: str = "") -> NDArray[np.str_]:
    """Read the split and look up each row of the table in it; without a kind it tells its own."""
    split = _checked(path, kind)
    key = [name for name in split.columns if name != "subset"]
    merged = table[key].merge(split, on=key, how="left", validate="many_to_one")
    missing = merged["subset"].isna()
    if missing.any():
        first = table.loc[missing.to_numpy(), "subject_id"].iloc[0]
        named = _some([*dict.fromkeys(split["subject_id"])], 2)
        raise InputError(
            f"{path} does not cover {missing.sum()} of {len(table)} slices, the first of subject "
            f"{first}: it was made for other data (it names {named})."
        )
    return merged["subset"].to_numpy(dtype="<U5")


def check_source(path: Path, scans: pd.DataFrame) -> list[str]:
    """Hold a split by subject made elsewhere against the scans, before any is sliced.

    Return sentences on subjects that the file or the scans alone have. Who lacks a subset is
    refused once slices show that their scans can be read.

    Raises
    ------
    InputError
        As of `ensure_split`; or no subject is in both.
    """
    split = _checked(path, "subject")
    subset = scans["subject_id"].map(dict(zip(split["subject_id"], split["subset"], strict=True)))
    if subset.isna().all():
        raise InputError(
            f"{path} was made for other data: it names {_some([*split['subject_id']], 2)}, and the "
            f"scans show {_some([*dict.fromkeys(scans['subject_id'])], 2)}."
        )
    here = subset.notna().to_numpy()
    _check_classes(path, scans[here], subset[here].to_numpy())
    present = set(scans["subject_id"])
    unused = [name for name in split["subject_id"] if name not in present]
    lacking = [*dict.fromkeys(scans["subject_id"][~here])]
    notes = []
    if unused:
        verb = "is" if len(unused) == 1 else "are"
        notes.append(f"Of the subjects in {path} {_some(unused)} {verb} not among the scans.")
    if lacking:
        notes.append(f"{path} lacks {_some(lacking)}: without a subset their slices are refused.")
    return notes


def _checked(path: Path, kind: str) -> pd.DataFrame:
    """Read a split by subject or slice: its ids and subset, one row for each."""
    split = read_split_table(path, kind != "subject")
    kind = kind or ("slice" if "slice_index" in split.columns else "subject")
    key = key_of(kind)
    lacking = [name for name in [*key, "subset"] if name not in split.columns]
    if lacking:
        hint = " A split by path is for --splits given." if "path" in split.columns else ""
        raise InputError(f"{path} is no split by {kind}: it lacks the column {lacking[0]!r}.{hint}")
    unknown = sorted(set(split["subset"].astype(str)) - set(SUBSETS))
    if unknown:
        raise InputError(f"{path} names the subset {unknown[0]!r}; valid are train, val and test.")
    split = split[[*key, "subset"]].drop_duplicates()
    twice = sorted({str(name) for name in split.loc[split.duplicated(key), "subject_id"]})
    if twice and kind == "subject":
        raise LeakageError(
            f"{path} leaks: {_some(twice)} {'is' if len(twice) == 1 else 'are'} in two subsets."
        )
    if twice:
        raise InputError(f"{path} puts one slice in two subsets: see subject {twice[0]}.")
    return split


def check_split_file(path: Path) -> None:
    """Refuse a split that has changed since it was made; one made elsewhere is in no manifest."""
    if not (path.parent / NAME).is_file() or path.name in (read_manifest(path.parent) or {}):
        check_file(path)


def read_split_table(path: Path, by_slice: bool = True) -> pd.DataFrame:
    """Return the table of a split; `by_slice`: its slices are to have whole numbers."""
    try:
        split = _read_split(path)
        if by_slice and "slice_index" in split.columns:
            split["slice_index"] = _whole_numbers(split["slice_index"])
    except DAMAGE as error:
        reason = reason_of(error).replace(f"{path}: ", "").replace(f"{path} ", "it ")
        raise InputError(f"{path} is no split: {reason}.") from error
    return split


def _read_split(path: Path) -> pd.DataFrame:
    """Read a split of ours, which a manifest has, exactly; any other as programs write tables."""
    if path.name in (read_manifest(path.parent) or {}):
        return read_table(path)
    table = read_any_table(path)
    return table if path.suffix.lower() == ".csv" else table.map(unescape_formula)


def _whole_numbers(values: pd.Series) -> NDArray[np.int64]:
    """Return a column of whole numbers, as those of slices; InputError where one is none."""
    numbers = pd.to_numeric(values, errors="coerce")
    odd = values[~(numbers.abs() < 2**31) | (numbers % 1 != 0)]
    if len(odd):
        raise InputError(f"its {values.name} holds {str(odd.iloc[0])!r}, which is no whole number")
    return numbers.to_numpy(np.int64)


def _check_classes(path: Path | str, table: pd.DataFrame, subset: NDArray[np.str_]) -> None:
    labels = table["label"].to_numpy()
    for name in SUBSETS:
        lacking = sorted(set(labels) - set(labels[subset == name]))
        if lacking and not (subset == name).any():
            raise InputError(
                f"{path} leaves the subset {name} without the class {lacking[0]!r} and every "
                "other: there must be subjects in train, val and test."
            )
        if lacking:
            raise InputError(
                f"{path} leaves the subset {name} without the class {lacking[0]!r}: --classes "
                "NAME=VALUE of the others leaves that class out, or choose another split."
            )


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
