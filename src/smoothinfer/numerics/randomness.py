"""Streams of random numbers with names.

The seed of a stream is a hash of ``(seed, names...)``, so a change in one place never shifts
the numbers of another, and any part of a run can be drawn again by itself.
"""

import contextlib
import hashlib
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothinfer.numerics.recording import forbid_recording


class _Part:  # the part of the batch that this process holds, see `part_of_batch`
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
    """Return an unpredictable seed from the operating system."""
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
    forbid_recording("it draws under a seed of its own, which every replay would repeat")
    generators = _global_generators()
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _global_generators() -> list[torch.Generator]:
    # torch.manual_seed would queue a call for CUDA each time, with a stack trace: slow, and a leak.
    devices = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return [torch.default_generator, *devices]


@contextlib.contextmanager
def part_of_batch(index: int, count: int) -> Iterator[None]:
    """Inside, this process holds every ``count``-th image of a batch, starting with ``index``.

    `normal` and `uniform` draw for the whole batch and keep the numbers of this part, so that
    several processes together use the numbers that one alone would.

    >>> with isolated_rng(0):
    ...     whole = normal((4, 1), torch.zeros(1))
    >>> with isolated_rng(0), part_of_batch(1, 2):
    ...     part = normal((2, 1), torch.zeros(1))
    >>> bool((part == whole[1::2]).all())
    True
    """
    before = _Part.index, _Part.count
    _Part.index, _Part.count = index, count
    try:
        yield
    finally:
        _Part.index, _Part.count = before


def parts_of_batch() -> int:
    """Return the number of processes that share a batch, see `part_of_batch`."""
    return _Part.count


Draw = Callable[..., Tensor]


def normal(
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None = None,
    images: bool = True,
) -> Tensor:
    """Draw N(0, 1) with the dtype and device of ``like``.

    Args:
        shape: of the result.
        like: a tensor with the dtype and device.
        generator: source of the numbers; the global generator by default.
        images: whether the first axis counts images, of which `part_of_batch` may keep a part.

    >>> normal((2, 3), torch.zeros(1, dtype=torch.float64)).dtype
    torch.float64
    """
    return _draw_part(torch.randn, shape, like, generator, images)


def uniform(
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None = None,
    images: bool = True,
) -> Tensor:
    """Draw U[0, 1); the arguments are those of `normal`.

    >>> bool((uniform((2, 3), torch.zeros(1)) < 1).all())
    True
    """
    return _draw_part(torch.rand, shape, like, generator, images)


def _draw_part(
    draw: Draw, shape: Sequence[int], like: Tensor, generator: torch.Generator | None, images: bool
) -> Tensor:
    count = _Part.count if images else 1
    whole = (shape[0] * count, *shape[1:]) if count > 1 else tuple(shape)
    numbers = draw(whole, generator=generator, device=like.device, dtype=like.dtype)
    return numbers if count == 1 else numbers[_Part.index :: count]


@contextlib.contextmanager
def all_isolated() -> Iterator[Callable[[int], None]]:
    """Like `isolated_rng`, also for Python's ``random`` and NumPy, for third-party modules.

    Gives the function that seeds all of them: saving their states takes longer than a small
    network, seeding them does not.

    >>> with all_isolated() as seed_all:
    ...     seed_all(1)
    ...     first = random.random()
    ...     seed_all(1)
    ...     second = random.random()
    >>> first == second
    True
    """

    def seed_all(seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        for generator in _global_generators():
            generator.manual_seed(seed)

    state, states = random.getstate(), np.random.get_state()
    try:
        with isolated_rng(0):
            yield seed_all
    finally:
        random.setstate(state)
        np.random.set_state(states)


def state_of_all() -> tuple[Any, ...]:
    """Return the states of all that `all_isolated` seeds, to compare.

    >>> before = state_of_all()
    >>> state_of_all() == before
    True
    >>> _ = torch.rand(())
    >>> state_of_all() == before
    False
    """
    numpy: Any = np.random.get_state(legacy=False)["state"]
    states = [generator.get_state().tolist() for generator in _global_generators()]
    return random.getstate(), numpy["key"].tobytes(), numpy["pos"], states


def draw_seed(generator: torch.Generator | None) -> int | None:
    """Draw a seed from ``generator``, which advances; ``None`` stays ``None``."""
    if generator is None:
        return None
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def hit_by_draws(chance: Tensor, draws: int) -> Tensor:
    """Return which classes are met by ``draws`` draws with replacement, for every row (B, n).

    Most draws come as Poisson numbers, which cost n and not ``draws`` steps: given their sum N,
    Poisson numbers with means in proportion to p count N draws. The rest is drawn one by one.

    >>> hit_by_draws(torch.tensor([[0.5, 0.5, 0.0]]), 100).tolist()
    [[True, True, False]]
    """
    mean = max(0.0, draws - 6 * draws**0.5) * chance
    counts = torch.poisson(mean)
    while (counts.sum(1) > draws).any():  # six standard deviations off
        counts = torch.poisson(mean)
    missing = draws - counts.sum(1, keepdim=True)
    columns = max(1, int(missing.max()))
    extra = torch.multinomial(chance, columns, replacement=True)
    used = torch.arange(columns, device=chance.device) < missing
    return counts.scatter_add_(1, extra, used.to(chance.dtype)) > 0
