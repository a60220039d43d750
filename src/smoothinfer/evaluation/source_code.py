"""The code that a function runs, read from its source: comments, docstrings and layout left out."""

import ast
import functools
import hashlib
import inspect
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_SKIPPED_FIELDS = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
_INSTALLED = tuple(sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib"))
# Libraries whose numbers may differ in the last bits between versions: rows name those versions.
_LIBRARIES = ("torch", "numpy", "scipy", "pyarrow", "foolbox", "eagerpy")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Code(NamedTuple):
    """A function's code.

    Attributes:
        digest: changes when the code does.
        names: global names that it uses.
        attributes: (name, attribute) pairs that it uses.
        imports: (module, name) pairs that it imports.
    """

    digest: str
    names: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    imports: tuple[tuple[str, str], ...]


def is_own(module: str) -> bool:
    """Say whether ``module`` is of this package or of the user, not of an installed library.

    >>> is_own("smoothinfer.numerics.balls"), is_own("torch.nn"), is_own("json")
    (True, False, False)
    """
    if module.partition(".")[0] in ("smoothinfer", "__main__"):
        return True
    path = file_of(module)
    return bool(path) and not path.startswith(_INSTALLED)


def is_ignored(module: str) -> bool:
    """Say whether the code of ``module`` is named by its version alone."""
    top = module.partition(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names or not file_of(module)


def file_of(module: str) -> str:
    """Return the file of a loaded module, ``""`` if it has none."""
    return getattr(sys.modules.get(module), "__file__", None) or ""


@functools.cache
def file_digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@functools.cache
def read_code(code: CodeType) -> Code:
    """Return the code of a function.

    Comments, docstrings, annotations, layout and the texts of exceptions do not count. Without
    source (typed into an interpreter, or several lambdas on one line) the byte code is read.
    """
    node = _nodes(code.co_filename).get((code.co_name, code.co_firstlineno))
    if node is None:
        return Code(_digest(_dump_bytecode(code)), tuple(sorted(_bytecode_names(code))), (), ())
    parts = list(ast.walk(node))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    attributes = {
        (part.value.id, part.attr)
        for part in parts
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name)
    }
    imports = {
        (part.module, alias.name)
        for part in parts
        if isinstance(part, ast.ImportFrom) and part.module
        for alias in part.names
    }
    used = (tuple(sorted(each)) for each in (names, attributes, imports))
    return Code(_digest(_dump(node)), *used)  # type: ignore[arg-type]


def references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of all globals that ``function`` uses, imports inside it included."""
    code, world = read_code(function.__code__), function.__globals__
    for name in code.names:
        if name in world and not inspect.ismodule(world[name]):
            yield f"{function.__module__}.{name}", world[name]
    for name, attribute in code.attributes:
        module = world.get(name)
        if inspect.ismodule(module) and is_own(module.__name__):
            yield f"{module.__name__}.{attribute}", getattr(module, attribute, None)
    for source, name in code.imports:
        if source in sys.modules:
            yield f"{source}.{name}", getattr(sys.modules[source], name, None)


@functools.cache
def _nodes(path: str) -> dict[tuple[str, int], ast.AST]:
    """Return all functions in a file, by name and first line (that of the first decorator)."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        return {}
    found: dict[tuple[str, int], ast.AST] = {}
    lambdas: list[int] = []
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[node.name, line] = node
        elif isinstance(node, ast.Lambda):
            lambdas.append(node.lineno)
            found["<lambda>", node.lineno] = node
    for line in {line for line in lambdas if lambdas.count(line) > 1}:
        del found["<lambda>", line]
    return found


def _dump(value: Any) -> str:
    """Write a syntax tree in the same way under every version of Python."""
    if isinstance(value, list):
        return f"[{','.join(_dump(each) for each in value)}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    if isinstance(value, ast.Raise):
        return "Raise()"
    fields = []
    for name, child in ast.iter_fields(value):
        if name in _SKIPPED_FIELDS or child is None or child == []:
            continue
        if name == "body" and isinstance(child, list):
            child = [each for each in child if not _is_docstring(each)]
        fields.append(f"{name}={_dump(child)}")
    return f"{type(value).__name__}({','.join(fields)})"


def _is_docstring(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _dump_bytecode(code: CodeType) -> str:
    consts = [_dump_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code!r}{code.co_names}{consts}"


def _bytecode_names(code: CodeType) -> set[str]:
    inner = (_bytecode_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
