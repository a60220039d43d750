"""Several processes, on one machine or many, as ``accelerate launch`` starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import PartialState

Work = TypeVar("Work")


class Processes:
    """This process among its fellows; alone unless a launcher says otherwise.

    >>> Processes().share(["a", "b"])
    ['a', 'b']
    """

    def __init__(self) -> None:
        cpu = not torch.cuda.is_available()
        self._state = PartialState(cpu=cpu) if _launched() else None

    @property
    def count(self) -> int:
        """How many there are."""
        return self._state.num_processes if self._state else 1

    @property
    def main(self) -> bool:
        """Whether this one speaks for all."""
        return self._state.is_main_process if self._state else True

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        if self._state:
            return torch.device(self._state.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def share(self, work: Sequence[Work]) -> list[Work]:
        """Return this process's part of ``work``."""
        return list(work[self._state.process_index :: self.count] if self._state else work)

    def wait(self) -> None:
        """Wait until all have come here."""
        if self._state:
            self._state.wait_for_everyone()


def leave(status: int) -> int:
    """Return ``status``, the program's; one of several processes ends here and now with it.

    Gloo's threads may drop their last tensors while the interpreter is taken down, which aborts it:
    the launcher would call a finished run a failure.
    """
    if _launched():
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    return status


def _launched() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
