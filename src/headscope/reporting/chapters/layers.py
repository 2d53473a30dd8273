"""Chapters on maps, collapse and stages: what location gives, how far classes fell together."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite, nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from headscope.analysis.parallel import at_once
from headscope.analysis.representation.collapse import Collapse, analyse_collapse
from headscope.analysis.representation.location import (
    FlattenAnalysis,
    analyse_contributions,
    analyse_flattening,
)
from headscope.analysis.representation.stages import TransferAnalysis, analyse_transfer
from headscope.record import Run
from headscope.reporting.blocks import Block, Box, Chapter, Fold, TableBlock, Text, cells_of
from headscope.reporting.chapters.runs import (
    analyse_each,
    first_of,
    group_by,
    mark,
    named,
    scan_notes,
    spread,
    twin,
)
from headscope.reporting.pictures import flattened
from headscope.reporting.plots import DotRow, Dots, FigureBlock, Line, LinePlot
from headscope.tables import Cell, Column, Table

SUBSETS: Final = {"train": "training", "test": "test"}
COLLAPSE: Final = {
    "nc1": Column("NC1", "", "significant"),
    "nc2_equinorm": Column("NC2, norms", "", "significant"),
    "nc2_simplex": Column("NC2, angles", "", "significant"),
    "nc3": Column("NC3", "", "significant"),
    "nc3_centred": Column("NC3, centred", "", "significant"),
    "nc4": Column("NC4", "", "significant"),
}
STAGE: Final = {
    "cka": Column("CKA", "", "fraction"),
    "cka_debiased": Column("CKA, debiased", "", "fraction"),
    "weight_change": Column("Change of weights", "", "significant"),
    "knn_accuracy": Column("Class by neighbours", "%", "percent"),
    "same_subject": Column("Nearest is same subject", "%", "percent"),
}
SHUFFLED: Final = (
    *("as it is", "one permutation for all slices", "one permutation per slice"),
    *("probe of pooled maps", "probe of unpooled maps"),
)
MOST_LINES: Final = 6  # of a plot that can be told apart
SHUFFLE: Final = (
    *("Run", "Positions are"),
    Column("Slice accuracy", "%", "percent"),
    Column("Drop, one for all", "points", "points"),
    Column("Largest change of a logit", "", "significant"),
    Column("Drop, one per slice", "points", "points"),
    Column("Largest change of a logit", "", "significant"),
    Column("Probe, pooled", "%", "percent"),
    Column("Probe, unpooled", "%", "percent"),
)


def flattening_chapter(runs: Sequence[Run], pixels: NDArray[np.uint8] | None) -> Chapter | None:
    """Say what location in the last feature map gives the decision; None without any maps."""
    results, reasons = analyse_each(runs, analyse_flattening)
    if not results:
        return None
    mapped = [run for run in runs if run.name in results]
    meaning = (
        "VGG and AlexNet flatten the last feature map, so their final layers read where in the "
        "slice something is; ResNet and GoogLeNet average it away. Shuffling the positions says "
        "how much of the decision is location."
    )
    first = first_of(mapped)
    slices = [] if pixels is None else [_surest_slice(run, pixels) for run in first]
    blocks: list[Block] = [
        *(Text(meaning), _shuffled(first, results), _shuffles(mapped, results)),
        *(figure for figure in slices if figure is not None),
        reasons,
    ]
    drops = [100 * results[run.name].shuffles[0].drop for run in mapped]
    result = f"shuffling positions costs {spread(drops, 'points')} points of slice accuracy"
    return Chapter("flattening", "What flattening loses", blocks, result)


def _shuffled(runs: Sequence[Run], results: Mapping[str, FlattenAnalysis]) -> Dots:
    """Draw slice accuracy as it is, with positions permuted, and probed."""
    rows = []
    for run in runs:
        result = results[run.name]
        values = [[result.slice_accuracy]]
        values += [shuffle.slice_accuracy.tolist() for shuffle in result.shuffles]
        values += [probe.slice_accuracy.tolist() for probe in result.probes]
        marks = [mark(part, k) for k, part in enumerate(values)]
        rows.append(DotRow(run.setting.network, run.setting.title, marks))
    caption = "Test slice accuracy with the positions of the maps permuted, bars over repeats."
    return Dots(rows, caption, kinds=SHUFFLED, key="shuffle")


def _shuffles(runs: Sequence[Run], results: Mapping[str, FlattenAnalysis]) -> TableBlock:
    rows: list[list[object]] = []
    for run in runs:
        result = results[run.name]
        values = {"maps.slice_accuracy": result.slice_accuracy}
        for k, shuffle in enumerate(result.shuffles):
            values[f"shuffle{k}.drop"] = 100 * shuffle.drop
            values[f"shuffle{k}.largest_change"] = shuffle.largest_change
        values |= {f"probe{k}.mean": probe.mean for k, probe in enumerate(result.probes)}
        cells = [Cell(value, run=run.name, quantity=name) for name, value in values.items()]
        rows.append([named(run), "averaged" if result.averages else "flattened", *cells])
    caption = (
        "The spatial shuffle test on the test slices whose maps are recorded, one permutation for "
        "all or one per slice, and the same linear probe on pooled and on unpooled maps (ridge, "
        "folds by subject)."
    )
    return TableBlock("shuffle", Table(caption, SHUFFLE, rows))


def _surest_slice(run: Run, pixels: NDArray[np.uint8]) -> FigureBlock | None:
    """Draw Fig. 1 for the recorded slice of the largest margin, among the correct ones if any."""
    stored = run.maps
    rows = stored["slice"]
    logits, label = run.features["logits"][rows], run.features["label"][rows]
    second, first = np.sort(logits, axis=1)[:, -2:].T
    correct = logits.argmax(axis=1) == label
    k = max(range(len(rows)), key=lambda n: (correct[n], first[n] - second[n]))
    against, predicted = (int(row) for row in np.argsort(logits[k])[-2:])
    if rows[k] >= len(pixels):
        return None
    # the plane of a scan's slice tells left and right; the sides of a picture cannot be known
    of_scans = run.settings.get("slicing", {}).get("of") == "scans"
    plane = str(run.predictions["plane"].iloc[int(rows[k])]) if of_scans else None
    positions, _, _ = analyse_contributions(run, (against, predicted))
    names, title = run.class_names, run.setting.title
    alt = f"{title}: a slice, what each position adds to its decision, and its strongest channels."
    which = "correctly predicted test slices" if correct[k] else "test slices, all misclassified"
    channels, pictures = flattened(pixels[rows[k]], stored["maps"][k], positions[k], alt, plane)
    caption = (
        f"{title}: of the recorded {which}, the one of the largest margin, predicted "
        f"{names[predicted]}; what each position adds to its logit less that of {names[against]} "
        "(orange: more, blue: less); and the strongest channels of the last feature map, the "
        f"darker the stronger: {', '.join(map(str, channels))}."
    )
    return FigureBlock("flattening", pictures, caption)


def collapse_chapter(runs: Sequence[Run]) -> Chapter:
    """Measure how far each network has collapsed, on training and on held-out subjects."""

    def analysed(run: Run) -> dict[str, Collapse]:
        return {subset: analyse_collapse(run, subset) for subset in SUBSETS}

    results = dict(zip([run.name for run in runs], at_once(analysed, runs), strict=True))
    meaning = (
        "Trained long, a network draws the features of a class onto its mean and its final layer "
        "onto those means. On training slices that follows from the training; whether held-out "
        "subjects collapse too says whether it means anything."
    )
    drawn = [_measured(name, first_of(runs), results) for name in COLLAPSE]
    rows = [
        [named(run), SUBSETS[subset], *cells_of(result, COLLAPSE, run.name, subset)]
        for run in runs
        for subset, result in results[run.name].items()
    ]
    caption = (
        "NC1 (variance within classes over between, 0 when collapsed), NC2 (class means of equal "
        "norm, and at the angles of a simplex; no angle is shown of two classes, where it is −1 "
        "whatever was learned), NC3 (weights against class means, 0 when dual) and NC4 (decisions "
        "for the nearest class mean, 1)."
    )
    table = Table(caption, ("Run", "Slices", *COLLAPSE.values()), rows)
    fold = Fold("Collapse in numbers", [TableBlock("collapse", table)])
    within = {name: [results[run.name][name].nc1 for run in runs] for name in SUBSETS}
    result = "NC1 " + ", ".join(
        f"{spread(values, 'significant')} in {SUBSETS[name]}" for name, values in within.items()
    )
    dots = [block for block in drawn if block is not None]
    blocks: list[Block] = [Text(meaning, *scan_notes(runs)), *dots, fold]
    return Chapter("collapse", "Neural collapse", blocks, result)


def _measured(
    name: str, runs: Sequence[Run], results: Mapping[str, Mapping[str, Collapse]]
) -> Dots | None:
    """Draw one measure of collapse on training and test slices; None where it is undefined."""
    rows = [
        DotRow(run.setting.network, run.setting.title,
               [mark([getattr(results[run.name][subset], name)], k, 1.0)
                for k, subset in enumerate(SUBSETS)])
        for run in runs
    ]  # fmt: skip
    values = [dot.value for row in rows for dot in row.marks if isfinite(dot.value)]
    if not values:
        return None
    limit = float(name == "nc4")
    low, high = min(*values, limit), max(*values, limit)
    log = not limit and min(values) > 0 and max(values) / min(values) > 30
    if log:
        low, high = min(values) / 1.3, max(values) * 1.3
    pad = 0.0 if log else 0.04 * (high - low) or 0.5
    caption = f"{COLLAPSE[name].name}; {limit:.0f} is full collapse."
    kinds = [f"{title} slices" for title in SUBSETS.values()]
    return Dots(rows, caption, low - pad, high + pad, unit="", kinds=kinds, log=log, key="collapse")


def layers_chapter(runs: Sequence[Run]) -> Chapter | None:
    """Compare regimes stage by stage with the frozen network; None without recorded stages."""
    results, reasons = analyse_each(runs, lambda run: analyse_transfer(run, twin(run, runs)))
    staged = [run for run in runs if run.name in results and results[run.name].stages]
    if not staged:
        return None
    meaning = (
        "How far training moved each stage, and what each stage knows: likeness of its activations "
        "to the frozen network's (linear CKA), and how well the nearest neighbours of a test "
        "slice, among other subjects' training slices, name its class."
    )
    networks = group_by(first_of(staged), lambda run: run.setting.architecture)
    plots = [plot for network in networks for plot in _staged(*network, results)]
    rows = [
        [named(run), stage.stage, *cells_of(stage, STAGE, run.name, f"stage.{stage.stage}")]
        for run in staged
        for stage in results[run.name].stages
    ]
    caption = (
        "Each stage beside the frozen network's. Nearest is same subject: how often the nearest "
        "other slice is of the same subject."
    )
    table = Table(caption, ("Run", "Stage", *STAGE.values()), rows)
    fold = Fold("The stages in numbers", [TableBlock("stages", table)])
    likeness = [stage.cka for run in staged for stage in results[run.name].stages]
    result = f"likeness to the frozen network {spread(likeness, 'fraction')} (CKA)"
    blocks: list[Block] = [Text(meaning), Box("curves", plots), fold, reasons]
    return Chapter("layers", "Layer by layer", blocks, result)


def _staged(
    network: str, runs: Sequence[Run], results: Mapping[str, TransferAnalysis]
) -> Iterator[LinePlot]:
    """Draw each quantity of the stages, one line per run under the first split."""
    shown = [run for run in runs if run.setting.split == runs[0].setting.split][:MOST_LINES]
    stages = list(dict.fromkeys(stage.stage for run in shown for stage in results[run.name].stages))
    for name, column in STAGE.items():
        values = {
            run.setting.title: [getattr(stage, name) for stage in results[run.name].stages]
            for run in shown
        }
        every = [value for part in values.values() for value in part if isfinite(value)]
        if not every:
            continue
        share = column.format != "significant"  # between 0 and 1
        high = 1.0 if share else max(every) or 1.0
        steps = max(len(stages) - 1, 1)
        lines = [
            Line(title, [(k / steps, value / high, nan, nan) for k, value in enumerate(part)
                         if isfinite(value)])
            for title, part in values.items()
        ]  # fmt: skip
        yield LinePlot(f"{column.name}, {network}", "", column.name, lines,
                       y_end=100.0 if share else high, names=stages)  # fmt: skip
