"""Keyed streams of random numbers: a stream is named, never counted.

The seed of a stream is a hash of ``(seed, names...)``, so a change in one place never shifts
the numbers of another, and any part of a run can be drawn again alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor


class _Part:  # of the batch that this process holds, see `part_of_batch`
    index, count = 0, 1


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed, the SHA-256 of ``(seed, *names)``.

    >>> derive_seed(0, "attack", 3) == derive_seed(0, "attack", 3)
    True
    >>> derive_seed(0, "attack", 3) == derive_seed(0, "attack", 4)
    False
    """
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fresh_seed() -> int:
    """Return a seed nobody can foresee, from the operating system."""
    return secrets.randbits(63)


def stream(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on ``device`` for the stream called ``(seed, *names)``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


@contextlib.contextmanager
def isolated_rng(seed: int | None) -> Iterator[None]:
    """Run code that knows only the global generator under ``seed``; the outside is untouched.

    ``None`` leaves the global generator as it is, so that each call draws afresh.

    >>> with isolated_rng(1):
    ...     a = torch.rand(3)
    >>> with isolated_rng(1):
    ...     b = torch.rand(3)
    >>> bool((a == b).all())
    True
    """
    if seed is None:
        yield
        return
    # torch.manual_seed would queue a call for CUDA each time, with a stack trace: slow, and a leak.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    kept, kept_there = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept)
        for device, state in zip(devices, kept_there, strict=True):
            torch.cuda.set_rng_state(state, device)


@contextlib.contextmanager
def part_of_batch(index: int, count: int) -> Iterator[None]:
    """Inside, a batch is every ``count``-th image from ``index`` of one shared by ``count``.

    `normal` and `uniform` draw for all of it and keep this part's, so that several processes
    together use the numbers that one alone would.

    >>> with isolated_rng(0):
    ...     whole = normal((4, 1), torch.zeros(1))
    >>> with isolated_rng(0), part_of_batch(1, 2):
    ...     part = normal((2, 1), torch.zeros(1))
    >>> bool((part == whole[1::2]).all())
    True
    """
    kept = _Part.index, _Part.count
    _Part.index, _Part.count = index, count
    try:
        yield
    finally:
        _Part.index, _Part.count = kept


def parts_of_batch() -> int:
    """Return into how many parts the batch is shared out, see `part_of_batch`."""
    return _Part.count


Draw = Callable[..., Tensor]


def normal(
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None = None,
    images: bool = True,
) -> Tensor:
    """Draw N(0, 1) in the type and place of ``like``, for ``images`` as `part_of_batch` says.

    >>> normal((2, 3), torch.zeros(1, dtype=torch.float64)).dtype
    torch.float64
    """
    return _drawn(torch.randn, shape, like, generator, images)


def uniform(
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None = None,
    images: bool = True,
) -> Tensor:
    """Draw U[0, 1) as `normal` draws N(0, 1).

    >>> bool((uniform((2, 3), torch.zeros(1)) < 1).all())
    True
    """
    return _drawn(torch.rand, shape, like, generator, images)


def _drawn(
    draw: Draw,
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None,
    images: bool,
) -> Tensor:
    count = _Part.count if images else 1
    whole = (shape[0] * count, *shape[1:]) if count > 1 else tuple(shape)
    drawn = draw(whole, generator=generator, device=like.device, dtype=like.dtype)
    return drawn if count == 1 else drawn[_Part.index :: count]


@contextlib.contextmanager
def all_isolated(seed: int) -> Iterator[None]:
    """Like `isolated_rng`, also of Python's ``random`` and of NumPy: for somebody's module.

    >>> with all_isolated(1):
    ...     a = random.random(), np.random.rand()
    >>> with all_isolated(1):
    ...     b = random.random(), np.random.rand()
    >>> a == b
    True
    """
    kept, kept_there = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with isolated_rng(seed):
            yield
    finally:
        random.setstate(kept)
        np.random.set_state(kept_there)


def draw_seed(generator: torch.Generator | None) -> int | None:
    """Draw a seed from ``generator``, which advances; ``None`` stays ``None``."""
    if generator is None:
        return None
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
