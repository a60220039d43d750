"""SIGTERM, as a scheduler sends it before it kills: work ends in good order, with status 143."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 128 + signal.SIGTERM


class _State:
    asked = False
    patient = 0


def heed_sigterm() -> None:
    """From now on SIGTERM ends the program as an exit does; inside `patient` it only asks to."""
    if threading.current_thread() is threading.main_thread():
        _State.asked = False
        signal.signal(signal.SIGTERM, _handle)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Inside, SIGTERM waits until the work itself looks at `asked_to_stop`."""
    _State.patient += 1
    try:
        yield
    finally:
        _State.patient -= 1


def asked_to_stop() -> bool:
    """Say whether SIGTERM has come."""
    return _State.asked


def _handle(number: int, frame: FrameType | None) -> None:
    del number, frame
    _State.asked = True
    if not _State.patient:
        raise SystemExit(TERMINATED)
