"""What commands print on stdout."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headscope.cli.app import loading
from headscope.errors import RunError

if TYPE_CHECKING:
    from headscope.experiment.config import Config
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
    with loading():
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


def show_list(config: "Config", only: list[str] | None, as_json: bool) -> None:
    """Print the names of the runs, as JSON with what tells them apart and whether they finished."""
    from headscope.experiment.preflight import choose_runs, find_plans, unfinished

    plans = choose_runs(find_plans(config), only)
    if not as_json:
        print(*(plan.name for plan in plans), sep="\n")
        return
    todo = {plan.name for plan in unfinished(config, plans)}
    show_json(
        [
            {"name": plan.name, **asdict(plan.setting), "finished": plan.name not in todo}
            for plan in plans
        ]
    )


def run_some(config: "Config", only: list[str]) -> str:
    """Train some runs of an experiment; return a sentence on them."""
    from headscope.experiment.run import RunsFailed, run

    try:
        experiment = run(config, only=only)
    except RunsFailed as failed:
        raise RunError(failed.summary) from None
    what = f"{', '.join(only)} finished" if only else "Ready to train"
    return f"{what}. 'headscope report {experiment}' reports on all runs that have ended."


def conclude_run(start: Callable[[], Path], out: Path) -> None:
    """Run an experiment and report on it; where runs failed, on those that finished.

    Of several commands that share its runs, the first to end writes the report.
    """
    from headscope.experiment.run import RunsFailed
    from headscope.files import locked

    page = out / "report.html"
    before = _written_at(page)
    failed: RunsFailed | None = None
    try:
        start()
    except RunsFailed as error:
        failed = error
    if failed is None or failed.finished:
        with locked(out, wait=True):
            records = max(map(_written_at, (out / "runs").glob("*/metrics.json")), default=0)
            conclude(out, write=_written_at(page) in (0, before) or _written_at(page) < records)
    if failed is not None:
        raise RunError(failed.summary)


def _written_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
