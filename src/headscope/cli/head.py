"""The command for a final layer alone: head."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli.app import app
from headscope.cli.options import names
from headscope.errors import InputError

if TYPE_CHECKING:
    from headscope.analysis import HeadAnalysis, LogitContribution
    from headscope.analysis.representation.collapse import Collapse
    from headscope.analysis.representation.features import FeatureAnalysis
    from headscope.models.checkpoint import Head


@app.command()
def head(
    checkpoint: Annotated[
        Path,
        typer.Argument(help=".safetensors, .pth, .pt, .ckpt, .bin, head.npz or a run directory."),
    ],
    layer: Annotated[
        str | None, typer.Option(help="Name of the final layer, as in fc (found if left out).")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="The same network before training, for the null.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, by comma.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of rows, by comma: 0-1,3-7 (all of 10 classes).")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help=".npz of features (N, D), label (N,), subject_id (N,), and subset."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables, figures (PNG, SVG) and JSON.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Analyse the final layer of anyone's network, without its data.

    Nothing in the file is executed, and no tensor but the final layer's is read. Without
    --initial the null prediction takes the sum of the rows as observed; with it an unknown weight
    decay is estimated. Whether two of several classes are related is judged for a frozen run
    alone, whose head is trained again on permuted labels.

    Example: headscope head resnet50.pth --initial before.pth --classes NC,AD --out head
    """
    import json as encoder

    from headscope.models.checkpoint import read_head
    from headscope.reporting.head import head_facts, write_head

    found = read_head(checkpoint, layer)
    analysis = _analyse(found, layer, initial, names(classes), _read_pairs(pairs))
    seen, carried = _look_at(features, found, analysis) if features else ((), ())
    facts = {"file": str(found.path), "layer": found.layer} | head_facts(analysis, seen, carried)
    title = found.path.stem if found.path.name != "head.npz" else found.path.parent.name
    written = write_head(analysis, facts, out, title) if out else []
    if json:
        print(encoder.dumps(facts, indent=2, allow_nan=False))
        return
    _print(found, analysis, seen, carried)
    if written:
        print(f"Tables, figures and JSON: {out}")


def _analyse(
    found: "Head",
    layer: str | None,
    initial: Path | None,
    classes: list[str] | None,
    pairs: list[tuple[int, int]] | None,
) -> "HeadAnalysis":
    from headscope.analysis.final_layer.layer import head_analysis, run_shrinkage
    from headscope.analysis.final_layer.relation import learned_null
    from headscope.models.checkpoint import read_head
    from headscope.record import Run

    shrinkage, learned, start = None, None, found.initial_weight
    run = Run(found.path.parent)
    if found.path.name == "head.npz" and run.finished:
        shrinkage, learned = run_shrinkage(run), learned_null(run)
    if initial is not None:
        layer = layer or (None if found.path.suffix == ".npz" else found.layer)
        start, shrinkage = read_head(initial, layer).weight, None
    named = classes or found.class_names
    return head_analysis(
        found.weight, found.bias, start,
        class_names=named, pairs=pairs, shrinkage=shrinkage, learned=learned,
    )  # fmt: skip


def _look_at(
    path: Path, found: "Head", head: "HeadAnalysis"
) -> "tuple[tuple[FeatureAnalysis, Collapse], tuple[LogitContribution, ...]]":
    """Analyse the features that the layer read: the test slices, where subsets are named."""
    from headscope.analysis.final_layer.layer import logit_contributions
    from headscope.analysis.representation.collapse import collapse_analysis
    from headscope.analysis.representation.features import feature_analysis
    from headscope.models.checkpoint import read_arrays

    arrays: dict[str, Any] = read_arrays(path, ("features", "label", "subject_id"))
    subset = ""
    if "subset" in arrays and (arrays["subset"] == "test").any():
        subset, kept = "test", arrays["subset"] == "test"
        rows = len(kept)
        arrays = {name: each[kept] for name, each in arrays.items() if len(each) == rows}
    read, label = arrays["features"].astype("float64"), arrays["label"]
    names = list(head.class_names)
    by_class = logit_contributions(found.weight, read, label, class_names=names, most=5)
    logits = read @ found.weight.T + (0 if found.bias is None else found.bias)  # (N, K)
    seen = feature_analysis(
        read, logits, label, arrays["subject_id"], arrays.get("session_id"),
        class_names=names, title=str(path.name), subset=subset,
    )  # fmt: skip
    collapsed = collapse_analysis(
        read, label, found.weight, found.bias, class_names=names, title=seen.title, subset=subset
    )
    return (seen, collapsed), by_class


def _print(
    found: "Head",
    head: "HeadAnalysis",
    seen: "tuple[FeatureAnalysis, Collapse] | tuple[()]",
    carried: "tuple[LogitContribution, ...]",
) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    console.print(Text.assemble((str(found.path), "bold"), f"  layer {found.layer}"))
    if found.note:
        console.print(Text(found.note))
    console.print(head)
    if seen:
        from headscope.tables import Table

        rows = [(c.class_name, str(c.feature), c.contribution, c.weight) for c in carried]
        columns = ("class", "feature", "contribution", "weight")
        console.print(Table("Features that carry the logits", columns, rows))
        console.print(*seen, sep="\n")


def _read_pairs(text: str | None) -> list[tuple[int, int]] | None:
    if text is None:
        return None
    pairs = []
    for part in names(text) or []:
        first, _, second = part.partition("-")
        if not (first.strip().isdigit() and second.strip().isdigit()):
            raise InputError(f"--pairs takes rows as in 0-1,3-7; {part!r} is not of that form.")
        pairs.append((int(first), int(second)))
    if not pairs:
        raise InputError("--pairs names no pair; it takes rows as in 0-1,3-7.")
    return pairs
