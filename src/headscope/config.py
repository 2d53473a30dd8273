"""The settings of an experiment: TOML in and out, each value checked with the valid ones named."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from headscope.errors import InputError
from headscope.files import write_text

SplitKind = Literal["subject", "slice"]
Device = Literal["auto", "cpu", "cuda"]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class Row(BaseModel):
    """One row of the table: a regime of an architecture, where it differs from the rest.

    What is left out is taken from the experiment's own settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    regime: str
    name: str | None = None
    architecture: str | None = None
    splits: tuple[SplitKind, ...] | None = None
    epochs: Positive | None = None
    learning_rate: Rate | None = None


class Config(BaseModel):
    """Every setting of an experiment; `headscope run --help` says what each does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    out: Path = Path("headscope-experiment")
    # cohort
    label: str | None = None
    classes: dict[str, tuple[str, ...]] | None = None
    threshold: float | None = None
    where: str | None = None
    subject_pattern: str | None = None
    pseudonymise: Path | None = None
    # slices
    plane: Literal["axial", "coronal", "sagittal", "all"] = "axial"
    count: Positive = 30
    size: Annotated[int, Field(ge=16, le=1024)] = 224
    centre: str = "auto"
    spacing_mm: Annotated[float, Field(gt=0, le=100)] | None = None
    volume: Annotated[int, Field(ge=0)] | None = None
    analyze_orientation: str = "LAS"
    strict: bool = False
    # splits
    splits: tuple[SplitKind, ...] = ("subject",)
    ratio: tuple[Positive, Positive, Positive] = (5, 2, 3)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    folds: Annotated[int, Field(ge=2)] | None = None
    balance: tuple[str, ...] = ()
    split_file: Path | None = None
    # networks
    architectures: tuple[str, ...] = ("tf_efficientnet_lite0",)
    weights: str = "pretrained"
    regimes: tuple[str, ...] = ("frozen", "finetune", "scratch")
    rows: tuple[Row, ...] = ()
    # training
    epochs: Positive = 20
    learning_rate: Rate = 0.001
    head_learning_rate: Rate = 1.0
    batch_size: Positive = 32
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    drop_every: Positive = 10
    drop_factor: Annotated[float, Field(gt=0, le=1)] = 0.9
    # machine
    device: Device = "auto"
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

    def to_toml(self) -> str:
        """Return the settings as TOML; those that are None are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def save(self, path: Path) -> None:
        """Write the settings as TOML."""
        write_text(path, self.to_toml())


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
        raise InputError(_sentence(error)) from None


def read_config(path: Path, changes: Mapping[str, Any]) -> Config:
    """Read settings from a TOML file; `changes` win over what stands there.

    Paths in the file are taken from the file's own folder.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}.") from None
    for key in ("data", "out", "split_file", "pseudonymise"):
        if isinstance(found.get(key), str):
            found[key] = path.parent / found[key]
    weights = found.get("weights")
    if isinstance(weights, str) and weights not in ("pretrained", "random"):
        found["weights"] = str(path.parent / weights)
    try:
        return make_config(**(found | dict(changes)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_change(text: str) -> tuple[str, Any]:
    """Read 'key=value' as of `--set`: the value is TOML, or else plain text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set takes key=value, not {text!r}.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    if isinstance(parsed, str) and "," in parsed:
        parsed = [part.strip() for part in parsed.split(",")]
    return key.strip(), _listed(key.strip(), parsed)


def _listed(key: str, value: Any) -> Any:
    """Let one value stand for a list of one, where the setting is a list."""
    field = Config.model_fields.get(key)
    plural = field is not None and "tuple" in str(field.annotation) and key != "classes"
    return [value] if plural and not isinstance(value, list | tuple) else value


def _sentence(error: ValidationError) -> str:
    """Say in one sentence what is wrong with the first bad setting."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        nested = first["loc"][0] == "rows" and len(first["loc"]) > 1
        valid = list(Row.model_fields if nested else Config.model_fields)
        close = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"Unknown setting {where!r}: {hint}Valid settings: {', '.join(valid)}."
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"The setting {where!r} is missing."
    return f"The setting {where!r} is {first['input']!r}: {message[0].lower()}{message[1:]}."
