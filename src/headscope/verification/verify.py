"""`verify`: an experiment against its manifests, and every number against what it comes from."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis.explanations.cohorts import read_cohorts
from headscope.analysis.explanations.external import TABLE, cohorts_table
from headscope.analysis.leakage.stored import FORMAT, read_leakage, read_stored, runs_key
from headscope.analysis.results.markers import marked_tables
from headscope.analysis.results.settings import setting_results
from headscope.analysis.results.table import markdown_table
from headscope.analysis.stored import FILE, read_entries
from headscope.audit_record import read_audit, split_files
from headscope.console import busy, track
from headscope.errors import InputError
from headscope.files import read_table
from headscope.manifest import (
    DAMAGE,
    HASH,
    NAME,
    STORE,
    cache_hash,
    content_hash,
    file_hash,
    folder_problems,
    index_hash,
    read_manifest,
    reason_of,
)
from headscope.record import Records, Run, find_runs, unused
from headscope.record.ablation import rung_folder
from headscope.record.evaluation import FOLDER
from headscope.slicing.inferred import FOLDER as SUBJECTS
from headscope.slicing.inferred import Sets, set_of_split, sets_of
from headscope.slicing.store import SliceSet, open_slices
from headscope.splits.files import read_subsets
from headscope.tables import Shown, Table
from headscope.threads import one_blas_thread
from headscope.verification.ablation import find_ablation, rung_problems
from headscope.verification.evaluations import evaluation_problems
from headscope.verification.runs import CLOSE, run_problems


@dataclass(frozen=True, eq=False, repr=False)
class Verification(Shown):
    """What `verify` came to.

    Attributes
    ----------
    experiment
        The folder.
    runs, files
        How many runs were computed again, and files held against a manifest.
    problems
        One sentence for each thing that differs, which begins with the file or folder.
    notes
        What could not be checked, and why.
    """

    experiment: str
    runs: int
    files: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def tables(self) -> Sequence[Table]:
        """Return one row per problem."""
        title = f"{self.experiment}: {self.runs} runs and {self.files} files checked"
        rows = [tuple(text.split(": ", 1)) for text in self.problems]
        return [Table(title, ("Where", "What differs"), rows, self.notes)]


@one_blas_thread
@busy("Verifying")
def verify(experiment: Path | str) -> Verification:
    """Check that an experiment is what was written, without scans, network or training.

    Every file is held against its manifest. Then scores, tables, predictions, the freeze
    certificates and the keys of `audit.json` and `leakage.json` are computed again from the arrays;
    `analysis.json` is held against its own hash.

    Raises
    ------
    InputError
        The folder is no experiment.

    Examples
    --------
    >>> verification = hs.verify("first")
    >>> verification.whole, verification.runs, verification.problems
    (True, 2, ())
    """
    folder = Path(experiment)
    if not any((folder / name).is_dir() for name in ("runs", "slices")):
        raise InputError(f"{experiment} is no experiment: it has no folder 'runs' or 'slices'.")
    notes: list[str] = []
    problems: list[str] = []
    # 1. slices, splits and stored features, each against its manifest
    slices = _open_store(folder / "slices", problems, notes)
    sets = _open_subjects(folder, slices, problems)
    splits = _check_splits(folder / "splits", sets, problems, notes)
    problems += _cache_problems(folder / "cache", notes)
    problems += _store_problems(folder, notes)
    # 2. the runs, each against itself and against the slices and splits
    records = find_runs(folder) if (folder / "runs").is_dir() else Records([], [], {}, [])
    runs = _check_runs(records, sets, splits, problems, notes)
    # 3. what was made of them
    whole = len(runs) == len(records.all) and not records.left_out
    problems += _made_problems(folder, runs if whole else [], notes)
    problems += _report_problems(folder, notes)
    problems += evaluation_problems(folder, {run.name: run for run in records.runs}, notes)
    files = sum(len(_listed(path)) for path in _folders(folder))
    # 4. the ablation ladder, each rung as an experiment
    ladder = _verify_ladder(folder, slices, problems)
    count = len(runs) + sum(rung.runs for rung in ladder)
    files += sum(rung.files for rung in ladder)
    return Verification(str(experiment), count, files, tuple(problems), tuple(notes))


def _verify_ladder(
    folder: Path, slices: SliceSet | None, problems: list[str]
) -> list[Verification]:
    """Verify each rung of a ladder, and that it follows from the experiment."""
    ablation = find_ablation(folder, problems)
    rungs = []
    for name in ablation.rungs if ablation else ():
        place = rung_folder(folder, name)
        if not any((place / part).is_dir() for part in ("runs", "slices")):
            continue
        rung = verify(place)
        problems += [f"ablation/{name}/{text}" for text in rung.problems]
        problems += rung_problems(folder, name, ablation, slices) if ablation else ()
        rungs.append(rung)
    return rungs


def _folders(folder: Path) -> list[Path]:
    runs = sorted((folder / "runs").iterdir()) if (folder / "runs").is_dir() else []
    evaluations = sorted(path.parent for path in (folder / FOLDER).glob(f"**/{NAME}"))
    return [folder / "slices", folder / SUBJECTS, folder / "splits", *runs, *evaluations]


def _listed(folder: Path) -> Sequence[str]:
    """Return the names of a folder's manifest; none where it is missing or damaged."""
    try:
        return [*(read_manifest(folder) or {})]
    except InputError:
        return []


