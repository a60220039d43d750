"""Requests to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a terminal that was closed.

The first one ends the program in good order, with status 128 plus the signal's number. A Ctrl-C
after it ends the program at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
RESUME = "the same command goes on from there"
_Handler = Callable[[int, FrameType | None], Any]


class Stop(KeyboardInterrupt):
    """The program was asked to stop.

    Args:
        number: of the signal.
        message: one line that says what was kept and how to go on.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.name = signal.Signals(number).name
        self.status = 128 + number


class _State:
    received = 0  # number of the first signal, 0 for none
    deferred = 0
    handled = 0


def received() -> int:
    """Return the number of the signal that asked the program to stop, 0 for none."""
    return _State.received


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Inside, a signal ends the process at once and silently, with 128 plus its number.

    For imports, which may lose an exception that a handler raises.
    """
    with _handled_by(lambda number, _: os._exit(128 + number)):
        yield


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside, a signal raises `Stop`; where it is deferred, it is only noted."""
    _State.received = 0
    _State.handled += 1
    try:
        with _handled_by(_handle), _as_stop():
            yield
    finally:
        _State.handled -= 1


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Inside, signals wait until the work itself asks `received`, or the block ends.

    Raises:
        Stop: at the end, if a signal came that the work did not see.
    """
    # In a library call signals are handled inside it, and outside stay as they were.
    with contextlib.nullcontext() if _State.handled else stop_on_signals():
        _State.deferred += 1
        try:
            yield
        finally:
            _State.deferred -= 1
        raise_if_stopped()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside a block of `defer_signals`, let signals raise `Stop` at once."""
    deferred, _State.deferred = _State.deferred, 0
    try:
        raise_if_stopped()
        with _as_stop():
            yield
    finally:
        _State.deferred = deferred


def raise_if_stopped() -> None:
    """Raise `Stop` if a signal was noted and nothing defers it.

    One that ended an earlier call of a program that went on is forgotten.
    """
    if _State.handled and _State.received and not _State.deferred:
        raise Stop(_State.received)


@contextlib.contextmanager
def _as_stop() -> Iterator[None]:
    """Turn an error that a `Stop` was made into back into that `Stop`.

    Python itself does so: an exception inside of a class that is being made, as in an import,
    becomes a ``RuntimeError``.
    """
    try:
        yield
    except Exception as error:
        if (stop := _stop_behind(error)) is not None:
            raise stop from error
        raise


def _stop_behind(error: BaseException) -> Stop | None:
    """Return the `Stop` that ``error`` was raised from, or while handling it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if isinstance(each, Stop):
            return each
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            left += [each.__cause__, each.__context__]
    return None


def _handle(number: int, frame: FrameType | None) -> None:
    del frame
    _State.received = _State.received or number
    # From now on Ctrl-C needs no Python to run: it ends a program that hangs, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not _State.deferred:
        raise Stop(_State.received)


@contextlib.contextmanager
def _handled_by(handler: _Handler) -> Iterator[None]:
    """Handle signals by ``handler`` inside; those that are ignored (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    mine = [number for number in _SIGNALS if before[number] not in (signal.SIG_IGN, None)]
    for number in mine:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, before[number])
