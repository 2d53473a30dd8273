"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis import analyse_head, markdown_table, setting_results
from headscope.analysis.explanations.cohorts import read_cohorts
from headscope.analysis.explanations.external import CohortResult, write_cohorts
from headscope.analysis.final_layer.layer import HeadAnalysis
from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import Comparisons, compare_runs
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.stored import storing
from headscope.audit_record import changed_inputs
from headscope.console import busy, console, track
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.manifest import DAMAGE, reason_of
from headscope.record import Records, Run, find_runs, read_experiment
from headscope.reporting.answer import answer
from headscope.reporting.blocks import Chapter
from headscope.reporting.cautions import cautions, left_out_caution, shared_heads
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
    paper_chapter,
    settings_chapter,
)
from headscope.reporting.chapters.results import results_chapter, scores_chapter
from headscope.reporting.chapters.runs import first_of
from headscope.reporting.chapters.subjects import subjects_chapter
from headscope.reporting.chapters.weights import weights_chapter
from headscope.reporting.explanations.cohorts import explain_by_cohorts
from headscope.reporting.explanations.confounders import explain_by_confounders
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.explanations.inferred import explain_by_inference
from headscope.reporting.explanations.ladder import explain_by_ladder
from headscope.reporting.explanations.provenance import explain_by_provenance
from headscope.reporting.explanations.rivals import explain_by_rivals
from headscope.reporting.numbers import page_sources
from headscope.reporting.render import Page, render_page
from headscope.reporting.scatters import (
    PageData,
    choose_thumbnails,
    logit_panels,
    page_data,
    weight_panels,
)
from headscope.reporting.stored import report_key, stands, store_key
from headscope.reporting.verdict import verdict
from headscope.supplement.study import Study, read_study
from headscope.threads import one_blas_thread

MOST_PANELS: Final = 12  # of Fig. 2 and of Fig. 3; of more runs those of the first seed and fold


@busy("Writing the report")
@one_blas_thread
def write_report(experiment: Path | str, thumbnails: str | None = None) -> Path:
    """Write an experiment's tables and page; return the path of `report.html`.

    What has changed since it was written is left out: the page and stderr name it. Where nothing
    changed since the last report (`report.json`), that one stands.

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
        The folder is no experiment, or holds no finished run that is whole; or thumbnails are none
        of the three.

    Examples
    --------
    >>> print(hs.report("first"))
    first/report.html
    """
    experiment = Path(experiment)
    thumbnails = choose_thumbnails(find_runs(experiment).runs, thumbnails)
    key = report_key(experiment, thumbnails)
    if stands(experiment, key):
        return experiment / "report.html"
    with storing(experiment):
        evidence = _gather_evidence(experiment, pictures=thumbnails != "none")
        write_table(experiment / "table.tsv", evidence.table)
        write_table(experiment / "runs.tsv", evidence.run_table)
        write_text(experiment / "table.md", markdown_table(evidence.table))
        write_cohorts(experiment, evidence.cohorts)
        notes = [note for part in evidence.explained for note in part.notes]
        for note in [*evidence.changed, *notes]:
            console.print(note, soft_wrap=True)
        chapters = _make_chapters(evidence)
    data = page_data(evidence.in_panels, evidence.heads, evidence.pixels, thumbnails)
    page = _make_page(evidence, chapters, data)
    write_text(experiment / "report.html", render_page(page))
    assert page.answer is not None
    headline = Markup.escape(page.answer.headline).striptags()
    titles = {chapter.key: chapter.title for chapter in page.chapters}
    store_key(experiment, key, thumbnails=thumbnails, headline=headline, chapters=titles)
    return experiment / "report.html"


@dataclass(frozen=True)
class _Evidence:
    """What the page rests on: the study, and what is analysed for several chapters."""

    study: Study
    records: Records
    changed: Sequence[str]  # sentences on slices and splits that are not as they were written
    slices: Path | None  # the slice store; None where it has changed
    pixels: NDArray[np.uint8] | None  # (N, H, W), while they are there
    table: pd.DataFrame  # one row per setting
    run_table: pd.DataFrame  # one row per run
    heads: Mapping[str, HeadAnalysis]  # by the name of the run
    compared: Comparisons
    leakage: Leakage
    cohorts: Sequence[CohortResult]  # from elsewhere
    explained: Sequence[Explanation]  # what else could explain what networks reach

    @property
    def in_panels(self) -> Sequence[Run]:
        """The runs that Fig. 2 and Fig. 3 show: all, or of very many those of one seed and fold."""
        runs = self.study.runs
        return runs if len(runs) <= MOST_PANELS else first_of(runs)


