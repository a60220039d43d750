"""Errors that name the faulty input and the valid choices, raised before any work starts."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

from smoothinfer.types import Images, Labels

Entry = TypeVar("Entry")


class InputError(ValueError):
    """The input cannot be used; the message names the fault and the remedy."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that a registry does not have.

    >>> str(unknown("attack", "pdg", ["pgd", "fgsm"]))
    "unknown attack 'pdg': choose one of fgsm, pgd (did you mean 'pgd'?)"
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return InputError(f"unknown {kind} {name!r}: choose one of {', '.join(names)}{hint}")


def choose(kind: str, registry: Mapping[str, Entry], name: str) -> Entry:
    """Return ``registry[name]``.

    Raises:
        InputError: the name is unknown; the message lists the valid ones.

    >>> choose("colour", {"red": 1}, "red")
    1
    """
    if name not in registry:
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


def check_limit(limit: int | None) -> None:
    """Raise `InputError` unless ``limit``, a number of images, is ``None`` or at least 1."""
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, not {limit}")


def check_seed(seed: int) -> None:
    """Raise `InputError` unless ``seed`` fits into the 64 bits of a column of rows.

    >>> check_seed(10**30)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: seed must lie between -2**63 and 2**63 - 1, not 1000000000000...
    """
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"seed must lie between -2**63 and 2**63 - 1, not {str(seed)[:13]}...")


def check_images(images: Images, argument: str = "images") -> None:
    """Raise `InputError` unless ``images`` is (N, C, H, W), floating, finite and in [0, 1]."""
    if not isinstance(images, torch.Tensor):
        raise InputError(f"{argument} must be a torch.Tensor, not {type(images).__name__}")
    if images.ndim != 4:
        raise InputError(f"{argument} must have shape (N, C, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(
            f"{argument} must be floats in [0, 1], not {images.dtype}: divide uint8 pixels by 255"
        )
    if images.numel() == 0:
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
        raise InputError(
            f"{argument} must be finite and in [0, 1], but range over [{low:.4g}, {high:.4g}]: "
            "put the normalisation into the model (smoothinfer.Normalize)"
        )


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
        )
