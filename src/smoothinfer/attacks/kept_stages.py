"""The stages of a long attack: where it keeps its state after each, and who hears of them."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

from torch import Tensor


class Kept(Protocol):
    """The state of one attack on one batch."""

    def load(self) -> dict[str, Tensor] | None: ...

    def save(self, state: dict[str, Tensor]) -> None: ...


_KEPT: ContextVar[Kept | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def keep_stages(kept: Kept | None) -> Iterator[None]:
    """Let an attack inside find its state in ``kept``, and keep it there."""
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)


def kept_stages() -> Kept | None:
    """Return where the attack in hand keeps its state; ``None`` if nowhere."""
    return _KEPT.get()


_HEARS: ContextVar[Callable[[str], object] | None] = ContextVar("hears", default=None)


@contextlib.contextmanager
def hearing_stages(hear: Callable[[str], object]) -> Iterator[None]:
    """Inside, call ``hear`` with a line for each stage that an attack begins."""
    token = _HEARS.set(hear)
    try:
        yield
    finally:
        _HEARS.reset(token)


def tell_stage(line: str) -> None:
    """Say which stage begins, to whoever hears."""
    if (hear := _HEARS.get()) is not None:
        hear(line)
