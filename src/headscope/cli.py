"""The command line: parse, call, print. A command imports what is heavy only when it runs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.errors import InputError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from headscope.cohort.audit import Audit
    from headscope.config import Config

app = typer.Typer(
    name="headscope",
    help="What did the final layer learn, and should you believe its accuracy?",
    epilog="Begin with: headscope demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
Pseudonymise = Annotated[
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
Workers = Annotated[int | None, typer.Option(help="Processes that slice (all cores).")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the experiment.")] = Path("headscope-demo"),
    subjects: Annotated[int, typer.Option(help="Subjects to simulate.", min=6)] = 120,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every regime.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of cohort, split and networks.", min=0)] = 0,
) -> None:
    """Run the main job on a simulated cohort: no network, no GPU, no data; minutes.

    Example: headscope demo --out first-look
    """
    print("The demo's cohort is simulated: no figure in it says anything about real brains.")
    with _resumable():
        from headscope.demo import demo as run_demo

        experiment = run_demo(out, subjects=subjects, epochs=epochs, seed=seed)
    _conclude(experiment)


@app.command()
def run(
    data: Annotated[Path, typer.Argument(help="A folder of scans, or an experiment's TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the experiment.")] = None,
    label: Label = None,
    classes: Classes = None,
    threshold: Threshold = None,
    where: Where = None,
    plane: Plane = None,
    count: Count = None,
    size: Size = None,
    centre: Centre = None,
    spacing_mm: Spacing = None,
    subject_pattern: SubjectPattern = None,
    volume: Volume = None,
    strict: Strict = None,
    pseudonymise: Pseudonymise = None,
    architecture: Annotated[
        str | None, typer.Option(help="Networks, by comma: resnet101,googlenet,timm/NAME.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained (default), random, or a file of weights.")
    ] = None,
    regimes: Annotated[
        str | None, typer.Option(help="Regimes, by comma: frozen,finetune,scratch.")
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            "--splits",
            "--split",
            help="subject (default) and, as in the paper, slice; by comma. Or a split file.",
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Folds, each tested once, by --splits.")] = None,
    balance: Annotated[
        str | None, typer.Option(help="Columns to balance between subsets, by comma: Age,Sex.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, by comma (0).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs (20).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Initial rate (0.001).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Slices a batch (32).")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.")] = None,
    workers: Workers = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as key=value.")
    ] = None,
) -> None:
    """Train the grid of networks, regimes, splits and seeds, and report on it.

    The same command goes on where it was stopped and does nothing twice.

    Example: headscope run scans --architecture resnet101 --regimes frozen,finetune --out first
    """
    from headscope.config import make_config, parse_change, read_config

    changes: dict[str, Any] = {
        "out": out,
        "label": label,
        "classes": _classes(classes),
        "threshold": threshold,
        "where": where,
        "plane": plane,
        "count": count,
        "size": size,
        "centre": centre,
        "spacing_mm": spacing_mm,
        "subject_pattern": subject_pattern,
        "volume": volume,
        "strict": strict,
        "pseudonymise": pseudonymise,
        "architectures": _list(architecture),
        "weights": weights,
        "regimes": _list(regimes),
        **_splits(splits),
        "folds": folds,
        "balance": _list(balance),
        "seeds": _list(seeds),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "device": device,
        "workers": workers,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= dict(parse_change(text) for text in set_ or [])
    if data.suffix == ".toml":
        config = read_config(data, changes)
    else:
        config = make_config(data=data, **changes)
    _run(config)


@app.command()
def inspect(
    data: Data,
    label: Label = None,
    classes: Classes = None,
    threshold: Threshold = None,
    where: Where = None,
    plane: Plane = None,
    count: Count = None,
    size: Size = None,
    subject_pattern: SubjectPattern = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a folder of scans holds: layout, subjects, classes, grids, problems, cost.

    Example: headscope inspect scans --label Sex
    """
    from headscope.cohort.inspection import inspect_data

    found = inspect_data(
        data,
        label=label,
        classes=_classes(classes),
        threshold=threshold,
        where=where,
        subject_pattern=subject_pattern,
        **_given(plane=plane, count=count, size=size),
    )
    if json:
        from json import dumps

        print(dumps(found.as_dict(), indent=2))
        return
    print(f"{data}: {found.layout}")
    for note in found.notes:
        print(note)
    for table in (found.classes, found.grids, found.problems):
        if len(table):
            _print_table(table)
    print(found.cost)


