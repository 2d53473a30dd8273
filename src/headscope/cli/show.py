"""What commands print on stdout."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headscope.experiment.estimate import Estimate

UNKNOWN = "unknown"


def show(*results: Any) -> None:
    """Print tables and results: in a terminal as wide as it is, in a pipe as wide as they need."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, markup=False, width=width).print(*results, sep="\n")


def show_json(value: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(value, indent=2, allow_nan=False))


def conclude(experiment: Path, thumbnails: str | None = None, *, write: bool = True) -> None:
    """Write the report of an experiment, or not; print its table and where the page is."""
    from headscope.console import busy

    with busy("Loading"):
        from headscope.analysis.explanations.external import TABLE, short_cohorts
        from headscope.analysis.explanations.ladder import read_ladder
        from headscope.analysis.results.table import short_table
        from headscope.audit_record import read_audit, summary_line
        from headscope.files import read_table
        from headscope.reporting.page import write_report

    page = write_report(experiment, thumbnails) if write else experiment / "report.html"
    show(short_table(read_table(experiment / "table.tsv")))
    if (experiment / TABLE).is_file():
        show(*short_cohorts(read_table(experiment / TABLE)))
    audit = read_audit(experiment)
    if audit is not None:
        print(summary_line(audit))
    ladder = read_ladder(experiment)
    for sentence in ladder.sentences if ladder is not None else ():
        print(f"Ablation ladder: {sentence}")
    print(f"Report: {page}")


def show_estimate(estimate: "Estimate", out: Path) -> None:
    """Print the plan of an experiment, one row per run, and its cost in all."""
    from headscope.tables import Table

    rows = [
        (
            *(row.run, row.architecture, row.regime, row.split, row.seed, row.epochs or ""),
            f"{row.learning_rate:g}" if row.epochs else "",
            "already finished" if row.finished else _duration(row.seconds),
            "" if row.finished else _size(row.bytes),
        )
        for row in estimate.runs.itertuples()
    ]
    columns = ("Run", "Network", "Regime", "Split", "Seed", "Epochs", "Rate", "Time", "Disk")
    show(Table("", columns, rows, estimate.notes))
    print(
        f"{len(rows) - int(estimate.runs['finished'].sum())} of {len(rows)} runs to do on "
        f"{estimate.slices} slices: about {_duration(estimate.seconds)} on this {estimate.device}, "
        f"as measured on one step, and {_size(estimate.bytes)} in {out}. Nothing was written."
    )
    if estimate.tested is not None:
        print(estimate.tested.sentence)


def _duration(seconds: Any) -> str:
    if seconds is None or seconds != seconds:
        return UNKNOWN
    for limit, unit, length in ((100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:.2g} days"


def _size(size: Any) -> str:
    if size is None or size != size:
        return UNKNOWN
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
