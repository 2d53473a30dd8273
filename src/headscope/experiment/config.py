"""The settings of an experiment: read from and written to TOML, each value checked."""

import difflib
import json
import os
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from headscope.errors import InputError
from headscope.files import write_text
from headscope.manifest import STORE
from headscope.record import RIVALS
from headscope.slicing.spec import SliceSpec
from headscope.text import printable_name
from headscope.tracking.target import parse_target
from headscope.training.recipe import Number, Positive, Recipe, Whole

SplitKind = Literal["subject", "slice", "given", "site"]
Unit = Literal["slice", "scan"]
Rival = Literal["majority", "covariates", "pixels"]
PATHS = ("data", "out", "cache", "split_file", "pseudonym_key", "weights", "subjects")
RENAMED = {"pseudonymise": "pseudonym_key"}  # setting of 0.1 → what it is now
FORMS = {  # of the settings that are tables in a TOML file
    "classes": 'classes = {AD = ["Demented", "Converted"], NC = ["Nondemented"]}',
    "rows": 'a heading [[rows]] for each row, and below it regime = "frozen" and what else differs',
}
WEIGHT_WORDS = ("pretrained", "random")
SUBJECT_WORDS = ("ids", "inferred")
RECIPE = tuple(field.name for field in fields(Recipe))
ROW_RECIPE = tuple(name for name in RECIPE if name not in ("precision", "compile"))


