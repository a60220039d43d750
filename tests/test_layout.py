"""The layout: layers import downwards, no import cycle, nothing hidden, files stay small."""

import ast
import importlib
import pkgutil
import tomllib
from pathlib import Path

import pytest

import smoothinfer as si

SOURCE = Path("src/smoothinfer")
LAYERS = [
    ("types", "errors"),
    ("numerics",),
    ("runtime", "config"),
    ("networks", "backbones", "ensembles", "data"),
    ("engine",),
    ("noise",),
    ("defences",),
    ("smoothing",),
    ("attacks",),
    ("training",),
    ("evaluation",),
    ("reporting",),
    (
        "building",
        "recipes",
        "cards",
        "checkpoints",
        "start_weights",
        "state_dicts",
        "run_folder",
        "hub",
        "shipped_files",
    ),
    ("cli",),
    ("sweep_recipe", "board_recipe", "serving", "exporting"),
    ("workflows",),
    ("__init__", "__main__"),
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
# Attacks see a module and nothing else: noise and smoothing are below them, and still closed.
CLOSED = {"attacks": {"noise", "smoothing"}}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path, package: str = "smoothinfer") -> set[str]:
    """The modules of the package that a file imports at run time."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # imports for type checkers alone do not run
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith(package)}
    return found


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(path: Path, root: Path) -> str:
    """The dotted name of a file's module."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_file_has_a_layer():
    assert len(FILES) > 80
    parts = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert parts == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_layers_import_only_layers_below(path):
    mine = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for module in imports(path):
        other = layer_of(module)
        if other not in HEIGHT:  # a public name of the package itself
            other = "__init__"
        assert HEIGHT[other] <= HEIGHT[mine], f"{path} imports {module}, a layer above"
        assert other not in CLOSED.get(mine, ()), f"{path} must not know {other}"


@pytest.mark.parametrize(
    ("folder", "package"),
    [("src", "smoothinfer"), (".", "benchmarks")],
    ids=["package", "benchmarks"],
)
def test_no_modules_import_each_other_in_a_circle(folder, package):
    root = Path(folder)
    paths = sorted((root / package).rglob("*.py"))
    graph = {name_of(path, root): imports(path, package) for path in paths}
    graph = {
        name: {each for each in used if each in graph} - {name} for name, used in graph.items()
    }
    left = dict(graph)
    while True:
        free = [name for name, used in left.items() if not used & set(left)]
        if not free:
            break
        for name in free:
            del left[name]
    assert not left, f"import cycle among {sorted(left)}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_small(path):
    most = 80 if path.parent.name == "defences" else 300
    assert len(path.read_text().splitlines()) <= most
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - documented.count("\n")
            assert length <= 80, f"{path}: {node.name} has {length} lines"


def packages():
    yield si
    for found in pkgutil.walk_packages(si.__path__, "smoothinfer."):
        if found.ispkg:
            yield importlib.import_module(found.name)


def test_no_module_is_hidden_by_a_name_of_its_package():
    for package in packages():
        names = {found.name for found in pkgutil.iter_modules(package.__path__)} - {"__main__"}
        for name in names:
            importlib.import_module(f"{package.__name__}.{name}")
            thing = getattr(package, name)
            assert type(thing).__name__ == "module", f"{package.__name__}.{name} is {thing!r}"


def test_public_names_are_there_and_documented():
    for name in si.__all__:
        thing = getattr(si, name)
        if callable(thing) and not name.isupper():
            assert getattr(thing, "__doc__", None), name
    with pytest.raises(AttributeError, match="no attribute 'pgdd'"):
        _ = si.pgdd


def test_names_imported_late_are_those_told_to_type_checkers():
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {a.name: n.module for n in block.body for a in n.names}
    assert told == {name: f"smoothinfer.{module}" for name, module in si._LAZY.items()}


def test_no_torchvision():
    assert not any("torchvision" in path.read_text() for path in FILES)


def test_the_wheel_is_small_and_ships_what_its_list_names():
    included = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["hatch"]["build"]
    files = [Path(each) for each in included["targets"]["wheel"]["force-include"]]
    assert all(each.exists() for each in files)
    assert sum(each.stat().st_size for each in files if each.is_file()) < 30e6
    weights = {each.stem for each in files if each.suffix == ".safetensors"}
    assert {each.stem for each in files if each.suffix == ".json"} >= weights
