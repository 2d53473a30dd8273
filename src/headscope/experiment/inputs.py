"""What the runs of an experiment share: its scans, its slices and its splits."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headscope.analysis.permute import permute_labels
from headscope.audit_record import Audit, summary_line
from headscope.auditing.audit import files_of, store_audit
from headscope.auditing.inferring import note_inferred, store_inferred
from headscope.cohort.demographics import describe_subjects
from headscope.cohort.layouts import Cohort, find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.cohort.selection import GIVEN, limit_subjects
from headscope.console import busy, console
from headscope.errors import InputError
from headscope.experiment.config import Config
from headscope.experiment.plan import Plan
from headscope.files import NO_ID, sha256, write_json, write_table
from headscope.manifest import DAMAGE, reason_of
from headscope.record import Setting
from headscope.slicing.inferred import Sets, under_inferred
from headscope.slicing.parallel import Submit
from headscope.slicing.store import SliceSet
from headscope.slicing.write import write_slices
from headscope.splits.assign import make_fold, make_split
from headscope.splits.balance import balance_of
from headscope.splits.files import (
    check_given,
    check_ids,
    check_source,
    ensure_split,
    subsets_by_path,
)
from headscope.splits.sites import SITE, assign_sites, check_sites, make_site_split
from headscope.text import printable_name

OLDEST = 89  # years: an age above it could name a subject, and is one year more under pseudonyms
Subsets = NDArray[np.str_]


@busy("Looking for scans")
def find_scans(config: Config, plans: Iterable[Plan], *, write: bool = True) -> Cohort:
    """Find the scans, check that they can be split as asked, and print the notes on them.

    Without `write` nothing is written, no key of pseudonyms either.
    """
    cohort = find_cohort(
        config.data,
        label=config.label,
        classes=config.classes,
        threshold=config.threshold,
        plane=config.plane,
        where=config.where,
        keep=config.balance,
        subject_pattern=config.subject_pattern,
        subjects=config.subjects,
        contrast=config.contrast,
        covariates=config.covariates,
    )
    splits = dict.fromkeys(plan.setting.split for plan in plans)
    if GIVEN in splits and config.split_file is not None:
        given = subsets_by_path(config.split_file, list(cohort.scans["path"]))
        if given is not None:
            cohort = replace(cohort, scans=cohort.scans.assign(given=given))
    if config.limit is not None:
        scans, note = limit_subjects(cohort.scans, config.limit)
        cohort = replace(cohort, scans=scans, notes=[*cohort.notes, note])
    for split in () if config.infers_subjects else splits:
        check_ids(cohort.scans, split, config.data / "pictures.tsv")
        if split == "subject" and not (config.folds or config.split_file):
            make_split(cohort.scans, kind="subject", ratio=config.ratio)
        if split == "subject" and config.folds:
            make_fold(cohort.scans, 0, config.folds, kind="subject", ratio=config.ratio)
    if GIVEN in splits:
        check_given(cohort.scans, config.ratio)
    if SITE in splits:
        _check_sites(cohort)
    if (
        config.permutations
        and not config.infers_subjects
        and (cohort.scans["subject_id"] == NO_ID).any()
    ):
        raise InputError(
            f"The labels of {config.data} cannot be permuted by subject: some of its pictures "
            "name none."
        )
    if config.pseudonym_key is not None:
        cohort = pseudonymise_cohort(cohort, config.pseudonym_key, config.out, write=write)
    said: list[str] = []
    if "subject" in splits and config.split_file is not None:
        said = check_source(config.split_file, cohort.scans)  # slices outlive a split: no notes
    for text in [*(note.text for note in cohort.notes), *said]:
        console.print(text, soft_wrap=True)
    return cohort


def store_slices(cohort: Cohort, config: Config, submit: Submit | None = None) -> SliceSet:
    """Take the slices of the scans that an earlier start left to do, where `submit` takes them."""
    slices = write_slices(
        cohort,
        config.out / "slices",
        config.slice_spec,
        workers=config.workers,
        strict=config.strict,
        submit=submit,
    )
    _store_participants(cohort, config)
    printed = {note.text for note in cohort.notes}
    for note in slices.settings.get("notes", []):
        if note not in printed:  # those are printed: these are what slicing adds
            console.print(note, soft_wrap=True)
    return slices


def _store_participants(cohort: Cohort, config: Config) -> None:
    """Write `participants.tsv`, age, sex and covariates of each session, where there are any.

    Where subjects are inferred, ids are hidden, and with them what tables say of them.
    """
    if config.infers_subjects or set(cohort.described.columns) <= {"path"}:
        return
    keys = ["subject_id", "session_id", "label"]
    table = cohort.scans[["path", *keys]].merge(cohort.described, on="path")
    table = table.drop(columns="path").drop_duplicates(keys)
    if config.pseudonym_key is not None and "age" in table:
        table["age"] = table["age"].clip(upper=OLDEST + 1)
        if (table["age"] > OLDEST).any():
            console.print(f"Ages above {OLDEST} are recorded as {OLDEST + 1}.")
    if config.pseudonym_key is not None and "site" in table:
        table["site"] = _number_sites(table["site"])
        console.print("Sites are recorded by number.")
    write_table(config.out / "participants.tsv", table)


def _number_sites(sites: pd.Series) -> pd.Series:
    """Return sites as site 1, site 2, …: the name of a hospital narrows down who a subject is."""
    names = {name: f"site {k}" for k, name in enumerate(sorted(sites.dropna().unique()), start=1)}
    return sites.map(names)


def store_subjects(config: Config, slices: SliceSet) -> Sets:
    """Return the slices by what names their subjects: None for ids, else how they are inferred."""
    if not config.infers_subjects:
        return {None: slices}
    subjects = store_inferred(config.out, slices)
    for note in note_inferred(subjects):
        console.print(note, soft_wrap=True)
    return under_inferred(slices, subjects)


@busy("Splitting")
def store_splits(
    plans: Iterable[Plan], config: Config, sets: Sets, cohort: Cohort
) -> dict[str, Subsets]:
    """Return the subset of each slice (N,) for each split of the plans, by `split_name`."""
    by_name = {split_name(plan.setting, config): plan.setting for plan in plans}
    return {
        name: _split(name, run, config, sets[run.subjects], cohort) for name, run in by_name.items()
    }


@busy("Auditing slices")
def store_findings(config: Config, slices: SliceSet, cohort: Cohort) -> Audit:
    """Audit slices and splits, unless `audit.json` is of the same ones; print the result."""
    result = store_audit(config.out, slices, files_of(cohort))
    console.print(summary_line(result), soft_wrap=True)
    return result


def split_name(run: Setting, config: Config) -> str:
    """Return the name of a run's split: its kind, how subjects are inferred, fold and seed."""
    part = "" if run.subjects is None else f"{run.subjects}-"
    part += "" if run.fold is None else f"fold{run.fold}of{run.folds}-"
    return f"{run.split}-{part}seed{run.seed}"


