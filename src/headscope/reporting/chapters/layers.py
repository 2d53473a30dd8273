"""Chapters on maps, collapse and stages: what location gives, how far classes fell together."""

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis.representation.collapse import Collapse, analyse_collapse
from headscope.analysis.representation.location import (
    FlattenAnalysis,
    analyse_contributions,
    analyse_flattening,
)
from headscope.analysis.representation.stages import TransferAnalysis, analyse_transfer
from headscope.errors import InputError
from headscope.figures import plot_collapse, plot_flattening, plot_shuffle, plot_transfer
from headscope.record import Run
from headscope.reporting.numbers import number
from headscope.reporting.parts import (
    Cell,
    Chapter,
    Folded,
    Grid,
    Part,
    Plate,
    Words,
    attributes,
    by_network,
    first_of,
    named,
    stem,
    twin,
)
from headscope.reporting.pictures import drawn

COLLAPSE: Final = ("nc1", "nc2_equinorm", "nc2_simplex", "nc3", "nc3_centred", "nc4")


def flattening_chapter(
    runs: Sequence[Run], pixels: NDArray[np.uint8] | None, figures: Path
) -> Chapter | None:
    """Say what location in the last feature map gives the decision; None without any maps."""
    found: dict[str, FlattenAnalysis] = {}
    notes = []
    for run in runs:
        try:
            found[run.name] = analyse_flattening(run)
        except InputError as error:
            notes.append(str(error))
    if not found:
        return None
    known = [run for run in runs if run.name in found]
    parts: list[Part] = [
        Words(
            (
                "VGG and AlexNet flatten the last feature map, so their final layers read where in "
                "the slice something lies; ResNet and GoogLeNet average it away. Shuffling the "
                "positions says how much of the decision is location.",
            )
        )
    ]
    for network, group in by_network(known):
        results = {run.setting.title: found[run.name] for run in group}
        alt = f"Slice accuracy as it is and with the positions of the maps shuffled; {network}."
        figure = plot_shuffle(results, network=network)
        caption = Markup(
            "<b>Figure 1, shuffled.</b> {}: test slice accuracy as it is, with positions "
            "permuted, and of linear probes on pooled and unpooled maps."
        )
        parts.append(
            Plate(drawn(figure, stem(figures, "shuffle", network), alt), caption.format(network))
        )
    parts.append(_shuffles(known, found))
    for letter, run in zip(ascii_lowercase, first_of(known), strict=False):
        parts += _fig1(run, letter, pixels, figures)
    if notes:
        parts.append(Words(tuple(dict.fromkeys(notes)), listed=True))
    return Chapter("flattening", "What flattening loses", parts)


def _shuffles(runs: Sequence[Run], found: dict[str, FlattenAnalysis]) -> Grid:
    rows: list[list[Cell]] = []
    for run in runs:
        each = found[run.name]
        cells: list[Cell] = [named(run), "averaged" if each.averages else "flattened"]
        cells.append(number(each.slice_accuracy, run.name, "maps.slice_accuracy", "percent"))
        for k, shuffle in enumerate(each.shuffles):
            name = f"shuffle{k}"
            cells.append(number(100 * shuffle.drop, run.name, f"{name}.drop", "points"))
            cells.append(number(shuffle.largest_change, run.name, f"{name}.largest_change"))
        for k, probe in enumerate(each.probes):
            cells.append(number(probe.mean, run.name, f"probe{k}.mean", "percent"))
        rows.append(cells)
    return Grid(
        Markup(
            "<b>Table 9.</b> The spatial shuffle test on the test slices whose maps are recorded, "
            "one permutation for all or one per slice, and the same linear probe on pooled and on "
            "unpooled maps (ridge, folds by subject)."
        ),
        (
            ("Run", ""),
            ("Positions are", ""),
            ("Slice accuracy", "%"),
            ("Drop, one for all", "points"),
            ("Largest change of a logit", ""),
            ("Drop, one per slice", "points"),
            ("Largest change of a logit", ""),
            ("Probe, pooled", "%"),
            ("Probe, unpooled", "%"),
        ),
        rows,
        left=2,
    )


def _fig1(run: Run, letter: str, pixels: NDArray[np.uint8] | None, figures: Path) -> list[Part]:
    """Draw Fig. 1 for the recorded slice that the run is surest of, among those it gets right."""
    stored = run.maps
    rows = stored["slice"]
    logits, label = run.features["logits"][rows], run.features["label"][rows]
    margins = np.sort(logits, axis=1)
    sure = margins[:, -1] - margins[:, -2] + 1e6 * (logits.argmax(axis=1) == label)
    k = int(sure.argmax())
    order = np.argsort(logits[k])
    predicted, against = int(order[-1]), int(order[-2])
    if pixels is None or rows[k] >= len(pixels):
        return []
    positions, _, _ = analyse_contributions(run, (against, predicted))
    names = run.class_names
    figure = plot_flattening(
        pixels[rows[k]],
        stored["maps"][k],
        positions[k],
        names,
        predicted,
        against=against,
        title=run.setting.title,
    )
    alt = (
        f"{run.setting.title}: a slice, what each position adds to its decision, and its strongest "
        "channels."
    )
    caption = Markup(
        "<b>Figure 1{}.</b> {}: of the recorded test slices called {}, the one of the largest "
        "margin, called {}; what each position adds to its logit less that of {}; and the "
        "strongest channels of the last feature map."
    )
    how = "rightly" if predicted == label[k] else "wrongly, as all are"
    words = caption.format(letter, run.setting.title, how, names[predicted], names[against])
    picture = drawn(figure, figures / f"fig1-flattening-{run.name}", alt)
    return [Plate(picture, words)]


