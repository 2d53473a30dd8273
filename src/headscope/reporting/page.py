"""`write_report`: an experiment's runs → table.tsv, runs.tsv, table.md, figures/, report.html."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis import (
    HeadAnalysis,
    LogitScatter,
    PairAnalysis,
    analyse_head,
    cohort_table,
    logit_scatter,
    markdown_table,
    regime_text,
    results_table,
    setting_results,
    settings_table,
    shared_subjects,
)
from headscope.analysis.leakage.analysis import Leakage
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.representation.features import FeatureAnalysis
from headscope.analysis.results.comparisons import compare_runs
from headscope.analysis.results.markers import mark_table
from headscope.audit_record import Audit, read_audit
from headscope.console import track
from headscope.files import NO_ID, write_table, write_text
from headscope.record import Run, read_experiment, read_failures
from headscope.reporting.cautions import cautions
from headscope.reporting.chapters.audit import audit_chapter
from headscope.reporting.chapters.calibration import calibration_chapter
from headscope.reporting.chapters.classes import class_parts
from headscope.reporting.chapters.layers import collapse_chapter, flattening_chapter, layers_chapter
from headscope.reporting.chapters.learned import separation_parts, separations
from headscope.reporting.chapters.rows import rows_parts
from headscope.reporting.chapters.trust import (
    comparison_parts,
    failure_parts,
    leakage_chapter,
    more_figures,
    run_parts,
)
from headscope.reporting.forced import forced
from headscope.reporting.numbers import number, numbers
from headscope.reporting.parts import Chapter, Part
from headscope.reporting.pictures import (
    Picture,
    history_picture,
    logits_picture,
    weights_picture,
)
from headscope.reporting.templates import render
from headscope.reporting.verdict import verdict

T = TypeVar("T")
CONTENTS: Final = (
    ("verdict", "Verdict"),
    ("cohort", "Cohort and splits"),
    ("results", "Results"),
    ("logits", "Logits of the slices"),
    ("weights", "Weights of the final layer"),
    ("curves", "Training curves"),
    ("freeze", "Freeze certificate"),
    ("settings", "Method and settings"),
    ("cite", "How to cite"),
)
TRUST: Final = ("audit", "leakage")  # chapters that follow the results
AGGREGATES: Final = {
    "mean": "the mean over its slices",
    "logits": "that of the mean logits of its slices",
    "vote": "the share of its slices called so",
}


@dataclass(frozen=True)
class Section:
    """What the page shows of one run: its logits and head by pair of classes, and its curves."""

    run: Run
    title: str
    network: str
    logits: list[LogitScatter]
    head: HeadAnalysis
    heads: list[tuple[PairAnalysis, Picture]]
    history: Picture


def write_report(experiment: Path) -> Path:
    """Write an experiment's tables, figures and page; return the path of `report.html`.

    Raises
    ------
    InputError
        The folder is no experiment, or holds no finished run.
    """
    # 1. the finished runs, in the order of the table
    runs = {run.name: run for run in read_experiment(experiment)}
    results = setting_results(runs.values())
    ordered = [run for result in results for run in result.runs]
    # 2. the tables, with what the audit of the slices found: one row per setting, one per run
    audit = read_audit(experiment)
    table = mark_table(
        settings_table(results), {result.key: result.runs for result in results}, audit
    )
    by_run = mark_table(results_table(ordered), {run.name: [run] for run in ordered}, audit)
    write_table(experiment / "table.tsv", table)
    write_table(experiment / "runs.tsv", by_run)
    write_text(experiment / "table.md", markdown_table(table))
    # 3. the figures
    figures = experiment / "figures"
    sections = [
        _section(run, figures) for run in track(ordered, "Drawing figures", total=len(ordered))
    ]
    separated = separations(ordered)
    pictures = _logits_pictures(sections, separated, figures)
    # 4. what the accuracy is worth, and what else was learned
    compared = compare_runs(ordered)
    leakage = stored_leakage(experiment)
    chapters = _chapters(experiment, ordered, leakage, audit)
    extras: dict[str, list[Part]] = {
        "results": [
            *failure_parts(read_failures(experiment)),
            *run_parts(results),
            more_figures(ordered),
            *class_parts(ordered, figures),
            *comparison_parts(compared),
        ],
        "logits": separation_parts(ordered, separated),
        "weights": rows_parts(ordered, {each.run.name: each.head for each in sections}, figures),
    }
    # 5. the page
    context = {
        "name": experiment.resolve().name,
        "contents": _contents(chapters),
        "chapters": {chapter.key: chapter for chapter in chapters},
        "extras": extras,
        "simulated": any(run.settings.get("simulated") for run in ordered),
        "verdict": [*verdict(results, compared, leakage.gaps), *cautions(audit, ordered)],
        "forced": forced({each.run.name: [pair for pair, _ in each.heads] for each in sections}),
        "splits": _splits(ordered),
        "networks": _by_network(table),
        "aggregate": _aggregate(ordered),
        "sections": sections,
        "logits": pictures,
        "frozen": [each for each in sections if _freezes(each.run)],
        "notes": _notes(experiment / "slices" / "slices.json"),
        "environment": _environment(experiment / "environment.json"),
        "number": number,
        "numbers": numbers,
        "regime_text": regime_text,
    }
    write_text(experiment / "report.html", render("page.html.j2", context))
    return experiment / "report.html"


def _chapters(
    experiment: Path, runs: Sequence[Run], leakage: Leakage, audit: Audit | None
) -> list[Chapter]:
    """Return the chapters that this experiment gives something to say in."""
    figures = experiment / "figures"
    pixels = _pixels(experiment / "slices" / "slices.npy")
    found = (
        audit_chapter(audit, pixels),
        leakage_chapter(leakage, figures),
        flattening_chapter(runs, pixels, figures),
        collapse_chapter(runs, figures),
        layers_chapter(runs, figures),
        calibration_chapter(runs, figures),
    )
    return [chapter for chapter in found if chapter is not None]


def _contents(chapters: Sequence[Chapter]) -> list[tuple[str, str]]:
    """Return key and title of all sections: what the page always has, and the chapters."""
    ends = [key for key, _ in CONTENTS].index("curves")
    trust = [chapter for chapter in chapters if chapter.key in TRUST]
    learned = [chapter for chapter in chapters if chapter.key not in TRUST]
    titles = [*CONTENTS[:3], *((each.key, each.title) for each in trust), *CONTENTS[3:ends]]
    return [*titles, *((each.key, each.title) for each in learned), *CONTENTS[ends:]]


def _pixels(path: Path) -> NDArray[np.uint8] | None:
    """Return the slices (N, H, W), unless they were deleted to save room."""
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None


def _section(run: Run, figures: Path) -> Section:
    head = analyse_head(run)
    analyses = head.pairs
    return Section(
        run=run,
        head=head,
        title=run.setting.title,
        network=run.setting.network,
        logits=[logit_scatter(run, each.pair) for each in analyses],
        heads=[
            (each, weights_picture(each, run, figures / f"fig3-weights-{run.name}{_suffix(each)}"))
            for each in analyses
        ],
        history=history_picture(run, figures / f"history-{run.name}"),
    )


def _logits_pictures(
    sections: Sequence[Section], separated: Mapping[str, FeatureAnalysis], figures: Path
) -> list[dict[str, Any]]:
    """Draw Fig. 2 of each network and pair of classes: a panel a run, on the same axes."""
    pictures = []
    for network, group in _grouped(sections, lambda section: section.network):
        stem = network.replace(", seed ", "-seed").replace("/", "-")
        for k, (head, _) in enumerate(group[0].heads):
            panels = [section.logits[k] for section in group]
            path = figures / f"fig2-logits-{stem}{_suffix(head)}"
            ellipses = [
                separated[section.run.name].ellipses if head.class_count == 2 else None
                for section in group
            ]
            picture = logits_picture(panels, path, ellipses)
            pictures.append({"network": network, "picture": picture, "pair": head.pair,
                             "rank": k, "pairs": len(group[0].heads),
                             "panels": list(zip(group, panels, strict=True))})  # fmt: skip
    return pictures


def _freezes(run: Run) -> bool:
    """Whether a run's regime holds something still."""
    return str(run.settings["regime"]).startswith(("frozen", "layerwise"))


