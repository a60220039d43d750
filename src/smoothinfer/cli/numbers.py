"""Numbers of the command line: 0.06, 8/255, ranges, parts of a whole."""

import contextlib
import math
import re
from argparse import ArgumentTypeError, Namespace
from typing import Any

from smoothinfer.config.components import parse_number
from smoothinfer.errors import InputError, plain_int

_MOST_IN_RANGE = 10_000


def number_of(name: str, text: str) -> float:
    """Read a number such as 0.06 or 8/255; ``name`` is its name in the error."""
    try:
        return float(parse_number(text))
    except ValueError:
        raise InputError(f"{name} must be a number such as 0.06 or 8/255, not {text!r}") from None


def optional_number(name: str, text: str | None) -> float | None:
    """Read a number where one was given."""
    return None if text is None else number_of(name, text)


def shard_of(options: Namespace) -> tuple[int, int]:
    """Read --shard ``I/N``, the I-th of N parts, from 0.

    Raises:
        InputError: it is malformed, or there is no such part.

    >>> shard_of(Namespace(shard="0/4"))
    (0, 4)
    """
    text = options.shard
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard must be I/N with I from 0 to N-1, such as 0/4, not {text!r}")
    return int(match[1]), int(match[2])


def read_range(name: str, value: Any) -> list[float]:
    """Read one number, or a range ``first:last:step`` (end included).

    >>> read_range("sigma", "0:0.3:0.1")
    [0.0, 0.1, 0.2, 0.3]
    """
    parts = str(value).split(":")
    try:
        values = [float(parse_number(part)) for part in parts]
    except ValueError:
        values = []
    if len(values) == 1:
        return values
    ranged = len(values) == 3 and all(map(math.isfinite, values)) and values[2] > 0
    steps = (values[1] - values[0]) / values[2] if ranged else -1.0
    if steps > _MOST_IN_RANGE:
        raise InputError(
            f"{name} {value!r} stands for {steps:.3g} numbers, {_MOST_IN_RANGE} is the most"
        )
    count = round(steps)
    if count >= 0 and abs(values[0] + count * values[2] - values[1]) < 1e-9:
        return [round(values[0] + k * values[2], 10) for k in range(count + 1)]
    raise InputError(f"{name} must be a number or first:last:step in whole steps, not {value!r}")


def whole_number(text: str) -> int:
    """Read a whole number of an argument; its range is checked where it is used.

    Raises:
        ArgumentTypeError: it is none, or has more digits than any number here may have.

    >>> whole_number("-3")
    -3
    """
    if re.fullmatch(r"[+-]?[0-9]{1,40}", text.strip()) is None:  # int() takes other digits too
        raise ArgumentTypeError(f"must be a whole number, not {text[:40]!r}")
    return int(text)


def decimal_number(text: str) -> float:
    """Read a finite number of an argument, such as 0.001.

    Raises:
        ArgumentTypeError: it is none.

    >>> decimal_number("1e-3")
    0.001
    """
    if text.isascii() and "_" not in text:
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(text)):
                return value
    raise ArgumentTypeError(f"must be a finite number such as 0.001, not {text[:40]!r}")


def seed_number(text: str) -> int:
    """Read a seed of 64 bits.

    Raises:
        ArgumentTypeError: it is no whole number, or has more bits.

    >>> seed_number("7")
    7
    """
    seed = whole_number(text)
    try:
        plain_int("seed", seed)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return seed
