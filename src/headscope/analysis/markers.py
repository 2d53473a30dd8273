"""What the audit of the slices adds to a table of results, run by run."""

from collections.abc import Mapping

import pandas as pd

from headscope.audit_record import Audit, SplitCheck
from headscope.record import Run


def mark_table(table: pd.DataFrame, runs: Mapping[str, Run], audit: Audit | None) -> pd.DataFrame:
    """Return a table of results whose marker also says what the audit found.

    Parameters
    ----------
    table
        `results_table` of the runs, or a part of it: columns run and marker are needed.
    runs
        The runs by name.
    audit
        Of the experiment; None (an experiment of an earlier version) leaves the table as it is.

    Returns
    -------
    pandas.DataFrame
        With three columns more: test_duplicates (test subjects, or pictures without ids, of which
        a duplicate under another id is in training), test_equal_slices (test slices equal in every
        pixel to a training slice), both by the split of that run and missing where it is unknown;
        and shortcuts (families of facts that tell the label, by comma).
    """
    if audit is None:
        return table
    checks = [audit.split(runs[name].settings.get("split_sha256")) for name in table["run"]]
    counts = {
        "test_duplicates": [None if check is None else check.duplicated for check in checks],
        "test_equal_slices": [None if check is None else check.equal_slices for check in checks],
    }
    markers = [
        "; ".join(filter(None, [marker, *_markers(check, audit)]))
        for marker, check in zip(table["marker"], checks, strict=True)
    ]
    return table.assign(
        marker=markers,
        **{name: pd.array(values, dtype="Int64") for name, values in counts.items()},
        shortcuts=",".join(shortcut.family for shortcut in audit.telling()),
    )


def _markers(check: SplitCheck | None, audit: Audit) -> list[str]:
    """Return what is to be said of one run: by its split, and of all slices."""
    markers = []
    if check is not None and check.duplicated:
        tested = f"{check.duplicated} of {check.tested} test {audit.unit}"
        markers.append(f"{tested} have duplicates in training")
    if check is not None and check.equal_slices:
        equal = f"{check.equal_slices} of {check.test_slices} test slices"
        markers.append(f"{equal} are equal to training slices")
    telling = " or ".join(shortcut.family for shortcut in audit.telling())
    if telling:
        markers.append(f"{telling} alone tells the label")
    return markers