@app.command(name="slice")
def slice_(
    data: Data,
    out: Annotated[Path, typer.Argument(help="Folder to store the slices in.")],
    picture_format: Annotated[
        str,
        typer.Option("--format", help="store, or jpeg or png: OUT/AD/….jpg beside the store."),
    ] = "store",
    label: Label = None,
    classes: Classes = None,
    threshold: Threshold = None,
    where: Where = None,
    plane: Plane = None,
    count: Count = None,
    size: Size = None,
    centre: Centre = None,
    spacing_mm: Spacing = None,
    volume: Annotated[int | None, typer.Option(help="Which volume of 4-D files, from 0.")] = None,
    analyze_orientation: Annotated[
        str | None, typer.Option(help="How files without orientation lie (LAS).")
    ] = None,
    subject_pattern: SubjectPattern = None,
    pseudonymise: Pseudonymise = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad scan.")] = False,
    workers: Workers = None,
) -> None:
    """Take the mid-slices of every scan and store them, as pictures in class folders if asked.

    Killed, the same command goes on where it stopped.

    Example: headscope slice scans slices --plane coronal --format png
    """
    with _resumable():
        from headscope.cohort.export import slice_data

        slices = slice_data(
            data,
            out,
            picture_format=None if picture_format == "store" else picture_format,
            find={
                "label": label,
                "classes": _classes(classes),
                "threshold": threshold,
                "where": where,
                "subject_pattern": subject_pattern,
            },
            pseudonymise=pseudonymise,
            strict=strict,
            **_given(
                plane=plane,
                count=count,
                size=size,
                centre=centre,
                spacing_mm=spacing_mm,
                volume=volume,
                analyze_orientation=analyze_orientation,
                workers=workers,
            ),
        )
    for note in slices.notes:
        print(note)
    print(f"Slices: {len(slices.pixels)} in {out}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the cohort in.")],
    subjects: Annotated[int, typer.Option(help="How many subjects.", min=6)] = 80,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    scan_format: Annotated[
        str, typer.Option("--format", help="nifti, analyze, nifti2, mgh; or mixed: the first two.")
    ] = "mixed",
    spacing_mm: Annotated[float, typer.Option(help="Side of a voxel, 1 to 6 mm.")] = 2.0,
    effect: Annotated[
        float, typer.Option(help="Difference of the classes in severity; 0 for none.")
    ] = 2.2,
    repeat_share: Annotated[float, typer.Option(help="Share with several sessions.")] = 0.3,
    workers: Annotated[int | None, typer.Option(help="Processes (all cores).")] = None,
) -> None:
    """Write a simulated cohort of T1 scans with known atrophy, truth beside it.

    Example: headscope simulate cohort --subjects 40
    """
    from headscope.cohort.simulate import simulate_cohort

    with _resumable():
        cohort = simulate_cohort(
            out,
            subjects=subjects,
            seed=seed,
            scan_format=scan_format,
            spacing_mm=spacing_mm,
            effect=effect,
            repeat_share=repeat_share,
            workers=workers,
        )
    print(f"Simulated cohort: {cohort}")


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Scans, an experiment, or stored slices.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page (the experiment, or headscope-audit)."),
    ] = None,
    label: Label = None,
    classes: Classes = None,
    threshold: Threshold = None,
    where: Where = None,
    subject_pattern: SubjectPattern = None,
    plane: Plane = None,
    count: Annotated[int, typer.Option(help="Slices a scan to compare.", min=1)] = 30,
    correlation: Annotated[
        float, typer.Option(help="Least correlation of a copy, at 24 by 24 pixels.")
    ] = 0.98,
    workers: Workers = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Look for duplicates, people under two ids, leaks between subsets, and shortcuts.

    Ends with exit code 3 where something serious is found.

    Example: headscope audit scans --label Sex
    """
    from headscope.cohort.audit import audit as run_audit
    from headscope.reporting.audit import write_audit

    options: dict[str, Any] = {
        "label": label,
        "classes": _classes(classes),
        "threshold": threshold,
        "where": where,
        "subject_pattern": subject_pattern,
    }
    with _resumable():
        result = run_audit(
            data,
            plane=plane or "axial",
            count=count,
            correlation=correlation,
            workers=workers,
            **options,
        )
    inside = data if (data / "experiment.toml").is_file() else Path("headscope-audit")
    page = (out or inside) / "audit.html"
    write_audit(page, result.to_dict(), [pair.pictures for pair in result.pairs])
    _print_audit(result, page, json_)
    if result.serious:
        raise typer.Exit(3)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="What to fetch: oasis-vbm.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the cohort (NAME).")] = None,
    subjects: Annotated[int | None, typer.Option(help="The first so many of 403.")] = None,
    tissue: Annotated[str, typer.Option(help="Maps of grey or white matter.")] = "grey",
    data_dir: Annotated[
        Path | None, typer.Option(help="Where nilearn keeps its data (NILEARN_DATA).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the terms shown.")] = False,
) -> None:
    """Fetch a public cohort through nilearn, once its terms are agreed to.

    Example: headscope fetch oasis-vbm --out oasis
    """
    from headscope.cohort.fetch import OASIS_TERMS, fetch_oasis_vbm

    if name != "oasis-vbm":
        raise InputError(f"There is nothing to fetch of the name {name!r}: choose oasis-vbm.")
    print(OASIS_TERMS)
    agreed = yes or (sys.stdin.isatty() and typer.confirm("Do you agree to these terms?"))
    cohort = fetch_oasis_vbm(
        out or Path(name), agreed=agreed, subjects=subjects, tissue=tissue, data_dir=data_dir
    )
    print(f"Cohort: {cohort}\nNext: headscope inspect {cohort}")


@app.command()
def report(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
) -> None:
    """Write table, figures and HTML page of an experiment anew from its records.

    Example: headscope report headscope-demo
    """
    _conclude(experiment)


def main() -> None:
    """Run the command line; a foreseen error is one sentence on stderr, never a traceback."""
    # OpenMP's threads spin while they wait: beside other work that costs far more than it saves
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of stdout has had enough, as in '| head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(config: "Config") -> None:
    with _resumable():
        from headscope.experiment import run as run_experiment

        experiment = run_experiment(config)
    _conclude(experiment)


@contextmanager
def _resumable() -> Iterator[None]:
    """Turn Ctrl-C into a promise: nothing is lost, and the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        raise typer.Exit(130) from None


