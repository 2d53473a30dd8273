"""The house as docs/architecture.md draws it: who may import whom."""

import ast
from pathlib import Path

import pytest

import headscope

ROOT = Path(headscope.__file__).parent
BASE = {"errors", "files", "console"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "console": set(),
    "config": BASE,
    "audit_record": BASE,
    "cohort": BASE | {"audit_record"},
    "models": BASE,
    "metrics": BASE,
    "record": BASE,
    "training": BASE | {"models", "metrics", "record"},
    "analysis": BASE | {"metrics", "record", "audit_record"},
    "figures": BASE | {"analysis"},
    "reporting": BASE | {"record", "audit_record", "analysis", "figures", "metrics"},
    "plan": BASE | {"config", "models", "training"},
    "inputs": BASE | {"audit_record", "config", "cohort", "plan", "analysis"},
    "checks": BASE | {"config", "models", "record", "plan"},
    "experiment": BASE
    | {"config", "cohort", "models", "training", "metrics", "record", "plan", "inputs", "checks"},
    "prediction": BASE | {"cohort", "models", "training", "metrics", "record"},
    "estimate": BASE | {"config", "cohort", "models", "training", "plan", "inputs", "checks"},
    "checkpoint": BASE | {"models"},
    "demo": BASE | {"config", "cohort", "experiment"},
}
EVERYTHING = {"cli", "__init__", "__main__"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of headscope that a module names in an import, at any depth of its code."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("headscope.")}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    here = room(path)
    if here in EVERYTHING:
        return
    assert imported(path) <= MAY_IMPORT[here] | {here}


def test_only_models_and_training_and_their_callers_need_torch():
    for path in ROOT.rglob("*.py"):
        if room(path) in {"models", "training", "experiment", "estimate", "prediction", "demo"}:
            continue
        roots = {
            (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not roots & {"torch", "torchvision", "timm"}, path


@pytest.mark.parametrize("name", headscope.__all__)
def test_the_index_of_the_library_leads_somewhere(name):
    assert getattr(headscope, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        headscope.nonsense  # noqa: B018
