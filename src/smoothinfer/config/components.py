"""Components by name: ``cni(rank=5)`` on a command line, ``{name: cni, rank: 5}`` in a recipe."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from smoothinfer.config.calls import parse_call, parse_number
from smoothinfer.config.user_code import import_object
from smoothinfer.errors import InputError, choose, unknown

_PLAIN = (int, float, bool, str, type(None))


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
            return cls(*parse_call(value))
        if isinstance(value, Mapping) and isinstance(value.get("name"), str):
            text = value["name"]
            name, options = parse_call(text) if text.endswith(")") else (text, {})  # see to_dict
            more = {key: parse_number(each) for key, each in value.items() if key != "name"}
            return cls(name, options | more)
        raise InputError(f"write a name, or a mapping with a 'name', not {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that `of` reads.

        >>> Component.of("timm:create(name='vit', depth=2)").to_dict()
        {'name': "timm:create(name='vit')", 'depth': 2}
        """
        options = {key: value for key, value in self.options.items() if key != "name"}
        own = {key: value for key, value in self.options.items() if key == "name"}
        return {"name": str(Component(self.name, own)), **options}

    def bind(
        self,
        kind: str,
        registry: Mapping[str, Callable[..., Any]],
        given: Sequence[str] | None = (),
    ) -> Callable[..., Any]:
        """Return the function with its options bound.

        Args:
            kind: what the registry holds, for error messages.
            registry: functions by name.
            given: the arguments that the caller gives itself, such as ``("images", "seed=")``:
                by place, and those that end with ``=`` by name; ``None`` if it will tell later.

        Raises:
            InputError: the name or an option is unknown (the message lists the valid ones), an
                option has the wrong type or is missing, or the function takes other arguments.
        """
        named = ":" in self.name
        function = import_object(self.name) if named else choose(kind, registry, self.name)
        parameters = self._signature(kind, function).parameters
        own = [name.removesuffix("=") for name in given or ()]
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        for option in self.options:
            if option in own or (option not in parameters and not takes_any):
                valid = [name for name in parameters if name not in own]
                raise unknown(f"option of {kind} {self.name!r}", option, valid)
        self._check_types(kind, function)
        bound = partial(function, **self.options) if self.options else function
        if given is not None:
            self._check_call(kind, bound, given)
        return bound

    def _signature(self, kind: str, function: Any) -> inspect.Signature:
        try:
            return inspect.signature(function)
        except (TypeError, ValueError):  # ValueError: a function of C that does not tell its own
            raise InputError(
                f"{kind} {self.name!r} is no function whose arguments can be read, but a "
                f"{type(function).__name__}: name a function or a class written in Python"
            ) from None

    def _check_call(self, kind: str, bound: Callable[..., Any], given: Sequence[str]) -> None:
        """Refuse a function that cannot be called with what its caller gives."""
        places = [name for name in given if not name.endswith("=")]
        names = [name.removesuffix("=") for name in given if name.endswith("=")]
        try:
            self._signature(kind, bound).bind(*places, **dict.fromkeys(names))
        except TypeError as error:
            shown = f" with ({', '.join(given)})" if given else ""
            missing = "missing" in str(error)
            remedy = f"write {self.name}(ARGUMENT=...)" if missing else "name another function"
            raise InputError(
                f"{kind} {self.name!r} cannot be called{shown}: {error}: {remedy}"
            ) from None

    def _check_types(self, kind: str, function: Callable[..., Any]) -> None:
        """Refuse options that are not of the types that ``function`` declares."""
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except Exception:  # annotations can be any text
            return
        for option, value in self.options.items():
            hint = parameters[option].annotation if option in parameters else Any
            union = typing.get_origin(hint) in (typing.Union, types.UnionType)
            expected = typing.get_args(hint) if union else (hint,)
            if not any(_fits(value, each) for each in expected):
                names = " or ".join(map(_named, expected))
                raise InputError(
                    f"option {option} of {kind} {self.name!r} must be {names}, not {value!r:.80}"
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"option {option} of {kind} {self.name!r} must be finite")
            if isinstance(value, int) and abs(value) >= 2**64:
                raise InputError(f"option {option} of {kind} {self.name!r} is beyond 64 bits")

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


def _fits(value: Any, hint: Any) -> bool:
    """Say whether ``value`` may be meant for a parameter with this type, of which some are open."""
    kind = typing.get_origin(hint) or hint
    if kind in (None, type(None)):
        return value is None
    if not isinstance(kind, type) or kind is inspect.Parameter.empty or kind is object:
        return True
    if isinstance(value, bool):
        return kind is bool or not _is_known(kind)
    if kind is float:
        return isinstance(value, int | float)
    if issubclass(kind, Sequence) and kind is not str:
        inside = [each for each in typing.get_args(hint) if each is not ...]
        fits = not inside or (all(any(_fits(v, each) for each in inside) for v in _items(value)))
        return isinstance(value, list | tuple | kind) and not isinstance(value, str) and fits
    return not _is_known(kind) or (not _is_protocol(kind) and isinstance(value, kind))


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _is_known(kind: type) -> bool:
    """Say whether only its own instances are of this ``kind``: a user's class may read text."""
    return kind in (*_PLAIN, dict) or kind.__module__.split(".")[0] in (
        "torch",
        "smoothinfer",
        "collections",
    )


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _named(hint: Any) -> str:
    return str(getattr(hint, "__name__", hint)).replace("NoneType", "None")
