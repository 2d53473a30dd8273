"""Kill slice, run, report and audit at random moments, start them again, compare every file.

    python bench/kill_resume.py [--kills 100] [--architecture timm/test_resnet] [--out FOLDER]

The four commands run undisturbed on a simulated cohort first. Then the same commands are started in
another folder, killed at random moments by SIGKILL, SIGTERM and SIGINT in turn, and started again
until they end; rounds follow one another until there were enough kills. None may print a traceback,
SIGTERM and SIGINT must end in the line that says how to continue, no temporary file may be left
once a command has ended, and every file must be byte for byte that of the undisturbed commands.

The clock that measures seconds stands still, so that no file differs by them. Resume files are
written after every step. Most processes are forks of one that has imported everything, so that a
kill hits work; every fifth is a new one and is killed while it imports, too. One thread each.
"""

import argparse
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process that has started threads cannot fork

import numpy as np
import timm  # noqa: F401 - takes seconds to load, and each fork has it so

import headscope.auditing.shortcuts
import headscope.experiment.run as experiment
import headscope.reporting.page
import headscope.slicing.export
from headscope.cli import main as headscope_command
from headscope.signals import STOPPED, end_at_signals
from headscope.simulation.cohort import simulate_cohort
from headscope.supplement import export

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NEW_EVERY = 5  # so many processes, of which one is no fork
SHORTENED = ("run", "report", "audit")  # in forks alone: a new process draws and searches in full
STILL = "import time\ntime.perf_counter = lambda: 0.0\n"  # sitecustomize.py of new processes
LEFT = (".tmp-*", "slices.part-*")


def commands(given):
    """Return the commands, by name; their paths are below the folder in which they run."""
    slices = ["--count", "4", "--size", "32", "--workers", str(given.workers)]
    network = ["--architectures", given.architecture, "--weights", "random"]
    network += ["--regimes", given.regimes, "--epochs", str(given.epochs), "--batch-size", "16"]
    network += ["--set", "select=best", "--set", "augment_flip=true", "--device", "cpu"]
    network += ["--learning-rate", "0.01"]
    return {
        "slice": ["slice", "../cohort", "pictures", *slices, "--format", "png"],
        "run": ["run", "../cohort", "--out", "first", *slices, *network],
        "report": ["report", "first"],
        "audit": ["audit", "first", "--permutations", "20"],
    }


def start(arguments, folder, log, *, new=False):
    """Start a command in `folder`, stderr into `log`; return its process id once it has begun."""
    if new:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder.parent), *sys.path])}
        with log.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "headscope", *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=file,
            ).pid
        wait_for_handlers(child)
        return child
    child = os.fork()
    if not child:
        run_here(arguments, folder, log)
    wait_for_handlers(child)
    return child


def run_here(arguments, folder, log):
    """Run a command in this process, a fork, and end it."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    code = 70
    try:
        end_at_signals()
        sys.argv = ["headscope", *arguments]
        headscope_command()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException as error:  # noqa: BLE001 - the fork must never return into main
        os.write(2, f"Traceback: {type(error).__name__}: {error}\n".encode())
    os._exit(code)


def wait_for_handlers(child):
    """Wait until a process answers SIGTERM: before, it is Python that starts."""
    bit = 1 << (signal.SIGTERM - 1)
    while True:
        try:
            status = Path(f"/proc/{child}/status").read_text()
        except FileNotFoundError:
            return
        caught = int(status.split("SigCgt:")[1].split()[0], 16) if "SigCgt:" in status else bit
        if caught & bit or "\nState:\tZ" in status:
            return
        time.sleep(0.001)


def ended(child, seconds):
    """Wait at most `seconds`; return the exit code of a process that has ended by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def check_log(name, log, code, number=None):
    """Stop where a command ended in another way than it should."""
    text = log.read_text(errors="replace")
    stopped = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}.get(number)
    expected = {0, 3} if number is None else {stopped, 0, 3, -number}  # it may just have ended
    said = number in (None, signal.SIGKILL) or code != stopped or text.endswith(f"{STOPPED}\n")
    if "Traceback" in text or code not in expected or not said:
        sys.exit(f"{name} ended with {code} after {number and number.name}:\n{text[-3000:]}")


