"""The command for predictions of any origin: score."""

from pathlib import Path
from typing import Annotated

import typer

from headscope.cli import options as opt
from headscope.cli.app import app
from headscope.cli.show import show, show_json
from headscope.errors import InputError


@app.command()
def score(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.csv [FILE2.csv]",
            help="Predictions, one row per slice, scan or subject: CSV or TSV, of any program.",
        ),
    ],
    subject: Annotated[str | None, typer.Option(help="Column of the subjects.")] = None,
    session: Annotated[str | None, typer.Option(help="Column of the sessions.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the true classes.")] = None,
    subset: Annotated[
        str | None, typer.Option(help="Column that names train, val and test.")
    ] = None,
    predicted: Annotated[str | None, typer.Option(help="Column of the predicted classes.")] = None,
    probability: Annotated[
        str | None,
        typer.Option(
            help="Column of the positive class's probability or score, or one column per class by "
            "comma: COLUMN or CLASS=COLUMN."
        ),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="The class of which sensitivity is the recall.")
    ] = None,
    aggregate: Annotated[
        str, typer.Option(help="How rows make a subject: mean, logits or vote.")
    ] = "mean",
    as_json: opt.AsJson = False,
) -> None:
    """Score anyone's predictions by row and by subject; compare two of the same subjects.

    Columns with usual names are recognised (subject_id, y_true, split, y_pred, prob_AD …). Where
    subsets are named, the rows of the test are scored.

    Example: headscope score predictions.csv --label diagnosis --probability p_ad
    """
    options = {name: value for name, value in locals().items() if name not in ("files", "as_json")}
    from headscope.scoring.score import score as score_predictions

    if len(files) > 2:
        raise InputError(f"score takes one file or two to compare, not {len(files)}.")
    result = score_predictions(
        files[0],
        files[1] if len(files) == 2 else None,
        **options,
    )
    if as_json:
        show_json(result.as_dict())
        return
    show(result)
    if result.comparison is not None:
        show(*result.comparison.sentences)
