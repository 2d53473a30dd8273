"""The command for a final layer alone: head."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headscope.cli.app import app
from headscope.cli.options import AsJson, names
from headscope.cli.show import show, show_json
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
        typer.Argument(
            help="FILE of weights (safetensors or torch's), FILE:NETWORK where it holds several, "
            "head.npz or a run directory."
        ),
    ],
    layer: Annotated[
        str | None, typer.Option(help="Name of the final layer, as in fc (default: found).")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="The same network before training, for the null.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, by comma.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of class rows: 0-1,3-7 (all of 10 classes).")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help=".npz of features (N, D), label (N,), subject_id (N,), and subset."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for tables, figures (PNG, SVG) and JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Analyse the final layer of anyone's network, without its data.

    Nothing in the file is executed, and no tensor but the final layer's is read. Without
    --initial the null prediction takes the sum of the class rows as observed; with it an unknown
    weight decay is estimated. Whether two of several classes are related is tested for a frozen
    run only, whose head is trained again on permuted labels.

    Example: headscope head resnet50.pth --initial before.pth --classes NC,AD --out head
    """
    from headscope.console import busy
    from headscope.models.checkpoint import read_head
    from headscope.supplement.head import head_facts, write_head

    with busy("Analysing the layer"):
        layer_read = read_head(checkpoint, layer)
        class_names = names(classes) if classes else None
        analysis = _analyse(layer_read, layer, initial, class_names, _read_pairs(pairs))
        results, contributions = (
            _analyse_features(features, layer_read, analysis) if features else ((), ())
        )
    path = layer_read.path
    facts = {"file": str(path), "network": layer_read.network or None, "layer": layer_read.layer}
    facts["note"] = layer_read.note or None
    facts |= head_facts(analysis, results, contributions)
    title = path.stem if path.name != "head.npz" else path.parent.name
    with busy("Drawing figures"):
        written = write_head(analysis, facts, out, title) if out else []
    if as_json:
        show_json(facts)
        return
    show(f"{path}  layer {layer_read.layer}", *([layer_read.note] if layer_read.note else []))
    show(analysis)
    if results:
        from headscope.tables import Table

        rows = [(c.class_name, str(c.feature), c.contribution, c.weight) for c in contributions]
        columns = ("class", "feature", "contribution", "weight")
        show(Table("Features that carry the logits", columns, rows), *results)
    if written:
        print(f"Tables, figures and JSON: {out}")


def _analyse(
    layer_read: "Head",
    layer: str | None,
    initial: Path | None,
    classes: list[str] | None,
    pairs: list[tuple[int, int]] | None,
) -> "HeadAnalysis":
    from headscope.analysis.final_layer.layer import head_analysis, run_shrinkage
    from headscope.analysis.final_layer.relation import learned_null
    from headscope.models.checkpoint import read_head
    from headscope.record import Run

    shrinkage, learned, start = None, None, layer_read.initial_weight
    run = Run(layer_read.path.parent)
    if layer_read.path.name == "head.npz" and run.finished:
        shrinkage, learned = run_shrinkage(run), learned_null(run)
    if initial is not None:
        layer = layer or (None if layer_read.path.suffix == ".npz" else layer_read.layer)
        start, shrinkage = read_head(initial, layer).weight, None
    return head_analysis(
        layer_read.weight,
        layer_read.bias,
        start,
        class_names=classes or layer_read.class_names,
        pairs=pairs,
        shrinkage=shrinkage,
        learned=learned,
    )


def _analyse_features(
    path: Path, layer_read: "Head", head: "HeadAnalysis"
) -> "tuple[tuple[FeatureAnalysis, Collapse], tuple[LogitContribution, ...]]":
    """Analyse the features that the layer read: the test slices, where subsets are named."""
    from headscope.analysis.final_layer.contributions import logit_contributions
    from headscope.analysis.representation.collapse import collapse_analysis
    from headscope.analysis.representation.features import feature_analysis
    from headscope.models.checkpoint import read_arrays
    from headscope.record import Run

    run = Run(path.parent)  # which has features beside the file, or in a store
    of_run = path.name == "features.npz" and run.finished
    wanted = ("features", "label", "subject_id")
    arrays: dict[str, Any] = run.features if of_run else read_arrays(path, wanted)
    subset = ""
    if "subset" in arrays and (arrays["subset"] == "test").any():
        subset, tested = "test", arrays["subset"] == "test"
        arrays = {n: values[tested] for n, values in arrays.items() if len(values) == len(tested)}
    features, label = arrays["features"].astype("float64"), arrays["label"]
    weight, bias = layer_read.weight, layer_read.bias
    shared: dict[str, Any] = {"class_names": list(head.class_names)}
    contributions = logit_contributions(weight, features, label, most=5, **shared)
    logits = features @ weight.T + (0 if bias is None else bias)  # (N, K)
    shared |= {"title": path.name, "subset": subset}
    subjects, sessions = arrays["subject_id"], arrays.get("session_id")
    analysis = feature_analysis(features, logits, label, subjects, sessions, **shared)
    return (analysis, collapse_analysis(features, label, weight, bias, **shared)), contributions


def _read_pairs(text: str | None) -> list[tuple[int, int]] | None:
    if text is None:
        return None
    pairs = []
    for part in names(text):
        first, _, second = part.partition("-")
        if not (first.strip().isdigit() and second.strip().isdigit()):
            raise InputError(f"--pairs takes class rows as in 0-1,3-7, not {part!r}.")
        pairs.append((int(first), int(second)))
    if not pairs:
        raise InputError("--pairs names no pair; it takes class rows as in 0-1,3-7.")
    return pairs
