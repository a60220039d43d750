"""What is asked before images or networks are made: do they fit into memory."""

from smoothinfer.errors import InputError
from smoothinfer.runtime.memory import free_memory


def check_memory(name: str, needed: int, remedy: str = "give smaller or fewer images") -> None:
    """Raise `InputError` if ``needed`` bytes are more than half of the memory that is free.

    Half, because pixels are copied once on their way, and weights get gradients.
    """
    free = free_memory()
    if free is not None and needed > free // 2:
        raise InputError(
            f"{name} takes {_gibibytes(needed)} of memory, more than half of the "
            f"{_gibibytes(free)} that are free: {remedy}"
        )


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
