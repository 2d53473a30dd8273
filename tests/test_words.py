"""Names and phrases of CONTRIBUTING.md that do not come back in src and docs, each one listed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import headscope

SOURCE = Path(headscope.__file__).parent
NAMES = {"found", "each", "own", "kept", "known", "told"}  # a variable bears a noun
FUNCTIONS = {"pseudonymised", "drawn", "styled"}  # a function is a verb
PHRASES = {  # what to write instead
    r"\b(person|people|persons|nobody|whom)\b": "subject, subjects",
    r"\brightly\b": "correct, correctly",
    r"\ban? (row|column|line|file) an? \w+": "one row per slice",
    r"\bseconds an? \w+": "seconds per run",
    r"\bis none: ": "Unknown plane 'x': choose …",
    r"\bstands already\b": "already finished",
    r"\b(go|goes|going|went|gone) on\b": "continue",
    r"\banew\b": "again",
    r"\b(lie|lies|lay) in\b": "is in",
    r"\bmemory does not suffice\b": "Out of memory",
    r"\banother headscope:": "a different version of headscope; train it again",
    r"\btaken for whom\b": "confusion matrices",
    r"\blies about chance\b": "is centred on chance",
    r"\b(identity probe|dose of leakage)\b": "re-identification, dose–response of leakage",
    r"(?<!\w)(frozen-bn|scratch-moments)(?!\w)": "frozen-adabn, scratch-meanvar",
    r"--(architecture|split|correlation|pseudonymise|yes)\b(?!-)": "the option's new name",
}
PATTERN = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)
MODULES = sorted(SOURCE.rglob("*.py"))
TEMPLATES = sorted(SOURCE.rglob("*.j2"))
ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that a module gives: to variables, parameters, attributes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def texts_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module, docstrings too, but for its tables of old names."""
    old = set()
    for node in ast.walk(tree):
        target = getattr(node, "target", None) or (getattr(node, "targets", None) or [None])[0]
        if isinstance(target, ast.Name) and target.id.strip("_").startswith(("RENAMED", "OLD_")):
            old |= set(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in old:
            yield node.lineno, node.value


def phrases_in(text: str, line: int = 1) -> Iterator[str]:
    """Yield what is wrong with a text, with the line where it begins."""
    for match in PATTERN.finditer(re.sub(r"[ \n]+", " ", text)):
        instead = next(n for phrase, n in PHRASES.items() if re.search(phrase, match[0], re.I))
        yield f"line {line}: {match[0]!r} (write: {instead})"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_keeps_to_the_words(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [f"line {line}: a name {name!r}" for line, name in names_in(tree) if name in NAMES]
    wrong += [
        f"line {node.lineno}: a function {node.name!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.strip("_") in FUNCTIONS
    ]
    wrong += [text for line, string in texts_in(tree) for text in phrases_in(string, line)]
    assert not wrong, "\n".join([str(path), *wrong])


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_keeps_to_the_words(path):
    text = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not [*phrases_in(text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_keeps_to_the_words(path):
    """But for lines that say what had another name earlier, and for quotations: lines with '>'."""
    lines = path.read_text(encoding="utf-8").split("\n")
    text = "\n".join("" if "earlier" in line.lower() or line[:1] == ">" else line for line in lines)
    assert not [*phrases_in(text)]


def test_the_check_sees_what_it_should():
    tree = ast.parse("def f(own):\n each = 'It goes\\n on.'\n x.kept = f'{own} stands already'")
    assert {name for _, name in names_in(tree)} & NAMES == {"own", "each", "kept"}
    assert len([text for _, string in texts_in(tree) for text in phrases_in(string)]) == 2
    assert not [*phrases_in("Unknown regime 'x': choose frozen. The run continues.")]
