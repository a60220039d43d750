"""The code that a function runs: comments, docstrings, annotations and layout left out."""

import ast
import dis
import functools
import hashlib
import inspect
import linecache
import os
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from smoothinfer.evaluation.origins import imported, is_ours, is_own

_SKIPPED_FIELDS = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_HAS_DOCSTRING = 0x4000000  # of a code's flags, from Python 3.13 on
_LOOKS_UP = {"globals", "eval", "exec", "__import__", "import_module"}  # names unknown until run
_NOT_FOUND = object()
Import = tuple[str, str, str]  # local name, module, and name in it or ""


class Code(NamedTuple):
    """A function's code.

    Attributes:
        digest: changes when the code does.
        chains: names that it uses, each with the attributes behind it, as in ``np.random.rand``.
        imports: what it imports when it runs.
        looks_up: whether it may use any global, by ``eval`` and the like.
    """

    digest: str
    chains: tuple[tuple[str, ...], ...]
    imports: tuple[Import, ...]
    looks_up: bool


@functools.cache
def read_code(code: CodeType) -> Code:
    """Return the code of a function, as it was when it was loaded.

    Comments, docstrings, annotations, layout and the texts of exceptions do not count. The byte
    code is read, in which these count in part, where the source is missing (typed into an
    interpreter), ambiguous (several lambdas on one line), or another one by now.
    """
    names = _names_in(code)
    node = _source_of(code)
    if node is None:
        chains: set[tuple[str, ...]] = {(name,) for name in names}
        imports = _imports_in(code)
        digest = _digest(_dump_bytecode(code))
    else:
        imports = {each for part in ast.walk(node) for each in _imports_of(part)}
        used = names | {local for local, _, _ in imports}
        chains = {chain for chain in _chains(node) if chain[0] in used}
        digest = _digest(_dump(node))
    looks_up = bool(names & _LOOKS_UP)
    if looks_up:  # by import_module("helper"), perhaps
        imports |= {("", text, "") for text in _texts_in(code) if _is_dotted(text)}
    return Code(digest, tuple(sorted(chains)), tuple(sorted(imports)), looks_up)


class Reference(NamedTuple):
    """A value that some code uses: the module in which it is found, its name there, itself."""

    module: str
    name: str
    value: Any


def references(function: FunctionType) -> Iterator[Reference]:
    """Yield all globals that ``function`` uses, and what it imports when it runs.

    An attribute of a module stands for itself: of the module nothing else is used. A module that
    is used as a whole, such as an argument, is yielded.
    """
    code, world = read_code(function.__code__), function.__globals__
    home = world.get("__name__") or "__main__"
    local: dict[str, Reference] = {}
    for name, source, value in _import_all(code.imports, world.get("__package__") or ""):
        # Of a library the library counts, whether or not it is loaded yet.
        local[name] = Reference(home if is_own(source) else source, name, value)
        if not name:
            yield Reference(home, value.__name__, value)
    for root, *attributes in code.chains:
        found = local.get(root, Reference(home, root, world.get(root, _NOT_FOUND)))
        if found.value is not _NOT_FOUND and not root.startswith("__"):
            yield _follow(found, attributes)
    if code.looks_up and not is_ours(home):
        for name in sorted(name for name in world if not name.startswith("__")):
            yield Reference(home, name, world[name])


def _follow(found: Reference, attributes: list[str]) -> Reference:
    """Return what is found behind a value when modules are passed through."""
    for attribute in attributes:
        if not isinstance(found.value, ModuleType):
            break
        inner = getattr(found.value, attribute, _NOT_FOUND)
        if inner is _NOT_FOUND:
            break
        found = Reference(found.value.__name__, attribute, inner)
    return found


