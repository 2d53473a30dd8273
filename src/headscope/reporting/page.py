"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, report.html."""

from pathlib import Path
from typing import Final

import numpy as np

from headscope.analysis import (
    analyse_head,
    markdown_table,
    results_table,
    setting_results,
    settings_table,
)
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.markers import mark_table
from headscope.audit_record import read_audit
from headscope.console import track
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.record import read_experiment, read_failures
from headscope.reporting.answer import answer
from headscope.reporting.blocks import Chapter
from headscope.reporting.cautions import cautions
from headscope.reporting.chapters.audit import audit_chapter
from headscope.reporting.chapters.calibration import calibration_chapter, ranking_chapter
from headscope.reporting.chapters.cohort import cohort_chapter
from headscope.reporting.chapters.layers import collapse_chapter, flattening_chapter, layers_chapter
from headscope.reporting.chapters.leakage import checks_chapter, leakage_chapter
from headscope.reporting.chapters.logits import logits_chapter
from headscope.reporting.chapters.method import (
    cite_chapter,
    curves_chapter,
    freeze_chapter,
    read_environment,
    settings_chapter,
)
from headscope.reporting.chapters.results import results_chapter, scores_chapter
from headscope.reporting.chapters.subjects import subjects_chapter
from headscope.reporting.chapters.weights import weights_chapter
from headscope.reporting.data import THUMBNAILS, PageData, page_data
from headscope.reporting.render import Page, render_page
from headscope.reporting.scatters import logit_panels, weight_panels
from headscope.reporting.verdict import verdict
from headscope.threads import one_blas_thread

LEDE: Final = (
    "Networks trained on MRI slices, side by side: what they reach on subjects they have never "
    "seen, where they put each slice, and which part of the pattern in their last weights is a "
    "finding at all."
)


@one_blas_thread
def write_report(experiment: Path | str, thumbnails: str | None = None) -> Path:
    """Write an experiment's tables and page; return the path of `report.html`.

    Parameters
    ----------
    experiment
        Its folder.
    thumbnails
        Which test slices the page holds as 64-pixel pictures: "test", "errors" or "none". By
        default all of the test, and none where subjects have pseudonyms.

    Raises
    ------
    InputError
        The folder is no experiment, or holds no finished run; or thumbnails are none of the three.

    Examples
    --------
    >>> print(hs.report("first"))
    first/report.html
    """
    experiment = Path(experiment)
    if thumbnails not in (None, *THUMBNAILS):
        raise InputError(f"Unknown thumbnails {thumbnails!r}: choose {', '.join(THUMBNAILS)}.")
    # 1. the finished runs, in the order of the table
    results = setting_results(read_experiment(experiment))
    runs = [run for result in results for run in result.runs]
    # 2. the tables, with what the audit of the slices found: one row per setting, one per run
    audit = read_audit(experiment)
    table = mark_table(
        settings_table(results), {result.key: result.runs for result in results}, audit
    )
    by_run = mark_table(results_table(runs), {run.name: [run] for run in runs}, audit)
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
    slices = experiment / "slices" / "slices.npy"  # (N, H, W), unless deleted to save room
    pixels = np.load(slices, mmap_mode="r", allow_pickle=False) if slices.is_file() else None
    if thumbnails is None:
        hidden = any(run.settings.get("pseudonymised") for run in runs)
        thumbnails = "none" if hidden else "test"
    # 4. the chapters
    failures = read_failures(experiment)
    makers = (
        lambda: results_chapter(table, results, failures),
        lambda: subjects_chapter(runs),
        lambda: Chapter("fig2", "Logits of the test slices", [logit_panels(runs)], short="Fig. 2"),
        lambda: Chapter(
            "fig3", "Weights of the final layer", [weight_panels(runs, heads)], short="Fig. 3"
        ),
        lambda: checks_chapter(results, leakage, audit),
        lambda: ranking_chapter(results),
        lambda: scores_chapter(results, compared),
        lambda: cohort_chapter(runs, slices.with_name("slices.json")),
        lambda: audit_chapter(audit, pixels),
        lambda: leakage_chapter(leakage),
        lambda: logits_chapter(runs),
        lambda: weights_chapter(runs, heads),
        lambda: flattening_chapter(runs, pixels),
        lambda: collapse_chapter(runs),
        lambda: layers_chapter(runs),
        lambda: calibration_chapter(runs),
        lambda: curves_chapter(runs),
        lambda: freeze_chapter(runs),
    )
    drawn = (make() for make in track(makers, "Drawing figures", total=len(makers)))
    chapters = [chapter for chapter in drawn if chapter is not None]
    data = page_data(runs, heads, pixels, thumbnails)
    environment = read_environment(experiment / "environment.json")
    # 5. the page
    version = f" {environment['headscope']}" if "headscope" in environment else ""
    count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    page = Page(
        name=experiment.resolve().name,
        kicker=f"headscope report · {count}",
        title="What the final layer learned, and what its accuracy is worth",
        lede=LEDE,
        verdict=[*verdict(results, compared, leakage.gaps), *cautions(audit, runs)],
        chapters=[*chapters, settings_chapter(runs, environment, chapters), cite_chapter()],
        answer=answer(results, leakage.gaps, audit, failures),
        data=data.values,
        footer=f"Made by headscope{version} from the record of {count}. This page needs no network "
        f"and no other file. {_shown(data)}",
    )
    write_text(experiment / "report.html", render_page(page))
    return experiment / "report.html"


def _shown(data: PageData) -> str:
    """Say how many slices of how many subjects the page holds."""
    if not data.thumbnails:
        return "It holds no slice as a picture."
    subjects = f" of {data.subjects} subjects" if data.subjects else ""
    return (
        f"It holds {data.thumbnails} test slices{subjects} as small pictures: share it as you "
        "would share scans (--thumbnails none leaves them out)."
    )