def _gather_evidence(experiment: Path, *, pictures: bool) -> _Evidence:
    """Read the record and analyse what chapters share; `pictures`: the ladder may show slices."""
    finished, records = read_experiment(experiment, rivals=True), find_runs(experiment)
    study = read_study(experiment, setting_results(finished))
    results, rivals, runs = study.results, study.rivals, study.runs
    table, run_table = marked_tables(study.everything, study.audit)
    analysed = track(runs, "Analysing final layers", total=len(runs))
    heads = {run.name: analyse_head(run) for run in analysed}
    compared = compare_runs(run for result in study.everything for run in result.runs)
    networks = [run for run in finished if not run.is_rival]
    changed = changed_inputs(experiment)
    slices = None if changed else experiment / "slices"
    pixels = None if slices is None else _read_pixels(slices / "slices.npy")
    cohorts, cohort_notes = read_cohorts(experiment)
    return _Evidence(
        study=study,
        records=records,
        changed=changed,
        slices=slices,
        pixels=pixels,
        table=table,
        run_table=run_table,
        heads=heads,
        compared=compared,
        leakage=stored_leakage(experiment, runs=[*networks, *records.permuted]),
        cohorts=cohorts,
        explained=(  # in the page's order
            explain_by_inference(results),
            explain_by_provenance(runs),
            explain_by_rivals(results, rivals, compared),
            explain_by_confounders(experiment, results),
            explain_by_cohorts(cohorts, cohort_notes, results, pixels),
            explain_by_ladder(experiment, pictures=pictures),
        ),
    )


def _make_chapters(evidence: _Evidence) -> list[Chapter]:
    """Make the chapters: the argument, what else could explain it, then what it stands on."""
    study, heads = evidence.study, evidence.heads
    results, runs, audit = study.results, study.runs, study.audit
    slices, pixels = evidence.slices, evidence.pixels
    changed = [*evidence.records.notes, *evidence.changed]
    shown = evidence.in_panels
    argument = (
        lambda: results_chapter(evidence.table, results, study.failures, changed),
        lambda: subjects_chapter(runs),
        lambda: Chapter("fig2", "Logits of the test slices", [logit_panels(shown)], short="Fig. 2"),
        lambda: Chapter(
            "fig3", "Weights of the final layer", [weight_panels(shown, heads)], short="Fig. 3"
        ),
        lambda: checks_chapter(results, evidence.leakage, audit),
        lambda: ranking_chapter(results),
        lambda: scores_chapter(study.everything, evidence.compared),
    )
    ground = (
        lambda: cohort_chapter(runs, slices and slices / "slices.json"),
        lambda: audit_chapter(audit, pixels),
        lambda: leakage_chapter(evidence.leakage),
        lambda: logits_chapter(runs),
        lambda: weights_chapter(runs, heads),
        lambda: flattening_chapter(runs, pixels),
        lambda: collapse_chapter(runs),
        lambda: layers_chapter(runs),
        lambda: calibration_chapter(runs),
        lambda: curves_chapter(runs),
        lambda: freeze_chapter(runs),
    )
    makers = [*argument, *ground]
    made = [make() for make in track(makers, "Drawing figures", total=len(makers))]
    made[len(argument) : len(argument)] = [part.chapter for part in evidence.explained]
    return [chapter for chapter in made if chapter is not None]


def _make_page(evidence: _Evidence, chapters: Sequence[Chapter], data: PageData) -> Page:
    """Set the chapters between answer and verdict and those that every report ends with."""
    study = evidence.study
    results, runs, audit = study.results, study.runs, study.audit
    gaps, explained = evidence.leakage.gaps, evidence.explained
    version = f" {study.versions['headscope']}" if "headscope" in study.versions else ""
    count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    left_out = left_out_caution(evidence.records.left_out, evidence.changed)
    return Page(
        name=study.name,
        kicker=f"headscope report · {count}",
        title="What the final layer learned, and what its accuracy is worth",
        lede="",
        verdict=[
            *verdict(results, evidence.compared, gaps, shared_heads(audit, runs)),
            *(said for part in explained for said in part.sentences),
            *cautions(audit, runs),
            *left_out,
        ],
        chapters=[
            *chapters,
            paper_chapter(study),
            settings_chapter(runs, study.versions, chapters),
            cite_chapter(),
        ],
        answer=answer(
            *(results, gaps, audit, study.failures, left_out),
            rivals=study.rivals,
            explained=explained,
        ),
        data=page_sources(study.everything, evidence.table.columns) | dict(data.content),
        footer=f"Made by headscope{version} from the record of {count}. This page needs no network "
        f"and no other file. {data.words}",
    )


def _read_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Map the pixels (N, H, W) of an experiment's slices, unless they were deleted to save room."""
    if not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason_of(error)}.") from None
