"""Whether work is being recorded, to be replayed many times, and whatever forbids that.

A replay repeats every operation on new numbers, but no line of Python: checks that wait for the
device, copies of the weights made earlier, and seeds would stay as they were when it was recorded.
"""

import contextlib
import contextvars
from collections.abc import Iterator

_FAULTS: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("faults", default=None)


@contextlib.contextmanager
def recording() -> Iterator[list[str]]:
    """Inside, work is recorded, or run as it will be; gives the list of reasons not to record it.

    >>> with recording() as faults:
    ...     forbid_recording("it asks for the time")
    >>> faults
    ['it asks for the time']
    """
    faults: list[str] = []
    token = _FAULTS.set(faults)
    try:
        yield faults
    finally:
        _FAULTS.reset(token)


def is_recording() -> bool:
    """Say whether this is inside of `recording`."""
    return _FAULTS.get() is not None


def forbid_recording(reason: str) -> None:
    """Say why the work in hand cannot be recorded, where it is being recorded."""
    if (faults := _FAULTS.get()) is not None:
        faults.append(reason)
