"""Commands on experiments: demo, run, report, figures, verify, export, predict."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli import options as opt
from headscope.cli.app import app, loading
from headscope.cli.options import given
from headscope.cli.show import (
    conclude,
    conclude_run,
    run_some,
    show,
    show_estimate,
    show_json,
    show_list,
)
from headscope.errors import InputError, RunError

if TYPE_CHECKING:
    from headscope.experiment.config import Config


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
    print("The demo's cohort is simulated: no score in it says anything about real brains.")
    with loading():
        from headscope.experiment.demo import demo as run_demo

    conclude_run(lambda: run_demo(out, subjects=subjects, epochs=epochs, seed=seed), out)


@app.command()
def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Scans, or an experiment's TOML file; paper.toml is built in."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="The scans, where DATA is a TOML file without them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the experiment (headscope-experiment).")
    ] = None,
    label: opt.Label = None,
    classes: opt.Classes = None,
    threshold: opt.Threshold = None,
    where: opt.Where = None,
    plane: opt.Plane = None,
    count: opt.Count = None,
    size: opt.Size = None,
    centre: opt.Centre = None,
    spacing_mm: opt.Spacing = None,
    subject_pattern: opt.SubjectPattern = None,
    subjects: opt.Subjects = None,
    contrast: opt.Contrast = None,
    covariates: opt.Covariates = None,
    volume: opt.Volume = None,
    window: opt.Window = None,
    limit: opt.Limit = None,
    strict: opt.Strict = None,
    pseudonym_key: opt.PseudonymKey = None,
    architectures: Annotated[
        str | None,
        typer.Option(help="Networks, by comma: resnet101,timm/NAME (tf_efficientnet_lite0)."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="pretrained (default), random, FILE of weights, or FILE:NETWORK."),
    ] = None,
    regimes: Annotated[
        str | None, typer.Option(help="Regimes, by comma (frozen,finetune,scratch).")
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            help="subject (default); slice, as in the paper; given, by folders train, val, test; "
            "site, each left out once."
        ),
    ] = None,
    split_file: Annotated[
        Path | None, typer.Option(help="A split made elsewhere: subject_id and subset.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Folds, each tested once, by --splits.")] = None,
    balance: Annotated[
        str | None, typer.Option(help="Columns to balance between subsets, by comma: Age,Sex.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, by comma (0).")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs (20).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Initial rate (0.001).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Slices per batch (32).")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL[:PLACE]",
            help="Show epochs and runs in mlflow[:URI] or tensorboard[:FOLDER] too; repeatable.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.")] = None,
    engine: opt.Engine = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that slice (all cores), and that train with --engine processes.", min=1
        ),
    ] = None,
    address: opt.Address = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Runs to train, by comma or several times (all); without a report."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print the names of the runs only, one per line.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the --list as JSON.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as key=value.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs with their time and disk only.")
    ] = False,
) -> None:
    """Train the grid of networks, regimes, splits and seeds, and report on it.

    The same command continues where it was stopped and does nothing twice; several at once share
    the runs of an experiment. What is set here wins over a TOML file, in each of its rows too.

    Example: headscope run scans --architectures resnet101 --regimes frozen,finetune --out first
    """
    options = locals()
    from headscope.experiment.config import parse_change

    aside = {"source", "set_", "dry_run", "only", "list_", "as_json"}
    changes = given(options, *(options.keys() - aside))
    changes |= dict(parse_change(text) for text in set_ or [])
    config = _config(source, changes)
    chosen = None if only is None else opt.names(",".join(only))
    if list_ or as_json:
        show_list(config, chosen, as_json)
        return
    if dry_run:
        from headscope.experiment.estimate import estimate

        show_estimate(estimate(config, chosen), config.out)
        return
    with loading():
        from headscope.experiment.run import run as run_experiment

    if chosen is None:
        conclude_run(lambda: run_experiment(config), config.out)
        return
    print(run_some(config, chosen))


@app.command()
def report(
    experiments: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPERIMENT...", help="Folder of an experiment; several stand side by side."
        ),
    ],
    thumbnails: Annotated[
        str | None,
        typer.Option(
            metavar="test|errors|none",
            help="Test slices that the page holds as small pictures: all, those predicted "
            "wrongly, or none (the default under pseudonyms).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Page of several experiments (side-by-side.html); its table stands beside it."
        ),
    ] = None,
) -> None:
    """Write table and HTML page of an experiment again, from its records.

    Several experiments stand side by side on one page, their settings compared on the subjects that
    both tested.

    Example: headscope report headscope-demo --thumbnails errors
    """
    if len(experiments) == 1:
        if out is not None:
            page = experiments[0] / "report.html"
            raise InputError(f"--out {out} is for several experiments: the page of one is {page}.")
        conclude(experiments[0], thumbnails)
        return
    from headscope.reporting.side_by_side import write_side_by_side

    print(f"Report: {write_side_by_side(experiments, out or 'side-by-side.html')}")


@app.command()
def track(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
    to: Annotated[
        list[str],
        typer.Option(
            metavar="TOOL[:PLACE]",
            help="mlflow (EXPERIMENT/mlflow.db), mlflow:URI, tensorboard "
            "(EXPERIMENT/tensorboard) or tensorboard:FOLDER; repeatable.",
        ),
    ],
    thumbnails: Annotated[
        str | None,
        typer.Option(
            metavar="test|errors|none",
            help="Test slices that TensorBoard's projector holds as small pictures: all, those "
            "predicted wrongly, or none (the default under pseudonyms).",
        ),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Show the finished runs of an experiment in MLflow or TensorBoard, from their records.

    Writes nothing twice. 'headscope run --track TOOL' does the same after each epoch and run.

    Example: headscope track headscope-demo --to tensorboard
    """
    with loading():
        from headscope.tracking.track import track as track_experiment

    results = [track_experiment(experiment, target, thumbnails) for target in to]
    if as_json:
        show_json([asdict(result) for result in results])
        return
    for result in results:
        print(result)
        print(f"To look at them: {result.look}")


