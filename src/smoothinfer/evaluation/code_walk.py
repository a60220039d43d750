"""The code that values run: functions, classes, and the globals that these use."""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.evaluation.contents import backend_of, digest_of
from smoothinfer.evaluation.origins import (
    PACKAGE,
    file_digest,
    file_of,
    folder_of,
    is_ours,
    is_own,
    is_rounding,
    library_digest,
    module_of,
)
from smoothinfer.evaluation.source_code import Reference, read_code, references

# Modules of the package that compute no number of a row.
_NO_NUMBERS = (
    "errors",
    "types",
    "evaluation.makers",
    "runtime.checksums",
    "runtime.drafts",
    "runtime.files",
    "runtime.locks",
    "runtime.progress",
    "runtime.provenance",
    "runtime.signals",
)
_PRINTING = ("__repr__", "__str__", "extra_repr")
_ABOUT = ("__annotate__", "__annotate_func__", "_abc_impl", "_backward_cls")  # no part of a class
PLAIN = (bool, int, float, complex, str, bytes)
_CONTAINERS = (list, tuple, Mapping, set, frozenset, Tensor, np.ndarray)
_BOUND = (BuiltinFunctionType, BuiltinMethodType, MethodWrapperType)
_CODE = (type, FunctionType, MethodType, partial)
_OPERATORS = ("aten", "mkldnn", "onednn", "prim", "prims", "quantized")
_PATCHABLE = (torch, torch.Tensor, nn.functional, nn.init)


