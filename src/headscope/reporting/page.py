"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, figures/, report.html."""

from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis import (
    analyse_head,
    markdown_table,
    setting_results,
)
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.markers import marked_tables
from headscope.audit_record import changed_inputs, read_audit
from headscope.console import console, track
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.manifest import DAMAGE, reason_of
from headscope.record import find_runs, read_experiment, read_failures
from headscope.reporting.cautions import cautions, left_out_caution
from headscope.reporting.chapters.audit import audit_chapter
from headscope.reporting.chapters.calibration import calibration_chapter
from headscope.reporting.chapters.cohort import cohort_chapter
from headscope.reporting.chapters.layers import collapse_chapter, flattening_chapter, layers_chapter
from headscope.reporting.chapters.leakage import leakage_chapter
from headscope.reporting.chapters.logits import logits_chapter
from headscope.reporting.chapters.method import (
    cite_chapter,
    curves_chapter,
    freeze_chapter,
    read_environment,
    settings_chapter,
)
from headscope.reporting.chapters.results import results_chapter
from headscope.reporting.chapters.weights import weights_chapter
from headscope.reporting.render import Page, render_page
from headscope.reporting.verdict import verdict
from headscope.threads import one_blas_thread

LEDE: Final = (
    "Networks trained on MRI slices, side by side: what they reach on subjects they have never "
    "seen, where they put each slice, and which part of the pattern in their last weights is a "
    "finding at all."
)
SIMULATED: Final = Markup(
    "<b>The cohort is simulated.</b> Its scans were made by a computer from a template brain, with "
    "an atrophy put in on purpose. The numbers show how the tool works; they say nothing about "
    "subjects or disease."
)


@one_blas_thread
def write_report(experiment: Path | str) -> Path:
    """Write an experiment's tables, figures and page; return the path of `report.html`.

    What has changed since it was written is left out: the page and stderr name it.

    Raises
    ------
    InputError
        The folder is no experiment, or holds no finished run that is whole.

    Examples
    --------
    >>> print(hs.report("first"))
    first/report.html
    """
    experiment = Path(experiment)
    # 1. the finished runs, in the order of the table
    results = setting_results(read_experiment(experiment))
    runs = [run for result in results for run in result.runs]
    # 2. the tables, with what the audit of the slices found: one row per setting, one per run
    audit = read_audit(experiment)
    table, by_run = marked_tables(results, audit)
    write_table(experiment / "table.tsv", table)
    write_table(experiment / "runs.tsv", by_run)
    write_text(experiment / "table.md", markdown_table(table))
    # 3. the analyses that several chapters rest on
    heads = {
        run.name: analyse_head(run)
        for run in track(runs, "Analysing final layers", total=len(runs))
    }
    compared = compare_runs(runs)
    leakage = stored_leakage(experiment)
    changed = changed_inputs(experiment)
    for note in changed:
        console.print(note, soft_wrap=True)
    slices = None if changed else experiment / "slices"
    pixels = None if slices is None else _read_pixels(slices / "slices.npy")
    # 4. the chapters, and the figures in them
    figures = experiment / "figures"
    failures = read_failures(experiment)
    records = find_runs(experiment)
    makers = (
        lambda: cohort_chapter(runs, slices and slices / "slices.json"),
        lambda: results_chapter(
            table, results, failures, [*records.notes, *changed], compared, figures
        ),
        lambda: audit_chapter(audit, pixels),
        lambda: leakage_chapter(leakage, figures),
        lambda: logits_chapter(runs, heads, figures),
        lambda: weights_chapter(runs, heads, figures),
        lambda: flattening_chapter(runs, pixels, figures),
        lambda: collapse_chapter(runs, figures),
        lambda: layers_chapter(runs, figures),
        lambda: calibration_chapter(runs, figures),
        lambda: curves_chapter(runs, figures),
        lambda: freeze_chapter(runs),
    )
    drawn = (make() for make in track(makers, "Drawing figures", total=len(makers)))
    chapters = [chapter for chapter in drawn if chapter is not None]
    environment = read_environment(experiment / "environment.json")
    # 5. the page
    version = f" {environment['headscope']}" if "headscope" in environment else ""
    count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    page = Page(
        name=experiment.resolve().name,
        kicker="headscope report",
        title="What the final layer learned, and what its accuracy is worth",
        lede=LEDE,
        banner=SIMULATED if any(run.settings.get("simulated") for run in runs) else "",
        verdict=[
            *verdict(results, compared, leakage.gaps),
            *cautions(audit, runs),
            *left_out_caution(records.left_out, changed),
        ],
        chapters=[*chapters, settings_chapter(runs, environment, chapters), cite_chapter()],
        footer=f"Made by headscope{version} from the record of {count}. This page needs no network "
        "and no other file.",
    )
    write_text(experiment / "report.html", render_page(page))
    return experiment / "report.html"


def _read_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Map the pixels (N, H, W) of an experiment's slices, unless they were deleted to save room."""
    if not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason_of(error)}.") from None