def written(folder):
    """Return the bytes of every file, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check_left(name, folder):
    """Stop where a command that has ended left temporary files."""
    left = [str(path) for pattern in LEFT for path in folder.rglob(pattern)]
    if left:
        sys.exit(f"{name} left {', '.join(left)}")


def undisturbed(given, folder, log):
    """Run the commands once; return the seconds of each."""
    seconds = {}
    folder.mkdir()
    for name, arguments in commands(given).items():
        begin = time.monotonic()
        check_log(name, log, ended(start(arguments, folder, log), 3600))
        seconds[name] = time.monotonic() - begin
    return seconds


def kill_often(name, given, folder, log, seconds, kills, rng):
    """Start a command and kill it, a few times or until it has ended; return the kills so far."""
    arguments = commands(given)[name]
    for _ in range(min(given.at_once, given.kills - kills)):
        number = SIGNALS[kills % len(SIGNALS)]
        new = kills % NEW_EVERY == NEW_EVERY - 1 and not (given.short and name in SHORTENED)
        wait = rng.uniform(0, (3 if new else 0) + seconds[name])
        child = start(arguments, folder, log, new=new)
        code = ended(child, wait)
        if code is not None:  # before it could be killed
            check_log(name, log, code)
            break
        os.kill(child, number)
        check_log(name, log, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), number)
        kills += 1
        print(f"kill {kills}: {name} by {number.name} after {wait:.2f} s", flush=True)
    check_log(name, log, ended(start(arguments, folder, log), 3600))
    check_left(name, folder)
    return kills


def parse(arguments=None):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=9, help="kills of a command in a round")
    parser.add_argument("--architecture", default="timm/test_resnet")
    parser.add_argument("--regimes", default="frozen-adabn,lp-ft")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--subjects", type=int, default=14)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--short", action="store_true", help="few trees and permutations, empty figures: fast"
    )
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def short(place):
    """Return the number of kills that were survived, of files that differ, of 6 kills."""
    from figure import Figure

    kills = kill_and_compare(parse(["--short", "--kills", "6", "--at-once", "2"]))
    return [Figure("kills after which every file was the same", kills, "", at_least=6)]


def main():
    kill_and_compare(parse())


def kill_and_compare(given):
    """Kill and start again until there were enough kills; return their number."""
    folder = Path(given.out or tempfile.mkdtemp()).resolve()
    log = folder / "stderr"
    simulate_cohort(folder / "cohort", subjects=given.subjects, spacing_mm=6.0, workers=1)
    (folder / "sitecustomize.py").write_text(STILL)
    exec(STILL)  # in the forks
    experiment.train = functools.partial(experiment.train, resume_every_s=0.0)
    if given.short:
        export.save_figure = save_nothing
        search = headscope.auditing.shortcuts
        search.TREES, search.FOLDS, search.DRAWS = 2, 2, 20
        few = functools.partial(headscope.reporting.page.stored_leakage, permutations=20)
        headscope.reporting.page.stored_leakage = few
    seconds = undisturbed(given, folder / "undisturbed", log)
    oracle = written(folder / "undisturbed")
    durations = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    print(f"undisturbed: {durations}; {len(oracle)} files", flush=True)

    rng = np.random.default_rng(given.seed)
    kills = rounds = 0
    begin = time.monotonic()
    while kills < given.kills:
        killed = folder / f"round{rounds}" / "undisturbed"  # pages name the folder
        killed.mkdir(parents=True)
        (killed.parent / "cohort").symlink_to(folder / "cohort")
        (killed.parent / "sitecustomize.py").write_text(STILL)
        for name in commands(given):
            kills = kill_often(name, given, killed, log, seconds, kills, rng)
        files = written(killed)
        different = [name for name, content in oracle.items() if files.get(name) != content]
        different += files.keys() - oracle.keys()
        if different:
            sys.exit(f"DIFFERENT after {kills} kills: {', '.join(different)}")
        shutil.rmtree(killed.parent)
        rounds += 1
    if not given.out:
        shutil.rmtree(folder)
    print(
        f"{kills} kills over {rounds} rounds, {time.monotonic() - begin:.0f} s: no traceback, "
        f"nothing left, all {len(oracle)} files byte-identical"
    )
    return kills


def save_nothing(figure, stem):
    """Write an empty figure."""
    path = stem.with_name(f"{stem.name}.svg")
    with export.atomic_path(path) as temporary:
        temporary.write_text("<svg/>")
    return path


if __name__ == "__main__":
    main()
