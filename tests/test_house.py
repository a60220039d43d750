"""The house stands as drawn: floors import only floors below, and every menu is tested."""

import ast
from pathlib import Path

import pytest

import smoothinfer as si

SOURCE = Path("src/smoothinfer")
GROUND = ("types", "errors", "files", "components", "interrupts", "configuration", "provenance")
FLOORS = [
    GROUND,
    ("numerics", "data", "models", "modes"),
    ("noise",),
    ("smoothing",),
    ("attacks",),
    ("training",),
    ("evaluation",),
    ("reporting",),
    (
        "recipes",
        "checkpoints",
        "hub",
        "runs",
        "certificates",
        "measure",
        "sweeps",
        "appendix",
        "pictures",
        "experiments",
        "reproduction",
        "calibrate",
        "demo",
        "cli",
        "__init__",
        "__main__",
    ),
]
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
# Attacks see a module and nothing else: noise and smoothing are below them, and still closed.
CLOSED = {"attacks": {"noise", "smoothing"}}


def imports(path: Path) -> list[str]:
    """The top-level parts of smoothinfer that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("smoothinfer"):
            parts = node.module.split(".")
            found += [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
    return found


def part_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def test_every_file_has_a_floor():
    assert len(FILES) > 25
    assert {part_of(path) for path in FILES} == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_floors_import_only_floors_below(path):
    mine = part_of(path)
    for other in imports(path):
        assert other in HEIGHT, f"{path} imports smoothinfer.{other}, which has no floor"
        assert HEIGHT[other] <= HEIGHT[mine], f"{path} looks up to {other}"
        assert other not in CLOSED.get(mine, ()), f"{path} must not know {other}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_small(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - documented.count("\n")
            assert length <= 80, f"{path}: {node.name} has {length} lines"


def test_public_names_are_there_and_documented():
    for name in si.__all__:
        thing = getattr(si, name)
        if callable(thing) and not name.isupper():
            assert getattr(thing, "__doc__", None), name


def test_no_torchvision():
    assert not any("torchvision" in path.read_text() for path in FILES)
