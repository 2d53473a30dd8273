"""Whether an encoder was pretrained on the cohort that it is to classify."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from headscope.cohort.layouts import Cohort
from headscope.experiment.plan import Plan
from headscope.manifest import DAMAGE
from headscope.models.sources import TrainedOn, trained_on

# names by which public cohorts go, as words in what a folder, a layout or a table says
COHORTS: Final = {
    "ABIDE": ("abide",),
    "ADHD-200": ("adhd200",),
    "ADNI": ("adni",),
    "AIBL": ("aibl",),
    "BraTS": ("brats",),
    "Cam-CAN": ("camcan",),
    "HCP": ("hcp", "humanconnectome"),
    "IXI": ("ixi",),
    "MIRIAD": ("miriad",),
    "NACC": ("nacc",),
    "OASIS": ("oasis",),
    "PPMI": ("ppmi",),
    "UK Biobank": ("ukb", "ukbb", "ukbiobank"),
}


def pretraining(plan: Plan, cohort: Cohort) -> dict[str, list[str] | None]:
    """Return what run.toml says of the cohorts that a run's weights have seen; None: nothing."""
    weights = plan.weights if plan.needs_weights else "random"
    given = plan.pretraining_cohorts if plan.needs_weights else ()
    seen = trained_on(plan.architecture, weights, given)
    return {
        "pretraining_cohorts": [*seen.cohorts] or None,
        "pretraining_overlap": overlaps(seen, cohort) or None,
    }


def overlaps(seen: TrainedOn, cohort: Cohort) -> list[str]:
    """Return a sentence for each cohort of an encoder's pretraining that the data are of.

    Releases of one study (OASIS-1 to -4) share subjects or may, so the name of the study counts.
    """
    sentences = []
    for name in seen.cohorts:
        for data, how in _names(cohort):
            if _study(name) and _study(name) == _study(data):
                sentences.append(
                    f"it was pretrained on {name} ({seen.how}), and the data are {data} ({how})"
                )
                break
    return sentences


def _names(cohort: Cohort) -> list[tuple[str, str]]:
    """Return the names that the data go by, and how each is known."""
    names = [(cohort.layout, "by their layout")]
    try:
        text = (cohort.root / "dataset_description.json").read_text(encoding="utf-8")
        names.append((str(json.loads(text)["Name"]), "by dataset_description.json"))
    except DAMAGE:  # there is none, or it names nothing
        pass
    places = [place for place in Path(cohort.root).resolve().parts[-2:] if _study(place)]
    return names + [(_study(place), "by the name of their folder") for place in places[::-1]]


def _study(name: str) -> str:
    """Return the study that a name is of, without its release; of an unknown one the name."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    plain = {re.sub(r"\d+$", "", word) if word != "adhd200" else word for word in words}
    plain |= {first + second for first, second in pairwise(words)}
    for study, aliases in COHORTS.items():
        if plain & set(aliases):
            return study
    return ""
