"""How near the null prediction of r comes to r, on frozen features of real scans, over seeds.

python bench/null.py SCANS WEIGHTS OUT [--architecture resnet50_v1] > bench/results/null.md
"""

import argparse
from pathlib import Path

import headscope as hs
from figure import Figure


def measure(scans, out, architecture, weights, seeds, **options):
    """Return the pair of rows of each seed's frozen run."""
    config = hs.Config(
        data=scans, out=out, architectures=(architecture,), weights=weights, regimes=("frozen",),
        seeds=tuple(range(seeds)), keep_model=False, workers=1, **options,
    )  # fmt: skip
    hs.run(config)
    return {run.settings["seed"]: hs.analyse_head(run).pairs[0] for run in hs.read_experiment(out)}


def short(place):
    """Return the largest residual over two seeds of SqueezeNet on OASIS-2 at 64 pixels."""
    weights = place.checkpoint("squeezenet1_1_imagenet.safetensors")
    options = {"epochs": 10, "learning_rate": 0.01, "size": 64}
    pairs = measure(
        place.scans("oasis2"), place.folder / "out", "squeezenet1_1", str(weights), 2, **options
    )
    largest = max(abs(pair.residual) for pair in pairs.values())
    return [Figure("largest residual of r over its null prediction", largest, "", at_most=0.001)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", type=Path)
    parser.add_argument("weights")
    parser.add_argument("out", type=Path)
    parser.add_argument("--architecture", default="resnet50_v1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    options = {"epochs": given.epochs, "learning_rate": given.rate, "size": given.size}
    pairs = measure(
        given.scans, given.out, given.architecture, given.weights, given.seeds, **options
    )
    print(f"# Null prediction of r: {given.architecture}, frozen, {given.epochs} epochs at "
          f"{given.rate}, slices of {given.size} pixels\n")  # fmt: skip
    print("| seed | r | null | residual | 95% interval | displacement ratio | drift of row sum |")
    print("|--:|--:|--:|--:|---|--:|--:|")
    for seed, pair in pairs.items():
        interval = f"{pair.residual_low:.1e} to {pair.residual_high:.1e}"
        print(
            f"| {seed} | {pair.r:.5f} | {pair.r_null:.5f} | {pair.residual:.1e} "
            f"| {interval} | {pair.displacement_ratio:.2f} | {pair.row_sum_drift:.1e} |"
        )


if __name__ == "__main__":
    main()