class CodeWalk:
    """A walk through code; see `Fingerprint`, which walks through values too."""

    def __init__(self, code: Mapping[str, str] | None = None) -> None:
        self.code: dict[str, str] = dict(code or {})
        self.unreadable: set[str] = set()
        self._classes: dict[int, tuple[type, str]] = {}
        self._libraries: set[type] = set()  # classes of libraries that were searched for patches
        self._pending: deque[tuple[str, Reference]] = deque()  # not followed yet
        self._folder = ""  # of the code that is read now

    def _value(self, value: Any) -> str:
        raise NotImplementedError

    def _callable(self, value: Callable[..., Any]) -> str:
        """Return the digest of a function, a method or a partial; ``""`` for other callables."""
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, partial):
            parts = (value.func, value.args, value.keywords, vars(value))
            return digest_of([self._value(part) for part in parts])
        if isinstance(value, MethodType):
            return digest_of([self._value(value.__self__), self._value(value.__func__)])
        if isinstance(value, _BOUND):
            return self._builtin(value)
        if not is_own(module_of(type(value))) and hasattr(value, "__wrapped__"):  # lru_cache
            return digest_of([type(value).__name__, self._value(value.__wrapped__)])
        return ""

    def _builtin(self, value: Any) -> str:
        """Return the digest of a function that is no Python, with the object that it belongs to."""
        owner = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or ""
        if module and is_own(module) and file_of(module):  # compiled by the user
            self.code[module] = file_digest(file_of(module))
        held = "" if owner is None or isinstance(owner, ModuleType) else self._value(owner)
        return f"builtin:{module}.{value.__qualname__}{held}"

    def _function(self, function: FunctionType) -> str:
        if original := vars(function).get("_torchdynamo_orig_callable"):
            return self._compiled(function, original)
        module = function.__globals__.get("__name__") or "__main__"
        name = f"{module}.{function.__code__.co_qualname}"
        held = [self._held(function, module)]
        if not is_own(module):
            self._library(module)
        elif not _computes_nothing(module):
            name = self._take_code(name, function)
            if function.__globals__ is not vars(sys.modules.get(module, function)):
                held += self._world(function)  # that of a string which was executed, perhaps
        return f"function:{name}" + "".join(each and f",{each}" for each in held)

    def _compiled(self, compiled: Any, original: Any) -> str:
        """Return the digest of what ``torch.compile`` made; its own backends only round."""
        parts = ["compiled", self._value(original), self._value(backend_of(compiled))]
        return digest_of(parts)

    def _held(self, function: FunctionType, module: str) -> str:
        """Return the digest of what ``function`` holds beside its code; ``""`` for nothing."""
        cells = [_content(cell) for cell in function.__closure__ or ()]
        hidden = {"__signature__", *({"__wrapped__"} if cells else ())}
        about = {name: each for name, each in vars(function).items() if name not in hidden}
        held = (cells, function.__defaults__, function.__kwdefaults__, sorted(about.items()))
        if not any(held):
            return ""
        with self._inside(module):
            return digest_of([self._value(each) for each in held])

    def _take_code(self, name: str, function: FunctionType) -> str:
        """Take in the code of ``function`` and the globals that it uses; return its unique name."""
        digest = read_code(function.__code__).digest
        if "<" in name or self.code.get(name, digest) != digest:
            name = f"{name}.{digest}"  # several share it
        if name not in self.code:
            self.code[name] = digest
            home = function.__globals__.get("__name__") or "__main__"
            self._pending += [(home, found) for found in references(function)]
        return name

    def _finish(self) -> None:
        """Take in what the code that was met uses, and what that uses in turn."""
        while self._pending:
            self._reference(*self._pending.popleft())

    def _world(self, function: FunctionType) -> list[str]:
        """Return the digests of globals that no module holds, so that their names may be shared."""
        plain = (found for found in references(function) if not isinstance(found.value, ModuleType))
        return [f"{found.name}={self._value(found.value)}" for found in plain]

    def _reference(self, home: str, found: Reference) -> None:
        """Take in what code in the module ``home`` uses: as code if it is code, else by content."""
        module, name, value = found
        if isinstance(value, ModuleType):
            self._value(value)
        elif not is_own(module):  # an attribute of a library, unless somebody has replaced it
            self._library(module)
            if module.startswith("torch.ops.") and module.split(".")[2] not in _OPERATORS:
                self.unreadable.add(f"{module}.{name}")
            if _is_patch(value):
                self._take_global(f"{module}.{name}", module, value)
        elif self._counts(home, name, value):
            self._take_global(f"{module}.{name}", module, value)

    def _counts(self, home: str, name: str, value: Any) -> bool:
        """Say whether a global of the module ``home`` counts."""
        if isinstance(value, (*PLAIN, *_CONTAINERS, *_CODE)):
            return True
        if is_ours(home):  # objects of libraries, or None in their place, may depend on the machine
            return value is not None and is_own(module_of(type(value)))
        return not _belongs_to_library(name, value)

    def _take_global(self, name: str, module: str, value: Any) -> None:
        name = f"{name}=" if isinstance(value, _CODE) else name  # beside the code itself
        if name not in self.code:
            self.code[name] = ""
            with self._inside(module):
                self.code[name] = self._value(value)

    def _whole_module(self, module: ModuleType) -> str:
        """Take in a module that is used as a whole, such as one that a closure holds."""
        name = module.__name__
        label = f"{name} as a whole"
        if not is_own(name):
            self._library(name)
        elif label not in self.code:
            self.code[label] = library_digest("smoothinfer") if is_ours(name) else ""
            for each, value in () if is_ours(name) else sorted(vars(module).items()):
                if not each.startswith("__"):
                    self._pending.append((name, Reference(name, each, value)))
        return f"module:{name}"

    def _class(self, kind: type) -> str:
        if id(kind) in self._classes:
            return self._classes[id(kind)][1]
        name = f"{module_of(kind)}.{kind.__qualname__}"
        self._classes[id(kind)] = (kind, f"class:{name}")  # the end of a circle
        if not is_own(module_of(kind)):
            self._library_class(kind)
        elif not _computes_nothing(module_of(kind)):
            digest = digest_of(self._members(kind))
            if "<" in name or self.code.get(name, digest) != digest:
                name = f"{name}.{digest}"  # several share it
            self.code[name] = digest
            self._classes[id(kind)] = (kind, f"class:{name}")
        return f"class:{name}"

    def _members(self, kind: type) -> list[str]:
        held = [self._value(base) for base in (*kind.__bases__, type(kind))]
        fields = vars(kind).get("__dataclass_fields__", {}).values()
        held += [f"{field.name}:{self._value(field.default_factory)}" for field in fields]
        with self._inside(module_of(kind)):
            for key, value in sorted(vars(kind).items()):
                about = key.startswith("__") and not callable(value)  # name, line, annotations
                if not about and key not in (*_PRINTING, *_ABOUT) and not _is_generated(value):
                    held.append(f"{key}={self._member(kind, value)}")
        return held

    def _member(self, kind: type, value: Any) -> str:
        """Return the digest of an attribute of a class."""
        if isinstance(value, staticmethod | classmethod):
            return self._value(value.__func__)
        if isinstance(value, property):
            return digest_of([self._value(each) for each in (value.fget, value.fset)])
        if hasattr(value, "func") and not isinstance(value, partial):  # a cached property
            return self._value(value.func)
        if type(value).__name__.endswith("_descriptor"):  # a slot, or a method that is no Python
            return type(value).__name__
        known = value is None or isinstance(value, (*PLAIN, *_CONTAINERS)) or callable(value)
        return self._value(value) if known or not is_ours(module_of(kind)) else type(value).__name__

    def _library_class(self, kind: type) -> None:
        """Take in what is not of a library in one of its classes: bases and replaced methods."""
        self._library(module_of(kind))
        for base in kind.__mro__[1:]:
            self._class(base)
        for name, value in vars(kind).items():
            if _is_patch(value):
                self._take_global(f"{module_of(kind)}.{kind.__qualname__}.{name}", "", value)

    def _library(self, module: str) -> None:
        """Take in the files of an installed library, unless its versions differ in rounding."""
        top = module.partition(".")[0]
        if top not in self.code and not is_rounding(top):
            self.code[top] = library_digest(top)

    def _patches(self) -> None:
        """Take in functions of torch that somebody has replaced."""
        for place in _PATCHABLE:
            for name, value in vars(place).items():
                if _is_patch(value):
                    self._take_global(f"{place.__name__}.{name}", "", value)

    @contextlib.contextmanager
    def _inside(self, module: str) -> Iterator[None]:
        """Inside, paths below the folder of ``module`` are relative to it: it may have moved."""
        before, self._folder = self._folder, folder_of(module)
        try:
            yield
        finally:
            self._folder = before


def _computes_nothing(module: str) -> bool:
    return module.startswith(PACKAGE) and module.removeprefix(PACKAGE) in _NO_NUMBERS


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_generated(value: Any) -> bool:
    """Say whether a method was written by the decorator ``dataclass``."""
    return "__create_fn__" in getattr(getattr(value, "__code__", None), "co_qualname", "")


def _is_patch(value: Any) -> bool:
    """Say whether a part of a library is the user's function."""
    if not isinstance(value, FunctionType):
        return False
    module = value.__globals__.get("__name__") or ""
    return bool(module) and is_own(module)


def _belongs_to_library(name: str, value: Any) -> bool:
    """Say whether a global is an object of a library, imported from it by its name."""
    if is_own(module_of(type(value))):
        return False
    modules = [module for title, module in list(sys.modules.items()) if not is_own(title)]
    return any(getattr(module, "__dict__", {}).get(name) is value for module in modules)