def _open_store(folder: Path, problems: list[str], notes: list[str]) -> SliceSet | None:
    """Open the slices, once nothing in them differs."""
    if not folder.is_dir():
        notes.append(
            "No slices are here (deleted, or not exported): runs are held against themselves alone."
        )
        return None
    if not (folder / NAME).is_file():
        notes.append("slices have no manifest: they were taken by an earlier version.")
    differing = [f"slices/{name}: {problem}" for name, problem in folder_problems(folder).items()]
    try:
        slices = open_slices(folder)
        slices.check_pixels()
        classes = np.array(slices.class_names)[slices.labels]
        if (classes != slices.table["label"].to_numpy(str)).any():
            differing.append("slices: labels.npy and slices.tsv have different labels")
    except DAMAGE as error:
        differing = differing or [f"slices: {reason_of(error)}"]
    problems += differing
    return None if differing else slices


def _open_subjects(folder: Path, slices: SliceSet | None, problems: list[str]) -> Sets | None:
    """Return the slices under every kind of ids, once nothing in the inferred ones differs."""
    if slices is None:
        return None
    try:
        return sets_of(folder, slices)
    except InputError as error:
        problems.append(f"{SUBJECTS}: {reason_of(error)}")
        return {None: slices}


def _check_splits(
    folder: Path, sets: Sets | None, problems: list[str], notes: list[str]
) -> set[str]:
    """Hold splits against their manifest and the slices; return the `split_sha256` of each file."""
    files = split_files(folder.parent)
    if files and not (folder / NAME).is_file():
        notes.append("splits have no manifest: they were made by an earlier version.")
    differing = folder_problems(folder) if folder.is_dir() else {}
    problems += [f"splits/{name}: {problem}" for name, problem in differing.items()]
    hashes = set()
    for path in files:
        if sets is None:
            break
        try:
            subsets = read_subsets(path, set_of_split(sets, path).table)
        except InputError as error:
            problems += [] if differing else [f"splits/{path.name}: {error}"]
        else:
            hashes.add(hashlib.sha256("\n".join(subsets.tolist()).encode()).hexdigest())
    return hashes


def _cache_problems(folder: Path, notes: list[str]) -> Iterator[str]:
    """Yield which stored features are not what was written under their name."""
    for path in (*sorted(folder.glob("*.npz")), *sorted(folder.glob("*.json"))):
        try:
            if path.suffix == ".json":
                entry = json.loads(path.read_text(encoding="utf-8"))
                sound = entry["sha256"] == index_hash(path, entry["files"])
            else:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                    arrays = dict(stored)
                sound = "sha256" not in arrays or str(arrays["sha256"]) == cache_hash(path, arrays)
                if "sha256" not in arrays:
                    notes.append(f"cache/{path.name} has no hash: it will be computed again.")
            if not sound:
                yield f"cache/{path.name}: it is not what was computed; it will be computed again"
        except DAMAGE as error:
            yield f"cache/{path.name}: it is damaged ({reason_of(error)})"


def _store_problems(folder: Path, notes: list[str]) -> Iterator[str]:
    """Yield which files of the store are not those of their names."""
    for path in sorted((folder / STORE).glob("*.*")):
        if HASH.fullmatch(path.stem) and file_hash(path) != path.stem:
            yield f"{STORE}/{path.name}: it has changed since it was written"
    with suppress(InputError):  # a damaged manifest, which its run names
        left = unused(folder)
        if left:
            size = sum(path.stat().st_size for path in left) / 1e6
            notes.append(
                f"No run needs {len(left)} of the files in {STORE} ({size:.1f} MB); a 'headscope "
                "run' removes those older than a day."
            )


def _check_runs(
    records: Records,
    sets: Sets | None,
    splits: set[str],
    problems: list[str],
    notes: list[str],
) -> list[Run]:
    """Return the runs in which nothing differs."""
    problems += [f"runs/{name}: {reason}" for name, reason in records.left_out.items()]
    notes += records.unchecked_notes
    whole, finished = [], records.all
    for run in track(finished, "Verifying runs", len(finished)) if finished else ():
        slices = None if sets is None else sets.get(run.setting.subjects)
        differing = run_problems(run) or [*_stored_problems(run, slices, splits)]
        problems += [f"runs/{run.name}: {text}" for text in differing]
        if not differing:
            whole.append(run)
    return whole


