"""Options that several commands share, and how their text is read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headscope.errors import InputError

Data = Annotated[Path, typer.Argument(help="A folder of scans, or a table of them.")]
Label = Annotated[
    str | None, typer.Option(help="Column of the table of participants that holds the class.")
]
Classes = Annotated[
    str | None,
    typer.Option(help="Classes and their values, in order: AD=Demented,NC=Nondemented."),
]
Threshold = Annotated[
    float | None, typer.Option(help="Cut a numeric --label column into two classes here.")
]
SubjectPattern = Annotated[
    str | None,
    typer.Option(help="Regular expression whose first group is the subject id in a file's path."),
]
Volume = Annotated[int | None, typer.Option(help="Which volume of 4-D files, from 0.")]
PseudonymKey = Annotated[
    Path | None,
    typer.Option(help="Key file (made if absent): ids become keyed hashes in all that is written."),
]
Strict = Annotated[
    bool | None, typer.Option("--strict", help="Stop at the first scan that cannot be used.")
]
Where = Annotated[str | None, typer.Option(help='Scans to keep: "Age > 60 and M/F == F".')]
Plane = Annotated[
    str | None, typer.Option(help="axial (default), coronal, sagittal, or all three.")
]
Count = Annotated[int | None, typer.Option(help="Mid-slices a scan (30).")]
Size = Annotated[int | None, typer.Option(help="Side of a slice in pixels (224).")]
Centre = Annotated[
    str | None,
    typer.Option(help="Where the slices lie: auto, volume, foreground, vertex:70mm."),
]
Spacing = Annotated[
    float | None, typer.Option(help="Slices so many mm apart (default: consecutive).")
]
Workers = Annotated[int | None, typer.Option(help="Processes that slice (all cores).", min=1)]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the rest keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def finding(
    label: str | None,
    classes: str | None,
    threshold: float | None,
    where: str | None,
    subject_pattern: str | None,
) -> dict[str, Any]:
    """Return the options by which scans and classes are found, as `find_cohort` takes them."""
    return {
        "label": label,
        "classes": class_values(classes),
        "threshold": threshold,
        "where": where,
        "subject_pattern": subject_pattern,
    }


def names(text: str | None) -> list[str] | None:
    """Read a list by comma."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def class_values(text: str | None) -> dict[str, list[str]] | None:
    """Read 'AD=Demented,NC=Nondemented'; 'AD=Demented|Converted' joins two values."""
    if text is None:
        return None
    classes: dict[str, list[str]] = {}
    for part in text.split(","):
        name, equals, values = part.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise InputError(
                f"--classes takes NAME=VALUE by comma, as in AD=Demented,NC=Nondemented; "
                f"{part!r} is not of that form."
            )
        classes[name.strip()] = [value.strip() for value in values.split("|")]
    return classes
