"""Keyed streams of random numbers: a stream is named, never counted.

The seed of a stream is a hash of ``(seed, names...)``, so a change in one place never shifts
the numbers of another, and any part of a run can be drawn again alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import secrets
from collections.abc import Iterator

import numpy as np
import torch


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
