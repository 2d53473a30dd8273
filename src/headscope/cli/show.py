"""What commands print on stdout."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from headscope.analysis.leakage.analysis import Leakage
    from headscope.audit_record import Audit
    from headscope.experiment.estimate import Estimate
    from headscope.experiment.predict import Prediction
    from headscope.tables import Table


def conclude(experiment: Path) -> None:
    """Write the report; print its table and where it stands."""
    from headscope.analysis.results.settings import setting_results, settings_table
    from headscope.analysis.results.table import short_table
    from headscope.audit_record import read_audit, summary_line
    from headscope.record import read_experiment
    from headscope.reporting import write_report

    page = write_report(experiment)
    print_table(short_table(settings_table(setting_results(read_experiment(experiment)))))
    audit = read_audit(experiment)
    if audit is not None:
        print(summary_line(audit))
    print(f"Report: {page}")


def print_audit(result: "Audit", page: Path, as_json: bool, leakage: "Leakage | None") -> None:
    """Print an audit's findings and where its page stands, or all of it as JSON."""
    import json

    import pandas as pd

    if as_json:
        facts = result.to_dict() | {"page": str(page)}
        facts |= {} if leakage is None else {"leakage": leakage.to_dict()}
        print(json.dumps(facts, indent=2, allow_nan=False))
        return
    for found in (result,) if leakage is None else (result, leakage):
        rows = [(each.check, each.level, each.text) for each in found.findings]
        if rows:
            print_table(pd.DataFrame(rows, columns=["Check", "Outcome", "Found"]))
        for note in found.notes:
            print(note)
    print(f"Page: {page}")


def print_estimate(found: "Estimate", out: Path) -> None:
    """Print the plan of an experiment, a row a run, and what it takes in all."""
    import pandas as pd

    rows = [
        {
            "Run": row.run,
            "Network": row.architecture,
            "Regime": row.regime,
            "Split": row.split,
            "Seed": row.seed,
            "Epochs": row.epochs,
            "Rate": f"{row.learning_rate:g}",
            "Time": "stands already" if row.finished else _duration(row.seconds),
            "Disk": "" if row.finished else _size(row.bytes),
        }
        for row in found.runs.itertuples()
    ]
    print_table(pd.DataFrame(rows))
    for note in found.notes:
        print(note)
    print(
        f"{len(found.runs) - int(found.runs['finished'].sum())} of {len(found.runs)} runs to do on "
        f"{found.slices} slices: about {_duration(found.seconds)} on this {found.device}, as "
        f"measured on one step, and {_size(found.bytes)} in {out}. Nothing was written."
    )


def print_prediction(found: "Prediction", as_json: bool) -> None:
    """Print what a run says of each slice and of each scan, or all of it as JSON."""
    import json

    if as_json:
        print(json.dumps(found.as_dict(), indent=2, allow_nan=False))
        return
    for table in (found.slices, found.scans):
        shown = table.copy()
        for name in found.class_names:
            shown[f"probability_{name}"] = shown[f"probability_{name}"].map("{:.3f}".format)
        shown.columns = [
            name.removeprefix("probability_")
            if name.startswith("probability_")
            else name.replace("_", " ").capitalize()
            for name in shown.columns
        ]
        print_table(shown)
    joined = {"mean": "the mean", "logits": "the mean of the logits", "vote": "the votes"}
    print(f"Run {found.run}; a scan's probability is {joined[found.aggregate]} of its slices.")


def _duration(seconds: float | None) -> str:
    """Write seconds as people say them; "unknown" where there is no figure."""
    if seconds is None or seconds != seconds:
        return "unknown"
    for limit, unit, length in ((100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:.2g} days"


def _size(size: float | None) -> str:
    if size is None or size != size:
        return "unknown"
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def print_table(table: "pd.DataFrame | Table") -> None:
    """Print a table on stdout: in a terminal as wide as it is, in a pipe as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    from headscope.tables import Table

    width = None if sys.stdout.isatty() else 200
    console = Console(highlight=False, width=width)
    if isinstance(table, Table):
        console.print(table)
        return
    shown = RichTable(box=box.SIMPLE_HEAD)
    for name in table.columns:
        numeric = table[name].map(lambda value: str(value)[:1].isdigit()).all()
        shown.add_column(escape(str(name)), justify="right" if numeric else "left")
    for row in table.itertuples(index=False):
        shown.add_row(*(escape(str(value)) for value in row))
    console.print(shown)
