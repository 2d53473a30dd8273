"""Options that several commands share, and how their text is read."""

from pathlib import Path
from typing import Annotated, Any, Final

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
Subjects = Annotated[
    str | None,
    typer.Option(
        help="ids (default); inferred, from pixels; or a table of path and subject_id.",
    ),
]
Contrast = Annotated[
    str | None, typer.Option(help="Contrast in the names of the scans to take: t1, t1ce, flair.")
]
Limit = Annotated[
    int | None, typer.Option(help="Subjects per class, drawn for a first try (all).", min=1)
]
Covariates = Annotated[
    str | None,
    typer.Option(
        help="Columns that could explain the classes, by comma: Age,Sex,Site (those recognised)."
    ),
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
Count = Annotated[int | None, typer.Option(help="Mid-slices per scan (30).")]
Size = Annotated[int | None, typer.Option(help="Side of a slice in pixels (224).")]
Centre = Annotated[
    str | None,
    typer.Option(help="Centre of the slices: auto, volume, foreground, vertex:70mm."),
]
Spacing = Annotated[
    float | None, typer.Option(help="Distance of slices in mm (default: consecutive).")
]
Window = Annotated[
    str | None,
    typer.Option(help="LOW,HIGH: intensities that become black and white (CT: 0,80)."),
]
Workers = Annotated[int | None, typer.Option(help="Processes that slice (all cores).", min=1)]
Engine = Annotated[
    str | None,
    typer.Option(help="Where runs train: here (default), processes of this machine, or ray."),
]
Address = Annotated[
    str | None, typer.Option(help="The cluster of --engine ray: auto or HOST:PORT (this machine).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

COHORT: Final = (
    *("label", "classes", "threshold", "where", "subject_pattern", "subjects", "contrast"),
)
LISTS: Final = ("architectures", "regimes", "splits", "balance", "seeds", "covariates")


def given(options: dict[str, Any], *wanted: str) -> dict[str, Any]:
    """Return those of the `wanted` options that were given, lists and classes read from text."""
    values = {name: options[name] for name in wanted if options[name] is not None}
    for name in LISTS:
        if name in values:
            values[name] = names(values[name])
    if "window" in values:
        values["window"] = values["window"].split(",")
    if "classes" in values:
        values["classes"] = class_values(values["classes"])
    return values


def names(text: str) -> list[str]:
    """Read a list by comma."""
    return [part.strip() for part in text.split(",") if part.strip()]


def class_values(text: str) -> dict[str, list[str]]:
    """Read 'AD=Demented,NC=Nondemented'; 'AD=Demented|Converted' joins two values."""
    classes: dict[str, list[str]] = {}
    for part in text.split(","):
        name, equals, values = part.partition("=")
        if not equals or not name.strip() or not values.strip():
            alone = part.strip() if part.strip() and not equals else "AD"
            raise InputError(
                f"--classes takes NAME=VALUE by comma, as in AD=Demented,NC=Nondemented, "
                f"not {part!r}; a class that keeps its name is {alone}={alone}."
            )
        merged = [*classes.get(name.strip(), []), *(value.strip() for value in values.split("|"))]
        classes[name.strip()] = list(dict.fromkeys(merged))  # a=x,a=y joins x and y
    return classes
