"""The command for a cohort from elsewhere: evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli import options as opt
from headscope.cli.app import app, loading
from headscope.cli.options import given
from headscope.cli.show import show, show_json


@app.command()
def evaluate(
    trained: Annotated[
        Path, typer.Argument(metavar="RUN|EXPERIMENT", help="An experiment, or one of its runs.")
    ],
    data: opt.Data,
    out: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name: EXPERIMENT/evaluations/NAME (that of DATA)."),
    ] = None,
    label: opt.Label = None,
    classes: opt.Classes = None,
    threshold: opt.Threshold = None,
    where: opt.Where = None,
    subject_pattern: opt.SubjectPattern = None,
    contrast: opt.Contrast = None,
    volume: opt.Volume = None,
    pseudonym_key: opt.PseudonymKey = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: opt.Workers = None,
    strict: opt.Strict = None,
    as_json: opt.AsJson = False,
) -> None:
    """Score a labelled cohort from elsewhere: scores, drop, calibration, heads in both.

    The cohort is sliced as the experiment sliced its own. The same command continues where it was
    stopped. Classes must have the names of the run's; --classes gives them their values.

    Example: headscope evaluate first elsewhere --classes AD=Demented,NC=Nondemented
    """
    options = given(locals(), *(locals().keys() - {"trained", "data", "as_json"}))
    with loading():
        from headscope.experiment.new_scans.evaluate import evaluate as evaluate_cohort

    result = evaluate_cohort(trained, data, **options)
    if as_json:
        show_json(result.as_dict())
        return
    show(result)
    print(f"Evaluation: {result.path}\nNext: headscope report {result.path.parent.parent}")
