"""Keys of rows: a key changes exactly when a number of the row could.

A fingerprint walks through values (settings, images, a model, an attack) and all code that they
run. Contents and code are told apart, so that a changed key can say why it changed.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.evaluation.source_code import (
    file_digest,
    file_of,
    is_ignored,
    is_own,
    read_code,
    references,
)

_PACKAGE = "smoothinfer."
# Modules of the package that compute no number of a row.
_NO_NUMBERS = (
    "errors",
    "types",
    "runtime.checksums",
    "runtime.drafts",
    "runtime.files",
    "runtime.locks",
    "runtime.progress",
    "runtime.provenance",
    "runtime.signals",
)
_PRINTING = ("__repr__", "__str__", "extra_repr")
_PLAIN = (bool, int, float, complex, str, bytes)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Bookkeeping of torch.nn.Module; parameters, buffers, submodules and hooks are hashed apart.
_BOOKKEEPING = {*vars(nn.Module()), "_is_full_backward_hook"} - {"training"}


class Fingerprint:
    """Digests of values, and of the code that they run.

    Args:
        code: digests to begin with.

    Attributes:
        code: digest of each function that was met, and of each global value it uses, by name.

    >>> one, two = Fingerprint(), Fingerprint()
    >>> one.of([1, 2.0]) == two.of([1, 2.0]), one.of([1]) == one.of([True])
    (True, False)
    """

    def __init__(self, code: Mapping[str, str] | None = None) -> None:
        self.code: dict[str, str] = dict(code or {})
        self._open: set[int] = set()  # values whose digest is being computed: cycles end here

    def of(self, *values: Any) -> str:
        """Return the digest of ``values`` by their contents; their code goes to ``code``."""
        return _digest([self._value(value) for value in values])

    def package_code(self) -> str:
        """Return the digest of the package's own code that was met."""
        return _digest(sorted(item for item in self.code.items() if _is_ours(item[0])))

    def user_code(self) -> str:
        """Return the digest of all other code that was met."""
        return _digest(sorted(item for item in self.code.items() if not _is_ours(item[0])))

    def _value(self, value: Any) -> str:
        if value is None or isinstance(value, _PLAIN):
            return f"{type(value).__name__}:{value!r}"
        if id(value) in self._open:
            return "cycle"
        self._open.add(id(value))
        try:
            return self._compound(value)
        finally:
            self._open.discard(id(value))

    def _compound(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return _tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            array = np.ascontiguousarray(value)
            return f"array:{array.dtype}{array.shape}{_digest(array.tobytes())}"
        if isinstance(value, Mapping):
            return _digest(sorted((self._value(k), self._value(v)) for k, v in value.items()))
        if isinstance(value, list | tuple):
            return _digest([self._value(each) for each in value])
        if isinstance(value, set | frozenset):
            return _digest(sorted(self._value(each) for each in value))
        if isinstance(value, torch.Generator):
            return f"generator:{_tensor(value.get_state())}"
        if isinstance(value, ModuleType):
            return f"module:{value.__name__}"
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if callable(value) and (found := self._callable(value)):
            return found
        return self._object(value)

    def _callable(self, value: Callable[..., Any]) -> str:
        """Return the digest of a function, a method or a partial; ``""`` for other callables."""
        if isinstance(value, partial):
            return _digest([self._value(p) for p in (value.func, value.args, value.keywords)])
        if isinstance(value, MethodType):
            return _digest([self._value(value.__self__), self._callable(value.__func__)])
        function = inspect.unwrap(value)
        if isinstance(function, FunctionType):
            return self._function(function)
        if isinstance(function, partial | MethodType):
            return self._callable(function)
        if inspect.isbuiltin(function) or inspect.ismethoddescriptor(function):
            return f"builtin:{getattr(function, '__qualname__', '')}"
        return ""

    def _function(self, function: FunctionType) -> str:
        module = function.__module__ or "__main__"  # code typed in or executed from a string
        name = f"{module}.{function.__qualname__}"
        if not is_own(module):
            self._library(module)
            return f"function:{name}"
        cells = [self._value(_content(cell)) for cell in function.__closure__ or ()]
        digest = read_code(function.__code__).digest
        if "<lambda>" in name or "<locals>" in name:
            name = f"{name}.{digest}"  # several may share a name
        if not _computes_nothing(module) and name not in self.code:
            self.code[name] = digest
            for used, value in references(function):
                self._global(used, value)
        defaults = self._value((function.__defaults__, function.__kwdefaults__))
        return _digest([f"function:{name}", cells, defaults])

    def _global(self, name: str, value: Any) -> None:
        """Take in a global that some code uses: as code if it is code, else by its content."""
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, type | FunctionType | MethodType | partial):
            self._value(value)
            return
        # Objects of libraries, or None in their place, may depend on the machine.
        plain = isinstance(value, (*_PLAIN, list, tuple, Mapping, set, frozenset, Tensor))
        if (plain or is_own(type(value).__module__)) and name not in self.code:
            self.code[name] = ""
            self.code[name] = self._value(value)

    def _class(self, kind: type) -> str:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if not is_own(kind.__module__):
            self._library(kind.__module__)
            return f"class:{name}"
        if _computes_nothing(kind.__module__) or name in self.code:
            return f"class:{name}"
        self.code[name] = ""
        held = [self._value(base) for base in kind.__bases__]
        for key, value in sorted(vars(kind).items()):
            about = key.startswith("__") and not callable(value)  # name, line, annotations
            if not about and key not in _PRINTING and not _is_generated(value):
                held.append(f"{key}={self._member(value)}")
        self.code[name] = _digest(held)
        return f"class:{name}"

    def _member(self, value: Any) -> str:
        """Return the digest of an attribute of a class."""
        if isinstance(value, staticmethod | classmethod):
            return self._value(value.__func__)
        if isinstance(value, property):
            return _digest([self._value(each) for each in (value.fget, value.fset)])
        if hasattr(value, "func") and not isinstance(value, partial):  # a cached property
            return self._value(value.func)
        simple = value is None or isinstance(value, (*_PLAIN, tuple, list, dict))
        return self._value(value) if simple or callable(value) else type(value).__name__

    def _module(self, module: nn.Module) -> str:
        parts = [self._class(type(module))]
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            parts.append(f"{name}={self._value(tensor)}")
        parts += [f"{name}={self._value(part)}" for name, part in module._modules.items()]
        for kind in _HOOKS:
            hooks = getattr(module, kind, {}).values()
            parts.append(f"{kind}={[self._value(hook) for hook in hooks]}")
        parts.append(self._attributes(module, _BOOKKEEPING))
        return _digest(parts)

    def _object(self, value: Any) -> str:
        kind = type(value)
        parts = [self._class(kind)]
        if not is_own(kind.__module__):
            text = repr(value)
            parts.append("" if " at 0x" in text else text)
        if is_own(kind.__module__) or not is_ignored(kind.__module__):
            parts.append(self._attributes(value, set()))
        return _digest(parts)

    def _attributes(self, value: Any, left_out: set[str]) -> str:
        left_out = left_out | set(getattr(type(value), "_volatile", ()))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        held |= getattr(value, "__dict__", {})
        kept = {name: each for name, each in held.items() if name not in left_out}
        return _digest(sorted((name, self._value(each)) for name, each in kept.items()))

    def _library(self, module: str) -> None:
        """Take in the file of an installed library's module, unless its version stands for it."""
        if not is_ignored(module):
            self.code[module] = file_digest(file_of(module))


def _is_ours(name: str) -> bool:
    return name.startswith(_PACKAGE)


def _computes_nothing(module: str) -> bool:
    return module.removeprefix(_PACKAGE) in _NO_NUMBERS


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _is_generated(value: Any) -> bool:
    """Say whether a method was written by a decorator such as ``dataclass``."""
    code = getattr(inspect.unwrap(value) if callable(value) else value, "__code__", None)
    return code is not None and code.co_filename == "<string>"


def _tensor(tensor: Tensor) -> str:
    whole = tensor.detach().cpu().contiguous().reshape(-1)
    content = whole.view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    return f"tensor:{tensor.dtype}{tuple(tensor.shape)}{_digest(content)}"


def _digest(content: Any) -> str:
    encoded = content if isinstance(content, bytes) else repr(content).encode()
    return hashlib.sha256(encoded).hexdigest()[:32]
