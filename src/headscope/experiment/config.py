"""The settings of an experiment: TOML in and out, each value checked with the valid ones named."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headscope.errors import InputError
from headscope.files import write_text
from headscope.slicing.spec import SliceSpec

SplitKind = Literal["subject", "slice"]
Device = Literal["auto", "cpu", "cuda"]
Schedule = Literal["step", "cosine"]
Select = Literal["final", "best"]
PATHS = ("data", "out", "cache", "split_file", "pseudonym_key", "weights")
RENAMED = {"pseudonymise": "pseudonym_key"}  # setting of 0.1 → what it is now
WEIGHT_WORDS = ("pretrained", "random")


def _no_truth(value: Any) -> Any:
    """Refuse true and false, which would pass for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


Whole = Annotated[int, BeforeValidator(_no_truth)]
Number = Annotated[float, BeforeValidator(_no_truth)]
Positive = Annotated[Whole, Field(ge=1)]
Rate = Annotated[Number, Field(gt=0)]
Decay = Annotated[Number, Field(ge=0)]
Momentum = Annotated[Number, Field(ge=0, lt=1)]
Factor = Annotated[Number, Field(gt=0, le=1)]
Degrees = Annotated[Number, Field(ge=0, le=180)]
Share = Annotated[Number, Field(ge=0, lt=1)]


