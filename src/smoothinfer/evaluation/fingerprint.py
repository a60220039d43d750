"""Keys of rows: a key changes exactly when a number of the row could.

A fingerprint walks through values (settings, images, a model, an attack) and all code that they
run. Contents and code are told apart, so that a changed key can say why it changed. What it cannot
look into it names: nobody can tell whether that has changed.
"""

from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import PurePath
from types import MappingProxyType, ModuleType
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from smoothinfer.evaluation.code_walk import PLAIN, CodeWalk
from smoothinfer.evaluation.contents import (
    array_digest,
    digest_of,
    is_idle,
    scripted_digest,
    state_of,
    tensor_digest,
)
from smoothinfer.evaluation.origins import is_ours, is_own, module_of

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Bookkeeping of torch.nn.Module; parameters, buffers, submodules and hooks are hashed apart.
_BOOKKEEPING = {
    *vars(nn.Module()),
    *("_is_full_backward_hook", "_compiled_call_impl", "_is_torch_compile"),
} - {"training"}
# Containers that are nothing beside what they contain.
_CONTAINERS = (
    *(dict, OrderedDict, MappingProxyType, list, tuple, set, frozenset),
    *(np.ndarray, torch.Generator),
)
_GRAPH = {"_graph", "_code", "_tracer_cls", "_tracer_extras", "_lineno_map", "_prologue_start"}


