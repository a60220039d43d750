"""The code that a function runs, read from its source: comments, docstrings and layout left out."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_SKIPPED_FIELDS = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))
# Libraries whose numbers may differ in the last bits between versions: rows name those versions.
_LIBRARIES = ("torch", "numpy", "scipy", "foolbox", "eagerpy")


def is_own(module: str) -> bool:
    """Say whether ``module`` is of this package or of the user, not of an installed library.

    >>> is_own("smoothinfer.numerics.balls"), is_own("torch.nn"), is_own("json")
    (True, False, False)
    """
    if module.partition(".")[0] in ("smoothinfer", "__main__"):
        return True
    path = file_of(module)
    return bool(path) and not path.startswith((*_STANDARD, *_INSTALLED))


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


def node_of(function: FunctionType) -> ast.AST | None:
    """Return the syntax tree of ``function``, ``None`` for a lambda or without source."""
    code = function.__code__
    return _nodes(code.co_filename).get((code.co_name, code.co_firstlineno))


@functools.cache
def _nodes(path: str) -> dict[tuple[str, int], ast.AST]:
    """Return all functions in a file, by name and first line (that of the first decorator)."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        return {}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    lines = {id(f): min([f.lineno, *(d.lineno for d in f.decorator_list)]) for f in functions}
    return {(function.name, lines[id(function)]): function for function in functions}


def digest_of(function: FunctionType) -> str:
    """Return a digest that changes when the code of ``function`` does.

    Comments, docstrings, annotations, layout and the texts of exceptions do not count. A function
    without source (typed into an interpreter), and a lambda, is told by its byte code.
    """
    node = node_of(function)
    text = _dump(node) if node is not None else _dump_code(function.__code__)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
            child = [each for each in child if not _is_text(each)]
        fields.append(f"{name}={_dump(child)}")
    return f"{type(value).__name__}({','.join(fields)})"


def _is_text(statement: ast.AST) -> bool:
    """Say whether a statement is a string alone, as a docstring is."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _dump_code(code: CodeType) -> str:
    consts = [_dump_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code!r}{code.co_names}{consts}"


def references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of all globals that ``function`` uses, imports inside it included."""
    names: set[str] = set()
    attributes: set[tuple[str, str]] = set()
    node = node_of(function)
    if node is None:
        names |= _code_names(function.__code__)
    for part in ast.walk(node) if node is not None else ():
        if isinstance(part, ast.Name):
            names.add(part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            attributes.add((part.value.id, part.attr))
        elif isinstance(part, ast.ImportFrom) and part.module in sys.modules:
            source = sys.modules[part.module]
            yield from (
                (f"{part.module}.{alias.name}", getattr(source, alias.name, None))
                for alias in part.names
            )
    world = function.__globals__
    for name in sorted(names):
        if name in world and not inspect.ismodule(world[name]):
            yield f"{function.__module__}.{name}", world[name]
    for name, attribute in sorted(attributes):
        module = world.get(name)
        if isinstance(module, ModuleType) and is_own(module.__name__):
            yield f"{module.__name__}.{attribute}", getattr(module, attribute, None)


def _code_names(code: CodeType) -> set[str]:
    inner = (_code_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*inner)
