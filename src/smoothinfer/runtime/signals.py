"""SIGTERM, which a scheduler sends before it kills: the program saves and ends with status 143."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 128 + signal.SIGTERM


class _State:
    stop_requested = False
    deferred = 0


def install_sigterm_handler() -> None:
    """End the program on SIGTERM as an exit does; inside `defer_sigterm` only note the request."""
    if threading.current_thread() is threading.main_thread():
        _State.stop_requested = False
        signal.signal(signal.SIGTERM, _handle)


@contextlib.contextmanager
def defer_sigterm() -> Iterator[None]:
    """Inside, SIGTERM waits until the work itself asks `stop_requested`."""
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1


def stop_requested() -> bool:
    """Say whether SIGTERM has arrived."""
    return _State.stop_requested


def _handle(number: int, frame: FrameType | None) -> None:
    del number, frame
    _State.stop_requested = True
    if not _State.deferred:
        raise SystemExit(TERMINATED)
