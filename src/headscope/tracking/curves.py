"""What a tracker shows of a run: curves with their times, settings, scores and figures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from numbers import Real
from typing import Any, Final

from headscope.analysis.results.table import results_table
from headscope.manifest import content_hash
from headscope.record import Run

CURVES: Final = (
    *("train_loss", "val_loss", "train_slice_accuracy", "val_slice_accuracy", "learning_rate"),
)
GROWS: Final = "epochs"  # the one setting that differs where a finished run continues


def identity(run: Run) -> str:
    """Return a SHA-256 of the settings of a run but for its epochs: a longer run is the same."""
    return content_hash({name: value for name, value in run.settings.items() if name != GROWS})


def curves_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a row of the history, by the names of their curves."""
    return {f"epoch/{name}": float(row[name]) for name in CURVES if row.get(name) is not None}


def times_of(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return when the epochs ended, in seconds since 1970: from the start of the run, by theirs."""
    start = (run.path / "run.toml").stat().st_mtime
    return [start + passed for passed in accumulate(row.get("seconds", 0.0) for row in rows)]


def settings_of(run: Run) -> dict[str, str]:
    """Return the settings as text, one of a table as 'slicing.plane'; without the epochs."""
    flat: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, part in value.items():
                add(f"{name}.{key}", part)
        elif name != GROWS:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)

    for name, value in run.settings.items():
        add(name, value)
    return flat


def scores_of(run: Run) -> tuple[dict[str, float], str]:
    """Return the numbers of a run's row of `runs.tsv` that are defined, and its marker.

    The marker says why the accuracy may be inflated; it is empty where nothing is known.
    """
    row = results_table([run]).iloc[0].to_dict()
    numbers = {
        str(name): float(value)
        for name, value in row.items()
        if name not in ("seed", "fold") and isinstance(value, Real) and value == value
    }
    return numbers, str(row["marker"])


def draw_figures(run: Run) -> Iterator[tuple[str, Any]]:
    """Yield the figures of a network by name; none shows a slice."""
    if run.is_rival:
        return
    from headscope.analysis import analyse_pair
    from headscope.analysis.results.table import all_slices
    from headscope.figures import plot_logits, plot_weights

    yield "logits", plot_logits(all_slices(run))
    title, network = run.setting.title, run.setting.network
    yield "weights", plot_weights(analyse_pair(run), title, network)
