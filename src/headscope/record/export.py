"""A run as a record that stands alone, with its files of the store in its own folder."""

import shutil
from pathlib import Path

from headscope.audit_record import add_splits
from headscope.errors import InputError
from headscope.files import atomic_path
from headscope.manifest import CHANGED, NAME, file_hash, read_manifest
from headscope.record.run import NETWORK, Run
from headscope.record.whole import finished_run


def export_run(run: Path | str, out: Path | str) -> Path:
    """Write a run as a record that stands alone, an experiment of one run.

    Parameters
    ----------
    run
        The directory of a finished run.
    out
        A folder, new or with other runs that were exported; the record is `out`/runs/NAME.

    Returns
    -------
    Path
        The folder of the record. Its manifest is that of the run, and each file was held against
        it. Neither slices nor splits are copied; `audit.json` of the experiment is, or what it
        says of further splits is added, so that a report knows which heads a split shares.

    Raises
    ------
    InputError
        `run` is no finished run or its record has changed since it was written; or the record is
        there already, or `out` is a file, or holds runs on other slices, or on a split of the same
        name that assigns other subjects.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> record = hs.export(run.path, "alone")
    >>> hs.Run(record).metrics == run.metrics
    True
    """
    source = Run(finished_run(Path(run), "written").path.resolve())
    target = Path(out) / "runs" / str(source.settings.get("name", source.name))
    if Path(out).is_file():
        raise InputError(f"{out} is a file: name a folder.")
    if Run(target).finished or (target / "checkpoint").exists():
        raise InputError(f"{target} is there already: choose another folder than {out}.")
    _check_alike(source, Path(out))
    entries = read_manifest(source.path)
    files = {path.name for path in source.path.iterdir() if path.is_file()}
    names = files if entries is None else {*entries, NAME}
    for name in sorted(names, key=lambda name: (name == "metrics.json", name)):  # it marks the end
        place = source.place(name)
        if name in NETWORK and not place.is_file():
            continue  # deleted to save room
        with atomic_path(target / name) as temporary:
            shutil.copyfile(place, temporary)
            if entries and name != NAME and file_hash(temporary, name) != entries[name]["sha256"]:
                raise InputError(f"{place} {CHANGED}: delete {run} and train it again.")
    _copy_audit(source.path.parent.parent, Path(out))
    return target


def _copy_audit(experiment: Path, out: Path) -> None:
    """Copy what the audit of the slices says, or add its splits; its readers check it."""
    if not (experiment / "audit.json").is_file():
        return
    if (out / "audit.json").exists():
        add_splits(out, experiment)
        return
    with atomic_path(out / "audit.json") as temporary:
        shutil.copyfile(experiment / "audit.json", temporary)


def _check_alike(run: Run, out: Path) -> None:
    """Refuse a folder with runs on other slices or splits: a report takes them for one cohort."""
    for other in filter(lambda other: other.finished, map(Run, sorted(out.glob("runs/*")))):
        differing = ""
        if _differ(run, other, "slices_sha256"):
            differing = "other slices"
        elif _split_of(run) == _split_of(other) and _differ(run, other, "split_sha256"):
            differing = f"another split by {run.setting.split} of seed {run.setting.seed}"
        if differing:
            raise InputError(
                f"{out} holds {other.name}, a run on {differing}: choose another folder."
            )


def _differ(run: Run, other: Run, name: str) -> bool:
    """Whether both have a setting and differ in it."""
    return len({record.settings.get(name) for record in (run, other)} - {None}) > 1


def _split_of(run: Run) -> tuple[object, ...]:
    """Return what makes the name of a run's split."""
    setting = run.setting
    return setting.split, setting.seed, setting.fold, setting.folds, setting.subjects
