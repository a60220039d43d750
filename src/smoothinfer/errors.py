"""Errors that name the faulty input and the valid choices, raised before any work starts."""

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch

from smoothinfer.types import Images, Labels

Entry = TypeVar("Entry")


_MANY, _NEAREST = 40, 5  # names in an error: more are not read


class InputError(ValueError):
    """The input cannot be used; the message names the fault and the remedy."""


class NoSplitError(InputError):
    """A data set has no split of the name that was asked for."""


def take_test_part(source: str, split: str, splits: Iterable[str]) -> str:
    """Return how to make a test split of the training images, where that is what lacks.

    >>> take_test_part("my_pictures", "test", ["train"])
    '; my_pictures#test=0.2 as DATA takes a fifth of the training images for the test'
    """
    if split != "test" or "train" not in splits:
        return ""
    return f"; {source}#test=0.2 as DATA takes a fifth of the training images for the test"


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that a registry does not have.

    >>> str(unknown("attack", "pdg", ["pgd", "fgsm"]))
    "unknown attack 'pdg': choose one of fgsm, pgd (did you mean 'pgd'?)"
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(name), names, n=_NEAREST)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    shown = ", ".join(names)
    if len(names) > _MANY:
        shown = f"{len(names)}, such as {', '.join(near or names[:_NEAREST])}"
    return InputError(f"unknown {kind} {name!r}: choose one of {shown}{hint}")


def choose(kind: str, registry: Mapping[str, Entry], name: str) -> Entry:
    """Return ``registry[name]``.

    Raises:
        InputError: the name is unknown; the message lists the valid ones.

    >>> choose("colour", {"red": 1}, "red")
    1
    """
    if not isinstance(name, str) or name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]


def check_type(argument: str, value: object, kind: type, example: str) -> None:
    """Raise `InputError` unless ``value`` is an instance of ``kind``; ``example`` shows one.

    >>> check_type("inputs", 0.06, dict, "inputs={}")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: inputs must be a dict, not 0.06: write for example inputs={}
    """
    if not isinstance(value, kind):
        shown = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:80]
        raise InputError(
            f"{argument} must be a {kind.__name__}, not {shown}: write for example {example}"
        )


MOST_PASSES = 10**9  # of one image: more would take years
_INT64 = 2**63


def plain_list(name: str, values: Any) -> list[Any]:
    """Return ``values`` as a list, if there are some.

    Raises:
        InputError: it is no sequence, or it is empty.

    >>> plain_list("bits", 8)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: bits must be a list of at least one, such as [8]
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        shown = _shown(values)
        raise InputError(f"{name} must be a list of at least one, such as [{shown}]")
    found = [*values]
    if not found:
        raise InputError(f"{name} must be a list of at least one, not an empty one")
    return found


def plain_int(name: str, value: object, at_least: int = -_INT64, at_most: int = _INT64 - 1) -> int:
    """Return ``value`` as a Python integer; whole numbers of numpy and torch are accepted.

    Floats are refused, even those without a fraction, and so are booleans.

    Args:
        name: what the user calls the number.
        value: what the user gave.
        at_least, at_most: the range, both ends included.

    Raises:
        InputError: ``value`` is no whole number, or out of range.

    >>> plain_int("samples", torch.tensor(4), at_least=1)
    4
    >>> plain_int("samples", 4.0)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: samples must be a whole number, not the float 4.0: write 4
    """
    number = python_number(value)
    if isinstance(number, bool) or not isinstance(number, int):
        hint = ""
        if isinstance(number, float):
            hint = f": write {int(number)}" if number.is_integer() and abs(number) < _INT64 else ""
            raise InputError(f"{name} must be a whole number, not the float {number}{hint}")
        raise InputError(f"{name} must be a whole number, not {_shown(value)}")
    if number < at_least:
        raise InputError(f"{name} must be at least {at_least}, not {_shown(number)}")
    if number > at_most:
        raise InputError(f"{name} must be at most {at_most}, not {_shown(number)}")
    return int(number)


def plain_float(
    name: str,
    value: object,
    *,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return ``value`` as a finite Python float; numbers of numpy and torch are accepted.

    Args:
        name: what the user calls the number.
        value: what the user gave.
        at_least, at_most: the range, ends included.
        above, below: the range, ends excluded.

    Raises:
        InputError: ``value`` is no finite number, or out of range.

    >>> plain_float("delta", torch.tensor(0.5), above=0, below=1)
    0.5
    >>> plain_float("delta", 1, above=0, below=1)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: delta must be above 0 and below 1, not 1
    """
    number = python_number(value)
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise InputError(f"{name} must be a number, not {_shown(value)}")
    try:
        found = float(number)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise InputError(f"{name} must be a finite number, not {_shown(number)}")
    if not (at_least <= found <= at_most and above < found < below):
        ends = (("at least", at_least), ("above", above), ("at most", at_most), ("below", below))
        wanted = " and ".join(f"{word} {end:g}" for word, end in ends if math.isfinite(end))
        raise InputError(f"{name} must be {wanted}, not {_shown(number)}")
    return found