@app.command()
def figures(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of what is written (EXPERIMENT/paper).")
    ] = None,
) -> None:
    """Write what a paper needs: figures for print, tables, methods, checklists, a model card.

    Figures are PDF, SVG and PNG at 85 and 174 mm, each with its data as TSV.

    Example: headscope figures headscope-demo
    """
    with loading():
        from headscope.supplement.write import write_figures

    print(write_figures(experiment, out))


@app.command()
def verify(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
    as_json: opt.AsJson = False,
) -> None:
    """Check that an experiment is what was written, and compute its numbers again.

    Holds every file against its manifest, and scores, tables and certificates against the arrays
    that they come from. Needs neither scans nor training. Ends with exit code 1 where anything
    differs, with one line for each problem.

    Example: headscope verify headscope-demo
    """
    with loading():
        from headscope.verification.verify import verify as verify_experiment

    result = verify_experiment(experiment)
    if as_json:
        show_json(asdict(result) | {"whole": result.whole})
    else:
        for line in (*result.notes, *result.problems):
            print(line)
        verdict = "whole" if result.whole else f"{len(result.problems)} problems"
        runs = f"{result.runs} run{'s'[: result.runs != 1]}"
        print(f"{experiment}: {verdict} ({runs}, {result.files} files).")
    if not result.whole:
        raise typer.Exit(1)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run: EXPERIMENT/runs/NAME.")],
    out: Annotated[Path, typer.Argument(help="Folder; the record is OUT/runs/NAME.")],
) -> None:
    """Write a run as a record that stands alone, to be moved elsewhere.

    Runs of one experiment share what they have in common in its folder 'store'. The record that is
    written has all of it, each file held against its hash; predict, report and verify work on it.

    Example: headscope export headscope-demo/runs/NAME alone
    """
    from headscope.record import export_run

    print(export_run(run, out))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run: EXPERIMENT/runs/NAME.")],
    scans: Annotated[list[Path], typer.Argument(metavar="SCAN...", help="Scans, DICOM folders.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    volume: opt.Volume = None,
    out: Annotated[
        Path | None,
        typer.Option(help="FILE.tsv (one row per slice, with its scan's prediction) or FILE.json."),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures of the slices, their contribution maps over them."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Slice new scans as a run did, and print its network's prediction for each slice and scan.

    Needs the run's folder alone. Each SCAN is predicted alone; of a folder, every scan. A ready
    slice of another plane than the run's is refused, where its plane is known. Scans that fail are
    named at the end, with exit code 1; the others are predicted. Warns of scans that are unlike
    those of training, and of those that were among them.

    Example: headscope predict first/runs/resnet101-finetune-subject-seed0 new.nii.gz
    """
    with loading():
        from headscope.experiment.new_scans.prediction import check_format
        from headscope.experiment.predict import predict as predict_scans

    if out is not None:
        check_format(out)
    prediction = predict_scans(run, scans, device=device, volume=volume, maps=maps)
    if out is not None:
        prediction.save(out)
    if as_json:
        show_json(prediction.as_dict())
    elif out is None:
        show(prediction)
    else:
        print(f"Predictions: {out}")
    for warning in prediction.warnings if as_json or out is not None else ():
        print(warning, file=sys.stderr)  # else they are below the table
    if prediction.failures:
        for scan, reason in prediction.failures.items():
            print(f"{scan}: {reason}", file=sys.stderr)
        raise RunError(
            f"{len(prediction.failures)} of {len(prediction.failures) + len(prediction.scans)} "
            "scans could not be predicted; the others were."
        )


def _config(source: Path, changes: dict[str, Any]) -> "Config":
    """Return the settings: of a TOML file and the command line, or of the command line alone."""
    from headscope.experiment.config import find_config, make_config, read_config

    if source.suffix == ".toml":
        path = find_config(source)
        if path != source:
            print(f"{source}: the one that comes with headscope, {path}")
        return read_config(path, changes)
    if "data" in changes:
        raise InputError(
            f"The scans are named twice, {source} and --data {changes['data']}: give one of them."
        )
    return make_config(**({"data": source} | changes))
