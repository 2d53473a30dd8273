"""How near the null prediction of r comes to r, on frozen features of real scans, over seeds.

python bench/null.py SCANS WEIGHTS OUT [--architecture resnet50_v1] > bench/results/null.md
"""

import argparse
from pathlib import Path

import headscope as hs


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
    config = hs.Config(
        data=given.scans, out=given.out, architectures=(given.architecture,), weights=given.weights,
        regimes=("frozen",), seeds=tuple(range(given.seeds)), epochs=given.epochs,
        learning_rate=given.rate, size=given.size, keep_model=False, workers=1,
    )  # fmt: skip
    hs.run(config)
    print(f"# Null prediction of r: {given.architecture}, frozen, {given.epochs} epochs at "
          f"{given.rate}, slices of {given.size} pixels\n")  # fmt: skip
    print("| seed | r | null | residual | 95% interval | displacement ratio | drift of row sum |")
    print("|--:|--:|--:|--:|---|--:|--:|")
    for run in hs.read_experiment(given.out):
        pair = hs.analyse_head(run).pairs[0]
        interval = f"{pair.residual_low:.1e} to {pair.residual_high:.1e}"
        print(
            f"| {run.settings['seed']} | {pair.r:.5f} | {pair.r_null:.5f} | {pair.residual:.1e} "
            f"| {interval} | {pair.displacement_ratio:.2f} | {pair.row_sum_drift:.1e} |"
        )


if __name__ == "__main__":
    main()
