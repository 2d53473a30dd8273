"""The chapter on subjects: which of them the networks predict wrongly, hardest first."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from headscope.record import Run
from headscope.reporting.blocks import Block, Chapter, Matrix, MatrixCell, Text

MOST_SUBJECTS: Final = 160  # columns of the matrix


def subjects_chapter(runs: Sequence[Run]) -> Chapter | None:
    """Show which test subjects each run predicts wrongly; None where no ids are known."""
    tests = {run.name: _shares(run) for run in runs if run.named}
    if not tests:
        return None
    table = pd.DataFrame({name: test["wrong"] / test["total"] for name, test in tests.items()})
    order = table.mean(axis=1).sort_values(ascending=False, kind="stable").index
    shown = [str(subject) for subject in order[:MOST_SUBJECTS]]
    rows = []
    for run in runs:
        if run.name not in tests:
            continue
        test = tests[run.name]
        cells = [
            MatrixCell(
                subject,
                k,
                float(test.loc[subject, "wrong"] / test.loc[subject, "total"]),
                f"{subject}: {test.loc[subject, 'wrong']:g} of {test.loc[subject, 'total']:g} "
                f"slices wrong, {run.setting.title}",
            )
            for k, subject in enumerate(shown)
            if subject in test.index
        ]
        rows.append((run.setting.network, run.setting.title, cells))
    some = (
        f" The {len(shown)} hardest of {len(order)} are shown." if len(order) > len(shown) else ""
    )
    text = (
        "One column per test subject, hardest first; one row per run. Ink is the share of the "
        f"subject's slices that are predicted wrongly; gaps are subjects that the run did not "
        f"test.{some} Click a subject for its slices."
    )
    blocks: list[Block] = [Text(text, style="notes"), Matrix(shown, rows)]
    return Chapter("subjects", "Subjects that are predicted wrongly", blocks, short="Subjects")


def _shares(run: Run) -> pd.DataFrame:
    """Count the test slices and the wrong ones by subject."""
    rows = run.predicted("test")
    wrong = np.asarray(rows["predicted"] != rows["label"], dtype=float)
    grouped = pd.Series(wrong).groupby(rows["subject_id"].to_numpy(str))
    return pd.DataFrame({"wrong": grouped.sum(), "total": grouped.size()})
