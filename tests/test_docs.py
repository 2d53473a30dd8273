"""The code of the documents runs as it is printed."""

import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import headscope
from headscope.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = sorted(DOCS.rglob("*.md"))
BENCH = DOCS.parent / "bench"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_of_a_document_lead_to_files(path):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize(
    "path",
    [
        *PAGES,
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
    blocks = BLOCK.findall((DOCS / "final-layer.md").read_text("utf-8"))
    for block in (block for block in blocks if "network.pth" not in block):
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


def bench(name, monkeypatch):
    """Import a module of bench/ as its scripts do."""
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def test_the_page_of_benchmarks_is_that_of_the_results_files(monkeypatch):
    page = bench("benchmarks_page", monkeypatch).text()
    assert (DOCS / "benchmarks.md").read_text("utf-8") == page, "python bench/all.py --page"


def test_every_benchmark_has_a_short_form_or_a_reason(monkeypatch):
    runner = bench("all", monkeypatch)
    scripts = {path.stem for path in BENCH.glob("*.py") if "argparse" in path.read_text("utf-8")}
    tools = {"all", "compare_experiments", "doc_images", "reproduction_page"}
    assert scripts - tools <= {*runner.BENCHES, *runner.LONG}
    for name in runner.BENCHES:
        assert "\ndef short(place" in (BENCH / f"{name}.py").read_text("utf-8"), name


@pytest.mark.parametrize(
    ("bounds", "target", "met"),
    [((), "", None), ((2,), "≥ 2", True), ((None, 2), "≤ 2", False), ((1, 2), "1 to 2", False)],
)
def test_a_figure_is_held_against_its_target(bounds, target, met, monkeypatch):
    figure = bench("figure", monkeypatch).Figure("seconds", 3.0, "s", *bounds)
    assert (figure.target, figure.met) == (target, met)