def plain_seed(value: object, name: str = "seed") -> int:
    """Return ``value`` as a Python integer of 64 bits; see `plain_int`.

    >>> plain_seed(torch.tensor(7))
    7
    """
    return plain_int(name, value, -_INT64, 2 * _INT64 - 1)


def python_number(value: object) -> object:
    """Return the number that a scalar of numpy or torch holds; anything else as it is.

    >>> python_number(torch.tensor(3))
    3
    """
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 1) == 0 else value


def _shown(value: object) -> str:
    """Return ``value`` on one short line."""
    if isinstance(value, int) and abs(value) > 10**40:
        return f"a number of {value.bit_length()} bits"
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def check_images(images: Images, argument: str = "images") -> None:
    """Raise `InputError` unless ``images`` is (N, C, H, W), floating, finite and in [0, 1]."""
    if not isinstance(images, torch.Tensor):
        raise InputError(f"{argument} must be a torch.Tensor, not {type(images).__name__}")
    if images.ndim != 4 or _channels_last(images):
        hint = {3: ": one image is a batch as x[None]", 4: ": use x.permute(0, 3, 1, 2)"}
        raise InputError(
            f"{argument} must have shape (N, C, H, W), not {tuple(images.shape)}"
            f"{hint.get(images.ndim, '')}"
        )
    if not images.is_floating_point():
        raise InputError(
            f"{argument} must be floats in [0, 1], not {images.dtype}: divide uint8 pixels by 255"
        )
    if images.numel() == 0:
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
        scaled = low >= 0 and high > 2  # normalised pixels lie on both sides of 0
        remedy = (
            "divide pixels in 0..255 by 255"
            if scaled
            else "put the normalisation into the model (smoothinfer.Normalize)"
        )
        raise InputError(
            f"{argument} must be finite and in [0, 1], but range over [{low:.4g}, {high:.4g}]: "
            f"{remedy}"
        )


def _channels_last(images: Images) -> bool:
    """Say whether ``images`` are square (N, H, W, C), grey or RGB.

    Others are let through: many channels of narrow images have such a shape too.
    """
    _, first, second, last = images.shape
    return last in (1, 3) and first == second > 4


def counted_from_one(low: int, high: int, classes: int) -> str:
    """Return the remedy for labels 1..K of K classes, nothing for others.

    >>> counted_from_one(1, 10, 10), counted_from_one(0, 10, 10)
    (': subtract 1, classes count from 0', '')
    """
    return ": subtract 1, classes count from 0" if low == 1 and high == classes else ""


def check_labels(labels: Labels, images: Images, classes: int | None = None) -> None:
    """Raise `InputError` unless ``labels`` is (N,) int64 with values in 0..classes-1."""
    check_type("labels", labels, torch.Tensor, "torch.as_tensor(labels)")
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(
            f"labels must have shape ({len(images)},) like the images, not {tuple(labels.shape)}"
        )
    if labels.dtype != torch.int64:
        raise InputError(f"labels must be int64 class indices, not {labels.dtype}")
    if classes is None or not len(labels):
        return
    low, high = torch.stack(labels.aminmax()).tolist()
    if not 0 <= low <= high < classes:
        raise InputError(
            f"labels range over [{low}, {high}], "
            f"but the model has {classes} classes (0..{classes - 1})"
            f"{counted_from_one(low, high, classes)}"
        )
