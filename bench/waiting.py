"""How long OpenMP's threads should look for work before they sleep: steps of a small network.

`python bench/waiting.py` times training steps of EfficientNet-Lite0 at 96 × 96 by two threads, each
policy in a process of its own, in turn: alone, beside two busy processes, and beside another such
training. The last column is of two trainings at once by one thread each, as in `headscope demo`.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median

POLICIES = {
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
    "2,000 looks (headscope)": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"},
    "10,000 looks": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
    "OpenMP's own": {},
}
BUSY = [sys.executable, "-c", "while True: pass"]


def step_times(steps=8, threads=2, warm=2):
    """Return the seconds of each step of one training."""
    import timm
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    model = model.to(memory_format=torch.channels_last).train()
    images = torch.randn(32, 3, 96, 96).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (32,))
    optimiser = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        optimiser.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return seconds[warm:]


def timed(policy, beside=(), threads=2):
    """Return the median seconds of a step under a policy, beside other processes."""
    rest = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    settings = rest | POLICIES[policy]
    others = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, env=settings) for command in beside
    ]
    try:
        command = training(8, threads)
        text = subprocess.run(command, env=settings, check=True, capture_output=True, text=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return median(float(seconds) for seconds in text.stdout.split())


def training(steps, threads):
    """Return the command that trains so many steps and prints their seconds."""
    return [sys.executable, __file__, "--steps", str(steps), "--threads", str(threads)]


def short(place):
    """Return a step under headscope's policy over that of threads that sleep at once, or busy."""
    from figure import Figure

    ours, asleep = (timed(policy) for policy in ("2,000 looks (headscope)", "sleep at once"))
    busy = timed("2,000 looks (headscope)", (BUSY, BUSY))
    return [
        Figure("a step over that of threads that sleep at once", ours / asleep, "×", at_most=1.2),
        Figure("a step beside two busy processes over one alone", busy / ours, "×", at_most=4),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="time steps here, and print their seconds")
    parser.add_argument("--threads", type=int, default=2, help="of those steps")
    options = parser.parse_args()
    if options.steps:
        print(*step_times(options.steps, options.threads))
        return
    places = {  # processes beside, and threads
        "alone": ((), 2),
        "beside two busy": ((BUSY, BUSY), 2),
        "beside its like": ((training(1000, 2),), 2),
        "two at once, a thread each": ((training(1000, 1),), 1),
    }
    results = {(policy, place): [] for policy in POLICIES for place in places}
    for _ in range(options.rounds):
        for place, (beside, threads) in places.items():
            for policy in POLICIES:
                results[policy, place].append(timed(policy, beside, threads))
    print("seconds of a step, median of", options.rounds, "rounds (least to most)")
    print("", *places, sep="\t")
    for policy in POLICIES:
        cells = [results[policy, place] for place in places]
        print(policy, *(f"{median(c):.2f} ({min(c):.2f}–{max(c):.2f})" for c in cells), sep="\t")


if __name__ == "__main__":
    main()
