"""Several experiments on one page: their settings in one table, tested on common subjects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os.path import relpath
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from headscope.analysis import settings_table
from headscope.analysis.results.comparisons import Comparisons, compare_runs
from headscope.analysis.results.markers import mark_table
from headscope.analysis.results.settings import SettingResult, setting_results
from headscope.audit_record import Audit, read_audit
from headscope.console import busy
from headscope.errors import InputError
from headscope.files import write_table, write_text
from headscope.record import Run, Setting, read_experiment
from headscope.reporting.answer import Answer, forest, setting_flags, simulated_flag
from headscope.reporting.chapters.calibration import ranking_chapter
from headscope.reporting.chapters.method import cite_chapter
from headscope.reporting.chapters.results import results_chapter, scores_chapter
from headscope.reporting.chapters.subjects import subjects_chapter
from headscope.reporting.explanations.provenance import provenance
from headscope.reporting.numbers import number, say
from headscope.reporting.render import Page, render_page
from headscope.threads import one_blas_thread

OF_RUNS: Final = Markup("<code>runs.tsv</code> of each experiment")


@dataclass(frozen=True)
class RunOf(Run):
    """A run whose setting names its experiment, so that equal settings stay apart."""

    experiment: str = ""

    @cached_property
    def setting(self) -> Setting:
        """The run's setting, its variant with the experiment's name behind it."""
        setting = Run(self.path).setting
        return replace(setting, variant=f"{setting.variant}, {self.experiment}")


@busy("Setting side by side")
@one_blas_thread
def write_side_by_side(experiments: Sequence[Path | str], out: Path | str) -> Path:
    """Write one page on several experiments, and a table beside it; return the page's path.

    Settings are compared where both tested the very same slices; whether they then differ is
    tested on their common subjects, as within an experiment.

    Parameters
    ----------
    experiments
        Two folders or more, of different names and of the same classes.
    out
        The page; the table gets its name with the ending .tsv.

    Raises
    ------
    InputError
        Fewer than two folders, two of one name, one that is no experiment, or other classes.

    Examples
    --------
    >>> print(hs.side_by_side(["first", "other"], "both.html"))
    both.html
    """
    folders, out = [Path(path) for path in experiments], Path(out)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(f"Side by side stand experiments of different names; got {names}.")
    if out.suffix.lower() == ".tsv":
        raise InputError(f"{out} is the name of the table beside the page: --out names the page.")
    runs = [
        RunOf(run.path, name)
        for folder, name in zip(folders, names, strict=True)
        for run in read_experiment(folder)
    ]
    classes = {tuple(run.class_names) for run in runs}
    if len(classes) > 1:
        listed = " and ".join(", ".join(map(str, one)) for one in sorted(classes))
        raise InputError(f"These experiments have different classes, {listed}.")
    results, compared = setting_results(runs), compare_runs(runs)
    runs = [run for result in results for run in result.runs]  # type: ignore[misc]
    audits = {folder: read_audit(folder) for folder in folders}
    table = _marked(settings_table(results), results, audits)
    beside = out.with_suffix(".tsv")
    chapters = [
        results_chapter(table, results, {}, [], (beside.name, OF_RUNS)),
        subjects_chapter(runs),
        ranking_chapter(results),
        scores_chapter(results, compared),
        cite_chapter(),
    ]
    page = Page(
        name=" and ".join(names),
        kicker=f"headscope report · {len(runs)} runs of {len(names)} experiments",
        title="Experiments side by side",
        lede="",
        verdict=[*map(Markup.escape, (*compared.sentences, *compared.notes))],
        chapters=[chapter for chapter in chapters if chapter is not None],
        footer="Made by headscope. This page needs no network and no other file.",
        answer=_answer(results, compared, names, _flags(results, audits, out)),
    )
    write_table(beside, table)
    write_text(out, render_page(page))
    return out


def _marked(
    table: pd.DataFrame, results: Sequence[SettingResult], audits: Mapping[Path, Audit | None]
) -> pd.DataFrame:
    """Return the table with what the audit of each experiment found, rows in their order."""
    parts = []
    for folder, audit in audits.items():
        here = [_is_of(result, folder) for result in results]
        runs = {result.key: result.runs for result in results if _is_of(result, folder)}
        parts.append(mark_table(table[here], runs, audit))
    return pd.concat(parts).sort_index()


def _is_of(result: SettingResult, folder: Path) -> bool:
    return result.runs[0].path.parent.parent == folder


def _flags(
    results: Sequence[SettingResult], audits: Mapping[Path, Audit | None], out: Path
) -> list[Markup]:
    """Return the flags of each experiment under its name, with links to its own page."""
    flags = []
    for folder, audit in audits.items():
        name = folder.resolve().name
        of = [result for result in results if _is_of(result, folder)]
        runs = [run for result in of for run in result.runs]
        page = quote(relpath(folder / "report.html", out.parent))
        said = (simulated_flag(runs), *provenance(runs), *setting_flags(of, audit))
        for flag in filter(None, said):
            linked = Markup(str(flag).replace('href="#', f'href="{page}#'))  # noqa: S704
            flags.append(say("{}: {}", name, linked))
    return flags


def _answer(
    results: Sequence[SettingResult],
    compared: Comparisons,
    names: Sequence[str],
    flags: Sequence[Markup],
) -> Answer:
    """Say how many pairs of settings from different experiments can be told apart."""

    def source(setting: str) -> str:
        return max((name for name in names if setting.endswith(f", {name}")), key=len)

    across = [row for row in compared.rows if source(row.first) != source(row.second)]
    if not across:
        headline = say("{}: no two settings were tested on the same slices.", " and ".join(names))
        below = "Their accuracies are of different subjects, and differences may be those of them."
        return Answer(headline, below, flags, forest(results))
    apart = [row for row in across if row.distinguishable]
    of_pairs = say(
        "{} of {} pairs of their settings can",
        number(len(apart), "all", "pairs_apart", "count") if apart else "none",
        number(len(across), "all", "pairs_across", "count"),
    )
    if len(across) == 1:
        of_pairs = say("their settings can" if apart else "their settings cannot")
    experiments = " and ".join(names)
    headline = say("{}: {} be told apart by subject accuracy.", experiments, of_pairs)
    fewest, most = (end([row.subjects for row in across]) for end in (min, max))
    subjects = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    below = f"Tested on their {subjects} common test subjects; p is corrected for all pairs."
    return Answer(headline, below, flags, forest(results))
