"""Several experiments on one page: what stands in table and headline, and what is refused."""

import re
import shutil

import pandas as pd
import pytest

from headscope.analysis.results.comparisons import compare_runs
from headscope.audit_record import Audit, SplitCheck, save_audit
from headscope.errors import InputError
from headscope.files import read_table
from headscope.record import read_experiment
from headscope.reporting.side_by_side import RunOf, write_side_by_side
from tests.support.commands import headscope_here
from tests.support.records import reseal
from tests.support.synthetic import write_synthetic_run

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def both(tmp_path):
    """Two experiments that tested the same slices: one strong, one noise."""
    for name, signal in (("strong", 6.0), ("noise", 0.0)):
        write_synthetic_run(
            tmp_path / name, width=24, subjects=60, signal=signal, same_split=True, epochs=6
        )
    return [tmp_path / "strong", tmp_path / "noise"]


def header(page):
    text = page.read_text(encoding="utf-8")
    text = text[text.index("<header>") : text.index("</header>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text))


def test_settings_of_both_are_compared_on_their_common_subjects(both, tmp_path):
    page = write_side_by_side(both, tmp_path / "page.html")
    files = "<code>page.tsv</code>, those of each run in <code>runs.tsv</code> of each experiment"
    assert files in page.read_text(encoding="utf-8") and (tmp_path / "page.tsv").is_file()
    table = pd.read_csv(tmp_path / "page.tsv", sep="\t")
    table = table.set_index("name").loc[["frozen, strong", "frozen, noise"]]
    singly = [read_experiment(folder)[0] for folder in both]
    accuracies = [run.metrics["test"]["subject_accuracy"]["value"] for run in singly]
    assert table["test_subject_accuracy"].tolist() == accuracies
    runs = [RunOf(run.path, folder.name) for run, folder in zip(singly, both, strict=True)]
    (row,) = compare_runs(runs).rows
    assert row.subject_accuracy.value == pytest.approx(accuracies[0] - accuracies[1])
    apart = "can" if row.distinguishable else "cannot"
    assert f"strong and noise: their settings {apart} be told apart by subject" in header(page)
    assert f"their {row.subjects} common test subjects" in header(page)
    assert all(f"{name}: Not audited:" in header(page) for name in ("strong", "noise"))


def test_a_name_may_end_like_the_other(both, tmp_path):
    other = both[1].rename(tmp_path / "not, strong")
    page = write_side_by_side([both[0], other], tmp_path / "page.html")
    assert "strong and not, strong: their settings can" in header(page)


def test_a_row_is_marked_by_the_audit_of_its_experiment_alone(tmp_path):
    """Both have a setting of one key; only in one of them do training and test share a head."""
    for name, duplicated in (("leaky", 2), ("clean", 0)):
        run = write_synthetic_run(tmp_path / name, width=8, epochs=1)
        settings = run.path / "run.toml"
        settings.write_text(f'split_sha256 = "ab"\n{settings.read_text()}')
        reseal(run.path)
        counts = (20, [], 6, duplicated, 60, 0, {})
        split = SplitCheck("subject-seed0", "subject", "ab", *counts)
        facts = {"scans": 20, "subjects": 20, "slices": 200, "classes": {}, "findings": []}
        facts |= {"pairs": [], "visits": (0, 0), "conflicts": {}, "shortcuts": [], "notes": []}
        audit = Audit(path="", layout="class folders", unit="subjects", splits=[split], **facts)
        save_audit(tmp_path / name, audit)
    page = write_side_by_side([tmp_path / "leaky", tmp_path / "clean"], tmp_path / "page.html")
    table = read_table(tmp_path / "page.tsv").set_index("name")
    assert table["test_duplicates"].to_dict() == {"frozen, leaky": 2, "frozen, clean": 0}
    assert "duplicates" in table["marker"]["frozen, leaky"]
    text = page.read_text(encoding="utf-8")
    mixed = re.findall(r'<tr class="mixed".*?</tr>', text[text.index('id="table-results"') :], re.S)
    assert len(mixed) == 1 and "frozen, leaky" in re.sub(r"<[^>]*>", "", mixed[0])


def test_experiments_on_other_slices_are_shown_and_not_compared(tmp_path):
    for name, subjects in (("a", 30), ("b", 40)):
        write_synthetic_run(tmp_path / name, width=8, epochs=1, subjects=subjects)
    page = write_side_by_side([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
    assert "no two settings were tested on the same slices" in header(page)


def test_what_cannot_stand_side_by_side_is_refused(both, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(both[0], tmp_path / "elsewhere" / "strong")
    done = headscope_here(monkeypatch, capsys, "report", both[0], other)
    assert done.returncode == 2 and "of different names" in done.stderr
    write_synthetic_run(tmp_path / "three", width=8, epochs=1, class_names=("NC", "MCI", "AD"))
    with pytest.raises(InputError, match="have different classes, NC, AD and NC, MCI, AD"):
        write_side_by_side([both[0], tmp_path / "three"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    done = headscope_here(monkeypatch, capsys, "report", *both, "--out", tmp_path / "p.html")
    assert done.returncode == 0 and "p.html" in done.stdout
    done = headscope_here(monkeypatch, capsys, "report", *both, "--out", tmp_path / "p.tsv")
    assert done.returncode == 2 and "p.tsv is the name of the table beside" in done.stderr
    done = headscope_here(monkeypatch, capsys, "report", both[0], "--out", tmp_path / "p.html")
    assert done.returncode == 2 and "is for several experiments" in done.stderr