class Row(BaseModel):
    """One row of the table: a regime of an architecture, where it differs from the rest.

    Settings that it leaves out are those of the experiment; its recipe is None where it leaves out
    all settings of a training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    regime: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None = None
    architecture: str | None = None
    weights: str | None = None
    pretraining_cohorts: tuple[str, ...] | None = None
    head_init: str | None = None
    unit: Unit | None = None
    splits: tuple[SplitKind, ...] | None = None
    recipe: Recipe | None = None


class Config(BaseModel):
    """Every setting of an experiment; `headscope run --help` and docs/models.md explain them.

    The settings of a training (`Recipe`) are given by their own names, as in a TOML file; `recipe`
    holds them.

    Examples
    --------
    >>> config = hs.Config(data="scans", regimes=["frozen", "finetune"], epochs=5)
    >>> config.recipe.epochs, config.out.name
    (5, 'headscope-experiment')
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    if TYPE_CHECKING:  # type checkers cannot know the settings that `recipe` gathers

        def __init__(self, **settings: Any) -> None: ...  # noqa: D107

    data: Path
    out: Path = Path("headscope-experiment")
    # cohort
    label: str | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    threshold: Number | None = None
    where: str | None = None
    subject_pattern: str | None = None
    subjects: str = "ids"
    contrast: str | None = None
    covariates: tuple[str, ...] = ()
    pseudonym_key: Path | None = None
    limit: Positive | None = None
    # slices
    plane: Literal["axial", "coronal", "sagittal", "all"] = "axial"
    count: Annotated[Whole, Field(ge=1, le=10_000)] = 30
    size: Annotated[Whole, Field(ge=16, le=1024)] = 224
    centre: str = "auto"
    spacing_mm: Annotated[Number, Field(gt=0, le=100)] | None = None
    volume: Annotated[Whole, Field(ge=0, le=1_000_000)] | None = None
    analyze_orientation: str = "auto"
    window: tuple[Number, Number] | None = None
    strict: bool = False
    # splits
    splits: tuple[SplitKind, ...] = ("subject",)
    ratio: tuple[Positive, Positive, Positive] = (5, 2, 3)
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**32)], ...] = (0,)
    folds: Annotated[Whole, Field(ge=2)] | None = None
    balance: tuple[str, ...] = ()
    split_file: Path | None = None
    architectures: tuple[str, ...] = ("tf_efficientnet_lite0",)
    weights: str = "pretrained"
    pretraining_cohorts: tuple[str, ...] = ()
    head_init: str = "glorot"
    regimes: tuple[str, ...] = ("frozen", "finetune", "scratch")
    unit: Unit = "slice"
    rivals: tuple[Rival, ...] = RIVALS
    recipe: Recipe = Recipe()
    rows: tuple[Row, ...] = ()
    # scores, record, device
    aggregate: Literal["mean", "logits", "vote"] = "mean"
    permutations: Annotated[Whole, Field(ge=0, le=100_000)] = 0
    keep_model: bool = True
    keep_state: bool = False
    cache: Path | None = None
    track: tuple[str, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Positive | None = None
    engine: Literal["here", "processes", "ray"] = "here"
    threads: Positive | None = None
    address: str | None = None
    num_cpus: Annotated[Number, Field(gt=0)] | None = None
    num_gpus: Annotated[Number, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _gather_recipes(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Put the settings of a training into recipes; those of a row come first in the row."""
        recipe, rows = settings.get("recipe"), settings.get("rows")
        rows = rows if isinstance(rows, list | tuple) else []
        tables = [recipe, *(row.get("recipe") for row in rows if isinstance(row, Mapping))]
        if any(table is not None and not isinstance(table, Recipe) for table in tables):
            raise ValueError("the settings of a training have no table: give each by its name")
        common = (asdict(recipe) if recipe else {}) | _pick(settings, RECIPE)
        gathered = {name: value for name, value in settings.items() if name not in RECIPE}
        if rows:
            gathered["rows"] = [_gather_row(row, common) for row in rows]
        return gathered | {"recipe": common}

    @field_validator("splits", "seeds", "architectures", "regimes", "rivals")
    @classmethod
    def _without_repeats(cls, values: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        if not values and info.field_name != "rivals":
            raise ValueError("needs at least one value")
        return tuple(dict.fromkeys(values))

    @field_validator("track")
    @classmethod
    def _trackers(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(parse_target(text)) for text in values))

    @field_validator("rivals", mode="before")
    @classmethod
    def _none_by_name(cls, values: Any) -> Any:
        none = values == "none" or (isinstance(values, list | tuple) and [*values] == ["none"])
        return () if none else values

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Config":
        given = [name for name in ("folds", "balance", "split_file") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of them")
        kinds = {*self.splits, *(kind for row in self.rows for kind in row.splits or ())}
        if self.folds and "given" in kinds:
            raise ValueError("folds and the split 'given' exclude each other: give one of them")
        if self.infers_subjects and (self.balance or self.subject_pattern):
            lone = "balance" if self.balance else "subject_pattern"
            raise ValueError(f"{lone} needs ids, and subjects 'inferred' hides them: give one")
        return self

    @property
    def infers_subjects(self) -> bool:
        """Whether subjects are inferred from pixels."""
        return self.subjects == "inferred"

    @property
    def subjects_file(self) -> Path | None:
        """The table that names the subject of each path, if there is one."""
        return None if self.subjects in SUBJECT_WORDS else Path(self.subjects)

    @property
    def cache_folder(self) -> Path:
        """The folder of the features of frozen backbones: the experiment's own, or a shared one."""
        return self.cache or self.out / "cache"

    @property
    def pass_store(self) -> Path:
        """The store of the arrays of their passes: the experiment's, or in a shared cache."""
        return self.out / STORE if self.cache is None else self.cache / STORE

    @property
    def slice_spec(self) -> SliceSpec:
        """How slices are taken."""
        return SliceSpec.from_settings(dict(self))

    def for_record(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """Return why runs failed, where ids are pseudonyms without the folders that it names."""
        folders = (self.cache_folder, self.out, self.data) if self.pseudonym_key else ()
        texts = dict(reasons)
        for folder in folders:
            texts = {name: why.replace(str(folder), folder.name) for name, why in texts.items()}
        return texts

    def save(self, path: Path) -> None:
        """Write the settings as TOML, with paths relative to the file's folder.

        Where ids are pseudonyms, paths and the conditions on scans are left out: they may hold ids.
        """
        # where the runs are shown too decides nothing, and a URI may hold a password
        settings = self.model_dump(mode="json", exclude_none=True, exclude={"track"})
        common = settings.pop("recipe")
        for row in settings["rows"]:
            recipe = row.pop("recipe", {})
            row |= {name: value for name, value in recipe.items() if value != common.get(name)}
        settings |= common
        for part in (settings, *settings["rows"]):
            for key in _paths(part):
                part[key] = printable_name(os.path.relpath(part[key], path.parent))
        note = ""
        if self.pseudonym_key is not None:
            absent = [key for key in ("where", *_paths(settings)) if settings.pop(key, None)]
            for row in settings["rows"]:
                absent += [key for key in _paths(row) if row.pop(key)]
            note = f"# Ids are pseudonyms: without {', '.join(dict.fromkeys(absent))}.\n"
        write_text(path, note + tomli_w.dumps(settings))


SETTINGS = (*(name for name in Config.model_fields if name != "recipe"), *RECIPE)
ROW_SETTINGS = (*(name for name in Row.model_fields if name != "recipe"), *ROW_RECIPE)


def _gather_row(row: Any, common: Mapping[str, Any]) -> Any:
    """Return a row's settings with a recipe where it has settings of one; `common` fills it up."""
    changes = _pick(row, ROW_RECIPE) if isinstance(row, Mapping) else {}
    if not changes:
        return row
    other = {name: value for name, value in row.items() if name not in ROW_RECIPE}
    return other | {"recipe": {**common, **changes}}


def _pick(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: settings[name] for name in names if settings.get(name) is not None}


def make_config(**settings: Any) -> Config:
    """Return checked settings; InputError where a key is unknown or a value of the wrong kind."""
    try:
        return Config(**settings)
    except ValidationError as error:
        raise InputError(_sentence(error, settings)) from None


def read_config(path: Path, changes: Mapping[str, Any]) -> Config:
    """Read settings from a TOML file; `changes` win over those in it, in its rows too.

    Paths in the file are taken from the file's own folder.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file.")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # bad TOML, a number of 5,000 digits
        raise InputError(
            f"{path} cannot be read as TOML: {str(error).rstrip('.')}. Text is in quotes "
            '(label = "Group"), lists in brackets (regimes = ["frozen"]), true and false are not.'
        ) from None
    rows = settings.get("rows")
    if rows and {"regimes", "architectures"} & changes.keys():
        raise InputError(f"{path} has rows that name what trains: change them there.")
    tables = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    for table in (settings, *tables):
        table |= {key: str(path.parent / table[key]) for key in _paths(table)}
    for row in tables:  # the command line holds for every row
        for key in set(ROW_SETTINGS) & changes.keys():
            row.pop(key, None)
    try:
        if isinstance(settings.get("track"), list):
            settings["track"] = [_beside(text, path.parent) for text in settings["track"]]
        return make_config(**(settings | dict(changes)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _beside(target: Any, folder: Path) -> Any:
    """Return a tracker with a relative path of its place taken from a folder."""
    return str(parse_target(target).beside(folder)) if isinstance(target, str) else target


def find_config(path: Path) -> Path:
    """Return the TOML file that `path` names: `paper.toml` is packaged, unless there is one here.

    It holds the twelve rows of the paper's Table 2.
    """
    packaged = Path(__file__).parent / "paper.toml"
    return packaged if path == Path(packaged.name) and not path.exists() else path


def _paths(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys of `settings` that hold paths; weights and subjects may be words instead."""
    keys = [key for key in PATHS if isinstance(settings.get(key), str)]
    return [key for key in keys if settings[key] not in (*WEIGHT_WORDS, *SUBJECT_WORDS)]


def parse_change(text: str) -> tuple[str, Any]:
    """Read 'key=value' as of `--set`: the value is TOML, or else plain text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, not {text!r}.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()
    return key.strip(), _listed(key.strip(), parsed)


def _listed(key: str, value: Any) -> Any:
    """Read text by comma, and one value as a list of one, where the setting is a list."""
    field = Config.model_fields.get(key)
    plural = field is not None and "tuple" in str(field.annotation) and key != "classes"
    if not plural or isinstance(value, list):
        return value
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]


def _sentence(error: ValidationError, settings: Mapping[str, Any]) -> str:
    """Say in one sentence what is wrong with the first bad setting."""
    first = error.errors()[0]
    place, where = _place(first["loc"], settings)
    if first["type"] == "extra_forbidden":
        valid = ROW_SETTINGS if place else SETTINGS
        if first["loc"][-1] in RENAMED:
            return f"{place}The setting {where} is now {RENAMED[str(first['loc'][-1])]!r}."
        close = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}Unknown setting {where}: {hint}Valid settings: {', '.join(valid)}."
    message = first["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
    message = message.replace("valid dictionary or instance of Row", "table")
    message = message.replace("valid dictionary", "table")
    if first["type"] == "missing":
        hint = (
            ": name the scans, by --data FOLDER or in the file" if first["loc"] == ("data",) else ""
        )
        return f"{place}The setting {where} is missing{hint}."
    if not first["loc"]:  # several settings that do not go together
        return f"{message[0].upper()}{message[1:]}."
    of = "The setting " if where.startswith("'") else "The "
    value = reprlib.repr(first["input"])
    sentence = f"{place}{of}{where} is {value}: {message[0].lower()}{message[1:]}."
    in_row = first["loc"][0] == "rows" and len(first["loc"]) > 2
    form = _form(first["loc"][2:] if in_row else first["loc"], first)
    return f"{sentence} Write {form}." if form else sentence


def _form(loc: Sequence[int | str], error: Mapping[str, Any]) -> str:
    """Return how a setting that is a table or a list is written; nothing for others."""
    name, value = str(loc[0]), error["input"]
    if name == "classes" or (name == "rows" and len(loc) < 3):
        return FORMS[name]
    if error["type"] == "tuple_type" and isinstance(value, str | int | float):
        return f"{name} = [{json.dumps(value)}]"
    return ""


def _place(loc: tuple[int | str, ...], settings: Mapping[str, Any]) -> tuple[str, str]:
    """Say where a setting is: ("Row 2 (frozen): ", "'epochs'"), ("", "2nd of 'ratio'")."""
    place, parts = "", [part for part in loc if part != "recipe"]
    if len(parts) > 1 and parts[0] == "rows" and isinstance(parts[1], int):
        row = settings["rows"][parts[1]]
        named = isinstance(row, Mapping) and (row.get("name") or row.get("regime"))
        place = f"Row {parts[1] + 1}{f' ({named})' if named else ''}: "
        parts = parts[2:] or ["rows"]
    keys = ".".join(str(part) for part in parts if isinstance(part, str))
    numbers = [part for part in parts if isinstance(part, int)]
    return place, f"{_ordinal(numbers[0] + 1)} of {keys!r}" if numbers else repr(keys)


def _ordinal(number: int) -> str:
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return str(number) + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
