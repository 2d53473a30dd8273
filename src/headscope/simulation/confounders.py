"""Confounders planted in a simulated cohort: an age that shows, and a scanner that shades."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

KNOBS: Final = {  # the least and the most, as of a simulated cohort
    "age_gap": (0.0, 30.0),
    "age_effect": (0.0, 4.0),
    "site_gap": (0.0, 1.0),
    "site_bias": (0.0, 1.0),
}
MEAN_AGE: Final = 70.0
AGE_SPREAD: Final = 6.0  # years, standard deviation within a class
SITES: Final = ("A", "B")  # the second shades its scans


def plant_confounders(
    plan: Sequence[dict[str, Any]], seed: int, settings: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a plan whose subjects have an age and a site, as settings plant them.

    Ages are normal; AD is `age_gap` years older, and each ten years above 70 add `age_effect` to
    the severity. Half of the subjects are of site B; `site_gap` is the share of AD there less that
    of NC. None of this changes what else is drawn.
    """
    rng = np.random.default_rng([seed, 1])
    subjects = {row["subject"]: row["label"] for row in plan}
    facts = {}
    for subject in sorted(subjects):
        sign = 1 if subjects[subject] == "AD" else -1
        age = MEAN_AGE + AGE_SPREAD * rng.standard_normal() + sign * settings["age_gap"] / 2
        second = rng.random() < (1 + sign * settings["site_gap"]) / 2
        facts[subject] = {"age": age, "site": SITES[int(second)]}
    planted = []
    for row in plan:
        age = facts[row["subject"]]["age"] + row["session"] - 1
        severity = row["severity"] + settings["age_effect"] * (age - MEAN_AGE) / 10
        more = {"age": round(age, 1), "site": facts[row["subject"]]["site"]}
        planted.append(row | more | {"severity": max(0.0, severity)})
    return planted


def shade(volume: NDArray[np.int16], strength: float) -> NDArray[np.int16]:
    """Return a scan (I, J, K) under a bias field: brighter to the front by exp(strength)."""
    ramp = np.linspace(-strength / 2, strength / 2, volume.shape[1])[:, None]
    shaded = np.clip(np.rint(volume * np.exp(ramp)), 0, 32767)
    return np.where(volume > 0, np.maximum(shaded, 1), 0).astype(np.int16)
