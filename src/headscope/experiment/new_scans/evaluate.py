"""`evaluate`: the networks of an experiment score a labelled cohort that they have never seen."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis.explanations.cohorts import cohort_result, read_cohorts, score_cohort
from headscope.analysis.explanations.external import CohortResult, write_cohorts
from headscope.analysis.novelty import training_scans
from headscope.cohort.layouts import Cohort, find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.console import console
from headscope.errors import InputError
from headscope.experiment.new_scans.overlap import find_overlap
from headscope.experiment.new_scans.trained import (
    load_network,
    pass_slices,
    slicing_of,
)
from headscope.files import NO_ID, clear_leftovers, locked
from headscope.manifest import check_file
from headscope.metrics import logit_columns, softmax
from headscope.record import Run, finished_run, read_experiment
from headscope.record.evaluation import (
    FOLDER,
    Evaluation,
    is_scored,
    start_evaluation,
    write_overlap,
    write_scores,
)
from headscope.scans.discovery import plane_named
from headscope.scans.volume import ScanError, with_plane
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet, open_slices
from headscope.slicing.write import write_slices

COLUMNS: Final = ["scan", "subject_id", "session_id", "plane", "slice_index", "label"]
Read = tuple[NDArray[np.float32], NDArray[np.float32]]  # features (N, D), logits (N, K)


def evaluate(
    trained: Path | str,
    data: Path | str,
    *,
    out: str | None = None,
    label: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    threshold: float | None = None,
    where: str | None = None,
    subject_pattern: str | None = None,
    contrast: str | None = None,
    volume: int | None = None,
    pseudonym_key: Path | str | None = None,
    device: str = "auto",
    workers: int | None = None,
    strict: bool = False,
) -> CohortResult:
    """Score a labelled cohort from elsewhere with the finished networks of an experiment.

    It is sliced as the experiment sliced its own, and everything is written to
    `EXPERIMENT/evaluations/NAME/` (docs/record.md). The same call continues where it was stopped
    and does nothing twice.

    Parameters
    ----------
    trained
        An experiment, or one of its runs.
    data
        The folder of labelled scans, or a table of them.
    out
        The evaluation's name; by default that of `data`.
    label, classes, threshold, where, subject_pattern, contrast
        As of `find_cohort`. The classes must have the names of the run's: {"AD": ["Demented"]}.
    volume
        Which volume of 4-D files, from 0; by default that of the run.
    pseudonym_key
        A key file, which must be given where the experiment's ids are pseudonyms.
    device, workers, strict
        auto, cpu or cuda; processes that slice; stop at the first scan that cannot be used.

    Returns
    -------
    CohortResult
        For each setting its scores there with 95% intervals over subjects, the drop from its own
        test, calibration, and the heads that are in both cohorts. Rivals are passed over.

    Raises
    ------
    InputError
        Labels, planes or kind of the data are not those of the run, no network is there, or the
        folder holds another evaluation.

    Examples
    --------
    >>> result = hs.evaluate("first", "scans", out="again", workers=1)
    >>> result.name, len(result.rows), len(result.overlap.new_subjects)
    ('again', 2, 12)
    """
    # 1. the runs, and how they sliced
    experiment, runs, without = _find_runs(Path(trained))
    spec, of = slicing_of(runs[0])
    spec = spec if volume is None else replace(spec, volume=volume)
    find: dict[str, Any] = {"label": label, "classes": classes, "threshold": threshold}
    find |= {"where": where, "subject_pattern": subject_pattern, "contrast": contrast}
    # 2. the cohort, labelled as the runs' was
    evaluation = Evaluation(experiment / FOLDER / _name(out, Path(data)))
    cohort = _find_cohort(Path(data), spec, of, runs[0], find)
    cohort = _hide(cohort, runs, pseudonym_key, evaluation.path)
    for note in [*cohort.notes, *without]:
        console.print(str(note), soft_wrap=True)
    with locked(evaluation.path):
        clear_leftovers(evaluation.path)
        # 3. its slices
        slices = write_slices(
            cohort, evaluation.path / "slices", spec, workers=workers, strict=strict
        )
        slices.check_pixels()
        start_evaluation(evaluation, _settings(runs, slices, find))
        # 4. what each network makes of them
        _score_all(evaluation, runs, slices, device)
        # 5. heads that are in both cohorts
        if not evaluation.finished:
            ids = {str(name) for run in runs for name in run.predictions["subject_id"]}
            write_overlap(evaluation, find_overlap(_own_slices(experiment, runs), slices, ids))
    write_cohorts(experiment, read_cohorts(experiment)[0])
    return cohort_result(Evaluation(evaluation.path), runs)


def _find_runs(path: Path) -> tuple[Path, list[Run], list[str]]:
    """Return the experiment, its runs that keep a network, and a note on the others."""
    if not (path / "runs").is_dir():
        run = finished_run(path)
        if path.resolve().parent.name != "runs":
            raise InputError(
                f"{path} is not in an experiment (EXPERIMENT/runs/NAME), where its evaluation "
                "would be written."
            )
        experiment, runs = path.resolve().parent.parent, [run]
    else:
        experiment, runs = path, read_experiment(path)
    runs = [run for run in runs if not run.is_rival]
    usable = [run for run in runs if run.keeps_network]
    if not usable:
        raise InputError(
            f"{path} keeps no network (model.safetensors) that could score a cohort: its runs were "
            "trained with keep_model = false."
        )
    left = [run.name for run in runs if run not in usable]
    note = f"{len(left)} of {len(runs)} runs keep no network and are left out: {', '.join(left)}."
    return experiment, usable, [note] if left else []


def _name(out: str | None, data: Path) -> str:
    """Return the folder's name: the one asked for, or that of the data in plain letters."""
    name = re.sub(r"[^\w.-]+", "-", out or data.resolve().stem).strip("-.")
    if out is not None and name != out:
        raise InputError(
            f"Unknown name {out!r} of an evaluation: it is no path; choose letters, digits, '-', "
            "'_' and '.'."
        )
    return name or "cohort"


