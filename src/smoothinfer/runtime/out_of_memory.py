"""Memory that does not suffice: how torch says so, and work in smaller parts."""

import torch

OUT_OF_MEMORY = (torch.OutOfMemoryError, RuntimeError, MemoryError)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of ``OUT_OF_MEMORY`` means that the memory does not suffice.

    >>> is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    True
    """
    message = str(error).lower()
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "out of memory" in message or "can't allocate memory" in message
