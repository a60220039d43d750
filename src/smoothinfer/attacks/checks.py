"""Checks before an attack: its numbers, its options, and whether the model is random."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from smoothinfer.engine.members import run_seeded
from smoothinfer.errors import plain_int, unknown
from smoothinfer.numerics.precision import autocast_to, resolve_precision
from smoothinfer.numerics.randomness import all_isolated, state_of_all
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Logits


def check_counts(**counts: int | None) -> None:
    """Raise `InputError` unless each number of an attack is whole and at least 1, or ``None``.

    >>> check_counts(steps=0)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: steps must be at least 1, not 0
    """
    for name, count in counts.items():
        if count is not None:
            plain_int(name, count, at_least=1)


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
    """Say whether passes differ: 16 are compared, 256 where the model draws random numbers.

    A rare choice, as of one network among many, may fall the same way many times.
    """
    shown = probes(images)
    with torch.no_grad():
        first = run_seeded(model, shown, 1)
        few, more = range(2, 17), range(17, 257)
        return _differ(model, shown, first, few) or (
            _draws(model, shown) and _differ(model, shown, first, more)
        )


def _differ(model: nn.Module, images: Images, first: Logits, seeds: Iterable[int]) -> bool:
    return any(not torch.equal(first, run_seeded(model, images, seed)) for seed in seeds)


def _draws(model: nn.Module, images: Images) -> bool:
    """Say whether a pass takes numbers from a generator that all share."""
    with all_isolated() as seed_all:
        seed_all(1)
        before = state_of_all()
        logits_of(model, images)
        return state_of_all() != before


def probes(images: Images) -> Images:
    """Return two of ``images`` and as many random ones, on which passes are compared.

    The passes of a random model may agree at the images themselves, and nowhere else.
    """
    few = images[:2]
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(few.shape, generator=generator).to(few)
    return torch.cat([few, random])


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