def _find_cohort(data: Path, spec: SliceSpec, of: str, run: Run, find: dict[str, Any]) -> Cohort:
    """Return the labelled scans, their classes in the run's order; refuse what does not fit."""
    try:
        cohort = find_cohort(data, plane=spec.plane, **find)
    except InputError:
        _check_planes(data, spec, run, find)
        raise
    _refuse_other_planes(data, cohort, spec, run)
    pictures = {kind == "picture" for kind in (cohort.kinds[p] for p in cohort.scans["path"])}
    if of != "scans and pictures" and pictures != {of == "pictures"}:
        raise InputError(f"The run was trained on {of}, and {data} holds others.")
    _check_classes(data, cohort.class_names, run)
    if (cohort.scans["subject_id"] == NO_ID).any():
        console.print(
            f"{data} names no subjects in some of its pictures: there are scores over slices "
            "alone, without intervals."
        )
    return replace(cohort, class_names=run.class_names)


def _check_planes(data: Path, spec: SliceSpec, run: Run, find: dict[str, Any]) -> None:
    """Say that the data are of other planes than the run's, where that is why none is found."""
    if spec.plane == "all":
        return
    try:
        cohort = find_cohort(data, plane="all", **find)
    except InputError:
        return
    planes = sorted({file.plane for file in cohort.files if file.plane})
    if planes and spec.plane not in planes:
        raise InputError(
            f"{data} holds {' and '.join(planes)} slices, and {run.name} was trained on "
            f"{' and '.join(run.settings['planes'])} ones."
        ) from None


def _refuse_other_planes(data: Path, cohort: Cohort, spec: SliceSpec, run: Run) -> None:
    """Refuse ready slices of another plane than the run's, as their names tell it.

    A table without a column of planes lists them as they are.
    """
    planes = []
    for file in cohort.files:
        if spec.plane != "all" and plane_named(file.path.name) not in (None, spec.plane):
            with suppress(ScanError):  # slicing names what is damaged
                planes.append(file.plane or with_plane(file).plane)
    others = [plane for plane in planes if plane not in (None, spec.plane)]
    if others:
        raise InputError(
            f"{data} holds {' and '.join(sorted({*others}))} slices ({len(others)} of "
            f"{len(cohort.files)} scans), and {run.name} was trained on "
            f"{' and '.join(run.settings['planes'])} ones."
        )


