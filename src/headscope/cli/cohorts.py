"""Commands about scans: inspect, slice, simulate, audit, fetch."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headscope.cli import options as opt
from headscope.cli.app import app
from headscope.cli.options import COHORT, given
from headscope.cli.show import show, show_json
from headscope.errors import InputError


@app.command()
def inspect(
    data: opt.Data,
    label: opt.Label = None,
    classes: opt.Classes = None,
    threshold: opt.Threshold = None,
    where: opt.Where = None,
    plane: opt.Plane = None,
    count: opt.Count = None,
    size: opt.Size = None,
    subject_pattern: opt.SubjectPattern = None,
    subjects: opt.Subjects = None,
    contrast: opt.Contrast = None,
    covariates: opt.Covariates = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show what a folder of scans holds: layout, subjects, classes, grids, problems, cost.

    Example: headscope inspect scans --label Sex
    """
    options = given(locals(), *COHORT, "covariates", "plane", "count", "size")
    from headscope.auditing.inspect import inspect_data

    inspection = inspect_data(data, **options)
    if as_json:
        show_json(inspection.as_dict())
    else:
        show(inspection)


@app.command(name="slice")
def slice_(
    data: opt.Data,
    out: Annotated[Path, typer.Argument(help="Folder to store the slices in.")],
    picture_format: Annotated[
        str,
        typer.Option("--format", help="store, or jpeg or png: OUT/AD/….jpg beside the store."),
    ] = "store",
    label: opt.Label = None,
    classes: opt.Classes = None,
    threshold: opt.Threshold = None,
    where: opt.Where = None,
    plane: opt.Plane = None,
    count: opt.Count = None,
    size: opt.Size = None,
    centre: opt.Centre = None,
    spacing_mm: opt.Spacing = None,
    volume: opt.Volume = None,
    window: opt.Window = None,
    analyze_orientation: Annotated[
        str | None, typer.Option(help="Orientation of files that store none (auto).")
    ] = None,
    subject_pattern: opt.SubjectPattern = None,
    subjects: opt.Subjects = None,
    contrast: opt.Contrast = None,
    pseudonym_key: opt.PseudonymKey = None,
    strict: opt.Strict = None,
    workers: opt.Workers = None,
) -> None:
    """Take the mid-slices of every scan and store them, as pictures in class folders if asked.

    When it was stopped, the same command continues.

    Example: headscope slice scans slices --plane coronal --format png
    """
    find = given(locals(), *COHORT)
    names = ("plane", "count", "size", "centre", "spacing_mm", "volume", "window")
    more = ("analyze_orientation", "pseudonym_key", "strict", "workers")
    options = given(locals(), *names, *more)
    from headscope.slicing.export import slice_data

    picture = None if picture_format == "store" else picture_format
    slices = slice_data(data, out, picture_format=picture, find=find, **options)
    for note in slices.notes:
        print(note)
    print(f"Slices: {len(slices.pixels)} in {out}")


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write the cohort in.")],
    subjects: Annotated[int, typer.Option(help="Number of subjects.", min=6)] = 80,
    seed: Annotated[int, typer.Option(help="Seed.", min=0)] = 0,
    scan_format: Annotated[
        str, typer.Option("--format", help="nifti, analyze, nifti2, mgh; or mixed: the first two.")
    ] = "mixed",
    spacing_mm: Annotated[float, typer.Option(help="Side of a voxel, 1 to 6 mm.")] = 2.0,
    effect: Annotated[
        float, typer.Option(help="Difference of the classes in severity; 0 for none.")
    ] = 2.2,
    repeat_share: Annotated[float, typer.Option(help="Share with several sessions.")] = 0.3,
    age_gap: Annotated[
        float, typer.Option(help="Years by which AD is older: a planted confounder.")
    ] = 0.0,
    age_effect: Annotated[float, typer.Option(help="Severity that ten years of age add.")] = 0.0,
    site_gap: Annotated[
        float, typer.Option(help="Share of AD at a second site, less that of NC, 0 to 1.")
    ] = 0.0,
    site_bias: Annotated[
        float, typer.Option(help="Strength of the bias field at the second site, 0 to 1.")
    ] = 0.0,
    workers: Annotated[int | None, typer.Option(help="Threads (all cores).")] = None,
) -> None:
    """Write a simulated cohort of T1 scans with known atrophy, truth beside it.

    Example: headscope simulate cohort --subjects 40
    """
    options = locals()
    from headscope.simulation.cohort import simulate_cohort

    print(f"Simulated cohort: {simulate_cohort(**options)}")


