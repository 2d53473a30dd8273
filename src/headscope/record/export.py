"""A run as a record that stands alone, with its files of the store in its own folder."""

import shutil
from pathlib import Path

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
        it. Neither slices nor splits are copied; `audit.json` of the experiment is, where `out`
        has none, so that a report of the run knows which heads its split shares.

    Raises
    ------
    InputError
        `run` is no finished run or its record has changed since it was written; or the record is
        there already.

    Examples
    --------
    >>> run = hs.read_experiment("first")[0]
    >>> record = hs.export(run.path, "alone")
    >>> hs.Run(record).metrics == run.metrics
    True
    """
    source = Run(finished_run(Path(run), "written").path.resolve())
    target = Path(out) / "runs" / str(source.settings.get("name", source.name))
    if Run(target).finished or (target / "checkpoint").exists():
        raise InputError(f"{target} is there already: choose another folder than {out}.")
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
    audit, copy = source.path.parent.parent / "audit.json", Path(out) / "audit.json"
    if audit.is_file() and not copy.exists():  # its readers check it
        with atomic_path(copy) as temporary:
            shutil.copyfile(audit, temporary)
    return target
