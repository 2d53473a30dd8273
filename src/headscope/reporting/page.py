"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, report.html."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from headscope.analysis import (
    HeadAnalysis,
    analyse_head,
    markdown_table,
    setting_results,
)
from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.results.comparisons import Comparisons, compare_runs
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.results.settings import SettingResult
from headscope.analysis.stored import storing
from headscope.audit_record import Audit, changed_inputs, read_audit
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
    read_environment,
    settings_chapter,
)
from headscope.reporting.chapters.results import results_chapter, scores_chapter
from headscope.reporting.chapters.runs import first_of
from headscope.reporting.chapters.subjects import subjects_chapter
from headscope.reporting.chapters.weights import weights_chapter
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.explanations.gather import explain
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
        evidence = _read_evidence(experiment, pictures=thumbnails != "none")
        chapters = _make_chapters(evidence)
    runs, results, audit = evidence.runs, evidence.results, evidence.audit
    data = page_data(evidence.in_panels, evidence.heads, evidence.pixels, thumbnails)
    environment = read_environment(experiment / "environment.json")
    version = f" {environment['headscope']}" if "headscope" in environment else ""
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
            paper_chapter(read_study(experiment, [*results, *evidence.rivals])),
            settings_chapter(runs, environment, chapters),
            cite_chapter(),
        ],
        answer=first,
        data=page_sources([*results, *evidence.rivals], evidence.table.columns)
        | dict(data.content),
        footer=f"Made by headscope{version} from the record of {count}. This page needs no network "
        f"and no other file. {_shown(data)}",
    )
    write_text(experiment / "report.html", render_page(page))
    store_key(
        *(experiment, key),
        thumbnails=thumbnails,
        headline=Markup.escape(first.headline).striptags(),
        chapters={chapter.key: chapter.title for chapter in page.chapters},
    )
    return experiment / "report.html"


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What the chapters rest on; changed and notes say what of the record is not as it was.

    results and runs are of networks, rivals of what is none.
    """

    results: Sequence[SettingResult]
    rivals: Sequence[SettingResult]
    runs: Sequence[Run]
    table: pd.DataFrame
    audit: Audit | None
    heads: Mapping[str, HeadAnalysis]
    compared: Comparisons
    leakage: Leakage
    explained: Sequence[Explanation]
    failures: Mapping[str, str]
    left_out: Mapping[str, str]
    notes: Sequence[str]
    changed: Sequence[str]
    slices: Path | None
    pixels: NDArray[np.uint8] | None

    @property
    def in_panels(self) -> Sequence[Run]:
        """The runs that Fig. 2 and Fig. 3 show: all, or of very many those of one seed and fold."""
        return self.runs if len(self.runs) <= MOST_PANELS else first_of(self.runs)


def _read_evidence(experiment: Path, *, pictures: bool) -> _Evidence:
    """Read an experiment's finished runs, write its tables, and analyse what chapters share."""
    finished = read_experiment(experiment, rivals=True)
    everything = setting_results(finished)
    results = [result for result in everything if not result.is_rival]
    rivals = [result for result in everything if result.is_rival]
    runs = [run for result in results for run in result.runs]
    audit = read_audit(experiment)
    table, by_run = marked_tables(everything, audit)
    write_table(experiment / "table.tsv", table)
    write_table(experiment / "runs.tsv", by_run)
    write_text(experiment / "table.md", markdown_table(table))
    heads = {
        run.name: analyse_head(run)
        for run in track(runs, "Analysing final layers", total=len(runs))
    }
    compared = compare_runs(run for result in everything for run in result.runs)
    networks = [run for run in finished if not run.is_rival]
    failures, records = read_failures(experiment), find_runs(experiment)
    leakage = stored_leakage(experiment, runs=[*networks, *records.permuted])
    changed = changed_inputs(experiment)
    slices = None if changed else experiment / "slices"
    pixels = None if slices is None else _read_pixels(slices / "slices.npy")
    explained = explain(experiment, results, rivals, compared, pixels, pictures=pictures)
    for note in [*changed, *(note for part in explained for note in part.notes)]:
        console.print(note, soft_wrap=True)
    return _Evidence(
        results, rivals, runs, table, audit, heads, compared, leakage, explained, failures,
        records.left_out, records.notes, changed, slices, pixels,
    )  # fmt: skip


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


def _shown(data: PageData) -> str:
    """Say how many slices of how many subjects the page holds."""
    drawn, total = data.drawn
    some = (
        f" Fig. 2 draws {drawn:,} of {total:,} test slices, those of subjects drawn at random."
        if drawn < total
        else ""
    )
    if not data.thumbnails:
        return f"It holds no slice as a picture.{some}"
    subjects = f" of {data.subjects} subjects" if data.subjects else ""
    first = ", misclassified ones first," if data.thumbnails < drawn else ""
    return (
        f"It holds {data.thumbnails} test slices{subjects}{first} as small pictures: share it as "
        f"you would share scans (--thumbnails none leaves them out).{some}"
    )


def _read_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Map the pixels (N, H, W) of an experiment's slices, unless they were deleted to save room."""
    if not path.is_file():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged: {reason_of(error)}.") from None
