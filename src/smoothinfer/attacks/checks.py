"""What every attack asks of its input, before any work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from smoothinfer.errors import InputError, check_images, check_labels, unknown
from smoothinfer.runtime.modes import check_eval
from smoothinfer.numerics.balls import Ball, check_ball
from smoothinfer.types import Images, Labels


def check_attack(
    model: nn.Module, images: Images, labels: Labels, ball: Ball, **counts: int | None
) -> None:
    """Raise `InputError` unless an attack can begin.

    Args:
        model: batch normalisation in eval mode.
        images, labels, ball: what the attack was given.
        counts: numbers that must be at least 1, or ``None``.
    """
    check_ball(ball)
    check_eval(model)
    check_images(images)
    check_labels(labels, images)
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, not {count}")


def check_options(options: Iterable[str], attack: Callable[..., Any]) -> None:
    """Raise `InputError` for an option that ``attack``, to which it is passed on, does not take.

    >>> check_options(["x"], lambda model, images, labels, ball, *, steps=7: images)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: unknown option 'x': choose one of steps
    """
    known = inspect.signature(attack).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return
    named = [name for name, each in known.items() if each.kind is each.KEYWORD_ONLY]
    for option in options:
        if option not in named:
            raise unknown("option", option, [name for name in named if name != "generator"])
