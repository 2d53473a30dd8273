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
Plane = Annotated[str | None, typer.Option(help="axial (default), coronal or sagittal.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the experiment.")] = Path("headscope-demo"),
    subjects: Annotated[int, typer.Option(help="Subjects to simulate.", min=6)] = 80,
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
    plane: Plane = None,
    count: Annotated[int | None, typer.Option(help="Mid-slices a scan (30).")] = None,
    size: Annotated[int | None, typer.Option(help="Side of a slice in pixels (224).")] = None,
    centre: Annotated[
        str | None,
        typer.Option(help="Where the slices lie: auto, volume, foreground, vertex:70mm."),
    ] = None,
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
        str | None, typer.Option(help="subject (default) and, as in the paper, slice; by comma.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, by comma (0).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs (20).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Initial rate (0.001).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Slices a batch (32).")] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that slice (all cores).")] = None,
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
        "plane": plane,
        "count": count,
        "size": size,
        "centre": centre,
        "architectures": _list(architecture),
        "weights": weights,
        "regimes": _list(regimes),
        "splits": _list(splits),
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
    plane: Plane = None,
) -> None:
    """Say what a folder of scans holds: layout, subjects, sessions, classes.

    Example: headscope inspect scans --label Sex
    """
    from headscope.cohort.layouts import find_cohort

    cohort = find_cohort(
        data, label=label, classes=_classes(classes), threshold=threshold, plane=plane or "axial"
    )
    print(f"{data}: {cohort.layout}")
    for note in cohort.notes:
        print(note)
    counts = cohort.scans.groupby("label").agg(
        subjects=("subject_id", "nunique"), scans=("path", "size")
    )
    _print_table(counts.loc[cohort.class_names].reset_index())


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the cohort in.")],
    subjects: Annotated[int, typer.Option(help="How many subjects.", min=6)] = 80,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
) -> None:
    """Write a simulated cohort of T1 scans with known atrophy, truth beside it.

    Example: headscope simulate cohort --subjects 40
    """
    from headscope.cohort.simulate import simulate_cohort

    with _resumable():
        cohort = simulate_cohort(out, subjects=subjects, seed=seed)
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
    plane: Plane = None,
    count: Annotated[int, typer.Option(help="Slices a scan to compare.", min=1)] = 30,
    correlation: Annotated[
        float, typer.Option(help="Least correlation of a copy, at 24 by 24 pixels.")
    ] = 0.98,
    workers: Annotated[int | None, typer.Option(help="Processes that slice (all cores).")] = None,
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
