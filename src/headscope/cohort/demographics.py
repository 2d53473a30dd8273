"""Covariates of the subjects: age, sex, site, scanner, and what else a table names.

They come from the cohort's tables and from the JSON that BIDS and dcm2niix write beside a scan.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.labels import quotes_subjects
from headscope.cohort.tables import MISSING, counted, listed, numbers_in
from headscope.errors import InputError
from headscope.files import NO_ID
from headscope.scans.naming import STEM

RECOGNISED: Final = {  # covariate → names of columns that hold it, the likeliest first
    "age": ("age", "age_years", "age_at_scan", "age_at_visit", "age_at_entry"),
    "sex": ("sex", "gender", "m/f", "f/m", "ptgender"),
    "site": (
        *("site", "site_id", "siteid", "site_name", "study_site", "scan_site", "center", "centre"),
        *("center_id", "centre_id", "institution", "institution_name", "institutionname"),
        "hospital",
    ),
    "manufacturer": ("manufacturer", "scanner_manufacturer", "vendor"),
    "field_strength": (
        *("field_strength", "fieldstrength", "magnetic_field_strength", "magneticfieldstrength"),
        *("mag_strength", "tesla"),
    ),
}
WORDS: Final = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
MAKERS: Final = {
    "siemens": "Siemens",
    "ge": "GE",
    "general electric": "GE",
    "philips": "Philips",
    "toshiba": "Toshiba",
    "canon": "Canon",
    "hitachi": "Hitachi",
    "uih": "United Imaging",
    "united imaging": "United Imaging",
}
SIDECAR: Final = ("Manufacturer", "MagneticFieldStrength", "InstitutionName")
MOST_BYTES: Final = 2**20  # of a sidecar
DATE: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|(19|20)\d{6}"
)
FEW: Final = 5  # distinct numbers up to which a column holds categories
LONGEST: Final = 60  # characters of categories that are listed
LONG: Final = 10_000  # whole numbers from here on, all different, are ids


@dataclass(frozen=True)
class Covariate:
    """A column that could be a covariate: its `name` in results, and what it holds.

    content is "60 to 96" or "F, M"; missing counts subjects without one; problem says why it
    cannot be used, and is empty where it can.
    """

    column: str
    name: str
    content: str
    missing: int
    problem: str = ""


def covariate_name(column: str) -> str:
    """Return the name that a column has as a covariate: age, sex, site …, or its own."""
    plain = _plain(column)
    return next((name for name, columns in RECOGNISED.items() if plain in columns), column)


def is_number(name: str, values: pd.Series) -> bool:
    """Whether a covariate is a quantity, by its name and its values: else it has categories."""
    if name in RECOGNISED:
        return name == "age"
    numbers = numbers_in(values.dropna().astype(str))
    return bool(numbers.notna().all()) and numbers.nunique() > FEW


def describe_subjects(scans: pd.DataFrame, named: Sequence[str] = ()) -> pd.DataFrame:
    """Return age and sex of each scan's subject by its path, and its covariates.

    These are the columns `named`, or else those recognised by name (`RECOGNISED`): site,
    manufacturer, field_strength in tesla, where they could be covariates. Sex is F and M, other
    words as they are; ages that are no numbers are missing.
    """
    columns = {
        name: column
        for name, column in _recognised(scans).items()
        if name in ("age", "sex") or not (named or inspect_covariate(scans, column).problem)
    }
    columns |= {covariate_name(name): name for name in named}
    described = scans[["path"]].copy()
    for name, column in columns.items():
        described[name] = _clean(name, scans[column])
    return described


def join_sidecars(root: Path, scans: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    """Return the scans with manufacturer, field strength and institution of their JSON files.

    Only volumes (`paths`) have any. BIDS lets a file in a folder above hold for all below it. What
    a table says comes first; a file that is no JSON says nothing.
    """
    memo: dict[Path, dict[str, str]] = {}
    rows = [_sidecar(root, path, memo) for path in paths]
    facts = pd.DataFrame(rows, columns=list(SIDECAR)).assign(path=list(paths))
    present = _recognised(scans)
    for key in SIDECAR:
        if covariate_name(key) not in present and facts[key].notna().any():
            values = dict(zip(facts["path"], facts[key], strict=True))
            scans = scans.assign(**{key: scans["path"].map(values).fillna("n/a")})
    return scans


def check_covariates(data: Path, scans: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """Return the columns of `scans` that `wanted` names, by their name or by that of a covariate.

    Raises
    ------
    InputError
        One names no column, is constant, is missing in half of the subjects, or names subjects.
    """
    columns = []
    offered = [str(name) for name in scans.columns if name not in ("path", "subject_id")]
    by_name = _recognised(scans[offered])
    for word in wanted:
        alike = [name for name in offered if name.casefold() == word.casefold()]
        column = word if word in offered else next(iter(alike), by_name.get(covariate_name(word)))
        if column is None:
            raise InputError(
                f"--covariates names no column {word!r} of {data}: there are {listed(offered)}."
            )
        covariate = inspect_covariate(scans, column)
        if covariate.problem:
            raise InputError(f"--covariates {word}: {covariate.problem}.")
        columns.append(column)
    return list(dict.fromkeys(columns))


def inspect_covariate(scans: pd.DataFrame, column: str) -> Covariate:
    """Return what a column holds over the subjects, and why it could not be a covariate."""
    name = covariate_name(column)
    raw = scans[column].mask(scans[column].isin(MISSING)).dropna().astype(str)
    subject_of = scans["subject_id"].astype(str)
    table = pd.DataFrame({"subject": subject_of, "value": _clean(name, scans[column])})
    table = table[table["subject"] != NO_ID]
    subjects = int(table["subject"].nunique())
    values = table.dropna(subset="value").drop_duplicates("subject")["value"]
    problem = _problem(column, values, raw, subjects)
    if not problem and _names_subjects(name, values, raw, subject_of):
        problem = (
            f"{column!r} has {values.nunique()} values in {counted(len(values), 'subject')}: it "
            "names subjects or holds free text, and is no covariate"
        )
    shown = "" if "subjects or" in problem else _values_text(name, values)
    return Covariate(column, name, shown, subjects - len(values), problem)


def _values_text(name: str, values: pd.Series) -> str:
    """Return the range of a quantity, or the categories where they are few."""
    if len(values) and is_number(name, values):
        numbers = numbers_in(values.astype(str))
        return f"{numbers.min():g} to {numbers.max():g}"
    names = sorted(values.astype(str).unique())
    text = listed([repr(name) if "," in name else name for name in names])  # decimal commas
    return text if len(text) < LONGEST else counted(int(values.nunique()), "value")


def _problem(column: str, values: pd.Series, raw: pd.Series, subjects: int) -> str:
    """Say why a column could not be a covariate, by its values of subjects and of scans."""
    if not subjects:
        return f"{column!r} describes subjects, and the pictures name none"
    missing = subjects - len(values)
    if 2 * missing >= subjects:
        return (
            f"{column!r} has no value for {missing} of {counted(subjects, 'subject')}: a covariate "
            "needs one for more than half of them"
        )
    if len(raw) and raw.str.fullmatch(DATE).mean() > 0.5:
        return f"{column!r} holds dates, which can name a subject and are no covariate"
    if (values == values.iloc[0]).all():
        return f"{column!r} is {values.iloc[0]} for every subject, so it can explain nothing"
    return ""


def _names_subjects(name: str, values: pd.Series, raw: pd.Series, subject_of: pd.Series) -> bool:
    """Whether values are ids, names or free text: almost one for each subject, or quoting it."""
    different = values.nunique()
    if is_number(name, values):
        numbers = numbers_in(values.astype(str))
        whole = bool((numbers % 1 == 0).all())
        return different == len(values) and bool(numbers.min() >= LONG) and whole
    quotes = name not in RECOGNISED and quotes_subjects(raw, subject_of[raw.index])
    return quotes or different > max(2, len(values) / 2)


def _recognised(scans: pd.DataFrame) -> dict[str, str]:
    """Return the column of each covariate that is recognised by its name."""
    columns: dict[str, dict[str, str]] = {}
    for column in map(str, scans.columns):
        columns.setdefault(covariate_name(column), {}).setdefault(_plain(column), column)
    return {
        name: next(columns[name][plain] for plain in names if plain in columns[name])
        for name, names in RECOGNISED.items()
        if name in columns
    }


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().casefold())


def _clean(name: str, column: pd.Series) -> pd.Series:
    """Return the values of a covariate as results have them; missing ones are NaN."""
    values = column.astype(str).str.strip()
    values = values.mask(values.isin(MISSING) | column.isna())
    if name == "age":
        return numbers_in(values)
    if name == "sex":
        return values.str.casefold().map(WORDS).fillna(values)
    if name == "manufacturer":
        return values.map(_maker, na_action="ignore")
    if name == "field_strength":
        return values.map(_tesla, na_action="ignore")
    if name not in RECOGNISED and is_number(name, values):
        return numbers_in(values)
    return values


def _maker(text: str) -> str:
    """Return the usual name of a manufacturer: SIEMENS Healthineers → Siemens."""
    plain = text.casefold()
    return next((name for word, name in MAKERS.items() if re.match(rf"{word}\b", plain)), text)


def _tesla(text: str) -> Any:
    """Return a field strength to the next half tesla: 2.89 → 3, 15000 (gauss) → 1.5."""
    match = re.search(r"\d+(?:[.,]\d+)?", text)
    if match is None:
        return np.nan
    value = float(match[0].replace(",", "."))
    value = value / 10_000 if value > 1000 else value
    return f"{round(2 * value) / 2 if value >= 1 else value:g}"


def _sidecar(root: Path, path: str, memo: dict[Path, dict[str, str]]) -> dict[str, str]:
    """Return the facts of a scan's JSON file, and of those above it where it lacks some.

    What files say is kept in `memo`, as one of a folder above is read for every scan.
    """
    place = PurePosixPath(path)
    stem = STEM.sub("", place.name)
    suffix = stem.rpartition("_")[2]
    files = [root / place.parent / f"{stem}.json", root / f"{suffix}.json"]
    parts = place.parts[:-1]
    if parts and parts[0].startswith("sub-"):
        files.insert(1, root / parts[0] / f"{parts[0]}_{suffix}.json")
    facts: dict[str, str] = {}
    for file in files:
        if file not in memo:
            memo[file] = _read_sidecar(file)
        facts = memo[file] | facts
    return facts


def _read_sidecar(path: Path) -> dict[str, str]:
    """Return what a JSON file says of the scanner; nothing where it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    values = {key: content.get(key) for key in SIDECAR}
    return {key: str(v).strip() for key, v in values.items() if isinstance(v, str | int | float)}
