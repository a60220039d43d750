"""Checks before an attack: its input, its options, and whether the model is random."""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import nn

from smoothinfer.engine.members import run_seeded
from smoothinfer.errors import InputError, check_images, check_labels, unknown
from smoothinfer.numerics.balls import Ball, check_ball
from smoothinfer.numerics.precision import autocast_to, resolve_precision
from smoothinfer.runtime.modes import check_eval
from smoothinfer.types import Images, Labels

Attack = TypeVar("Attack", bound=Callable[..., Images])


def takes_objective(attack: Attack) -> Attack:
    """Let ``attack`` take ``objective=``, the old name of its option ``loss``, with a warning."""

    @functools.wraps(attack)
    def renamed(*arguments: Any, **options: Any) -> Images:
        if "objective" in options:
            warnings.warn("the option objective= is now loss=", FutureWarning, stacklevel=2)
            options["loss"] = options.pop("objective")
        return attack(*arguments, **options)

    return cast(Attack, renamed)


def check_attack(
    model: nn.Module, images: Images, labels: Labels, ball: Ball, **counts: int | None
) -> None:
    """Raise `InputError` unless an attack can begin.

    Args:
        model: batch normalisation in eval mode.
        images, labels, ball: of the attack.
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
    """Raise `InputError` for an option that ``attack`` does not take.

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


def is_random(model: nn.Module, images: Images) -> bool:
    """Say whether passes differ: 16 are compared, since a random choice may fall the same way."""
    with torch.no_grad():
        first = run_seeded(model, images[:2], 1)
        others = (run_seeded(model, images[:2], seed) for seed in range(2, 17))
        return any(not torch.equal(first, other) for other in others)


def is_repeatable(model: nn.Module, images: Images) -> bool:
    """Say whether a seed repeats a pass: not where a module keeps a generator of its own."""
    with torch.no_grad():
        return torch.equal(*(run_seeded(model, images[:2], 1) for _ in range(2)))


@contextlib.contextmanager
def attack_precision(model: nn.Module, images: Images, precision: str) -> Iterator[bool]:
    """Run ``model`` in ``precision`` inside; yields whether it is random.

    ``"auto"`` takes bfloat16, where the device multiplies it in hardware, for a random model only:
    there the rounding is small beside the noise that is averaged. A model without noise stays in
    fp32, since rounding would decide which of two near points is better.

    Raises:
        InputError: the precision is unknown.
    """
    resolve_precision(precision, images.device)
    random = len(images) > 0 and is_random(model, images)
    if random and not is_repeatable(model, images):
        warnings.warn(
            "the model draws random numbers that no seed controls (does it keep a generator?): "
            "points are compared under different draws, and this attack cannot be repeated",
            stacklevel=3,
        )
    exact = precision == "auto" and not random
    with autocast_to("fp32" if exact else precision, images.device):
        yield random