def permuted_labels(slices: SliceSet, number: int, subset: Subsets) -> NDArray[np.int64]:
    """Return labels (N,) permuted by subject: permutation `number`, from 1, under a split.

    subset (N,) names the subset of each slice. They are those on which frozen runs of the split
    are tested, permutation by permutation.
    """
    ids = slices.table[["subject_id", "session_id"]].astype(str)
    subject = np.unique(ids["subject_id"], return_inverse=True)[1]  # (N,)
    session = ids.groupby(["subject_id", "session_id"], sort=True).ngroup().to_numpy()  # (N,)
    labels = permute_labels(slices.labels, subject, session, number, subset=subset)
    return labels[:, -1].astype(np.int64)


def _split(
    name: str, run: Setting, config: Config, slices: SliceSet, cohort: Cohort
) -> NDArray[np.str_]:
    """Return the subset of each slice by a run's split; print how well it is balanced."""
    by_subject = run.split == "subject"
    made = run.split in (GIVEN, SITE)
    foreign = by_subject or (not made and "subject" not in config.splits)
    balanced = bool(config.balance) and by_subject
    covariates = cohort.scans[["subject_id", *config.balance]] if balanced else None
    path = config.out / "splits" / f"{name}.tsv"
    _hold_to(path, config, run.seed)
    subsets = ensure_split(
        path,
        slices.table,
        kind=run.split,
        ratio=config.ratio,
        seed=run.seed,
        fold=None if run.fold is None else (run.fold, run.folds or 0),
        covariates=covariates,
        source=config.split_file if foreign else None,
        given=_given(run, config, slices, cohort),
    )
    if covariates is not None and not path.with_suffix(".balance.tsv").exists():
        tests = balance_of(slices.table, subsets, covariates)
        write_table(path.with_suffix(".balance.tsv"), tests)
        text = ", ".join(f"{row.column} p = {row.p:.2g} ({row.test})" for row in tests.itertuples())
        console.print(f"{path.stem}: between the subsets, {text}", soft_wrap=True)
    return subsets