def _splits(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Count who and what stands in each subset, once a split, fold and seed."""
    splits = []
    for (split, fold, seed), group in _grouped(
        runs, lambda run: (run.settings["split"], run.setting.fold_text, run.settings["seed"])
    ):
        run = group[0]
        known = run.predictions[run.predictions["subject_id"] != NO_ID]
        people = known.groupby("label")["subject_id"].nunique()
        splits.append(
            {
                "split": split,
                "fold": fold,
                "seed": seed,
                "run": run.name,
                "subsets": _grouped(cohort_table(run).to_dict("records"), itemgetter("subset")),
                "subjects": int(known["subject_id"].nunique()),
                "slices": len(run.predictions),
                "classes": run.class_names,
                "people": {name: int(people.get(name, 0)) for name in run.class_names},
                "shared": shared_subjects(run),
            }
        )
    return splits


def _by_network(table: pd.DataFrame) -> list[tuple[str, list[dict[Any, Any]]]]:
    return _grouped(table.to_dict("records"), lambda row: str(row["architecture"]))


def _grouped(items: Iterable[T], key: Callable[[T], Any]) -> list[tuple[Any, list[T]]]:
    """Gather items of equal key, keys in the order of their first appearance."""
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def _aggregate(runs: Sequence[Run]) -> str:
    """Say how slices make a subject's probability in these runs."""
    known = dict.fromkeys(str(run.settings.get("aggregate", "mean")) for run in runs)
    return " or ".join(AGGREGATES[name] for name in known)


def _notes(path: Path) -> list[str]:
    """Return what was noted of the scans: what was left out, and what could not be used."""
    if not path.is_file():
        return []
    return [str(note) for note in json.loads(path.read_text(encoding="utf-8")).get("notes", [])]


def _environment(path: Path) -> dict[str, str]:
    """Return the versions as flat text, or nothing where none were recorded."""
    if not path.is_file():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))
    packages = known.pop("packages", {})
    return {str(name): str(value) for name, value in (known | packages).items()}


def _suffix(head: PairAnalysis) -> str:
    """Tell the pairs of classes apart in file names, where there is more than one."""
    return "" if head.class_count == 2 else f"-{head.pair[0]}-{head.pair[1]}"
