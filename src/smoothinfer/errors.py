"""Errors that name the thing and the valid choices, raised before any work starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

from smoothinfer.types import Images, Labels

Member = TypeVar("Member")


class InputError(ValueError):
    """What the user gave cannot be used; the message says what and what would do."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that is not on the menu.

    >>> str(unknown("attack", "pdg", ["pgd", "fgsm"]))
    "unknown attack 'pdg': choose one of fgsm, pgd (did you mean 'pgd'?)"
    """
    names = sorted(choices)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return InputError(f"unknown {kind} {name!r}: choose one of {', '.join(names)}{hint}")


def choose(kind: str, menu: Mapping[str, Member], name: str) -> Member:
    """Return ``menu[name]``, or raise an `InputError` that lists the valid names.

    >>> choose("colour", {"red": 1}, "red")
    1
    """
    if name not in menu:
        raise unknown(kind, name, menu)
    return menu[name]


def check_kind(what: str, value: object, kind: type, example: str) -> None:
    """Raise `InputError` unless ``value`` is an instance of ``kind``; ``example`` shows one.

    >>> check_kind("inputs", 0.06, dict, "inputs={}")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: inputs must be a dict, not 0.06: write for example inputs={}
    """
    if not isinstance(value, kind):
        told = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:80]
        raise InputError(
            f"{what} must be a {kind.__name__}, not {told}: write for example {example}"
        )


def check_images(images: Images, what: str = "images") -> None:
    """Raise `InputError` unless ``images`` is (N, C, H, W), floating, finite and in [0, 1]."""
    if not isinstance(images, torch.Tensor):
        raise InputError(f"{what} must be a torch.Tensor, not {type(images).__name__}")
    if images.ndim != 4:
        raise InputError(f"{what} must have shape (N, C, H, W), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(
            f"{what} must be floats in [0, 1], not {images.dtype}: divide uint8 pixels by 255"
        )
    if images.numel() == 0:
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
        raise InputError(
            f"{what} must be finite and in [0, 1], but range over [{low:.4g}, {high:.4g}]: "
            "normalisation belongs inside the model (smoothinfer.Normalize)"
        )


def check_labels(labels: Labels, images: Images, classes: int | None = None) -> None:
    """Raise `InputError` unless ``labels`` is (N,) int64 with values in 0..classes-1."""
    check_kind("labels", labels, torch.Tensor, "torch.as_tensor(labels)")
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