def count_sites(cohort: Cohort) -> int:
    """Return how many sites there are to leave out, 1 where none is known."""
    has_sites = "site" in describe_subjects(cohort.offered)
    return max(1, _sites(cohort)[0].nunique()) if has_sites else 1


def _sites(cohort: Cohort) -> tuple["pd.Series[str]", int]:
    """Return the site of each subject by its id, and how many have several.

    InputError where no column of sites is known, or one site.
    """
    described = describe_subjects(cohort.offered)
    if "site" not in described:
        problems = [column.problem for column in cohort.covariates if column.name == "site"]
        reason = next(iter(problems), "no column is recognised as one (site, center, institution)")
        raise InputError(f"--splits site needs the site of every subject: {reason}.")
    table = cohort.scans[["path", "subject_id"]].merge(described, on="path")
    return assign_sites(table["subject_id"], table["site"])


def _check_sites(cohort: Cohort) -> None:
    """Refuse a cohort of which not every site can be left out; count subjects of several."""
    check_ids(cohort.scans, "subject")
    site, several = _sites(cohort)
    check_sites(cohort.scans, site)
    if several:
        console.print(f"Subjects of several sites, each at that of most of its scans: {several}.")


def _given(
    run: Setting, config: Config, slices: SliceSet, cohort: Cohort
) -> NDArray[np.object_] | NDArray[np.str_] | None:
    """Return the subset of each slice (N,) by the folders of the data or by a site, where it is."""
    if run.split == SITE:
        site, fold = _sites(cohort)[0], run.fold or 0
        return make_site_split(slices.table, site, fold, ratio=config.ratio, seed=run.seed)
    if run.split != GIVEN:
        return None
    of_scan = dict(zip(cohort.names, cohort.scans[GIVEN], strict=True))
    return slices.table["scan"].map(of_scan).to_numpy(dtype=object)


def _hold_to(path: Path, config: Config, seed: int) -> None:
    """Write beside a split what makes it; refuse one that was made by other settings."""
    made_by = {
        "ratio": list(config.ratio),
        "seed": seed,
        "folds": config.folds,
        "balance": list(config.balance),
        "split_file": _name_of(config),
    }
    beside = path.with_suffix(".json")
    if path.exists() and beside.exists():
        try:
            stored = dict(json.loads(beside.read_text(encoding="utf-8")))
        except DAMAGE as error:
            raise InputError(f"{beside} is damaged ({reason_of(error)}).") from None
        differing = [
            f"{name} {stored.get(name)} instead of {value}"
            for name, value in made_by.items()
            if stored.get(name) != value
        ]
        if differing:
            raise InputError(
                f"{path} was made by other settings ({', '.join(differing)}): choose another --out."
            )
        return
    write_json(beside, made_by)


def _name_of(config: Config) -> str | None:
    """Return the split file by its path, or where ids are pseudonyms by its content."""
    if config.split_file is None or config.pseudonym_key is None:
        return None if config.split_file is None else printable_name(config.split_file)
    return f"SHA-256 {sha256(config.split_file)}"
