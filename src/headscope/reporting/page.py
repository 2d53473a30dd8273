"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, report.html."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis import analyse_head, markdown_table, setting_results
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.stored import storing
from headscope.audit_record import changed_inputs, read_audit
from headscope.console import busy, console, track
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.manifest import DAMAGE, reason_of
from headscope.record import Run, find_runs, read_experiment, read_failures
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
from headscope.reporting.explanations.inferred import explain_by_inference
from headscope.reporting.explanations.ladder import explain_by_ladder
from headscope.reporting.explanations.provenance import explain_by_provenance
from headscope.reporting.explanations.rivals import explain_by_rivals
from headscope.reporting.numbers import page_sources
from headscope.reporting.render import Page, render_page
from headscope.reporting.scatters import choose_thumbnails, logit_panels, page_data, weight_panels
from headscope.reporting.stored import report_key, stands, store_key
from headscope.reporting.verdict import verdict
from headscope.supplement.study import read_study
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
        evidence = _Evidence(experiment, pictures=thumbnails != "none")
        chapters = _make_chapters(evidence)
    runs, results, audit = evidence.runs, evidence.results, evidence.audit
    data = page_data(evidence.in_panels, evidence.heads, evidence.pixels, thumbnails)
    study = read_study(experiment, [*results, *evidence.rivals])
    version = f" {study.versions['headscope']}" if "headscope" in study.versions else ""
    count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}"
    left_out = left_out_caution(evidence.left_out, evidence.changed)
    first = answer(
        *(results, evidence.leakage.gaps, audit, evidence.failures, left_out),
        rivals=evidence.rivals,
        explained=evidence.explained,
    )
    page = Page(
        name=experiment.resolve().name,
        kicker=f"headscope report · {count}",
        title="What the final layer learned, and what its accuracy is worth",
        lede="",
        verdict=[
            *verdict(results, evidence.compared, evidence.leakage.gaps, shared_heads(audit, runs)),
            *(said for part in evidence.explained for said in part.sentences),
            *cautions(audit, runs),
            *left_out,
        ],
        chapters=[
            *chapters,
            paper_chapter(study),
            settings_chapter(runs, study.versions, chapters),
            cite_chapter(),
        ],
        answer=first,
        data=page_sources([*results, *evidence.rivals], evidence.table.columns)
        | dict(data.content),
        footer=f"Made by headscope{version} from the record of {count}. This page needs no network "
        f"and no other file. {data.words}",
    )
    write_text(experiment / "report.html", render_page(page))
    headline = Markup.escape(first.headline).striptags()
    titles = {chapter.key: chapter.title for chapter in page.chapters}
    store_key(experiment, key, thumbnails=thumbnails, headline=headline, chapters=titles)
    return experiment / "report.html"


class _Evidence:
    """An experiment's finished runs and what the page rests on; its tables are written.

    results and runs are of networks, rivals of what is none; changed and notes say what of the
    record is not as it was.
    """

    def __init__(self, experiment: Path, *, pictures: bool) -> None:
        """Read the runs, write the tables, and analyse what chapters share."""
        finished = read_experiment(experiment, rivals=True)
        everything = setting_results(finished)
        self.results = [result for result in everything if not result.is_rival]
        self.rivals = [result for result in everything if result.is_rival]
        self.runs = [run for result in self.results for run in result.runs]
        self.audit = read_audit(experiment)
        self.table, by_run = marked_tables(everything, self.audit)
        write_table(experiment / "table.tsv", self.table)
        write_table(experiment / "runs.tsv", by_run)
        write_text(experiment / "table.md", markdown_table(self.table))
        analysed = track(self.runs, "Analysing final layers", total=len(self.runs))
        self.heads = {run.name: analyse_head(run) for run in analysed}
        self.compared = compare_runs(run for result in everything for run in result.runs)
        networks = [run for run in finished if not run.is_rival]
        self.failures, records = read_failures(experiment), find_runs(experiment)
        self.left_out, self.notes = records.left_out, records.notes
        self.leakage = stored_leakage(experiment, runs=[*networks, *records.permuted])
        self.changed = changed_inputs(experiment)
        self.slices = None if self.changed else experiment / "slices"
        self.pixels = None if self.slices is None else _read_pixels(self.slices / "slices.npy")
        self.explained = (  # what else could explain what networks reach, in the page's order
            explain_by_inference(self.results),
            explain_by_provenance(self.runs),
            explain_by_rivals(self.results, self.rivals, self.compared),
            explain_by_confounders(experiment, self.results),
            explain_by_cohorts(experiment, self.results, self.pixels),
            explain_by_ladder(experiment, pictures=pictures),
        )
        for note in [*self.changed, *(note for part in self.explained for note in part.notes)]:
            console.print(note, soft_wrap=True)

    @property
    def in_panels(self) -> Sequence[Run]:
        """The runs that Fig. 2 and Fig. 3 show: all, or of very many those of one seed and fold."""
        return self.runs if len(self.runs) <= MOST_PANELS else first_of(self.runs)


def _make_chapters(evidence: _Evidence) -> list[Chapter]:
    """Make the chapters: the argument, what else could explain it, then what it stands on."""
    runs, results, heads = evidence.runs, evidence.results, evidence.heads
    slices, pixels, audit = evidence.slices, evidence.pixels, evidence.audit
    changed = [*evidence.notes, *evidence.changed]
    shown = evidence.in_panels
    argument = (
        lambda: results_chapter(evidence.table, results, evidence.failures, changed),
        lambda: subjects_chapter(runs),
        lambda: Chapter("fig2", "Logits of the test slices", [logit_panels(shown)], short="Fig. 2"),
        lambda: Chapter(
            "fig3", "Weights of the final layer", [weight_panels(shown, heads)], short="Fig. 3"
        ),
        lambda: checks_chapter(results, evidence.leakage, audit),
        lambda: ranking_chapter(results),
        lambda: scores_chapter([*results, *evidence.rivals], evidence.compared),
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


def _read_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Map the pixels (N, H, W) of an experiment's slices, unless they were deleted to save room."""
    if not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason_of(error)}.") from None