def _check_classes(data: Path, names: Sequence[str], run: Run) -> None:
    """Refuse other classes than the run's, or another number of them."""
    wanted = run.class_names
    if set(names) == set(wanted):
        return
    example = ",".join(f"{name}=VALUE" for name in wanted)
    how = f"name the values of each with --classes {example}"
    if len(names) != len(wanted):
        raise InputError(
            f"{run.name} tells {len(wanted)} classes ({', '.join(wanted)}), and {data} has "
            f"{len(names)} ({', '.join(names)}): {how}."
        )
    raise InputError(
        f"The classes of {data} are {', '.join(names)}, those of {run.name} "
        f"{', '.join(wanted)}: {how}."
    )


def _hide(cohort: Cohort, runs: Sequence[Run], key: Path | str | None, out: Path) -> Cohort:
    """Replace ids by pseudonyms if a key is given; ask for one where the experiment has them."""
    if key is not None:
        return pseudonymise_cohort(cohort, Path(key), out)
    if any(run.settings.get("pseudonymised") for run in runs):
        raise InputError(
            "The experiment holds pseudonyms, beside which the ids of a new cohort would be plain: "
            "give the same --pseudonym-key."
        )
    return cohort


def _settings(runs: Sequence[Run], slices: SliceSet, find: Mapping[str, Any]) -> dict[str, Any]:
    """Return what goes into evaluation.toml: neither a path nor an id."""
    classes = find["classes"]
    return {
        "class_names": runs[0].class_names,
        "label": find["label"],
        "classes": None if classes is None else {k: list(v) for k, v in classes.items()},
        "threshold": find["threshold"],
        "slices_sha256": slices.sha256,
        "trained_slices_sha256": runs[0].settings.get("slices_sha256"),
        "simulated": bool(slices.settings.get("simulated")),
    }


def _score_all(evaluation: Evaluation, runs: Sequence[Run], slices: SliceSet, device: str) -> None:
    """Write the scores of every run that has none yet; one backbone passes the slices once."""
    passed: dict[tuple[str, str], NDArray[np.float32]] = {}
    for number, run in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {run.name}"
        if is_scored(evaluation, run, slices.sha256):
            console.print(f"{title}: already evaluated", soft_wrap=True)
            continue
        console.print(f"{title}: {len(slices.pixels)} slices", soft_wrap=True)
        inside = slices.table["plane"].isin(list(run.settings["planes"])).to_numpy()
        if not inside.any():
            raise InputError(
                f"The cohort holds {' and '.join(sorted(slices.table['plane'].unique()))} slices, "
                f"and {run.name} was trained on {' and '.join(run.settings['planes'])} ones."
            )
        features, logits = _read(run, slices, device, passed)
        table = _predictions(run, slices.table[COLUMNS], features, logits)[inside]
        write_scores(evaluation, run, slices.sha256, table, score_cohort(run, table))


def _read(
    run: Run, slices: SliceSet, device: str, passed: dict[tuple[str, str], NDArray[np.float32]]
) -> Read:
    """Return features and logits of all slices; frozen runs of one backbone share its features."""
    certificate = run.metrics.get("freeze_certificate") or {}
    key = str(run.settings["architecture"]), str(certificate.get("after"))
    frozen = run.settings["regime"] == "frozen" and bool(certificate.get("identical"))
    if frozen and key in passed:
        features = passed[key]
        return features, features @ run.head["weight"].T + run.head["bias"]
    result = pass_slices(load_network(run, device), slices.pixels, run)
    if frozen:
        passed[key] = result.features
    return result.features, result.logits


def _predictions(
    run: Run,
    rows: pd.DataFrame,
    features: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> pd.DataFrame:
    """Return one row per slice as in a run, without subset, with the distance of its scan."""
    names, table = run.class_names, rows.copy()
    table["predicted"] = np.array(names)[logits.argmax(axis=1)]
    for column, values in zip(names, softmax(logits).T, strict=True):
        table[f"probability_{column}"] = values
    for column, values in zip(logit_columns(names), logits.T, strict=True):
        table[column] = values
    reference, distance = training_scans(run), np.full(len(rows), np.nan)
    for places in rows.groupby(["scan", "subject_id", "session_id"]).indices.values():
        distance[places] = reference.share_of_limit(features[places])
    return table.assign(distance=distance)


def _own_slices(experiment: Path, runs: Sequence[Run]) -> SliceSet | None:
    """Return the slices that trained the runs; None where they are gone or have changed."""
    try:
        slices = open_slices(experiment / "slices")
        check_file(experiment / "slices" / "slices.npy")
    except InputError:
        return None
    return slices if slices.sha256 == runs[0].settings.get("slices_sha256") else None
