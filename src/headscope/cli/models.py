"""The command that lists architectures: models."""

from typing import TYPE_CHECKING, Annotated

import typer

from headscope.cli.app import app
from headscope.cli.show import print_table

if TYPE_CHECKING:
    from headscope.models.listing import Listing

FEW = 12


@app.command()
def models(
    pattern: Annotated[
        str | None,
        typer.Argument(help="Part of a torchvision name or of timm/NAME; * and ? are wildcards."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List architectures, whose weights are on this machine, and how to get the others.

    Example: headscope models "timm/convnext*"
    """
    import json

    from headscope.models.listing import list_models

    found = list_models(pattern)
    if as_json:
        print(json.dumps([each.to_dict() for each in found], indent=2))
        return
    _print(found)


def _print(found: "list[Listing]") -> None:
    import pandas as pd

    rows = [
        {
            "Architecture": each.architecture.name,
            "Side": each.architecture.size,
            "Classifier": each.architecture.classifier or "–",
            "Features": each.architecture.features or "–",
            "Parameters": _millions(each.architecture.parameters),
            "Licence": each.architecture.licence,
            "Weights": "on this machine" if each.file else "to get",
        }
        for each in found
    ]
    print_table(pd.DataFrame(rows))
    absent = [each for each in found if each.file is None]
    for each in absent[:FEW]:
        print(f"{each.architecture.name}: {each.get}")
    if len(absent) > FEW:
        print(f"… and {len(absent) - FEW} more: --json says how to get each.")


def _millions(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.1f} M"
