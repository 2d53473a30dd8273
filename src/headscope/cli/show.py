"""What commands print on stdout."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from headscope.analysis.leakage import Leakage
    from headscope.cohort.audit import Audit


def conclude(experiment: Path) -> None:
    """Write the report; print its table and where it stands."""
    from headscope.analysis.table import results_table, short_table
    from headscope.record import read_experiment
    from headscope.reporting import write_report

    page = write_report(experiment)
    print_table(short_table(results_table(read_experiment(experiment))))
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
        print_table(pd.DataFrame(rows, columns=["Check", "Outcome", "Found"]))
        for note in found.notes:
            print(note)
    print(f"Page: {page}")


def print_table(table: "pd.DataFrame") -> None:
    """Print a table on stdout: in a terminal as wide as it is, in a pipe as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    for name in table.columns:
        numeric = table[name].map(lambda value: str(value)[:1].isdigit()).all()
        shown.add_column(escape(str(name)), justify="right" if numeric else "left")
    for row in table.itertuples(index=False):
        shown.add_row(*(escape(str(value)) for value in row))
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, width=width).print(shown)
