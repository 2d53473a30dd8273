"""All twelve rows of paper.toml on 1,680 slices at 224: seconds a row, beside the paper's.

    python bench/table.py [--data ../shared/data/oasis2] [--batch-size 32] [--compile]
    python bench/table.py --compile                               # on a GPU, beside the targets
    python bench/table.py --slices 60 --size 64 --epochs 1        # a short form, for a CPU

The slices are axial ones of OASIS-2, repeated to that number, and the weights are random: for
timing only. The targets are those of one GPU: all twelve rows in 60 s, and 8,000 slices per second
in the frozen pass of ResNet-101. Compiling is part of the seconds.

A row's seconds are those of everything but building the network and writing the record: the
training with its validation, or the one pass of a frozen backbone, and the features and maps that
the record keeps.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import headscope.experiment
import oasis2
from headscope.console import console
from headscope.experiment.config import read_config
from headscope.experiment.plan import plan_runs
from headscope.models.network import build_network
from headscope.training.train import train

# Table 2 of Khagi and Kwon 2022, min:sec, in the order of paper.toml
PAPER = {
    "resnet101": ("4:04", "7:48", "8:29", "22:48"),
    "googlenet": ("2:12", "3:21", "3:10", "6:27"),
    "vgg19": ("2:24", "3:55", "3:52", "7:46"),
}
TARGET_S, TARGET_RATE = 60, 8000


def seconds_of(text):
    minutes, seconds = text.split(":")
    return 60 * int(minutes) + int(seconds)


def paper_plans(folder):
    changes = {"data": folder, "out": folder / "out", "weights": "random"}
    return plan_runs(
        read_config(Path(headscope.experiment.__file__).parent / "paper.toml", changes)
    )


def timed(plan, pixels, labels, subsets, folder, device):
    """Train one row; return its seconds, those it calls training, slices/s of the pass."""
    size = pixels.shape[1]
    network = build_network(
        plan.architecture, plan.regime, "random", classes=2, size=size, seed=plan.setting.seed
    )
    start = time.perf_counter()
    outcome = train(
        network,
        pixels,
        labels,
        subsets,
        plan.recipe,
        seed=plan.setting.seed,
        device=device,
        resume_path=folder / plan.name / "last.pt",
        cache=folder / "cache",
        slices_key="repeated",
        title=plan.name,
    )
    seconds = time.perf_counter() - start
    return seconds, outcome.train_seconds, len(pixels) / outcome.extracted.seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=oasis2.DATA)
    parser.add_argument("--slices", type=int, default=1680)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    console.quiet = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    changes = {"compile": given.compile, "precision": given.precision}
    changes |= {"epochs": given.epochs} if given.epochs else {}
    changes |= {"batch_size": given.batch_size} if given.batch_size else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = oasis2.oasis2_slices(given.data, folder, given.size)
        pixels, labels = oasis2.repeated(found, given.slices)
        parts = np.array(["train"] * 5 + ["val"] * 2 + ["test"] * 3)
        subsets = np.random.default_rng(0).permutation(np.resize(parts, given.slices))
        device_name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        print(f"{given.slices} slices at {given.size}, {device_name}, {changes}")
        print("| row | epochs | seconds | of them training | pass, slices/s | the paper, s |")
        print("|---|---|---|---|---|---|")
        total = 0.0
        plans = paper_plans(folder)
        papers = [seconds_of(text) for times in PAPER.values() for text in times]
        for plan, paper in zip(plans, papers, strict=True):
            plan = replace(plan, recipe=replace(plan.recipe, **changes))
            clock, training, rate = timed(plan, pixels, labels, subsets, folder, device)
            total += clock
            row = f"| {plan.architecture.name} {plan.name.split('-', 1)[1].rsplit('-', 2)[0]} "
            row += f"| {plan.recipe.epochs} | {clock:.1f} | {training:.1f} | {rate:.0f} | {paper} |"
            print(row, flush=True)
        print(f"| all twelve | | {total:.1f} | | | {sum(papers)} |")
        print(f"| target, on a GPU | | {TARGET_S} | | {TARGET_RATE} (resnet101 frozen) | |")


if __name__ == "__main__":
    main()
