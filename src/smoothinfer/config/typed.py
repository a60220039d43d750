"""Dataclasses filled from plain values, every value checked, and turned into plain values again."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from smoothinfer.config.components import Component, parse_number
from smoothinfer.errors import InputError, unknown

T = TypeVar("T")


def from_dict(kind: type[T], content: Any, source: str) -> T:
    """Return the dataclass ``kind`` filled from ``content``.

    Args:
        kind: a dataclass.
        content: its fields as plain values.
        source: where the content comes from, for error messages.

    Raises:
        InputError: a key is unknown (the message lists the valid ones) or missing, or a value
            has the wrong type.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{source} must be a mapping, not {content!r:.80}")
    hints = typing.get_type_hints(kind)
    for key in content:
        if key not in hints:
            raise unknown(f"key of {source}", key, hints)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        open_ends = field.default, field.default_factory
        if field.name not in content and all(end is dataclasses.MISSING for end in open_ends):
            raise InputError(f"{source} lacks the key {field.name!r}")
    values = {
        key: _convert(hints[key], value, f"{source}: {key}") for key, value in content.items()
    }
    try:
        return kind(**values)
    except InputError as error:  # values that do not go together
        raise InputError(f"{source}: {error}") from error


def to_plain(value: Any) -> Any:
    """Return ``value`` as plain YAML values, which `from_dict` reads."""
    if isinstance(value, Component):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    return value


def _convert(hint: Any, value: Any, source: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) not in (list, dict) else (hint,)
    options = options or (hint,)
    if value is None and type(None) in options:
        return None
    if Component in options:
        if dict[str, Component] in options and isinstance(value, Mapping) and "name" not in value:
            return {key: Component.of(each) for key, each in value.items()}
        try:
            return Component.of(value)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
    if dataclasses.is_dataclass(options[0]):
        return from_dict(typing.cast(type, options[0]), value, source)
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is dict and dataclasses.is_dataclass(inside[1]):
        kind = typing.cast(type, inside[1])
        if not isinstance(value, Mapping):
            raise InputError(f"{source} must be a mapping, not {value!r:.80}")
        return {str(k): from_dict(kind, each, f"{source}: {k}") for k, each in value.items()}
    bases = [typing.get_origin(option) or option for option in options]
    place = next((i for i, base in enumerate(bases) if type(value) is base), 0)
    plain = _convert_plain(bases[place], parse_number(value), source)
    inside = typing.get_args(options[place])
    if isinstance(plain, list) and inside and inside[0] in (int, float, str):
        numbers = map(parse_number, plain)
        return [_convert_plain(inside[0], each, source, "a list of ") for each in numbers]
    return plain


def _convert_plain(kind: type, value: Any, source: str, of: str = "") -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if kind is str and isinstance(value, bool):  # YAML reads on and off as truth values
        return "on" if value else "off"
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{source} must be {of}{kind.__name__}, not {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{source} must be finite, not {value}")
    return value
