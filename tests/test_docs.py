"""The code of the documents runs as it is printed."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import headscope
from headscope.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUNNING = [path for path in sorted(DOCS.glob("*.md")) if BLOCK.search(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", RUNNING, ids=lambda path: path.name)
def test_the_python_of_a_document_runs_from_top_to_bottom(path, capsys):
    names: dict[str, object] = {}
    for block in BLOCK.findall(path.read_text("utf-8")):
        exec(compile(block, str(path), "exec"), names)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_of_a_document_lead_to_files(path):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize(
    "path",
    [
        *sorted(DOCS.glob("*.md")),
        *(DOCS.parent / name for name in ("README.md", "CONTRIBUTING.md")),
    ],
    ids=lambda path: path.name,
)
def test_modules_that_a_document_names_are_there(path):
    roots = DOCS.parent, DOCS.parent / "src" / "headscope"
    for name in re.findall(r"`([\w./-]+/[\w-]+\.py)`", path.read_text("utf-8")):
        assert any((root / name).is_file() for root in roots), name


def test_every_setting_of_a_training_is_told():
    text = (DOCS / "models.md").read_text("utf-8")
    assert [each.name for each in fields(Recipe) if f"`{each.name}`" not in text] == []


def test_the_papers_line_is_printed_by_the_final_layers_document(capsys):
    names: dict[str, object] = {}
    for block in BLOCK.findall((DOCS / "final-layer.md").read_text("utf-8")):
        exec(compile(block, "final-layer.md", "exec"), names)
    assert names["r"] == pytest.approx(-0.924, abs=5e-4)
    assert re.match(r"y = .*\*z\^4 .*, where z = \(x [−+] .*\)/0\.11", capsys.readouterr().out)


def test_the_version_is_that_of_changelog_and_citation():
    root = DOCS.parent
    assert f"\nversion: {headscope.__version__}\n" in (root / "CITATION.cff").read_text("utf-8")
    released = re.search(r"^## \[([\d.]+)\]", (root / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert released and released[1] == headscope.__version__


def test_rows_on_real_scans_are_those_of_the_results_file():
    text = (DOCS / "trust.md").read_text("utf-8")
    section = text[text.index("## Networks beside what is no network") :].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    results = (DOCS.parent / "bench" / "results" / "explanations.md").read_text("utf-8")
    assert len(rows) > 20
    assert [row for row in rows if row not in results.splitlines()] == []
