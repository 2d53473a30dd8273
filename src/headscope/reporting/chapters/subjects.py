"""The chapter on subjects: which of them the networks predict wrongly, hardest first."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from headscope.record import Run
from headscope.reporting.blocks import Block, Chapter, Text
from headscope.reporting.chapters.runs import group_by
from headscope.reporting.plots import Matrix, MatrixCell

MOST_ROWS: Final = 12  # runs that have a row each
MOST_SUBJECTS: Final = 160  # columns of the matrix


def subjects_chapter(runs: Sequence[Run]) -> Chapter | None:
    """Show which test subjects each run predicts wrongly; None where no ids are known."""
    named = [run for run in runs if run.named]
    if not named:
        return None
    # one row per run, or of very many runs one per setting: its tests taken together
    groups = [(run.setting.network, run.setting.title, [run]) for run in named]
    if len(named) > MOST_ROWS:
        groups = [
            (row[0], f"{row[1]}, {row[3]} split", members)
            for row, members in group_by(named, lambda run: run.setting.row)
        ]
    counts = [_count(members) for _, _, members in groups]
    shares: dict[str, list[float]] = {}
    for count in counts:
        for subject, (wrong, total) in count.items():
            shares.setdefault(subject, []).append(wrong / total)
    order = sorted(shares, key=lambda subject: -float(np.mean(shares[subject])))
    shown = order[:MOST_SUBJECTS]
    rows = []
    for (network, title, _), count in zip(groups, counts, strict=True):
        cells = []
        for k, subject in enumerate(shown):
            if subject in count:
                wrong, total = count[subject]
                words = f"{subject}: {wrong} of {total} slices wrong, {title}"
                cells.append(MatrixCell(subject, k, wrong / total, words))
        rows.append((network, title, cells))
    some = (
        f" The {len(shown)} hardest of {len(order)} are shown." if len(order) > len(shown) else ""
    )
    text = (
        "One column per test subject, hardest first; one row per run, or of many runs per setting. "
        "Ink is the share of the subject's slices that are predicted wrongly; gaps are subjects "
        f"that were not tested.{some} Click a subject for its slices."
    )
    blocks: list[Block] = [Text(text, style="notes"), Matrix(shown, rows)]
    return Chapter("subjects", "Subjects that are predicted wrongly", blocks, short="Subjects")


def _count(runs: Sequence[Run]) -> dict[str, tuple[int, int]]:
    """Count the wrong test slices and all of them by subject, over some runs."""
    rows = pd.concat([run.predicted("test") for run in runs])
    wrong = (rows["predicted"] != rows["label"]).groupby(rows["subject_id"].astype(str))
    return {name: (int(group.sum()), len(group)) for name, group in wrong}
