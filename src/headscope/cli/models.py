"""The command that lists architectures: models."""

from typing import Annotated

import typer

from headscope.cli.app import app
from headscope.cli.options import AsJson
from headscope.cli.show import show, show_json

FEW = 12


@app.command()
def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a torchvision name or of timm/NAME; * and ? are wildcards."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List architectures, whose weights are on this machine, and how to get the others.

    Example: headscope models "timm/convnext*"
    """
    from headscope.models.listing import list_models
    from headscope.tables import Table

    listings = list_models(pattern)
    if as_json:
        show_json([listing.to_dict() for listing in listings])
        return
    rows = [
        (
            *(entry.name, entry.size, entry.classifier or "–", entry.features or "–"),
            "–" if entry.parameters is None else f"{entry.parameters / 1e6:.1f} M",
            *(entry.licence, listing.trained_on, "on this machine" if listing.file else "to get"),
        )
        for listing in listings
        for entry in [listing.architecture]
    ]
    heads = ("Architecture", "Side", "Classifier", "Features", "Parameters", "Licence",
             "Trained on", "Weights")  # fmt: skip
    show(Table("", heads, rows))
    absent = [listing for listing in listings if listing.file is None]
    for listing in absent[:FEW]:
        print(f"{listing.architecture.name}: {listing.get}")
    if len(absent) > FEW:
        print(f"… and {len(absent) - FEW} more: --json says how to get each.")
