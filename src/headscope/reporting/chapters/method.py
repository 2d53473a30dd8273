"""The last chapters: training curves, freeze certificate, settings, citation, for the paper."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, Final

from markupsafe import Markup

from headscope.analysis.results.table import full_table
from headscope.record import Run
from headscope.reporting.blocks import (
    Block,
    Box,
    Chapter,
    Download,
    Downloads,
    Fold,
    TableBlock,
    Text,
    facts_table,
    label_blocks,
    refer,
)
from headscope.reporting.chapters.runs import named, scan_notes, spread
from headscope.reporting.numbers import CONFIDENCE, say
from headscope.reporting.plots import Line, LinePlot
from headscope.supplement.methods import methods
from headscope.supplement.prose import CITATION, Facts, references
from headscope.supplement.recipes import OPTIMIZERS
from headscope.supplement.study import Study
from headscope.tables import Table
from headscope.text import significant

CURVES: Final = {"train": "training", "val": "validation"}
SHOWN_DIGITS: Final = 12  # of a SHA-256
PAPER: Final = {  # of the paper, by what stands for it here
    "table-results": "Table 2",
    "figure-flattening": "Fig. 1",
    "figure-fig2": "Fig. 2",
    "figure-fig3": "Fig. 3",
}


def curves_chapter(runs: Sequence[Run]) -> Chapter:
    """Draw loss and accuracy of each run over its epochs."""
    meaning = (
        "Training slice accuracy that rises to 100% while validation stays level shows slices "
        "that were memorised: of training batches as they came, of validation slices after the "
        "epoch. The table gives those of the network whose weights were kept. Losses are mean "
        "cross-entropy per slice."
    )
    last = max(float(run.history["epoch"].max()) for run in runs if len(run.history))
    curves = [_curve(run, last) for run in runs if len(run.history)]
    ends = (
        f"{name} {spread([run.score(subset, 'slice_accuracy') for run in runs], 'percent')}%"
        for subset, name in CURVES.items()
    )
    result = f"slice accuracy: {', '.join(ends)}"
    words = Text(meaning, *scan_notes(runs))
    return Chapter("curves", "Training curves", [words, Box("curves", curves)], result)


def _curve(run: Run, last: float) -> LinePlot:
    """Draw accuracies up to the last epoch; below, where the losses began and ended."""
    lines, losses = [], []
    for subset, name in CURVES.items():
        rows = run.history[["epoch", f"{subset}_slice_accuracy"]].dropna().to_numpy(float)
        lines.append(Line(name, [(x / last, y, nan, nan) for x, y in rows.tolist()]))
        ends = map(significant, run.history[f"{subset}_loss"].iloc[[0, -1]])
        losses.append(f"{name} loss {' → '.join(ends)}")
    title = f"{run.setting.title}, {run.setting.network}"
    return LinePlot(
        title, "epoch", "slice accuracy", lines, x_ends=(0.0, last), below="; ".join(losses)
    )


def freeze_chapter(runs: Sequence[Run]) -> Chapter:
    """Show the fingerprints of what each run froze, before and after training."""
    frozen = [run for run in runs if run.setting.freezes]
    blocks: list[Block] = [Text("No run here froze anything.")]
    if frozen:
        meaning = (
            "What a regime freezes must end as it began, every parameter and every buffer. Its "
            "fingerprint before and after training says whether it did: of everything outside the "
            "classifier, or of the stages that do not train."
        )
        caption = say(
            "SHA-256 of what each run froze, first {} digits; the whole is in "
            "<code>metrics.json</code>.",
            SHOWN_DIGITS,
        )
        columns = "Run", "Before", "After", "Covers", "Outcome"
        table = Table(caption, columns, list(map(_certificate, frozen)))
        blocks = [Text(meaning), TableBlock("freeze", table)]
    same = sum(bool(run.metrics["freeze_certificate"]["identical"]) for run in frozen)
    result = f"{same} of {len(frozen)} identical, to the bit" if frozen else "nothing was frozen"
    return Chapter("freeze", "Freeze certificate", blocks, result)


def _certificate(run: Run) -> list[object]:
    certificate, text = (
        run.metrics["freeze_certificate"],
        '<span class="hash" title="{}">{}…</span>',
    )
    digests = certificate["before"], certificate["after"]
    hashes = [say(text, digest, digest[:SHOWN_DIGITS]) for digest in digests]
    outcome = Markup('<span class="bad">changed: this run was not frozen</span>')
    if certificate["identical"]:
        outcome = Markup('<span class="good">identical, to the bit</span>')
    covers = certificate.get("covers", "everything outside the classifier")
    return [named(run), *hashes, covers, outcome]


def settings_chapter(
    runs: Sequence[Run], environment: Mapping[str, str], before: Sequence[Chapter]
) -> Chapter:
    """State how the runs trained, their settings and versions; `before` are the chapters so far."""
    used = dict.fromkeys(str(run.settings["optimizer"]) for run in runs)
    optimizers = [CITATION.sub("", OPTIMIZERS.get(name, name)) for name in used]
    references = label_blocks(before)[1]
    shown = [
        say("{} ({})", refer(name), title) for name, title in PAPER.items() if name in references
    ]
    blocks: list[Block] = [
        Text(
            say(
                "Figures and tables are numbered as they stand on this page. Those of the "
                "paper are rebuilt in {}.",
                Markup(", ").join(shown),
            ),
            say(
                "Each row trains by {} on the cross-entropy of slices (of scans, where "
                "<code>unit</code> is scan), as its settings say; its weights are those after "
                "the last epoch or, where <code>select</code> is best, of the lowest validation "
                "loss: nothing is chosen on test. Intervals at {} come from a bootstrap over the "
                "test subjects of each class. Every number above can be recomputed from "
                "<code>head.npz</code>, <code>features.npz</code> and "
                "<code>predictions.tsv</code> of its run.",
                *(" or ".join(optimizers), CONFIDENCE),
            ),
        ),
        *(_facts(run.name, run.settings) for run in runs),
    ]
    if environment:
        blocks.append(_facts("Versions and machine", environment))
    epochs = sorted({run.epochs for run in runs})
    result = f"{len(runs)} run{'s' if len(runs) > 1 else ''}, epochs {', '.join(map(str, epochs))}"
    return Chapter("settings", "Method and settings", blocks, result)


def _facts(summary: str, facts: Mapping[str, Any]) -> Fold:
    return Fold(summary, [facts_table({str(name): _plain(v) for name, v in facts.items()})])


def _plain(value: Any) -> str:
    """Return a setting as text: a mapping as its items, a list as its members."""
    if isinstance(value, Mapping):
        value = [f"{name} {part}" for name, part in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def cite_chapter() -> Chapter:
    """Name the paper whose figures are rebuilt."""
    paper = Markup(
        "Khagi, B., and Kwon, G.-R. (2022). Analysis of Weights and Feature Patterns in Popular 2D "
        "Deep Neural Networks Models for MRI Image Classification. <em>Journal of Multimedia "
        "Information System</em> 9(3), 177–182. doi:10.33851/JMIS.2022.9.3.177"
    )
    ask = "Name headscope with its version, and report scores over subjects with their intervals."
    blocks = [
        Text("The figures rebuild, and put beside their null model, those of"),
        Text(paper, style="quote"),
        Text(ask),
    ]
    return Chapter("cite", "How to cite", blocks, "Khagi and Kwon 2022, and headscope")


def paper_chapter(study: Study) -> Chapter:
    """Show the methods, and offer them and the tables that are written beside the page."""
    prose, table = methods(study, Facts()), full_table(study.table)
    words = {
        "methods.txt": prose.to_text(),
        "methods.md": prose.to_markdown(),
        "methods.tex": prose.to_latex(),
        "references.bib": references(prose.cited),
    }
    names = ("table.tsv", "table.md", "runs.tsv")
    tables = {name: (study.folder / name).read_text(encoding="utf-8") for name in names}
    tables["table.tex"] = table.to_latex() + "\n"
    rows = [
        (title, [Download(name, text) for name, text in texts.items()])
        for title, texts in (("Table 2", tables), ("Methods", words))
    ]
    below = (
        "headscope figures EXPERIMENT writes figures for print, Table 1, the flow diagram, "
        "checklists and a model card."
    )
    text = Text(*words["methods.txt"].strip().split("\n\n"), style="copied")
    blocks: list[Block] = [Downloads(rows, below), Fold("The methods in words", [text])]
    return Chapter("paper", "For the paper", blocks, short="Paper")
