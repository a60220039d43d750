"""What rows depend on, spelt out: so that no two settings are mixed, and none is done twice."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn


def spelt(function: Callable[..., Any] | None) -> str:
    """Spell a function by what it does, without its address in memory.

    By its source, which is the same in every version of Python, so that rows from several machines
    go together; by its byte code where there is none (typed in) or it is not alone on its lines.
    """
    if isinstance(function, partial):
        options = sorted((name, spelt_out(value)) for name, value in function.keywords.items())
        return f"{spelt(function.func)}{[spelt_out(value) for value in function.args]}{options}"
    code = getattr(function, "__code__", None)
    if code is None:
        return "" if function is None else f"{type(function).__qualname__}{_held(function)}"
    inside = [spelt_out(cell.cell_contents) for cell in function.__closure__ or ()]  # type: ignore[union-attr]
    given = spelt_out([function.__defaults__, function.__kwdefaults__])  # type: ignore[union-attr]
    written = _source(code) or _coded(code)
    return f"{function.__qualname__}{written}{inside}{given}"  # type: ignore[union-attr]


@functools.cache  # asked for at every unit of work
def _source(code: CodeType) -> str:
    if code.co_name == "<lambda>":
        return ""
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return ""


def _coded(code: CodeType) -> str:
    """Spell what a function does, and what the functions inside it do."""
    consts = [_coded(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code!r}{code.co_names}{consts}"


def _held(thing: Any) -> list[tuple[str, str]]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    held = dict(getattr(thing, "__dict__", {}))
    held |= {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return sorted((name, spelt_out(value)) for name, value in held.items())


def spelt_out(value: Any) -> str:
    """Spell a value by what it holds: tensors and modules neither print whole nor stay in place."""
    if isinstance(value, Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()
    if isinstance(value, nn.Module):
        weights = {name: spelt_out(tensor) for name, tensor in value.state_dict().items()}
        return f"{value!r}{weights}"
    if isinstance(value, tuple | list):
        return str([spelt_out(each) for each in value])
    if isinstance(value, dict):
        return str(sorted((str(key), spelt_out(each)) for key, each in value.items()))
    return spelt(value) if callable(value) else repr(value)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
