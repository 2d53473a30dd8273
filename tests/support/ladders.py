"""Ablation ladders made of numbers, without runs."""

from math import nan
from types import SimpleNamespace

import numpy as np

from headscope.analysis.explanations.ladder import TITLE, WHOLE, Ladder, Rung, SettingLadder
from headscope.analysis.results.chance import AgainstChance
from headscope.analysis.results.comparisons import Difference
from headscope.analysis.results.settings import Majority, SettingResult
from headscope.analysis.results.table import Score
from headscope.slicing.rungs import RUNGS

REACHING = (  # accuracy, its interval, the interval of the difference from whole slices
    (0.80, 0.70, 0.88, nan, nan),
    (0.78, 0.68, 0.86, -0.08, 0.04),
    (0.76, 0.66, 0.85, -0.10, 0.01),
    (0.70, 0.60, 0.79, -0.18, -0.02),
    (0.55, 0.45, 0.65, -0.34, -0.16),
    (0.52, 0.41, 0.62, -0.38, -0.18),
    (0.60, 0.50, 0.70, -0.30, 0.10),
)


def make_ladder(rows=REACHING, share=0.55, nameless=False, name="frozen"):
    """A ladder of one network whose rungs have these accuracies."""
    names = [WHOLE, *RUNGS][: len(rows)]
    titles = {WHOLE: TITLE} | {rung: title for rung, (title, _) in RUNGS.items()}
    chance = AgainstChance("above", 0.7, 0.6, 0.8, 0.01, 40, 2)
    scores = {"subject_accuracy": Score(*rows[0][:3])}
    run = SimpleNamespace(name=f"resnet101-{name}-subject-seed0")
    full = SettingResult(
        "resnet101", name, "frozen", "subject", (run,), scores, Majority("NC", share, share),
        {}, 0, 40, 40, 400, 0, nameless, chance,
    )  # fmt: skip
    rungs = tuple(
        Rung(
            rung,
            titles[rung],
            Score(value, low, high),
            Score(value, low, high),
            Difference(value - rows[0][0], least, most, "bootstrap over subjects", 0.5),
            share,
        )
        for rung, (value, low, high, least, most) in zip(names, rows, strict=True)
    )
    grey = np.hypot(*np.mgrid[-20:20, -20:20])
    pictures = {rung: (255 * (grey < 18 - k)).astype(np.uint8) for k, rung in enumerate(names)}
    notes = ("A pixel is 0.98 mm: the median over the voxels of 9 scans.",)
    shown = {rung: titles[rung] for rung in names}
    return Ladder((SettingLadder(full, rungs),), shown, notes, pictures)
