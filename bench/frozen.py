"""Time of a frozen run over that of a fine-tuned one: ResNet-50 at 224 on OASIS-2, 30 epochs.

    python bench/frozen.py [--data ../shared/data/oasis2] [--weights FILE] [--epochs 30]

Fine-tuning is measured on two epochs, validation included, and scaled to 30. The frozen run is
measured whole: the pass of all slices, 30 epochs of the classifier, and the feature maps.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import oasis2
from figure import Figure
from headscope.console import console
from headscope.models.network import build_network
from headscope.training.recipe import Recipe
from headscope.training.train import train

WEIGHTS = oasis2.DATA.parents[1] / "weights" / "resnet50_v1_imagenet_fp16.safetensors"
FINETUNED_EPOCHS = 2


def short(place):
    """Return the ratios at 64 pixels."""
    given = argparse.Namespace(
        data=place.scans("oasis2"),
        weights=str(place.checkpoint(WEIGHTS.name)),
        architecture="resnet50_v1",
        epochs=30,
        size=64,
    )
    console.quiet = True
    plain, with_maps = print_ratios(place.folder, given, torch.device("cpu"))
    return [
        Figure("frozen over fine-tuned, ResNet-50, 30 epochs", plain, "×", at_most=0.03),
        Figure("the same with feature maps", with_maps, "×", at_most=0.03),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=oasis2.DATA)
    parser.add_argument("--weights", default=str(WEIGHTS))
    parser.add_argument("--architecture", default="resnet50_v1")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    console.quiet = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        print_ratios(Path(name), given, device)


def print_ratios(folder, given, device):
    """Train frozen, fine-tuned and frozen again; print the seconds, return the two ratios."""
    slices = oasis2.oasis2_slices(given.data, folder, given.size)
    subsets = oasis2.subject_split(slices, folder)

    def run(regime, epochs):
        network = build_network(
            given.architecture, regime, given.weights, classes=2, size=given.size, seed=0
        )
        start = time.perf_counter()
        outcome = train(
            network,
            slices.pixels,
            slices.labels,
            subsets,
            Recipe(epochs=epochs, learning_rate=0.001),
            seed=0,
            device=device,
            resume_path=folder / regime / "last.pt",
            cache=folder / "cache",
            slices_key=slices.sha256,
            title=regime,
        )
        return outcome, time.perf_counter() - start

    counts = {name: int((subsets == name).sum()) for name in ("train", "val", "test")}
    print(f"{given.architecture}, {given.size} × {given.size}, slices: {counts}", flush=True)
    frozen, clock = run("frozen", given.epochs)
    head = sum(row["seconds"] for row in frozen.history)
    print(
        f"frozen, {given.epochs} epochs: {frozen.train_seconds:.2f} s (pass "
        f"{frozen.extracted.seconds:.2f}, classifier {head:.2f}), {clock:.2f} s with maps",
        flush=True,
    )
    tuned, _ = run("finetune", FINETUNED_EPOCHS)
    epochs = [row["seconds"] for row in tuned.history]
    scaled = sum(epochs) / len(epochs) * given.epochs
    print(f"fine-tuned: {epochs} s an epoch, {scaled:.0f} s scaled to {given.epochs} epochs")
    ratios = frozen.train_seconds / scaled, clock / scaled
    print(f"ratio {ratios[0]:.4f}, with maps {ratios[1]:.4f}")
    _, clock = run("frozen", 1)
    print(f"a second frozen run, from the cache: {clock:.2f} s on the clock")
    return ratios


if __name__ == "__main__":
    main()
