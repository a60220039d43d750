"""What all readers of data ask first: does it fit into memory, and how is a fault told."""

from smoothinfer.errors import InputError
from smoothinfer.runtime.memory import free_memory as _free_memory

_LONGEST = 300  # of the text of an error from elsewhere


def one_line(error: BaseException) -> str:
    """Return the text of an error from elsewhere on one line, cut short.

    >>> one_line(ValueError("no such\\n  split"))
    'no such split'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_memory(name: str, needed: int, remedy: str = "give smaller or fewer images") -> None:
    """Raise `InputError` if ``needed`` bytes are more than half of the memory that is free.

    Half, because pixels are copied once on their way, and weights get gradients.
    """
    free = _free_memory()
    if free is not None and needed > free // 2:
        raise InputError(
            f"{name} takes {_gibibytes(needed)} of memory, more than half of the "
            f"{_gibibytes(free)} that are free: {remedy}"
        )


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
