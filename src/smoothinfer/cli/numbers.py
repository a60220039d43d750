"""Numbers of the command line: plain digits, and an error that says what to write."""

import contextlib
import math
import re
from argparse import ArgumentTypeError

from smoothinfer.errors import InputError, check_seed


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
        check_seed(seed)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return seed