@app.command()
def audit(
    data: Annotated[Path, typer.Argument(help="Scans, an experiment, or stored slices.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page (the experiment, or headscope-audit)."),
    ] = None,
    label: opt.Label = None,
    classes: opt.Classes = None,
    threshold: opt.Threshold = None,
    where: opt.Where = None,
    subject_pattern: opt.SubjectPattern = None,
    subjects: opt.Subjects = None,
    contrast: opt.Contrast = None,
    plane: opt.Plane = None,
    count: Annotated[int, typer.Option(help="Slices per scan to compare.", min=1)] = 30,
    copy_threshold: Annotated[
        float, typer.Option(help="Least correlation of a copy, at 24 by 24 pixels.")
    ] = 0.98,
    permutations: Annotated[
        int,
        typer.Option(
            help="Permutations of the labels, of an experiment's frozen runs.", min=1, max=100_000
        ),
    ] = 200,
    pseudonym_key: opt.PseudonymKey = None,
    write_subjects: Annotated[
        Path | None,
        typer.Option(help="Write subjects inferred from pixels to this table, for --subjects."),
    ] = None,
    workers: opt.Workers = None,
    as_json: opt.AsJson = False,
) -> None:
    """Look for duplicates, subjects under two ids, leaks between subsets, and shortcuts.

    For an experiment with finished runs it also measures what their accuracy is worth: leak gap,
    permuted labels, re-identification and dose–response of leakage (leakage.json). Ends with exit
    code 3 where a finding is serious.

    Example: headscope audit scans --label Sex
    """
    names = ("plane", "count", "copy_threshold", "pseudonym_key", "write_subjects", "workers")
    options = given(locals(), *COHORT, *names)
    from headscope.analysis.leakage.stored import has_runs, stored_leakage
    from headscope.auditing.audit import audit as run_audit
    from headscope.cohort.pseudonyms import check_apart
    from headscope.reporting.chapters.audit import write_audit
    from headscope.tables import Table

    inside = data if (data / "experiment.toml").is_file() else Path("headscope-audit")
    page = (out or inside) / "audit.html"
    if pseudonym_key is not None:
        check_apart(pseudonym_key, page.parent)
    result = run_audit(data, **options)
    leakage = stored_leakage(data, permutations=permutations) if has_runs(data) else None
    write_audit(page, result)
    if as_json:
        facts = {"page": str(page)} | ({} if leakage is None else {"leakage": leakage.to_dict()})
        show_json(result.to_dict() | facts)
    else:
        show(result)
        if leakage is not None:
            rows = [(finding.check, finding.level, finding.text) for finding in leakage.findings]
            show(Table("Accuracy", ("Check", "Outcome", "Found"), rows, leakage.notes))
        print(f"Page: {page}")
        if write_subjects is not None:
            print(f"Subjects inferred from pixels: {write_subjects}; correct subject_id by hand.")
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
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms shown.")
    ] = False,
) -> None:
    """Fetch a public cohort through nilearn, once its terms are accepted.

    Example: headscope fetch oasis-vbm --out oasis
    """
    options = given(locals(), "subjects", "tissue", "data_dir")
    from headscope.simulation.oasis_vbm import OASIS_TERMS, fetch_oasis_vbm

    if name != "oasis-vbm":
        raise InputError(f"There is nothing to fetch of the name {name!r}: choose oasis-vbm.")
    print(OASIS_TERMS)
    if not accept_terms and sys.stdin.isatty():
        accept_terms = typer.confirm("Do you accept these terms?")
    cohort = fetch_oasis_vbm(out or name, accept_terms=accept_terms, **options)
    print(f"Cohort: {cohort}\nNext: headscope inspect {cohort}")
