"""Run the benchmarks in short form, and write one JSON: figures, targets, whether they were met.

    python bench/all.py [--only NAME,…] [--data ../shared/data] [--weights ../shared/weights]
    python bench/all.py --page                       # docs/benchmarks.md, from bench/results

Each runs in a process of its own, one after the other, under a limit of time. The JSON says too
what was skipped for want of data, and what failed; figures of an earlier call, of other benchmarks,
stay in it. Ends with exit code 1 where a target was missed or a benchmark failed. A benchmark joins
with its name in BENCHES and a function `short(place)` in its module, which returns a list of
`Figure`.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import headscope
from figure import MissingError, Place

BENCHES = (
    "ablate",
    "bootstrap",
    "claims",
    "confounders",
    "coverage",
    "damage",
    "disk",
    "false_alarms",
    "frozen",
    "inferred",
    "interval",
    "kill_resume",
    "million",
    "null",
    "permutations",
    "repeats",
    "report",
    "rivals",
    "score",
    "slices",
    "throughput",
    "waiting",
    "weight_tests",
)
LONG = {  # why a benchmark has no short form
    "evaluate": "trains on a simulated cohort and simulates four others: half an hour",
    "explanations": "five seeds of two networks on real scans: an hour",
    "growth": "experiments of up to 168,000 slices: minutes and 3 GB",
    "novelty": "reads the experiments that trust.py writes",
    "reproduction": "reads the experiments of docs/reproduction.md",
    "table": "the paper's twelve rows at 224 pixels: hours without a GPU",
    "trust": "five seeds of a ResNet-50 on real scans: 11 minutes",
}
HERE = Path(__file__).parent
RESULTS = HERE / "results"
SHARED = HERE.parents[1] / "shared"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHES), help="names, by comma")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights")
    parser.add_argument("--out", type=Path, default=RESULTS / "short.json")
    parser.add_argument("--limit", type=int, default=240, help="seconds of a benchmark, at most")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md only")
    parser.add_argument("--one", help="(the process of a benchmark)")
    options = parser.parse_args()
    if options.one:
        json.dump(run_one(options.one, options.data, options.weights), options.out.open("w"))
        return
    ok = options.page or run_all(options)
    if options.out == RESULTS / "short.json":
        import benchmarks_page

        benchmarks_page.write()
    sys.exit(not ok)


def run_all(options):
    """Run each benchmark, print its figures and write the JSON so far; return whether all met."""
    results = {}
    if options.out.is_file():  # an earlier call, of other benchmarks
        results = json.loads(options.out.read_text(encoding="utf-8"))["benchmarks"]
    names = options.only.split(",")
    for name in names:
        results[name] = run_apart(name, options)
        show(name, results[name])
        benchmarks = {bench: results[bench] for bench in BENCHES if bench in results}
        long = {other: LONG[other] for other in LONG if (HERE / f"{other}.py").exists()}
        content = {"environment": environment(), "benchmarks": benchmarks, "long": long}
        content["not measured"] = [bench for bench in BENCHES if bench not in results]
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return all(results[name]["ok"] for name in names)


def show(name, result):
    """Print a line for each figure, or why there are none."""
    for figure in result.get("figures", []):
        mark = {True: "met", False: "MISSED", None: ""}[figure["met"]]
        value = f"{figure['value']:.4g} {figure['unit']} {figure['target']} {mark}"
        print(f"{name}: {figure['name']}: {value}", flush=True)
    for state in ("skipped", "failed"):
        if state in result:
            print(f"{name}: {state}: {result[state]}", flush=True)


def run_apart(name, options):
    """Run a benchmark in a process of its own; return its figures, or why there are none."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, "--one", name, "--out", out]
        command += ["--data", options.data, "--weights", options.weights]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                process.wait(options.limit)
                log.seek(0)
                lines = log.read().splitlines() or [""]
                done = process.returncode == 0
                result = json.loads(out.read_text()) if done else {"failed": lines[-1]}
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                result = {"failed": f"not done after {options.limit} s"}
    met = all(figure["met"] is not False for figure in result.get("figures", []))
    ok = "failed" not in result and met
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result | {"ok": ok, "seconds": round(seconds, 1), "cpu_seconds": round(busy, 1)}


def run_one(name, data, weights):
    """Return the figures of a benchmark as values."""
    sys.path.append(str(HERE.parent))  # for tests.support
    module = importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = module.short(Place(Path(folder), data.resolve(), weights.resolve()))
        except MissingError as missing:
            return {"skipped": str(missing)}
    values = [asdict(figure) | {"target": figure.target, "met": figure.met} for figure in figures]
    return {"figures": [value | {"value": float(value["value"])} for value in values]}


def environment():
    """Return hardware and versions."""
    lines = Path("/proc/cpuinfo")
    text = lines.read_text() if lines.exists() else ""
    models = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return {
        "processor": (models or [platform.processor()])[0],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "headscope": headscope.__version__,
    } | {name: version(name) for name in PACKAGES}


if __name__ == "__main__":
    main()
