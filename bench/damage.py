"""Damage files by a fixed seed and give them to the commands: is what is wrong always named?

    python bench/damage.py [--short] [--seed 0] [--files 7000] [--scans 3000]
                           [--checkpoints 2000] [--records 2000] [--first CASE] [--out FOLDER]

files: a damaged scan or picture, given to what `slice` and `predict` call. scans: ten damaged ones
among 45 sound ones, given to both commands; pictures likewise. No sound one may change; a damaged
one has slices or stands in problems.tsv, and what a checksum would tell does not pass. checkpoints:
`head`, and `run --weights` where the network is the run's. records: a file of runs, slices, splits,
store or cache, or what was made of them, given to `verify`, `report`, `audit`, `predict` (its run
or another), `head`, a start that finds all done or one that trains a run again, in turn. What they
answer is that of the undamaged experiment, or the file or its run is named; a fifth of the records
have no manifest, as of an earlier version, and need not notice.

Each case runs in a fork whose memory may grow by 1 GiB; a command may take 10 s of the
processor, and an alarm ends it after a minute, as other work of the machine may cost so much.
Nothing may end in a traceback or a warning of Python. Figures are drawn by every fifth report, and
are not saved.
"""

import argparse
import contextlib
import faulthandler
import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process that has started threads cannot fork
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import nibabel as nib
import numpy as np
import pandas as pd
import timm  # noqa: F401 - takes seconds to load, and each fork has it so
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file
from tests.support.checkpoints import network, sound_checkpoints
from tests.support.mutation import (
    CHECKED,
    damaged_scan,
    mutated,
    mutated_text,
    sound_pictures,
    sound_scans,
    sound_volume,
)
from tests.support.records import forget

import headscope.auditing.shortcuts
import headscope.cli.experiments
import headscope.experiment.run
import headscope.reporting.page
import headscope.verification.verify
from headscope.cli import main as headscope_command
from headscope.manifest import content_hash, file_hash
from headscope.models.checkpoint import read_head
from headscope.models.zoo import find_architecture
from headscope.scans.discovery import ScanFile
from headscope.scans.volume import ScanError
from headscope.slicing.parallel import take_file
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import open_slices

SECONDS, HANGS, GIB = 10, 60, 2**30
FILES = 100  # of a case without commands
DAMAGED, SOUND = 10, 45  # scans of a case; `slice` stops where more than a fifth fail
TINY = "timm/test_resnet"
SLICING = ("--count", "3", "--size", "32", "--workers", "1")
TRAINING = (
    *("--architectures", TINY, "--epochs", "2", "--batch-size", "7", "--regimes", "frozen"),
    *("--device", "cpu", *SLICING),
)
RUN, OTHER = (f"timm-test_resnet-frozen-{split}-seed0" for split in ("subject", "slice"))
START = ("scans", "--out", "out", *TRAINING, "--weights", "random", "--splits", "subject,slice")
COMMANDS = {
    "verify": ("verify", "out"),
    "report": ("report", "out"),
    "again": ("run", *START),
    "audit": ("audit", "out", "--permutations", "20", "--json"),
    "predict": ("predict", f"out/runs/{RUN}", "scans/AD", "--json", "--device", "cpu"),
    "head": ("head", f"out/runs/{RUN}", "--json"),
    "done": ("run", *START),
    "predict again": ("predict", f"out/runs/{OTHER}", "scans/NC", "--json", "--device", "cpu"),
}
MADE = (f"runs/{run}/{name}" for run in (RUN, OTHER) for name in ("predictions.tsv", "head.npz"))
UNCHECKED = re.compile(r"environment.json|experiment.toml|failures|table.md|notes.tsv|problems")
SAID = re.compile("[^<>]*has changed since[^<>]*")  # sentences of a page
PREPARED = {  # what the cases of a part share, made before they fork
    "files": ("scans",),
    "scans": ("expected", "sound_answer"),
    "checkpoints": ("taken", "checkpoints"),
    "records": ("files", "answers"),
}
ANSWERS = ("table.tsv", *MADE)
SOUND_SCAN = {"scans": "sub-000_T1w.nii", "pictures": "sub-000.png"}
TEXTS = (".tsv", ".json", ".jsonl", ".toml", ".md")
LOST = re.compile("left out|not read", re.IGNORECASE)
MEMORY = re.compile(r"memory|allocate")
BAR = re.compile(r"[━╸╺]|\d:\d\d")  # a line of progress


