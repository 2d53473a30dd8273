"""What published weights were trained on: of timm's by the tag in their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headscope.models.zoo import Architecture

NOT_STATED: Final = "not stated"
IMAGENET: Final = "ImageNet-1k"
TAGS: Final = {  # words of timm's tags, as its model cards explain them
    r"in1k|a1h?|a2|a3|ra\d?|tv2?|dino|mae|gluon": IMAGENET,
    r"in12k": "ImageNet-12k",
    r"in2[12]k": "ImageNet-21k",
    r"lvd142m": "LVD-142M (photographs)",
    r"lvd1689m": "LVD-1689M (photographs)",
    r"sat493m": "SAT-493M (satellite pictures)",
    r"laion2b": "LAION-2B",
    r"laion400m": "LAION-400M",
    r"openai": "WIT-400M",
    r"webli": "WebLI",
    r"ig1b": "Instagram-1B",
}
# medical weights that come as files, by a word of the file's name: what they saw, public cohorts
FILES: Final = {
    "radimagenet": ("RadImageNet (CT, MRI and ultrasound of one practice; Mei et al. 2022)", ()),
}


@dataclass(frozen=True)
class TrainedOn:
    """What weights were trained on: in words, the cohorts among it, and how that is known."""

    text: str
    cohorts: tuple[str, ...] = ()
    how: str = ""


def published_data(architecture: Architecture) -> str:
    """Return what an architecture's published weights were trained on."""
    if architecture.weights in ("torchvision", "package"):
        return IMAGENET
    tag = architecture.tag
    words = re.split(r"[._]", tag)
    data = [name for pattern, name in TAGS.items() if any(re.fullmatch(pattern, w) for w in words)]
    return ", ".join(data) or NOT_STATED


def trained_on(architecture: Architecture, weights: str, given: Sequence[str]) -> TrainedOn:
    """Return what the weights that a run starts from were trained on.

    given: the cohorts that the setting `pretraining_cohorts` names; it wins over what is known of
    "pretrained" weights or of a file by its name.
    """
    if given:
        return TrainedOn(", ".join(given), tuple(given), "as the setting pretraining_cohorts says")
    if weights == "random":
        return TrainedOn("nothing")
    if weights == "pretrained":
        return TrainedOn(published_data(architecture))
    name = re.sub(r"[^a-z0-9]", "", Path(weights).name.lower())
    for word, (text, cohorts) in FILES.items():
        if word in name:
            return TrainedOn(text, cohorts, "as published")
    return TrainedOn(NOT_STATED)
