"""Where a long attack keeps its state after each stage, so that a killed one goes on from there."""

import contextlib
from collections.abc import Iterator
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