class Done(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    answer: str
    said: str


@dataclass
class Case:
    """What became of a case, sent by the fork that ran it."""

    name: str
    outcomes: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest: str = ""
    memory: int = 0

    def command(self, *arguments) -> Done:
        """Run a command in this process; note where it ends as none should."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in "12")
        sys.argv = ["headscope", *map(str, arguments)]
        signal.alarm(HANGS)
        faulthandler.dump_traceback_later(HANGS - 1)  # where it hangs
        begin, code = time.process_time(), 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                headscope_command()
        except SystemExit as ended:
            code = ended.code
            if isinstance(code, str):
                err.write(code)
            code = code if isinstance(code, int) else int(bool(code))
        except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
            self.fault(f"{arguments[0]}: {traceback.format_exc()}")
            code = 70
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        seconds = time.process_time() - begin
        if seconds > self.seconds:
            self.seconds, self.slowest = seconds, f"{self.name} {arguments[0]}"
        if seconds > SECONDS:
            self.fault(f"{arguments[0]}: {seconds:.0f} s")
        done = Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
        self.outcomes[arguments[0], code] += 1
        if "Traceback" in done.said or code not in (0, 1, 2, 3, 70):
            self.fault(f"{arguments[0]} ended with {code}: {done.said}")
        elif MEMORY.search(done.said):
            self.fault(f"{arguments[0]} asks for much memory: {done.said[-500:]}")
        elif code in (1, 2) and not (done.said.strip() or done.answer.strip()):
            self.fault(f"{arguments[0]} ended with {code} and no word")
        return done

    def fault(self, text: str) -> None:
        """Note a fault."""
        self.faults.append(text)


def guarded(name: str, work: Callable[[Case], None]) -> Case:
    """Do the work of a case in a fork, of which memory and time are limited."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        case = Case(name)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + GIB, size + GIB))
            warnings.simplefilter("error")
            work(case)
            case.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start
        except BaseException:  # noqa: BLE001 - the fork must never return into main
            case.fault(traceback.format_exc())
        fields = vars(case) | {"outcomes": [[*key, n] for key, n in case.outcomes.items()]}
        with os.fdopen(write, "w") as pipe:
            json.dump(fields, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not text:
        ended = f"no answer in {HANGS} s" if status == -signal.SIGALRM else f"ended by {status}"
        return Case(name, faults=[ended])
    fields = json.loads(text)
    outcomes = Counter({(command, code): n for command, code, n in fields.pop("outcomes")})
    return Case(outcomes=outcomes, **fields)


class Bench:
    """Sound files, and the cases that damage them."""

    def __init__(self, folder: Path, seed: int, kinds: tuple[str, ...]) -> None:
        """Keep the folder, the seed, and whether scans or pictures or both are damaged."""
        self.folder, self.seed, self.kinds = folder, seed, kinds
        self.commands = len(COMMANDS)  # so many of them are given damaged records

    def rng(self, part: int, number: int) -> np.random.Generator:
        """Return the generator of a case, whichever ran before."""
        return np.random.default_rng((self.seed, part, number))

    # scans

    @cached_property
    def scans(self) -> dict:
        """Sound scans by kind: the bytes of their files by suffix, by format."""
        return {
            "scans": sound_scans(self.folder / "whole"),
            "pictures": sound_pictures(self.folder / "whole"),
        }

    @cached_property
    def sound(self) -> dict[str, Path]:
        """Class folders of sound scans, and of sound pictures, of which each case has a link."""
        for number in range(SOUND):
            scan = nib.Nifti1Image(sound_volume(number + 1), np.diag([-8.0, 8, 10, 1]))
            place = ("AD", "NC")[number % 2]
            for kind in ("scans", "pictures"):
                (self.folder / "sound" / kind / place).mkdir(parents=True, exist_ok=True)
            nib.save(scan, self.folder / "sound" / "scans" / place / f"sub-{number:03d}_T1w.nii")
            picture = self.folder / "sound" / "pictures" / place / f"sub-{number:03d}.png"
            picture.write_bytes(self.scans["pictures"]["png"]["png"])
        return {kind: self.folder / "sound" / kind for kind in self.kinds}

    @cached_property
    def runs(self) -> dict[str, Path]:
        """A finished run on the sound scans and on the sound pictures, for `predict`."""
        for kind, data in self.sound.items():
            out = self.folder / "runs" / kind
            with without_report():
                self.do("run", data, "--out", out, *TRAINING, "--weights", "random")
        return {kind: self.folder / "runs" / kind / "runs" / RUN for kind in self.sound}

    @cached_property
    def expected(self) -> dict:
        """Pixels of sound scans, and of whole ones by format, by kind."""
        pixels = {}
        for kind, data in self.sound.items():
            for format_, files in self.scans[kind].items():
                write_scan(data / "AD", f"whole-{format_}", format_, files)
            self.do("slice", data, self.folder / "expected" / kind, *SLICING)
            pixels[kind] = pixels_of(self.folder / "expected" / kind)
            for path in (data / "AD").glob("whole-*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return pixels

    def do(self, *arguments) -> Done:
        """Run a command that must succeed."""
        case = Case("sound")
        done = case.command(*arguments)
        if done.code or case.faults:
            sys.exit(f"{arguments}: {done.answer}{done.said}{case.faults}")
        return done

    def scan_case(self, case: Case, folder: Path, number: int) -> None:
        """Slice ten damaged scans among sound ones, and predict them."""
        kind = "pictures" if number % 5 == 4 else "scans"
        rng, formats = self.rng(0, number), self.scans[kind]
        data, names = folder / "data", {}
        shutil.copytree(self.sound[kind], data, copy_function=os.link)
        for n in range(DAMAGED):
            format_ = list(formats)[(number * DAMAGED + n) % len(formats)]
            files, fits = damaged_scan(formats[format_], [*formats.values()], rng)
            place = write_scan(data / ("AD", "NC")[n % 2], f"sub-d{n}", format_, files)
            write_scan(folder / "damaged", f"sub-d{n}", format_, files)
            names[str(place.relative_to(data))] = format_, fits
        self.check_slices(case, case.command("slice", data, folder / "out", *SLICING), names, kind)
        sound = data / "AD" / SOUND_SCAN[kind]
        arguments = [self.runs[kind], folder / "damaged", sound, "--json", "--device", "cpu"]
        done = case.command("predict", *arguments)
        if done.code == 0:
            rows = {Path(row["scan"]).name: row for row in json.loads(done.answer)["scans"]}
            whole = rows.get(sound.name, {}).get("probabilities")
            if whole is None or not np.allclose([*whole.values()], self.sound_answer[kind]):
                case.fault(f"predict: the sound scan has {whole}")
        elif done.code != 1:
            case.fault(f"predict: {done.said[-1000:]}")

    @cached_property
    def sound_answer(self) -> dict:
        """Probabilities of the sound scan that is predicted beside damaged ones, by kind."""
        answers = {}
        for kind in self.kinds:
            scan = self.sound[kind] / "AD" / SOUND_SCAN[kind]
            done = self.do("predict", self.runs[kind], scan, "--json", "--device", "cpu")
            answers[kind] = [*json.loads(done.answer)["scans"][0]["probabilities"].values()]
        return answers

    def check_slices(self, case: Case, done: Done, names: dict, kind: str) -> None:
        """Hold what `slice` wrote against what it should: sound scans, and each damaged one."""
        out = Path(sys.argv[3])
        if done.code:
            case.fault(f"slice stopped: {done.said[-1000:]}")
            return
        pixels, expected = pixels_of(out), self.expected[kind]
        for name, values in expected.items():
            if "whole-" not in name and not np.array_equal(values, pixels.get(name)):
                case.fault(f"slice: the sound {name} has other slices")
        problems, path = set(), out / "problems.tsv"
        if path.is_file():
            problems = set(pd.read_csv(path, sep="\t", dtype=str)["path"])
        for name, (format_, fits) in names.items():
            inside = [n for n in (*pixels, *problems) if n == name or n.startswith(f"{name}/")]
            case.outcomes[
                format_, "sliced" if name in pixels else "named" if inside else "other"
            ] += 1
            if not inside and not LOST.search(done.said + done.answer):
                case.fault(f"slice: {name} ({format_}) is lost without a word")
            whole = next(v for n, v in expected.items() if f"whole-{format_}" in n)
            if name in pixels and not np.array_equal(pixels[name], whole):
                case.outcomes[format_, "other slices"] += 1
                if format_ in CHECKED and not fits:
                    case.fault(f"slice: {name} has other slices, and no word")

    def file_case(self, case: Case, folder: Path, number: int) -> None:
        """Slice a hundred damaged files without a command, which would take most of the time."""
        rng, formats = self.rng(3, number), self.scans["scans"] | self.scans["pictures"]
        for n in range(FILES):
            format_, plane = (
                list(formats)[n % len(formats)],
                ("axial", "coronal", "sagittal")[n % 3],
            )
            files, _ = damaged_scan(formats[format_], [*formats.values()], rng)
            path = write_scan(folder, f"d{n}", format_, files)
            begin = time.process_time()
            try:
                pixels = take_file(ScanFile.at(path), plane, SliceSpec(plane, 3, 32))[0]
                case.outcomes[format_, "sliced"] += 1
                if pixels.dtype != np.uint8 or pixels.shape[1:] != (32, 32):
                    case.fault(f"{path.name}: slices of {pixels.shape}")
            except ScanError as error:
                case.outcomes[format_, "named"] += 1
                if not error.reason or "\n" in error.reason or MEMORY.search(error.reason):
                    case.fault(f"{path.name}: {error.reason!r}")
            seconds = time.process_time() - begin
            if seconds > case.seconds:
                case.seconds, case.slowest = seconds, path.name

    # checkpoints

    @cached_property
    def checkpoints(self) -> dict:
        """Sound checkpoints by network (toy: a head in miniature, tiny: one that trains)."""
        states = {"toy": network(), "tiny": find_architecture(TINY).build().state_dict()}
        for part in ("fc.weight", "fc.bias"):  # of 1,000 classes, which take a second to analyse
            states["tiny"][part] = states["tiny"][part][:3].clone()
        sound = {}
        for name, state in states.items():
            place = self.folder / "checkpoints" / name
            place.mkdir(parents=True)
            sound[name] = sound_checkpoints(place, state)
        del sound["tiny"]["npz"]  # of a head alone
        self.heads = {
            name: read_head(self.folder / "checkpoints" / name / "whole.pth").weight
            for name in states
        }
        return sound

    @cached_property
    def few(self) -> Path:
        """A few sound scans, for runs that train."""
        for path in (
            sorted(self.sound["scans"].rglob("*.nii"))[:6]
            + sorted(self.sound["scans"].rglob("*.nii"))[-6:]
        ):
            place = self.folder / "few" / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            os.link(path, place / path.name)
        return self.folder / "few"

    @cached_property
    def taken(self) -> Path:
        """The slices, split and audit of a few scans, which each run finds done."""
        place = self.folder / "taken"
        with without_report():
            self.do("run", self.few, "--out", place, *TRAINING, "--weights", "random")
        for name in ("runs", "cache"):
            shutil.rmtree(place / name)
        for path in place.glob("*.toml"):
            path.unlink()
        return place

    def checkpoint_case(self, case: Case, folder: Path, number: int) -> None:
        """Analyse a damaged checkpoint; train on it where it is of a network that trains."""
        rng, name = self.rng(1, number), ("toy", "tiny")[number % 3 == 2]
        suffix = list(self.checkpoints[name])[number // 3 % len(self.checkpoints[name])]
        raw = self.checkpoints[name][suffix]
        path = folder / f"a.{suffix}"
        if rng.random() < 0.05:
            raw = self.checkpoints[name][str(rng.choice(list(self.checkpoints[name])))]
            path.write_bytes(raw)
        else:
            path.write_bytes(mutated(raw, rng))
        done = case.command("head", path, "--json")
        case.outcomes[suffix, "refused" if done.code else "read"] += 1
        if done.code and (path.name not in done.said or len(done.said) > 1200):
            case.fault(f"head: {done.said[:2000]}")
        checked = not done.code and suffix in ("npz", "pth")  # which have checksums
        if checked and not np.array_equal(read_head(path).weight, self.heads[name]):
            case.fault("head: other numbers, and no word")
        if name == "tiny":  # without its report, which takes longest and reads no checkpoint
            out = folder / "out"
            shutil.copytree(self.taken, out, copy_function=os.link)
            with without_report():
                done = case.command("run", self.few, "--out", out, *TRAINING, "--weights", path)
            if done.code and path.name not in done.said and "finite" not in done.said:
                case.fault(f"run --weights: {done.said[-1000:]}")

    # records

    @cached_property
    def experiment(self) -> Path:
        """An experiment with its report and audit, whose runs stand under both splits."""
        place = self.folder / "experiment"
        place.mkdir()
        shutil.copytree(self.few, place / "scans")
        os.chdir(place)
        self.do("run", *START)
        self.do("audit", "out", "--permutations", "20")
        self.do("report", "out")
        return place

    @cached_property
    def files(self) -> list[str]:
        """Files of the experiment that are damaged."""
        out = self.experiment / "out"
        paths = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
        return [
            str(path)
            for path in paths
            if path.parts[0] != "figures" and path.suffix not in ("", ".html", ".lock")
        ]

    @cached_property
    def answers(self) -> dict:
        """What each command says and leaves, of the undamaged experiment."""
        answers = {}
        for name in list(COMMANDS)[: self.commands]:
            place = self.folder / f"answer-{name}"
            self.copy(place)
            answers[name] = self.answer(Case("sound"), name)
        return answers

    def copy(self, place: Path) -> None:
        """Copy the experiment, and work there."""
        self.experiment  # noqa: B018 - it is made before its files are linked
        shutil.copytree(
            self.folder / "experiment",
            place,
            copy_function=os.link,
            ignore=shutil.ignore_patterns("figures"),
        )
        os.chdir(place)

    def answer(self, case: Case, name: str) -> tuple[Done, dict[str, bytes]]:
        """Run a command here; return what it said, and the files that hold its numbers."""
        if name == "again":
            shutil.rmtree(f"out/runs/{OTHER}", ignore_errors=True)
        with without_report() if COMMANDS[name][0] == "run" else contextlib.nullcontext():
            done = case.command(*COMMANDS[name])
        if name == "audit" and done.code in (0, 3):
            facts = json.loads(done.answer)
            done = done._replace(answer=json.dumps(facts, sort_keys=True))
        paths = [Path("out") / path for path in ANSWERS]
        return done, {str(path): path.read_bytes() for path in paths if path.is_file()}

    def record_case(self, case: Case, folder: Path, number: int) -> None:
        """Damage a file of an experiment, then verify it and run another command."""
        rng = self.rng(2, number)
        place = folder / "copy"
        self.copy(place)
        name = self.files[number % len(self.files)]
        path = place / "out" / name
        old = rng.random() < 0.2  # as of an earlier version, without a manifest
        if old and path.parent.parent.name == "runs":
            forget(path.parent)
        elif old:
            (path.parent / "manifest.json").unlink(missing_ok=True)
        if not path.exists():
            return
        before = content_of(path)
        damage_file(path, self.files, rng)
        changed = not path.exists() or content_of(path) != before
        command = list(COMMANDS)[number % len(COMMANDS)]
        case.name += f" {name}"
        if command != "report" or number % 40:  # of which one in five draws its figures
            draw_nothing()
        expected, made = self.answers[command]
        done, files = self.answer(case, command)
        case.outcomes[name.split("/")[0], "changed" if changed else "same"] += 1
        if old:
            return
        differing = [n for n in made if files.get(n) != made[n] and n != f"out/{name}"]
        differing += ["its answer"] * (done.answer != expected.answer)
        if command == "verify":
            differing = ["passes"] * (changed and not UNCHECKED.search(name))
        page = Path("out/report.html").read_text() if command == "report" else ""
        lines = {*done.said.splitlines(), *done.answer.splitlines(), *re.findall(SAID, page)}
        lines -= {*expected.said.splitlines(), *expected.answer.splitlines()}
        said = "\n".join(line for line in lines if not BAR.search(line))
        names = {path.name, path.parent.name}
        if path.parent.name == "store":  # of which each run that has the file is named
            names |= {RUN, OTHER}
        if differing and not any(part in said for part in names):
            case.fault(f"{command} of {name}: {', '.join(differing)}, no word: {done.said}{said}")
        if not changed and command == "verify" and done.code:
            case.fault(f"verify: {name} is what was written: {done.said}")


@contextlib.contextmanager
def without_report():
    """Let a run end without its report, which takes longest and has cases of its own."""
    conclude = headscope.cli.experiments.conclude
    headscope.cli.experiments.conclude = lambda *_: None
    yield
    headscope.cli.experiments.conclude = conclude


def draw_nothing() -> None:
    """Leave figures out in this process: they take most of a report's time."""
    for name, module in list(sys.modules.items()):
        if name.startswith("headscope.reporting"):
            for plot in [key for key in vars(module) if key.startswith("plot_")]:
                setattr(module, plot, lambda *_, **__: Figure())


def content_of(path: Path) -> str:
    """Return what a manifest, or the hash in a JSON file, says of its content."""
    if path.name in ("audit.json", "leakage.json"):  # a key that stands twice changes nothing
        with contextlib.suppress(ValueError, RecursionError):
            return content_hash(json.loads(path.read_bytes()))
    if path.parent.name == "cache" and path.suffix == ".json":  # measured seconds do not count
        with contextlib.suppress(ValueError, RecursionError, AttributeError):
            entry = json.loads(path.read_bytes())
            return content_hash([entry.get("sha256"), entry.get("files")])
    return file_hash(path)


def damage_file(path: Path, files: list[str], rng: np.random.Generator) -> None:
    """Damage a file of an experiment in place: another one, gone, another number, or its bytes."""
    raw, draw, out = path.read_bytes(), rng.random(), Path("out")
    path.unlink()
    if draw < 0.05:
        return
    if draw < 0.2:  # of another run, or another file of its kind
        alike = [name for name in files if Path(name).suffix == path.suffix]
        alike = [name for name in alike if Path(name).name == path.name] * 5 + alike
        alike = [name for name in alike if (out / name).is_file()]
        if alike:
            path.write_bytes((out / str(rng.choice(alike))).read_bytes())
            return
    if draw < 0.5 and path.suffix in (".npz", ".npy", ".safetensors"):
        path.write_bytes(raw)
        change_number(path, rng)
        return
    path.write_bytes((mutated_text if path.suffix in TEXTS else mutated)(raw, rng))


def change_number(path: Path, rng: np.random.Generator) -> None:
    """Change one array in a sound file: a number, its order, its form or its type."""
    stored = load_file(path) if path.suffix == ".safetensors" else np.load(path)
    arrays = {"": stored} if path.suffix == ".npy" else dict(stored)
    name = str(rng.choice(list(arrays)))
    array = arrays[name].copy()
    way = rng.integers(5)
    if way == 0 and array.size and array.dtype.kind in "fiu":
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([0, 1, 7])
    elif way == 1 and array.dtype.kind == "f":
        array.reshape(-1)[rng.integers(max(array.size, 1))] = rng.choice([np.nan, np.inf, 1e30])
    elif way == 2 and array.ndim:
        array = array[::-1].copy()
    elif way == 3 and array.ndim:
        array = array[: len(array) // 2]
    else:
        array = array.astype("f8").reshape(-1) if array.dtype.kind in "fiu" else array[..., None]
    arrays[name] = array
    path.unlink()
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)


def write_scan(folder: Path, name: str, format_: str, files: dict[str, bytes]) -> Path:
    """Write the files of a scan; return the path by which it is listed."""
    if format_.endswith(".dcm"):
        folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, raw in files.items():
        (folder / (suffix if format_.endswith(".dcm") else f"{name}.{suffix}")).write_bytes(raw)
    return folder if format_.endswith(".dcm") else folder / f"{name}.{next(iter(files))}"


def pixels_of(store: Path) -> dict[str, np.ndarray]:
    """Return the slices of each scan of a store."""
    slices = open_slices(store)
    rows = slices.table.groupby("scan").indices
    return {str(scan): np.array(slices.pixels[index]) for scan, index in rows.items()}


def parse(arguments=None):
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a few seconds of each")
    parser.add_argument("--seed", type=int, default=0)
    defaults = {"files": 7000, "scans": 3000, "checkpoints": 2000, "records": 2000}
    for name, count in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--first", type=int, default=0, help="case at which to begin, of each part")
    parser.add_argument("--out", type=Path, help="where the files of faulty cases stay")
    return parser.parse_args(arguments)


STOPPED: list[int] = []  # by SIGTERM, which ends a part early: --first continues it


def run_part(bench: Bench, part: str, first: int, last: int) -> tuple[list[Case], Counter]:
    """Run the cases of a part; print faults as they come."""
    work = getattr(bench, f"{part.removesuffix('s')}_case")
    cases, outcomes = [], Counter()
    gc.freeze()  # forks share what is there, as no collection touches it
    for number in range(first, last):
        if STOPPED:
            break
        place = bench.folder / f"{part}-{number}"
        place.mkdir()
        case = guarded(f"{part} {number}", lambda case: work(case, place, number))  # noqa: B023
        for fault in case.faults:
            print(f"FAULT {case.name}: {fault}", flush=True)
        if not case.faults:
            shutil.rmtree(place)
        cases.append(case)
        outcomes += case.outcomes
    return cases, outcomes


def summary(part: str, cases: list[Case], outcomes: Counter, seconds: float) -> str:
    """Say in words what became of a part."""
    files = len(cases) * {"scans": DAMAGED, "files": FILES}.get(part, 1)
    slowest = max(cases, key=lambda case: case.seconds)
    memory = max(case.memory for case in cases) / 2**20
    ends = sorted((f"{key} {value}: {n}" for (key, value), n in outcomes.items()))
    return (
        f"{part}: {files} damaged files in {seconds:.0f} s; "
        f"{sum(bool(case.faults) for case in cases)} cases with faults; longest "
        f"{slowest.seconds:.2f} s ({slowest.slowest}); memory {memory:.0f} MiB\n  {', '.join(ends)}"
    )


def short(place):
    """Return the number of cases with faults in the short form."""
    from figure import Figure

    return [Figure("cases with faults", faults_of(parse(["--short"])), "", at_most=0)]


def main():
    sys.exit(faults_of(parse()) > 0)


def faults_of(given):
    """Run all parts; return the number of cases with faults."""
    kinds = ("scans",) if given.short else ("scans", "pictures")
    bench = Bench(Path(given.out or tempfile.mkdtemp()).resolve(), given.seed, kinds)
    bench.folder.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, _: STOPPED.append(number))
    headscope.auditing.shortcuts.TREES, headscope.auditing.shortcuts.DRAWS = 5, 50
    counts = {"files": given.files // FILES, "scans": given.scans // DAMAGED}
    counts |= {"checkpoints": given.checkpoints, "records": given.records}
    if given.short:
        counts = {"files": 4, "scans": 1, "checkpoints": 9, "records": 5}
        bench.commands = counts["records"]
        draw_nothing()
    faults = 0
    for part, count in counts.items():
        if not count:
            continue
        for name in PREPARED[part]:
            getattr(bench, name)
        begin = time.monotonic()
        cases, outcomes = run_part(bench, part, given.first, given.first + count)
        faults += sum(bool(case.faults) for case in cases)
        print(summary(part, cases, outcomes, time.monotonic() - begin), flush=True)
    if not given.out:
        shutil.rmtree(bench.folder)
    return faults


if __name__ == "__main__":
    main()
