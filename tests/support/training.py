"""A cohort and a network small enough to train in a second."""

import numpy as np
import torch

from headscope.models.network import build_network
from headscope.training.loader import SliceInputs
from headscope.training.loop import Data
from headscope.training.recipe import Recipe
from headscope.training.train import train

CPU = torch.device("cpu")
TINY = "timm/test_resnet"


def small_cohort():
    """Return 40 slices of two classes that differ by brightness, their labels and subsets."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 20)
    pixels = rng.integers(0, 120, (40, 32, 32)) + 100 * labels[:, None, None]
    subsets = np.repeat(["train", "val", "test"], [20, 8, 12])
    return pixels.astype(np.uint8), labels, subsets


def network(regime="finetune", seed=0, architecture=TINY):
    return build_network(architecture, regime, "random", classes=2, size=32, seed=seed)


def inputs_of(built, pixels):
    return SliceInputs(pixels, built.architecture.mean, built.architecture.std, CPU)


def data_of(built, cohort):
    pixels, labels, subsets = cohort
    inputs = inputs_of(built, pixels)
    rows = [np.flatnonzero(subsets == name) for name in ("train", "val")]
    return Data(inputs, inputs, torch.from_numpy(labels), *rows)


def run(regime, cohort, folder, recipe=None, seed=0, built=None, cache=None, **options):
    pixels, labels, subsets = cohort
    return train(
        built or network(regime, seed),
        pixels,
        labels,
        subsets,
        recipe or Recipe(epochs=4, learning_rate=0.05, batch_size=8),
        seed=seed,
        device=CPU,
        resume_path=folder / "checkpoint" / "last.pt",
        cache=cache or folder / "cache",
        slices_key="key",
        title="run",
        **options,
    )