def _stored_problems(run: Run, slices: SliceSet | None, splits: set[str]) -> Iterator[str]:
    """Yield how a run differs from the slices and splits of its experiment."""
    if splits and run.settings.get("split_sha256") not in {None, *splits}:
        yield "its split is none of the files in splits"
    if slices is None:
        return
    if len(run.predictions) != len(slices.table):
        yield "it does not have the slices of this experiment"
        return
    for name in ("scan", "subject_id", "session_id", "plane", "slice_index"):
        if name in run.predictions and not _equal(run.predictions[name], slices.table[name]):
            yield f"the column {name} of predictions.tsv is not that of the slices"
    permuted = "permutation" in run.settings
    if not permuted and not np.array_equal(run.features["label"], slices.labels):
        yield "its labels are not those of the slices"


def _made_problems(folder: Path, runs: list[Run], notes: list[str]) -> Iterator[str]:
    """Yield which tables and analyses are not those of the runs; none where not all are whole."""
    true = [run for run in runs if "permutation" not in run.settings]
    audit = read_audit(folder)
    if (folder / "audit.json").is_file() and audit is None:
        yield "audit.json: it, the slices or the splits have changed since it was written"
    if not true:
        if (folder / "table.tsv").is_file():
            notes.append("Tables and leakage.json were not checked, as not all runs are whole.")
        return
    yield from _leakage_problems(folder, [run for run in runs if not run.is_rival], notes)
    yield from _analysis_problems(folder)
    tables = marked_tables(setting_results(true), audit)
    made = {
        "table.tsv": lambda path: _same_table(path, tables[0]),
        "runs.tsv": lambda path: _same_table(path, tables[1]),
        "table.md": lambda path: path.read_bytes() == markdown_table(tables[0]).encode(),
    }
    if (folder / TABLE).is_file():
        cohorts = cohorts_table(read_cohorts(folder)[0])
        made[TABLE] = lambda path: _same_table(path, cohorts)
    for name, is_same in made.items():
        path = folder / name
        if path.is_file() and not is_same(path):
            yield f"{name}: it is not the table of these runs; 'headscope report' writes it again"


def _leakage_problems(folder: Path, runs: list[Run], notes: list[str]) -> Iterator[str]:
    path = folder / "leakage.json"
    if not path.is_file():
        return
    try:
        if "sha256" not in json.loads(path.read_text(encoding="utf-8")):
            notes.append(f"leakage.json was not checked: it is of a format before {FORMAT}.")
            return
        stored = read_stored(folder)
        read_leakage(stored)
        if stored["key"] != runs_key(runs, stored["permutations"], read_audit(folder)):
            yield "leakage.json: it is of other runs; 'headscope report' writes it again"
    except DAMAGE as error:
        yield f"leakage.json: it is damaged ({reason_of(error)})"


def _analysis_problems(folder: Path) -> Iterator[str]:
    """Say whether the file of stored analyses is damaged; those of other runs are not read."""
    try:
        read_entries(folder / FILE)
    except FileNotFoundError:
        return
    except DAMAGE as error:
        yield f"{FILE}: it is damaged ({reason_of(error)}); 'headscope report' makes it again"


def _report_problems(folder: Path, notes: list[str]) -> Iterator[str]:
    """Say whether the page, or the file that says what it was made from, has changed."""
    path, page = folder / "report.json", folder / "report.html"
    if not path.is_file():
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if "sha256" not in stored:
            notes.append("report.json was not checked: it is of an earlier version.")
        elif stored.pop("sha256") != content_hash(stored):
            yield "report.json: it has changed; 'headscope report' writes it again"
        elif page.is_file() and file_hash(page) != stored["files"][page.name]:
            yield "report.html: it has changed; 'headscope report' writes it again"
    except DAMAGE as error:
        yield f"report.json: it is damaged ({reason_of(error)}); 'headscope report' writes it again"


def _same_table(path: Path, table: pd.DataFrame) -> bool:
    """Whether a file holds a table, numbers to within rounding."""
    try:
        stored = read_table(path)
    except DAMAGE:
        return False
    if list(stored) != list(table) or len(stored) != len(table):
        return False
    return all(_equal(stored[name], table[name]) for name in table)


def _equal(stored: pd.Series, computed: pd.Series) -> bool:
    """Whether two columns are equal: as numbers where both are, else as text."""
    one, two = (pd.to_numeric(part, errors="coerce").to_numpy(float) for part in (stored, computed))
    missing: list[NDArray[np.bool_]] = [part.isna().to_numpy() for part in (stored, computed)]
    if not np.isnan(one[~missing[0]]).any() and not np.isnan(two[~missing[1]]).any():
        return np.allclose(one, two, rtol=CLOSE, atol=CLOSE, equal_nan=True)
    texts = [part.astype(object).where(part.notna(), "").astype(str) for part in (stored, computed)]
    return bool((texts[0].to_numpy() == texts[1].to_numpy()).all())
