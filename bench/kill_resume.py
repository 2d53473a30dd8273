"""Kill a run at random moments, start it again each time, and compare what it writes.

    python bench/kill_resume.py [--kills 20] [--architecture tf_efficientnet_lite0] [--out FOLDER]

An undisturbed experiment on a simulated cohort comes first. Then the same experiment is started in
a process of its own, killed with SIGKILL at a random moment, and started again, until it ends; if
it ends before the last kill, another one begins. model.safetensors, head.npz and predictions.tsv
of every run must be byte for byte those of the undisturbed one. Resume files within an epoch are
written as often as the rule of one twentieth of the time allows, and not every five minutes.

The processes are forks of one that has imported everything, so that a kill hits work and seldom an
import; one thread each.
"""

import argparse
import functools
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process that has started threads cannot fork

import numpy as np

import headscope.experiment.run as experiment
from headscope.console import console
from headscope.experiment.config import make_config
from headscope.simulation.cohort import simulate_cohort

FILES = ("model.safetensors", "head.npz", "predictions.tsv")


def settings(cohort, out, architecture, regimes, epochs):
    return make_config(
        data=cohort,
        out=out,
        architectures=(architecture,),
        weights="pretrained" if architecture == "tf_efficientnet_lite0" else "random",
        regimes=regimes,
        epochs=epochs,
        learning_rate=0.01,
        batch_size=16,
        count=6,
        size=64,
        select="best",
        augment_flip=True,
        workers=1,
        device="cpu",
    )


def start(config):
    """Run the experiment in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        experiment.run(config)
    except BaseException as error:  # noqa: BLE001 - the child must never return into main
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def ended(child, seconds):
    """Wait at most `seconds`; return whether the child has ended by itself, and well."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                sys.exit(f"the run failed with status {os.waitstatus_to_exitcode(status)}")
            return True
        time.sleep(0.002)
    return False


def written(out):
    """Return the bytes of the compared files, by run and name."""
    return {
        f"{run.name}/{name}": (run / name).read_bytes()
        for run in sorted((out / "runs").iterdir())
        for name in FILES
    }


def stage_of(out):
    """Say how far a killed experiment had come."""
    runs = out / "runs"
    begun = sorted(runs.iterdir(), key=lambda run: run.stat().st_mtime) if runs.is_dir() else []
    if not begun:
        return "before training"
    resume_files = len(list(begun[-1].glob("checkpoint/*.pt")))
    return f"{len(list(runs.glob('*/metrics.json')))} runs done, {resume_files} resume files"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--architecture", default="tf_efficientnet_lite0")
    parser.add_argument("--regimes", default="frozen-adabn,finetune,lp-ft")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp())
    console.quiet = True
    experiment.train = functools.partial(experiment.train, resume_every_s=0.0)
    cohort = simulate_cohort(folder / "cohort", subjects=given.subjects, workers=1)
    config = functools.partial(
        settings,
        cohort,
        architecture=given.architecture,
        regimes=tuple(given.regimes.split(",")),
        epochs=given.epochs,
    )
    begin = time.perf_counter()
    if not ended(start(config(folder / "undisturbed")), 3600):
        sys.exit("the undisturbed run did not end")
    seconds = time.perf_counter() - begin
    oracle = written(folder / "undisturbed")
    print(f"undisturbed: {seconds:.1f} s, {len(oracle)} files")

    rng = np.random.default_rng(given.seed)
    kills = experiments = 0
    begin, out = time.perf_counter(), folder / "killed"
    while True:
        child = start(config(out))
        wait = rng.uniform(0, seconds / 3) if kills < given.kills else 3600
        if ended(child, wait):
            different = [name for name, content in written(out).items() if content != oracle[name]]
            experiments += 1
            if different or written(out).keys() != oracle.keys():
                sys.exit(f"DIFFERENT after {kills} kills: {', '.join(different)}")
            if kills >= given.kills:
                break
            shutil.rmtree(out)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
        print(f"kill {kills} after {wait:.2f} s: {stage_of(out)}", flush=True)
    if not given.out:
        shutil.rmtree(folder)
    print(
        f"{kills} kills over {experiments} experiments, {time.perf_counter() - begin:.1f} s: "
        f"all {len(oracle)} files byte-identical"
    )


if __name__ == "__main__":
    main()
