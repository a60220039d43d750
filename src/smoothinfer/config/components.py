"""Components by name: ``cni(rank=5)`` on a command line, ``{name: cni, rank: 5}`` in a recipe."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from smoothinfer.errors import InputError, choose, unknown

_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_CALL = re.compile(r"([\w.:-]+)\s*(?:\((.*)\))?", re.DOTALL)
_PLAIN = (int, float, bool, str, type(None))
_trusted = ContextVar("trusted", default=False)
_stranger: ContextVar[str | None] = ContextVar("stranger", default=None)


@dataclass(frozen=True)
class Component:
    """A name in a registry, or ``package.module:function``, with its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Component:
        """Read a component from a string, a mapping with a ``name``, or another component.

        >>> Component.of("pgd(steps=20, step_size=2/255)").options["steps"]
        20
        >>> Component.of({"name": "cni", "rank": 5})
        Component(name='cni', options={'rank': 5})
        """
        if isinstance(value, Component):
            return value
        if isinstance(value, str):
            return _parse_call(value)
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            options = {key: parse_number(each) for key, each in value.items() if key != "name"}
            return cls(value["name"], options)
        raise InputError(f"write a name, or a mapping with a 'name', not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that `of` reads."""
        return {"name": self.name, **self.options}

    def bind(self, kind: str, registry: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """Return the function with its options bound.

        Args:
            kind: what the registry holds, for error messages.
            registry: functions by name.

        Raises:
            InputError: the name or an option is unknown (the message lists the valid ones), or an
                option has the wrong type.
        """
        named = ":" in self.name
        function = import_object(self.name) if named else choose(kind, registry, self.name)
        parameters = inspect.signature(function).parameters
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for option in self.options:
            if option not in parameters and not takes_any:
                raise unknown(f"option of {kind} {self.name!r}", option, parameters)
        self._check_types(kind, function)
        return partial(function, **self.options) if self.options else function

    def _check_types(self, kind: str, function: Callable[..., Any]) -> None:
        """Refuse options that are not of the plain types that ``function`` declares."""
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except (NameError, SyntaxError, AttributeError, TypeError):  # annotations not importable
            return
        for option, value in self.options.items():
            hint = parameters[option].annotation if option in parameters else Any
            union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            expected = typing.get_args(hint) if union else (hint,)
            if all(each in _PLAIN for each in expected) and not _fits(value, expected):
                names = " or ".join(getattr(each, "__name__", str(each)) for each in expected)
                raise InputError(
                    f"option {option} of {kind} {self.name!r} must be {names}, not {value!r}"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"option {option} of {kind} {self.name!r} must be finite")

    def __str__(self) -> str:
        options = ", ".join(
            f"{key}={grey_levels(value) or repr(value)}" for key, value in self.options.items()
        )
        return f"{self.name}({options})" if options else self.name


def grey_levels(value: Any) -> str | None:
    """Write a multiple of 1/255 as `parse_number` reads it, where that is shorter.

    >>> grey_levels(8 / 255), grey_levels(0.2)
    ('8/255', None)
    """
    if not isinstance(value, float) or len(repr(value)) < 9:
        return None
    level = round(255 * value)
    return f"{level}/255" if level / 255 == value else None


def parse_number(value: Any) -> Any:
    """Read ``"8/255"`` as a number; leave everything else as it is.

    >>> parse_number("8/255") == 8 / 255
    True
    """
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value)) and float(match[2]):
        return float(match[1]) / float(match[2])
    return value


@contextlib.contextmanager
def trusting_code() -> Iterator[None]:
    """Inside, files may name code of their own; see `reading_from`."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


@contextlib.contextmanager
def reading_from(source: str) -> Iterator[None]:
    r"""Inside, components come from the package's registries alone: ``source`` is a stranger's.

    >>> with reading_from("card.json"):
    ...     import_object("os:system")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: card.json names code to run, 'os:system': allow it with \
--trust-code (trust_code=True in Python) if you trust its author
    """
    token = _stranger.set(source)
    try:
        yield
    finally:
        _stranger.reset(token)


def import_object(path: str) -> Any:
    """Import ``package.module:name``; the current folder is looked at last.

    Raises:
        InputError: the module or the name cannot be found, or a stranger's file names it.
    """
    source = _stranger.get()
    if source is not None and not _trusted.get():
        raise InputError(
            f"{source} names code to run, {path!r}: allow it with --trust-code "
            "(trust_code=True in Python) if you trust its author"
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    module, _, name = path.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as error:  # a module can raise anything while it is imported
        raise InputError(f"cannot import {path!r}: {type(error).__name__}: {error}") from error
    return value


def _fits(value: Any, expected: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):
        return bool in expected
    return isinstance(value, expected) or (isinstance(value, int) and float in expected)


def _parse_call(text: str) -> Component:
    match = _CALL.fullmatch(text.strip())
    if not match:
        raise InputError(f"cannot read {text!r}: write name or name(option=value, ...)")
    try:
        call = ast.parse(f"_({match[2] or ''})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args:
            raise InputError(f"cannot read {text!r}: options need names, as in pgd(steps=20)")
        options = {str(pair.arg): _literal(pair.value) for pair in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise InputError(f"cannot read {text!r}: {error}") from error
    return Component(match[1], options)


def _literal(node: ast.expr) -> Any:
    fraction = isinstance(node, ast.BinOp)
    return parse_number(ast.unparse(node)) if fraction else ast.literal_eval(node)
