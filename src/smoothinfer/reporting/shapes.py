"""The shapes of the JSON files that a report reads: what later code may take for granted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smoothinfer.errors import InputError

_REMEDY = "it is damaged, or no file of smoothinfer: rerun the command that wrote it"
_LARGEST_INT = 2**63


@dataclass(frozen=True)
class Maybe:
    """A value of ``shape``, ``null``, or nothing at all."""

    shape: Any


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Each:
    """A mapping with any keys, each to a value of ``shape``."""

    shape: Any


SHARE = Between(0.0, 1.0)
NUMBER = Between(-1e12, 1e12)
INTERVAL = {"value": SHARE, "low": SHARE, "high": SHARE, "images": int}
GAIN = {"value": NUMBER, "low": NUMBER, "high": NUMBER, "images": int}
SETTINGS = {"command": Maybe(str), "computers": Maybe([str])}
SUMMARY = {**SETTINGS, "table": str, "data": Maybe({"classes": Maybe([str])})}
AUDIT = {
    "model": str,
    "verdict": str,
    "fired": [int],
    "clean": INTERVAL,
    "attacked": INTERVAL,
    "findings": [
        {
            "number": int,
            "name": str,
            "state": ("clear", "note", "alarm", "skipped"),
            "measured": str,
            "verdict": str,
            "threshold": str,
        }
    ],
    "about": {"direct": str, "ball": str, "samples": int},
    "settings": Maybe(SETTINGS),
}
CERTIFIED = {
    "images": int,
    "abstained": int,
    "average radius": Maybe(NUMBER),
    **{"norm": Maybe(str), "sigma": Maybe(NUMBER), "alpha": Maybe(NUMBER)},
    "note": Maybe(str),
    "certified accuracy": [{"radius": NUMBER, **INTERVAL}],
    "settings": Maybe(SETTINGS),
}
STANDING = {
    "random": bool,
    "verdict": str,
    "standings": Each({"mean": INTERVAL, "worst": INTERVAL, "vote": INTERVAL, "gain": GAIN}),
    "worst case": INTERVAL,
}
COMPARISON = {
    "title": str,
    "description": Maybe(str),
    "heads": Maybe([str]),
    "lines": Maybe([[str]]),
    "notes": Maybe([str]),
    "figures": Maybe([str]),
    "command": Maybe(str),
}
FIGURE = {
    "description": {
        "attack": str,
        "rule": str,
        "samples": int,
        "radius": Maybe(NUMBER),
        "sigma": Maybe(NUMBER),
    },
    "clean": Maybe(INTERVAL),
    "attacked": Maybe(INTERVAL),
}
RESULTS = {"settings": [FIGURE]}
CARD = {
    "recipe": {"noise": dict, "model": {"name": str}, "loss": {"name": str}, "epochs": int},
    "data": Maybe({"name": Maybe(str)}),
    "results": Maybe({"validation": Maybe({"epoch": Maybe(NUMBER)})}),
    "figures": Maybe([FIGURE]),
    "certified": Maybe([CERTIFIED]),
}


def check_shape(value: Any, shape: Any, place: str) -> Any:
    """Return ``value`` if it has ``shape``.

    Args:
        value: read from JSON.
        shape: a type; ``[shape]``, a list of such; ``{key: shape}``, a mapping with these keys and
            perhaps others; a tuple of the valid words; a `Between`; an `Each`; or `Maybe` one of
            these.
        place: what the value is, for errors: the file, then the keys that lead to it.

    Raises:
        InputError: it has not; the message names the place.

    >>> check_shape({"value": "0.5"}, {"value": SHARE}, "audit.json")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: audit.json, value must be a number from 0 to 1, not '0.5': ...
    """
    if isinstance(shape, Maybe):
        return None if value is None else check_shape(value, shape.shape, place)
    if isinstance(shape, Each):
        shape = dict.fromkeys(_of_kind(value, dict, place), shape.shape)
    if isinstance(shape, list):
        for at, each in enumerate(_of_kind(value, list, place)):
            check_shape(each, shape[0], f"{place}, {at}")
    elif isinstance(shape, dict):
        _check_keys(_of_kind(value, dict, place), shape, place)
        if {"low", "value", "high"} <= shape.keys():
            _check_order(value, place)
    elif not _fits(value, shape):
        raise InputError(f"{place} must be {_named(shape)}, not {repr(value)[:60]}: {_REMEDY}")
    return value


def _check_keys(value: Mapping[str, Any], shape: Mapping[str, Any], place: str) -> None:
    for key, part in shape.items():
        if key not in value and not isinstance(part, Maybe):
            raise InputError(f"{place} lacks {key!r}: {_REMEDY}")
        check_shape(value.get(key), part, f"{place}, {key}")


def _check_order(interval: Mapping[str, Any], place: str) -> None:
    # A figure may lie beside its interval by the rounding of the two.
    if not interval["low"] - 1e-6 <= interval["value"] <= interval["high"] + 1e-6:
        raise InputError(f"{place}: the value lies outside of its own interval: {_REMEDY}")
    if interval["images"] < 1:
        raise InputError(f"{place}, images must be at least 1: {_REMEDY}")


def _of_kind(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind):
        raise InputError(f"{place} must be {_named(kind)}, not {repr(value)[:60]}: {_REMEDY}")
    return value


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, tuple):
        return isinstance(value, str) and value in shape
    if isinstance(shape, Between):  # NaN fails both comparisons
        return type(value) in (int, float) and shape.low <= value <= shape.high
    if shape is int:  # a truth value is no number
        return type(value) is int and abs(value) < _LARGEST_INT
    return isinstance(value, shape)


def _named(shape: Any) -> str:
    if isinstance(shape, tuple):
        return f"one of {', '.join(shape)}"
    if isinstance(shape, Between):
        return f"a number from {shape.low:g} to {shape.high:g}"
    return {
        bool: "true or false",
        int: "an integer",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }[shape]
