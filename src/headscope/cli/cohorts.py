"""Commands about scans: inspect, slice, simulate, audit, fetch."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headscope.cli.app import app, resumable
from headscope.cli.options import (
    Centre,
    Classes,
    Count,
    Data,
    Label,
    Plane,
    Pseudonymise,
    Size,
    Spacing,
    Strict,
    SubjectPattern,
    Threshold,
    Volume,
    Where,
    Workers,
    finding,
    given,
)
from headscope.cli.show import print_audit, print_table
from headscope.errors import InputError


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
    from headscope.auditing.inspect import inspect_data

    found = inspect_data(
        data,
        **finding(label, classes, threshold, where, subject_pattern),
        **given(plane=plane, count=count, size=size),
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
            print_table(table)
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
    volume: Volume = None,
    analyze_orientation: Annotated[
        str | None, typer.Option(help="How files without orientation lie (LAS).")
    ] = None,
    subject_pattern: SubjectPattern = None,
    pseudonymise: Pseudonymise = None,
    strict: Strict = None,
    workers: Workers = None,
) -> None:
    """Take the mid-slices of every scan and store them, as pictures in class folders if asked.

    Killed, the same command goes on where it stopped.

    Example: headscope slice scans slices --plane coronal --format png
    """
    with resumable():
        from headscope.slicing.export import slice_data

        slices = slice_data(
            data,
            out,
            picture_format=None if picture_format == "store" else picture_format,
            find=finding(label, classes, threshold, where, subject_pattern),
            pseudonymise=pseudonymise,
            strict=bool(strict),
            **given(
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
    from headscope.simulation.cohort import simulate_cohort

    with resumable():
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
    permutations: Annotated[
        int, typer.Option(help="Permutations of the labels, of an experiment's frozen runs.", min=1)
    ] = 200,
    pseudonymise: Pseudonymise = None,
    workers: Workers = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Look for duplicates, people under two ids, leaks between subsets, and shortcuts.

    Of an experiment with finished runs, also what their accuracy is worth: leak gap, permuted
    labels, identity, dose of leakage (leakage.json). Ends with exit code 3 where something
    serious is found.

    Example: headscope audit scans --label Sex
    """
    from headscope.analysis.leakage.stored import has_runs, stored_leakage
    from headscope.auditing.audit import audit as run_audit
    from headscope.cohort.pseudonyms import check_apart
    from headscope.reporting.chapters.audit import write_audit

    inside = data if (data / "experiment.toml").is_file() else Path("headscope-audit")
    page = (out or inside) / "audit.html"
    if pseudonymise is not None:
        check_apart(pseudonymise, page.parent)
    with resumable():
        result = run_audit(
            data,
            plane=plane or "axial",
            count=count,
            correlation=correlation,
            workers=workers,
            pseudonymise=pseudonymise,
            **finding(label, classes, threshold, where, subject_pattern),
        )
        leakage = stored_leakage(data, permutations=permutations) if has_runs(data) else None
    write_audit(page, result)
    print_audit(result, page, json_, leakage)
    if result.serious or (leakage is not None and leakage.serious):
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
    from headscope.simulation.oasis_vbm import OASIS_TERMS, fetch_oasis_vbm

    if name != "oasis-vbm":
        raise InputError(f"There is nothing to fetch of the name {name!r}: choose oasis-vbm.")
    print(OASIS_TERMS)
    agreed = yes or (sys.stdin.isatty() and typer.confirm("Do you agree to these terms?"))
    cohort = fetch_oasis_vbm(
        out or Path(name), agreed=agreed, subjects=subjects, tissue=tissue, data_dir=data_dir
    )
    print(f"Cohort: {cohort}\nNext: headscope inspect {cohort}")
