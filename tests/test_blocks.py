"""The blocks of README and docs run as they are printed, on small scans and a small experiment.

A block that cannot run here bears its reason in a comment before it: `<!-- not run: REASON -->`.
Commands that train (`headscope run`) end where training would begin: their data, settings and
networks are checked and their runs planned, by `--dry-run`.
"""

import os
import re
import shlex
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import headscope as hs
from headscope.experiment.estimate import Cost
from tests.conftest import shared_copy
from tests.support.commands import headscope_here
from tests.support.dicom import volume, write_series
from tests.support.leakage_runs import run_by_torch

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- not run: ([^>]+) -->\n+)?^```(sh|bash|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
MOST_NOT_RUN = 12
RUN = "timm-test_resnet-frozen-subject-seed0"  # stands for the runs that the pages name
NAMED = re.compile(r"(resnet101|tf_efficientnet_lite0)-\w+-subject-seed0")
FINISHED = {0, 3}  # 3: an audit that came to an end, with something serious

pytestmark = pytest.mark.usefixtures("few_trees")


def blocks(path, language):
    """Return the blocks of a page that run, of one language."""
    matches = BLOCK.findall(path.read_text("utf-8"))
    return [
        text for reason, kind, text in matches if kind.removeprefix("ba") == language and not reason
    ]


def commands(text):
    """Return the lines of a shell block, joined where they continue, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


SHELL = [path for path in PAGES if blocks(path, "sh")]
PYTHON = [path for path in PAGES if blocks(path, "python")]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The files that the pages name: scans, pictures, experiments, weights, predictions."""
    world = shared_copy(tmp_path_factory, "trained", run_by_torch)
    (world / "out").rename(world / "first")
    run = hs.Run(world / "first" / "runs" / RUN)
    shutil.copy(run.place("features.npy"), run.path / "features.npy")  # as of a run that trains
    shutil.copytree(world / "first", world / "headscope-demo")
    shutil.rmtree(world / "scans")
    write_scans(world / "scans")
    shutil.copytree(world / "scans", world / "elsewhere")
    for old, new in (("AD", "Demented"), ("NC", "Nondemented")):
        shutil.copytree(world / "scans" / old, world / "oasis" / new)
    scans = sorted((world / "scans").rglob("*.nii.gz"))
    shutil.copy(scans[0], world / "new.nii.gz")
    shutil.copytree(world / "scans" / "AD", world / "more")
    write_tables(world, scans)
    write_layouts(world, scans)
    write_pictures(world / "pictures")
    write_weights(world)
    return world


def write_scans(folder):
    """Write class folders of volumes of 48 slices."""
    rng = np.random.default_rng(0)
    for k, label in enumerate(("AD", "NC")):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            head = rng.integers(80 + 40 * k, 140 + 40 * k, (40, 40, 40), np.int16)
            scan = nib.Nifti1Image(np.pad(head, 4), np.diag([4, 4, 4, 1]))
            nib.save(scan, folder / label / f"sub-{label}{number}_T1w.nii.gz")


def write_tables(world, scans):
    count = len(scans)
    alternating = np.arange(count) % 2
    labels = [scan.parent.name for scan in scans]
    pd.DataFrame(
        {
            "path": [scan.relative_to(world / "scans").as_posix() for scan in scans],
            "subject_id": [scan.name.split("_")[0] for scan in scans],
            "session_id": 1,
            "label": labels,
            "Age": 61 + 2.5 * np.arange(count),
            "Sex": np.where(alternating, "F", "M"),
            "M/F": np.where(alternating, "F", "M"),
            "Group": ["Demented" if label == "AD" else "Nondemented" for label in labels],
            "Education": 10 + np.arange(count) % 5,
            "Site": np.array(["A", "B", "C"])[np.arange(count) // 2 % 3],
        }
    ).to_csv(world / "scans" / "scans.tsv", sep="\t", index=False)
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(20) % 2, 3)
    probability = np.clip(0.3 + 0.4 * truth + rng.normal(0, 0.2, 60), 0.01, 0.99)
    table = {"subject_id": np.repeat([f"s{k}" for k in range(20)], 3)}
    labels = np.where(truth, "AD", "NC")
    predictions = pd.DataFrame(table | {"y_true": labels, "prob_AD": probability})
    predictions.to_csv(world / "predictions.csv", index=False)
    for name in ("ours.csv", "theirs.csv"):
        pd.DataFrame(table | {"diagnosis": truth, "p_ad": probability}).to_csv(
            world / name, index=False
        )
    (world / "experiment.toml").write_text('data = "scans"\nregimes = ["frozen"]\n')


def write_layouts(world, scans):
    """Write the same scans as BIDS, as OASIS-2 and beside a table; and four series of DICOM."""
    tables = {"bids": ["participant_id\tdiagnosis"], "nichart_t1": ["MRID,Age,Sex"]}
    tables["oasis2"] = ["Subject ID,MRI ID,Group"]
    for number, scan in enumerate(scans):
        label, group = scan.parent.name, ("Demented", "Nondemented")[number // 6]
        names = {
            "bids": f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz",
            "nichart_t1": f"Subj{number}_T1.nii.gz",
            "oasis2": f"OAS2_00{number + 10}_MR1.nii.gz",
        }
        for layout, name in names.items():
            (world / layout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scan, world / layout / name)
        tables["bids"].append(f"sub-{number:02d}\t{label}")
        tables["nichart_t1"].append(f"Subj{number},{70 + 2 * number},{'FM'[number % 2]}")
        tables["oasis2"].append(f"OAS2_00{number + 10},OAS2_00{number + 10}_MR1,{group}")
    names = {"bids": "participants.tsv", "nichart_t1": "participants.csv", "oasis2": "oasis2.csv"}
    for layout, lines in tables.items():
        (world / layout / names[layout]).write_text("\n".join(lines) + "\n")
    for number in range(12):
        place = world / "dicom" / ("AD", "NC")[number % 2] / f"sub-{number}"
        write_series(place, volume(number), series=f"1.2.{number}")


def write_pictures(folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        subset, label = ("Training", "Testing")[number % 3 == 0], ("AD", "NC")[number % 2]
        path = folder / subset / label / f"sub-{number // 2:02d}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.pad(rng.integers(40, 255, (48, 48), np.uint8), 8)
        Image.fromarray(pixels).save(path)
        rows.append({"path": path.relative_to(folder), "subject_id": f"sub-{number // 2:02d}"})
    pd.DataFrame(rows).to_csv(folder.parent / "subjects.tsv", sep="\t", index=False)


def write_weights(world):
    import torch
    from safetensors.torch import save_file

    def head():
        return {"fc.weight": torch.randn(2, 64), "fc.bias": torch.zeros(2)}

    torch.manual_seed(0)
    save_file(head(), world / "my-weights.safetensors")
    torch.save({"state_dict": head()}, world / "last.pth.tar")
    for name in ("network.pth", "before.pth", "brain.pth"):
        torch.save(head(), world / name)


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    """A folder of links to the world's files: a command writes new ones in their place."""
    monkeypatch.chdir(shutil.copytree(world, tmp_path / "place", copy_function=os.link))
    return Path.cwd()


@pytest.fixture
def nothing_trains(monkeypatch):
    """Let `run --dry-run` measure no network and open no weights; cohorts are small."""
    cost = Cost(0.1, 0.05, 8192, 8192, 8192, 10**8)
    monkeypatch.setattr("headscope.experiment.estimate._measure", lambda *_: cost)
    monkeypatch.setattr("headscope.experiment.estimate.check_networks", lambda *_, **__: None)
    # drawing takes seconds, and tests/test_supplement.py asks for it
    monkeypatch.setattr("headscope.supplement.write._write_pictures", lambda *_: None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # np.load
@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_the_python_of_a_page_runs_from_top_to_bottom(path, place, capsys):
    names: dict[str, object] = {"hs": hs}
    for block in blocks(path, "python"):  # the runs here are frozen
        text = NAMED.sub(RUN, block).replace('"finetune"', '"frozen"')
        exec(compile(text, path.name, "exec"), names)


def shortened(words):
    """Return a command as it runs here: on this experiment, up to training, on few scans."""
    words = [NAMED.sub(RUN, word) for word in words]
    more = {
        "run": ["--dry-run"],
        "simulate": ["--subjects=6", "--spacing-mm=6", "--workers=1"],
        "slice": ["--size=48"],
    }
    return [*words, *(word for word in more.get(words[1], []) if word not in words)]


DONE: set[str] = set()  # what several pages show runs once


@pytest.mark.usefixtures("nothing_trains", "undrawn")
@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_the_commands_of_a_page_run(path, world, tmp_path, monkeypatch, capsys):
    wrong = []
    for words in (words for block in blocks(path, "sh") for words in commands(block)):
        assert words[0] == "headscope", f"mark the block as not run: {words}"
        command = shlex.join(words)
        if command in DONE:
            continue
        DONE.add(command)
        place = shutil.copytree(world, tmp_path / str(len(DONE)), copy_function=os.link)
        done = headscope_here(monkeypatch, capsys, *shortened(words)[1:], folder=place)
        if done.returncode not in FINISHED:
            wrong.append(f"{command}: {done.stderr[-600:]}")
    assert not wrong, "\n".join(wrong)


def test_few_blocks_do_not_run_and_each_says_why():
    reasons = [
        (name_of(path), match[0])
        for path in PAGES
        for match in BLOCK.findall(path.read_text("utf-8"))
        if match[0]
    ]
    assert len(reasons) <= MOST_NOT_RUN, reasons
