"""The command for the ablation ladder: ablate."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli import options as opt
from headscope.cli.app import app
from headscope.cli.show import show, show_json

if TYPE_CHECKING:
    from headscope.analysis.explanations.ladder import Ladder


@app.command()
def ablate(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment with frozen runs.")],
    run: Annotated[
        list[str] | None,
        typer.Option(help="Name of a frozen run; several times for several (all)."),
    ] = None,
    architectures: Annotated[
        str | None, typer.Option(help="Networks whose frozen runs are taken, by comma (all).")
    ] = None,
    rungs: Annotated[
        str | None,
        typer.Option(help="Rungs, by comma: blurred,binary,silhouette,rim,no-brain,histogram."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: opt.Engine = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that train, with --engine processes.", min=1)
    ] = None,
    address: opt.Address = None,
    as_json: opt.AsJson = False,
) -> None:
    """Train frozen heads again on slices that keep less and less of the brain.

    Blurred, binarised, silhouettes, the rim, without the brain, the greys alone: the rung that
    reaches the accuracy of whole slices says what is being read. The same command continues where
    it was stopped; 'headscope report' shows the ladder.

    Example: headscope ablate first --rungs blurred,silhouette
    """
    options = locals()
    from headscope.experiment.ablate import ablate as ablate_experiment

    ladder = ablate_experiment(
        experiment,
        run,
        architectures=None if architectures is None else opt.names(architectures),
        rungs=None if rungs is None else opt.names(rungs),
        device=device,
        **opt.given(options, "engine", "workers", "address"),
    )
    if as_json:
        show_json(_plain(ladder))
    else:
        show(ladder)


def _plain(ladder: "Ladder") -> dict[str, Any]:
    from headscope.files import encode_nan

    settings = []
    for setting in ladder.settings:
        full = setting.full
        rungs = [asdict(rung) | {"beats_majority": rung.beats_majority} for rung in setting.rungs]
        settings.append(
            {
                "architecture": full.architecture,
                "name": full.name,
                "split": full.split,
                "rungs": rungs,
                "reached": setting.reached.name if setting.reached else None,
                "sentence": setting.sentence,
            }
        )
    return dict(encode_nan({"settings": settings, "notes": list(ladder.notes)}))