def _import_all(imports: tuple[Import, ...], package: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the local names of ``imports``, the modules they come from, and their values."""
    for local, source, name in imports:
        try:
            path = resolve_name(source, package)
        except ImportError:  # a relative import outside of a package
            continue
        module = imported(path)
        if module is None:
            continue
        if name:
            inner = imported(f"{path}.{name}") if not hasattr(module, name) else None
            yield local, path, getattr(module, name, inner or module)
        else:  # "import a.b" binds a, "import a.b as c" binds a.b
            top = path.partition(".")[0]
            yield local, path, imported(top) if local == top else module


def _imports_of(part: ast.AST) -> Iterator[Import]:
    if isinstance(part, ast.Import):
        for alias in part.names:
            yield alias.asname or alias.name.partition(".")[0], alias.name, ""
    elif isinstance(part, ast.ImportFrom):
        source = "." * part.level + (part.module or "")
        for alias in part.names:
            yield alias.asname or alias.name, source, alias.name


def _imports_in(code: CodeType) -> set[Import]:
    """Return the modules that byte code imports, each to be used as a whole."""
    steps = [step for each in _all_codes(code) for step in dis.get_instructions(each)]
    found = set()
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = next((s.argval for s in steps[at - 1 :: -1] if isinstance(s.argval, int)), 0)
            found.add((step.argval.partition(".")[0], "." * level + step.argval, ""))
    return found


def _chains(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Yield each name that is read below ``node``, with the attributes that are taken of it."""
    chain: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        chain.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield (inner.id, *reversed(chain))
        return
    for child in ast.iter_child_nodes(inner):
        yield from _chains(child)


def _source_of(code: CodeType) -> ast.AST | None:
    """Return the source of ``code``, if the file still holds what was loaded from it."""
    try:
        state = os.stat(code.co_filename)
        stamp = (state.st_mtime_ns, state.st_size)
    except (OSError, ValueError):
        stamp = (0, 0)  # a cell of a notebook
    node, compiled = _functions(code.co_filename, stamp).get(_place(code), (None, None))
    return node if compiled == code else None


@functools.cache
def _functions(
    path: str, stamp: tuple[int, int]
) -> dict[tuple[str, int], tuple[ast.AST | None, CodeType | None]]:
    """Return all functions in a file, by name and first line (that of the first decorator)."""
    linecache.checkcache(path)
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
        codes = list(_all_codes(compile(tree, path, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError, RecursionError):
        return {}
    compiled = {_place(each): each for each in codes}
    places = [_place(each) for each in codes]
    nodes = {_place_of(node): node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)}
    alone = [place for place in nodes if places.count(place) == 1]
    return {place: (nodes[place], compiled[place]) for place in alone}


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _place_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> tuple[str, int]:
    if isinstance(node, ast.Lambda):
        return "<lambda>", node.lineno
    return node.name, min([node.lineno, *(each.lineno for each in node.decorator_list)])


def _dump(value: Any) -> str:
    """Write a syntax tree in the same way under every version of Python."""
    if isinstance(value, list):
        return f"[{','.join(_dump(each) for each in value)}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for name, child in ast.iter_fields(_without_texts(value)):
        if name in _SKIPPED_FIELDS or child is None or child == []:
            continue
        if name == "body" and isinstance(child, list):
            child = [each for each in child if not _is_docstring(each)]
        fields.append(f"{name}={_dump(child)}")
    return f"{type(value).__name__}({','.join(fields)})"


def _without_texts(node: ast.AST) -> ast.AST:
    """Leave out the text of an exception; its kind, and numbers that it carries, stay."""
    if isinstance(node, ast.Assert):
        return ast.Assert(test=node.test)
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        kept = [each for each in node.exc.args if not _is_text(each)]
        return ast.Raise(exc=ast.Call(func=node.exc.func, args=kept, keywords=node.exc.keywords))
    return node


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):  # a sum of texts
        return _is_text(node.left) or _is_text(node.right)
    constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return constant or isinstance(node, ast.JoinedStr)


def _is_docstring(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _all_codes(code: CodeType) -> Iterator[CodeType]:
    """Yield ``code`` and all functions inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _all_codes(each)


def _dump_bytecode(code: CodeType) -> str:
    consts = [_dump_constant(each) for each in code.co_consts]
    if consts and _has_docstring(code):
        consts[0] = ""
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_names)
    names = (code.co_varnames, code.co_freevars, code.co_cellvars)
    return f"{code.co_code!r}{code.co_exceptiontable!r}{shape}{names}{consts}"


def _has_docstring(code: CodeType) -> bool:
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # The constants of a function without a docstring begin with None; a class body is no function.
    return bool(code.co_flags & inspect.CO_NEWLOCALS) and isinstance(code.co_consts[0], str)


def _dump_constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _dump_bytecode(value)
    if isinstance(value, frozenset):  # its order differs between processes
        return f"frozenset{sorted(map(_dump_constant, value))}"
    if isinstance(value, tuple):
        return f"({','.join(map(_dump_constant, value))})"
    return repr(value)


def _names_in(code: CodeType) -> set[str]:
    return {name for each in _all_codes(code) for name in each.co_names}


def _texts_in(code: CodeType) -> set[str]:
    return {const for c in _all_codes(code) for const in c.co_consts if isinstance(const, str)}


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