class Row(BaseModel):
    """One row of the table: a regime of an architecture, where it differs from the rest.

    What is left out is taken from the experiment's own settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    regime: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None = None
    architecture: str | None = None
    weights: str | None = None
    head_init: str | None = None
    splits: tuple[SplitKind, ...] | None = None
    epochs: Positive | None = None
    learning_rate: Rate | None = None
    head_learning_rate: Rate | None = None
    batch_size: Positive | None = None
    momentum: Momentum | None = None
    weight_decay: Decay | None = None
    schedule: Schedule | None = None
    drop_every: Positive | None = None
    drop_factor: Factor | None = None
    select: Select | None = None
    augment_flip: bool | None = None
    augment_rotate_deg: Degrees | None = None
    augment_jitter: Share | None = None
    probe_epochs: Positive | None = None


class Config(BaseModel):
    """Every setting of an experiment; `headscope run --help` and docs/models.md explain them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    out: Path = Path("headscope-experiment")
    # cohort
    label: str | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    threshold: Number | None = None
    where: str | None = None
    subject_pattern: str | None = None
    pseudonym_key: Path | None = None
    # slices
    plane: Literal["axial", "coronal", "sagittal", "all"] = "axial"
    count: Positive = 30
    size: Annotated[Whole, Field(ge=16, le=1024)] = 224
    centre: str = "auto"
    spacing_mm: Annotated[Number, Field(gt=0, le=100)] | None = None
    volume: Annotated[Whole, Field(ge=0)] | None = None
    analyze_orientation: str = "LAS"
    strict: bool = False
    # splits
    splits: tuple[SplitKind, ...] = ("subject",)
    ratio: tuple[Positive, Positive, Positive] = (5, 2, 3)
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
    folds: Annotated[Whole, Field(ge=2)] | None = None
    balance: tuple[str, ...] = ()
    split_file: Path | None = None
    # networks
    architectures: tuple[str, ...] = ("tf_efficientnet_lite0",)
    weights: str = "pretrained"
    head_init: str = "glorot"
    regimes: tuple[str, ...] = ("frozen", "finetune", "scratch")
    rows: tuple[Row, ...] = ()
    # training
    epochs: Positive = 20
    learning_rate: Rate = 0.001
    head_learning_rate: Rate = 1.0
    batch_size: Positive = 32
    momentum: Momentum = 0.9
    weight_decay: Decay = 1e-4
    schedule: Schedule = "step"
    drop_every: Positive = 10
    drop_factor: Factor = 0.9
    select: Select = "final"
    augment_flip: bool = False
    augment_rotate_deg: Degrees = 0.0
    augment_jitter: Share = 0.0
    probe_epochs: Positive | None = None
    # figures and record
    aggregate: Literal["mean", "logits", "vote"] = "mean"
    permutations: Annotated[Whole, Field(ge=0)] = 0
    keep_model: bool = True
    cache: Path | None = None
    # machine
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    workers: Positive | None = None

    @field_validator("splits", "seeds", "architectures", "regimes")
    @classmethod
    def _without_repeats(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:
            raise ValueError("needs at least one value")
        return tuple(dict.fromkeys(values))

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Config":
        given = [name for name in ("folds", "balance", "split_file") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of them")
        return self

    @property
    def cache_folder(self) -> Path:
        """Where the features of frozen backbones lie: the experiment's own folder, or a shared."""
        return self.cache or self.out / "cache"

    @property
    def slice_spec(self) -> SliceSpec:
        """How slices are taken."""
        return SliceSpec.from_settings(dict(self))

    def save(self, path: Path) -> None:
        """Write the settings as TOML, with paths from the file's folder, as they are read again."""
        settings = self.model_dump(mode="json", exclude_none=True)
        for part in (settings, *settings["rows"]):
            for key in _paths(part):
                part[key] = os.path.relpath(part[key], path.parent)
        write_text(path, tomli_w.dumps(settings))


def make_config(**settings: Any) -> Config:
    """Return checked settings.

    Raises
    ------
    InputError
        An unknown key (the likely ones are named) or a value of the wrong kind.
    """
    try:
        return Config(**settings)
    except ValidationError as error:
        raise InputError(_sentence(error, settings)) from None


def read_config(path: Path, changes: Mapping[str, Any]) -> Config:
    """Read settings from a TOML file; `changes` win over what stands there, in its rows too.

    Paths in the file are taken from the file's own folder.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, or is no file.")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}.") from None
    rows = found.get("rows")
    if rows and {"regimes", "architectures"} & changes.keys():
        raise InputError(f"{path} has rows that name what trains: change them there.")
    tables = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    for table in (found, *tables):
        table |= {key: str(path.parent / table[key]) for key in _paths(table)}
    for row in tables:  # what is said on the command line holds for every row
        for key in Row.model_fields.keys() & changes.keys():
            row.pop(key, None)
    try:
        return make_config(**(found | dict(changes)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def find_config(path: Path) -> Path:
    """Return the TOML file that `path` names: `paper.toml` is packaged, unless there is one here.

    It holds the twelve rows of the paper's Table 2.
    """
    packaged = Path(__file__).parent / "paper.toml"
    return packaged if path == Path(packaged.name) and not path.exists() else path


def _paths(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys of `settings` that hold paths; the weights may be a word instead."""
    keys = [key for key in PATHS if isinstance(settings.get(key), str)]
    return [key for key in keys if settings[key] not in WEIGHT_WORDS]


def parse_change(text: str) -> tuple[str, Any]:
    """Read 'key=value' as of `--set`: the value is TOML, or else plain text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, not {text!r}.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
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
        valid = list(Row.model_fields if place else Config.model_fields)
        if first["loc"][-1] in RENAMED:
            return f"{place}The setting {where} is now {RENAMED[str(first['loc'][-1])]!r}."
        close = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}Unknown setting {where}: {hint}Valid settings: {', '.join(valid)}."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        hint = (
            ": name the scans, by --data FOLDER or in the file" if first["loc"] == ("data",) else ""
        )
        return f"{place}The setting {where} is missing{hint}."
    if not first["loc"]:  # several settings that do not go together
        return f"{message[0].upper()}{message[1:]}."
    of = "The setting " if where.startswith("'") else "The "
    return f"{place}{of}{where} is {first['input']!r}: {message[0].lower()}{message[1:]}."


def _place(loc: tuple[int | str, ...], settings: Mapping[str, Any]) -> tuple[str, str]:
    """Say where a setting stands: ("Row 2 (frozen): ", "'epochs'"), ("", "2nd of 'ratio'")."""
    place, parts = "", list(loc)
    if len(parts) > 1 and parts[0] == "rows" and isinstance(parts[1], int):
        row = settings["rows"][parts[1]]
        named = isinstance(row, Mapping) and (row.get("name") or row.get("regime"))
        place = f"Row {parts[1] + 1}{f' ({named})' if named else ''}: "
        parts = parts[2:] or ["rows"]
    keys = ".".join(str(part) for part in parts if isinstance(part, str))
    numbers = [part for part in parts if isinstance(part, int)]
    return place, f"{_ordinal(numbers[0] + 1)} of {keys!r}" if numbers else repr(keys)


def _ordinal(number: int) -> str:
    return str(number) + {1: "st", 2: "nd", 3: "rd"}.get(number, "th")