def collapse_chapter(runs: Sequence[Run], figures: Path) -> Chapter:
    """Measure how far each network has collapsed, on training and on held-out subjects."""
    found: dict[str, list[Collapse]] = {
        run.name: [analyse_collapse(run, subset) for subset in ("train", "test")] for run in runs
    }
    parts: list[Part] = [
        Words(
            (
                "Trained long, a network draws the features of a class onto its mean and its final "
                "layer onto those means. On training slices that follows from the training; "
                "whether "
                "held-out subjects collapse too says whether it means anything.",
            )
        )
    ]
    for network, group in by_network(runs):
        results = {run.setting.title: found[run.name] for run in group}
        alt = f"NC1 to NC4 of each run, on training and on test slices; {network}."
        picture = drawn(plot_collapse(results), stem(figures, "collapse", network), alt)
        caption = Markup(
            "<b>Figure 8.</b> {}: neural collapse on training and on test slices; lines mark "
            "full collapse."
        )
        parts.append(Plate(picture, caption.format(network)))
    rows: list[list[Cell]] = [
        [
            named(run),
            subset,
            *(number(getattr(each, name), run.name, f"{each.subset}.{name}") for name in COLLAPSE),
        ]
        for run in runs
        for subset, each in zip(("training", "test"), found[run.name], strict=True)
    ]
    grid = Grid(
        Markup(
            "<b>Table 10.</b> NC1 (variance within classes over between, 0 when collapsed), "
            "NC2 "
            "(class means of equal norm, and at the angles of a simplex; no angle is shown of "
            "two classes, where it is −1 whatever was learned), NC3 (weights against class "
            "means, 0 when dual) and NC4 (decisions for the nearest class mean, 1)."
        ),
        (
            ("Run", ""),
            ("Slices", ""),
            ("NC1", ""),
            ("NC2, norms", ""),
            ("NC2, angles", ""),
            ("NC3", ""),
            ("NC3, centred", ""),
            ("NC4", ""),
        ),
        rows,
        left=2,
    )
    parts.append(Folded("Collapse in numbers", [grid]))
    return Chapter("collapse", "Neural collapse", parts)


def layers_chapter(runs: Sequence[Run], figures: Path) -> Chapter | None:
    """Compare regimes stage by stage with the frozen network; None without kept stages."""
    found: dict[str, TransferAnalysis] = {}
    for run in runs:
        try:
            found[run.name] = analyse_transfer(run, twin(run, runs))
        except InputError:
            continue
    known = [run for run in runs if run.name in found and found[run.name].stages]
    if not known:
        return None
    parts: list[Part] = [
        Words(
            (
                "How far training moved each stage, and what each stage knows: likeness of its "
                "activations to the frozen network's (linear CKA), and how well the nearest "
                "neighbours of a test slice, among other people's training slices, name its class.",
            )
        )
    ]
    for network, group in by_network(first_of(known)):
        shown = [run for run in group if run.settings["split"] == group[0].settings["split"]]
        figure = plot_transfer(
            {run.setting.title: found[run.name] for run in shown}, network=network
        )
        alt = (
            "Likeness of each stage to the frozen network, and accuracy of nearest neighbours; "
            f"{network}."
        )
        caption = Markup(
            "<b>Figure 9.</b> {}: what each stage keeps of the frozen network, and what its "
            "nearest neighbours know of the class."
        )
        picture = drawn(figure, stem(figures, "stages", network), alt)
        parts.append(Plate(picture, caption.format(network)))
    columns = (
        ("cka", "fraction"),
        ("cka_debiased", "fraction"),
        ("weight_change", "significant"),
        ("knn_accuracy", "percent"),
        ("same_subject", "percent"),
    )
    rows: list[list[Cell]] = [
        [named(run), stage.stage, *attributes(stage, columns, run.name, f"stage.{stage.stage}")]
        for run in known
        for stage in found[run.name].stages
    ]
    grid = Grid(
        Markup(
            "<b>Table 11.</b> Each stage beside the frozen network's. Nearest neighbour's "
            "subject: how often the nearest other slice is of the same person."
        ),
        (
            ("Run", ""),
            ("Stage", ""),
            ("CKA", ""),
            ("CKA, debiased", ""),
            ("Change of weights", ""),
            ("Class by neighbours", "%"),
            ("Nearest is same person", "%"),
        ),
        rows,
        left=2,
    )
    parts.append(Folded("The stages in numbers", [grid]))
    return Chapter("layers", "Layer by layer", parts)