def _conclude(experiment: Path) -> None:
    """Write the report; print its table and where it stands."""
    from headscope.analysis.table import results_table, short_table
    from headscope.record import read_experiment
    from headscope.reporting import write_report

    page = write_report(experiment)
    _print_table(short_table(results_table(read_experiment(experiment))))
    print(f"Report: {page}")


def _print_audit(result: "Audit", page: Path, as_json: bool) -> None:
    import json

    import pandas as pd

    if as_json:
        print(json.dumps(result.to_dict() | {"page": str(page)}, indent=2, allow_nan=False))
        return
    rows = [(each.check, each.level, each.text) for each in result.findings]
    _print_table(pd.DataFrame(rows, columns=["Check", "Outcome", "Found"]))
    for note in result.notes:
        print(note)
    print(f"Page: {page}")


def _print_table(table: "pd.DataFrame") -> None:
    """Print a table on stdout: in a terminal as wide as it is, in a pipe as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    for name in table.columns:
        numeric = table[name].map(lambda value: str(value)[:1].isdigit()).all()
        shown.add_column(str(name), justify="right" if numeric else "left")
    for row in table.itertuples(index=False):
        shown.add_row(*(str(value) for value in row))
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(shown)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; the rest keep their defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _splits(text: str | None) -> dict[str, Any]:
    """Read --splits: kinds by comma, or a file of a split made elsewhere."""
    if text is not None and text.lower().endswith((".tsv", ".csv")):
        return {"split_file": Path(text)}
    return {"splits": _list(text)}


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _classes(text: str | None) -> dict[str, list[str]] | None:
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
