"""The house as docs/architecture.md draws it: who may import whom, and how large a room may be."""

import ast
from pathlib import Path

import pytest

import headscope

ROOT = Path(headscope.__file__).parent
GROUND = {"errors", "console", "files", "grouping", "manifest", "signals", "tail", "text"}
GROUND |= {"schedule", "tables", "threads"}
WINGS = {"final_layer", "representation", "results", "leakage", "explanations"}
RECORD = {"metrics", "record", "audit_record"}
MAKES_RECORDS = {
    "scans",
    "cohort",
    "slicing",
    "splits",
    "auditing",
    "simulation",
    "models",
    "training",
}
MAY_IMPORT = {
    "errors": set(),
    "console": set(),
    "files": {"errors"},
    "manifest": {"errors", "files"},
    "signals": set(),
    "threads": set(),
    "tail": {"errors"},
    "grouping": {"files"},
    "schedule": set(),
    "text": set(),
    "tables": set(),
    "scans": set(),
    "cohort": {"scans"},
    "slicing": {"scans", "cohort"},
    "splits": {"scans", "cohort"},
    "auditing": {"scans", "cohort", "slicing", "splits", "metrics", "audit_record"},
    "simulation": {"scans", "cohort"},
    "models": set(),
    "training": {"models"},
    "metrics": set(),
    "record": {"audit_record"},
    "audit_record": set(),
    "analysis": RECORD,
    "analysis.final_layer": {"analysis"} | RECORD,
    "analysis.representation": {"analysis"} | RECORD,
    "analysis.results": {"analysis"} | RECORD,
    "analysis.leakage": {"analysis", "analysis.representation", "analysis.results"} | RECORD,
    "analysis.explanations": {"analysis", "analysis.results"} | RECORD,
    "scoring": {"cohort", "analysis", "analysis.results"} | RECORD,
    "figures": {"analysis", *(f"analysis.{wing}" for wing in WINGS)},
    "reporting": {"supplement", "analysis", *(f"analysis.{wing}" for wing in WINGS)} | RECORD,
    "supplement": {"figures", "analysis", *(f"analysis.{wing}" for wing in WINGS)} | RECORD,
    "verification": {"slicing", "splits", "analysis", *(f"analysis.{wing}" for wing in WINGS)}
    | RECORD,
    "tracking": {"reporting", "figures", "analysis", "analysis.results"} | RECORD,
    "experiment": MAKES_RECORDS | RECORD | {"analysis", "analysis.explanations", "tracking"},
}
EVERYTHING = {"cli", "__init__", "__main__"}
MOST_MODULES, MOST_LINES, MOST_OF_A_FUNCTION = 13, 400, 60
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """Name the package of a module, by the parts of its path or of its dotted name."""
    if parts[0] == "analysis" and len(parts) > 1 and parts[1] in WINGS:
        return f"analysis.{parts[1]}"
    return parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[str, ...]]:
    """Return the parts of every name of headscope that a module imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [tuple(name.split(".")[1:]) for name in names if name.startswith("headscope.")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    here = room_of(path.relative_to(ROOT).parts)
    if here in EVERYTHING or path == ROOT / "analysis" / "__init__.py":
        return
    rooms = {room_of(parts) for parts in imported(path)}
    assert rooms <= MAY_IMPORT[here] | GROUND | {here}


def module_of(parts: tuple[str, ...]) -> Path | None:
    """Return the file that a dotted name is imported from, or None for a package's own names."""
    for end in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:end]).with_suffix(".py")
        if end and path.is_file():
            return path
        path = ROOT.joinpath(*parts[:end]) / "__init__.py"
        if end and path.is_file():
            return path
    return None


def test_no_module_imports_itself_by_way_of_others():
    """Imports at the top of modules make no circle; those inside functions are made when called."""
    edges: dict[Path, set[Path]] = {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        edges[path] = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headscope."):
                for alias in node.names:
                    target = module_of((*node.module.split(".")[1:], alias.name))
                    if target is not None and target != path:
                        edges[path].add(target)
    done: set[Path] = set()

    def visit(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, " → ".join(str(p.relative_to(ROOT)) for p in (*above, path))
        if path not in done:
            for target in edges[path]:
                visit(target, (*above, path))
            done.add(path)

    for path in MODULES:
        visit(path, ())


def test_no_package_and_no_module_is_too_large():
    for folder in {path.parent for path in MODULES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, folder
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path


def test_no_function_is_too_long_but_for_lists_of_options():
    for path in MODULES:
        if room_of(path.relative_to(ROOT).parts) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if ast.get_docstring(node):
                    lines -= node.body[0].end_lineno - node.body[0].lineno + 1
                assert lines <= MOST_OF_A_FUNCTION, f"{path}: {node.name}"


def test_no_package_bears_the_name_of_a_function():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"figures"}
    functions = set(headscope.__all__) - {"figures"}
    assert not packages & functions
    assert not {path.stem for path in ROOT.glob("*.py")} & functions


def test_only_what_makes_records_needs_torch():
    makers = {"models", "training", "experiment", "simulation"}
    for path in MODULES:
        if room_of(path.relative_to(ROOT).parts) in makers:
            continue
        roots = {
            (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not roots & {"torch", "torchvision", "timm"}, path


@pytest.mark.parametrize("name", headscope.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(headscope, name).__doc__