class Fingerprint(CodeWalk):
    """Digests of values, and of the code that they run.

    Args:
        code: digests to begin with.
        tensors: digests of tensors, by identity, with the tensors: kept from one fingerprint to
            the next while these do not change.

    Attributes:
        code: digest of each function that was met, and of each global value it uses, by name.
        unreadable: what was met whose code or content cannot be read.

    >>> one, two = Fingerprint(), Fingerprint()
    >>> one.of([1, 2.0]) == two.of([1, 2.0]), one.of([1]) == one.of([True])
    (True, False)
    """

    def __init__(
        self,
        code: Mapping[str, str] | None = None,
        tensors: dict[int, tuple[Tensor, str]] | None = None,
    ) -> None:
        super().__init__(code)
        self._tensors = {} if tensors is None else tensors
        self._open: set[int] = set()  # values whose digest is being computed: cycles end here
        self._known: dict[int, tuple[Any, str]] = {}  # values that many others may hold

    def of(self, *values: Any) -> str:
        """Return the digest of ``values`` by their contents; their code goes to ``code``.

        The order of a dictionary counts inside of ``values``, where code may go through it.
        """
        try:
            digest = digest_of([self._given(value) for value in values])
            self._finish()
        except RecursionError:
            self.unreadable.add("a deeply nested value")
            digest = ""
        self._open.clear()
        self._pending.clear()
        self._known.clear()  # until the next call it may change
        return digest

    def _given(self, value: Any) -> str:
        if type(value) is dict:
            return digest_of(sorted((self._value(k), self._value(v)) for k, v in value.items()))
        return self._value(value)

    def of_torch(self) -> str:
        """Return the digest of hooks on all modules; functions of torch that were replaced go to
        ``code``.
        """
        self._patches()
        self._finish()
        return self.of(*([*getattr(torch_module, f"_global{kind}").values()] for kind in _HOOKS))

    def package_code(self) -> str:
        """Return the digest of the package's own code that was met."""
        return digest_of(sorted(item for item in self.code.items() if is_ours(item[0])))

    def user_code(self) -> str:
        """Return the digest of all other code that was met."""
        return digest_of(sorted(item for item in self.code.items() if not is_ours(item[0])))

    def _value(self, value: Any) -> str:
        if value is None or type(value) in PLAIN:
            return f"{type(value).__name__}:{self._relative(repr(value))}"
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:
            return "cycle"
        self._open.add(id(value))
        try:
            digest = self._compound(value)
        except RecursionError:
            raise
        except Exception:  # a user's object may fail in any way when it is looked into
            self.unreadable.add(f"an object of {module_of(type(value))}.{type(value).__name__}")
            digest = "unreadable"
        self._open.discard(id(value))
        self._known[id(value)] = value, digest
        return digest

    def _compound(self, value: Any) -> str:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, ModuleType):
            return self._whole_module(value)
        if isinstance(value, PurePath):
            return f"path:{self._relative(str(value))}"
        if isinstance(value, ref):
            return self._value(value())
        if isinstance(value, ContextVar):
            return f"variable:{self._value(value.get(None))}"
        if is_idle(type(value)):
            return type(value).__name__
        if callable(value) and (found := self._callable(value)):
            return found
        if found := self._container(value):
            alone = type(value) in _CONTAINERS or isinstance(value, np.generic)
            return found if alone else digest_of([found, self._object(value)])
        return self._object(value)

    def _relative(self, text: str) -> str:
        """Leave out the folder of the code that holds ``text``: it differs between computers."""
        return text.replace(self._folder, "<folder>") if len(self._folder) > 1 else text

    def _container(self, value: Any) -> str:
        """Return the digest of what numbers, texts, arrays and containers hold; else ``""``."""
        if isinstance(value, PLAIN):
            exact = next(kind for kind in PLAIN if isinstance(value, kind))
            return f"{type(value).__name__}:{exact.__repr__(value)}"  # type: ignore[arg-type]
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return array_digest(value)
        if isinstance(value, np.ndarray):
            return digest_of([str(value.shape), self._value(value.tolist())])
        if isinstance(value, Mapping):
            return digest_of([(self._value(k), self._value(v)) for k, v in value.items()])
        if isinstance(value, list | tuple):
            return digest_of([self._value(each) for each in value])
        if isinstance(value, set | frozenset):
            return digest_of(sorted(self._value(each) for each in value))
        if isinstance(value, torch.Generator):
            return f"generator:{tensor_digest(value.get_state())}"
        return ""

    def _tensor(self, tensor: Tensor) -> str:
        if id(tensor) not in self._tensors:
            self._tensors[id(tensor)] = tensor, tensor_digest(tensor)
        digest = self._tensors[id(tensor)][1]
        plain = type(tensor) in (Tensor, nn.Parameter)  # others keep their parts in attributes
        about = plain and vars(tensor)
        return f"{digest}{self._attributes(tensor, set())}" if about else digest

    def _module(self, module: nn.Module) -> str:
        if isinstance(module, torch.jit.ScriptModule):
            return digest_of([scripted_digest(module), self._hooks(module)])
        if module_of(type(module)) == "torch._dynamo.eval_frame":
            return self._compiled(module, module._orig_mod)
        parts = [self._class(type(module))]
        left_out = _BOOKKEEPING
        if isinstance(module, torch.fx.GraphModule):  # its nodes hold each other
            called = [node.target for node in module.graph.nodes if node.op == "call_function"]
            parts += [module.code, self._value(called)]
            left_out = left_out | _GRAPH
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            parts.append(f"{name}={self._value(tensor)}")
        parts += [f"{name}={self._value(part)}" for name, part in module._modules.items()]
        parts.append(self._hooks(module))
        if compiled := vars(module).get("_compiled_call_impl"):  # by module.compile()
            parts.append(self._compiled(compiled, None))
        parts.append(self._attributes(module, left_out))
        return digest_of(parts)

    def _hooks(self, owner: Any) -> str:
        return digest_of([[*map(self._value, getattr(owner, k, {}).values())] for k in _HOOKS])

    def _object(self, value: Any) -> str:
        kind = type(value)
        parts = [self._class(kind)]
        if is_own(module_of(kind)):
            return digest_of([*parts, self._attributes(value, set())])
        if hasattr(value, "save_to_buffer"):  # a function of TorchScript
            return scripted_digest(value)
        state = state_of(value)
        if state is not None:
            return digest_of([*parts, self._value(state)])
        if not getattr(value, "__dict__", None):
            self.unreadable.add(f"an object of {module_of(kind)}.{kind.__qualname__}")
        return digest_of([*parts, self._attributes(value, set())])

    def _attributes(self, value: Any, left_out: set[str]) -> str:
        left_out = left_out | set(getattr(type(value), "_volatile", ()))
        held = dict(_slots(value)) | getattr(value, "__dict__", {})
        kept = [(str(name), each) for name, each in held.items() if name not in left_out]
        kept.sort(key=lambda item: item[0])
        return digest_of([(name, self._value(each)) for name, each in kept])


def _slots(value: Any) -> list[tuple[str, Any]]:
    held = []
    for kind in type(value).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            hidden = name.startswith("__") and not name.endswith("__")
            name = f"_{kind.__name__.lstrip('_')}{name}" if hidden else name
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                held.append((name, getattr(value, name)))
    return held
