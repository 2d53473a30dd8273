"""What the audit of the slices adds to a table of results."""

from collections.abc import Mapping, Sequence

import pandas as pd

from headscope.analysis.results.inferred import brackets
from headscope.analysis.results.settings import SettingResult, settings_table
from headscope.analysis.results.table import results_table
from headscope.audit_record import Audit, SplitCheck
from headscope.record import Run


def mark_table(
    table: pd.DataFrame, runs: Mapping[str, Sequence[Run]], audit: Audit | None
) -> pd.DataFrame:
    """Return a table of results whose marker also says what the audit found.

    table: `settings_table` or `results_table`, or a part of it with the columns run and marker;
    runs: those of each row, by its column run; of several splits the worst speaks for the row.
    Without an audit (an experiment of an earlier version) the table is left as it is.

    It gets three columns: test_duplicates (test subjects, or pictures without ids, of which a
    duplicate under another id is in training), test_equal_slices (test slices equal in every pixel
    to a training slice), both by the split of the row and missing where it is unknown; and
    shortcuts (families of facts that predict the label, by comma).
    """
    if audit is None:
        return table
    checks = [_worst(runs[name], audit) for name in table["run"]]
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


def marked_tables(
    results: Sequence[SettingResult], audit: Audit | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of an experiment with its audit: one row per setting, one per run."""
    by_setting = {result.key: result.runs for result in results}
    runs = [run for result in results for run in result.runs]
    table = settings_table(results)
    between = {it.key: bracket.sentence for bracket in brackets(results) for it in bracket.ordered}
    if between:
        table["inferred"] = [between.get(name, "") for name in table["run"]]
    return (
        mark_table(table, by_setting, audit),
        mark_table(results_table(runs), {run.name: [run] for run in runs}, audit),
    )


def _worst(runs: Sequence[Run], audit: Audit) -> SplitCheck | None:
    """Return the split of these runs in which most of the test is in training too."""
    checks = [audit.split(run.settings.get("split_sha256")) for run in runs]
    present = [check for check in checks if check is not None]
    return max(present, key=lambda check: (check.duplicated, check.equal_slices), default=None)


def _markers(check: SplitCheck | None, audit: Audit) -> list[str]:
    """Return what is to be said of a row: by its split, and of all slices."""
    markers = []
    if check is not None and check.duplicated:
        verb = "has" if check.duplicated == 1 else "have"
        tested = f"{check.duplicated} of {check.tested} test {audit.unit}"
        markers.append(f"{tested} {verb} duplicates in training")
    if check is not None and check.equal_slices:
        verb = "is" if check.equal_slices == 1 else "are"
        equal = f"{check.equal_slices} of {check.test_slices} test slices"
        markers.append(f"{equal} {verb} equal to training slices")
    telling = " or ".join(shortcut.family for shortcut in audit.telling())
    if telling:
        markers.append(f"{telling} alone tells the label")
    return markers
