"""Evaluations held against their manifests, and every score against the predictions it is from."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from headscope.analysis.explanations.cohorts import score_cohort
from headscope.errors import InputError
from headscope.manifest import DAMAGE, reason_of
from headscope.metrics import logit_columns, softmax
from headscope.record import Run
from headscope.record.evaluation import FOLDER, Evaluation, run_hash
from headscope.slicing.store import SliceSet, open_slices
from headscope.verification.runs import CLOSE, MANY, RANKS, differing

ROWS = ("scan", "subject_id", "session_id", "plane", "slice_index", "label")


def evaluation_problems(
    experiment: Path, runs: Mapping[str, Run], notes: list[str]
) -> Iterator[str]:
    """Yield what in the evaluations of an experiment differs; runs by name are those now there."""
    folder = experiment / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        evaluation = Evaluation(path)
        if not evaluation.finished:
            notes.append(f"{FOLDER}/{path.name} has not ended; 'headscope evaluate' continues it.")
            continue
        try:
            for problem in _problems(evaluation, runs):
                yield f"{FOLDER}/{path.name}: {problem}"
        except DAMAGE as error:
            yield f"{FOLDER}/{path.name}: {reason_of(error)}"


def _problems(evaluation: Evaluation, runs: Mapping[str, Run]) -> Iterator[str]:
    problems = evaluation.problems()
    yield from problems
    if problems:
        return
    slices = open_slices(evaluation.path / "slices")
    slices.check_pixels()
    if slices.sha256 != evaluation.settings["slices_sha256"]:
        yield "its slices are not those of evaluation.toml"
    if any(head.rows[1] >= len(slices.table) for head in evaluation.overlap.heads):
        yield "overlap.json names slices that there are not"
    for name in evaluation.run_names:
        for problem in _run_problems(evaluation, name, runs.get(name), slices):
            yield f"runs/{name}: {problem}"


def _run_problems(
    evaluation: Evaluation, name: str, run: Run | None, slices: SliceSet
) -> Iterator[str]:
    """Yield how a run's scores differ from the slices, the run, and what they follow from."""
    made_from = evaluation.made_from(name)
    if made_from["slices_sha256"] != slices.sha256:
        yield "it is of other slices"
    if run is None or made_from["run_sha256"] != run_hash(run):
        yield "it is not of the run that is there now; 'headscope evaluate' makes it again"
        return
    table, names = evaluation.predictions(name), run.class_names
    planes = slices.table["plane"].isin(list(run.settings["planes"]))
    rows = slices.table[planes].reset_index(drop=True)
    if (
        len(rows) != len(table)
        or not (rows[[*ROWS]].astype(str).to_numpy() == table[[*ROWS]].astype(str).to_numpy()).all()
    ):
        yield "the rows of predictions.tsv are not the slices"
        return
    logits = table[logit_columns(names)].to_numpy(np.float32)
    stored = table[[f"probability_{label}" for label in names]].to_numpy(np.float64)
    if not np.allclose(stored, softmax(logits), rtol=0, atol=CLOSE):
        yield "the probabilities of predictions.tsv are not those of its logits"
    if (table["predicted"].to_numpy(str) != np.array(names)[logits.argmax(axis=1)]).any():
        yield "the column predicted of predictions.tsv is not that of its logits"
    if not set(table["label"]) <= set(names):
        raise InputError("predictions.tsv holds labels without a class")
    again = score_cohort(run, table)
    rounded = RANKS if len(table) > MANY else 0.0
    for place in differing(evaluation.metrics(name), again, "metrics.json", rounded):
        yield f"{place} is not what predictions.tsv gives"
