"""Several processes on one or more machines, started by ``torchrun`` or ``accelerate launch``."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Sequence
from typing import TypeVar

import torch

from smoothinfer.errors import InputError

# Each with its least value; a launcher sets all of them.
_NUMBERS = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0, "MASTER_PORT": 1}
DEVICE = "SMOOTHINFER_DEVICE"  # the environment variable that names it
_REMEDY = "start several processes by torchrun or accelerate launch, or unset it for one process"

Item = TypeVar("Item")


class Processes:
    """This process among the others; alone unless a launcher started several.

    Raises:
        InputError: the environment variables of a launcher are missing or malformed.

    >>> Processes().share(["a", "b"])
    ['a', 'b']
    """

    def __init__(self) -> None:
        self._state = None
        _check_environment()
        if _launched():
            from accelerate import PartialState

            self._state = PartialState(cpu=not torch.cuda.is_available())

    @property
    def count(self) -> int:
        """Number of processes."""
        return self._state.num_processes if self._state else 1

    @property
    def main(self) -> bool:
        """Whether this process prints and writes the summary for all."""
        return self._state.is_main_process if self._state else True

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        if (chosen := chosen_device()) is not None:
            return chosen
        if self._state:
            return torch.device(self._state.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's part of ``items``."""
        return list(items[self._state.process_index :: self.count] if self._state else items)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self._state:
            self._state.wait_for_everyone()


def chosen_device() -> torch.device | None:
    """Return the device that the environment variable ``SMOOTHINFER_DEVICE`` names, if it is set.

    Raises:
        InputError: there is no such device here, or several processes would share it.
    """
    name = os.environ.get(DEVICE)
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # each kind of device has its own
        here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise InputError(
            f"{DEVICE}: no device {name!r} here: there are {', '.join(here)}"
        ) from None
    if _launched() and device.type != "cpu":
        raise InputError(f"{DEVICE}: several processes get a GPU each from their launcher")
    return device


def exit_process(status: int) -> int:
    """Return the program's ``status``; one of several processes ends here with it.

    Gloo's threads may drop their last tensors while the interpreter shuts down, which aborts it:
    the launcher would call a finished run a failure.
    """
    if _launched():
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    return status


def _launched() -> bool:
    size = os.environ.get("WORLD_SIZE", "1")
    return _is_number(size) and int(size) > 1


def _check_environment() -> None:
    """Refuse variables of a launcher that cannot be read or contradict each other."""
    given = {name: os.environ[name] for name in _NUMBERS if name in os.environ}
    for name, value in given.items():
        if not _is_number(value) or int(value) < _NUMBERS[name]:
            least = f"a whole number of at least {_NUMBERS[name]}"
            raise InputError(f"{name} must be {least}, not {value!r}: {_REMEDY}")
    size = given.get("WORLD_SIZE", "1")
    missing = [each for each in (*_NUMBERS, "MASTER_ADDR") if each not in os.environ]
    if int(size) > 1 and missing:
        raise InputError(f"WORLD_SIZE is {size}, but {missing[0]} is not set: {_REMEDY}")
    if int(size) > 1 and int(given["RANK"]) >= int(size):
        raise InputError(f"RANK is {given['RANK']}, but WORLD_SIZE is {size}: {_REMEDY}")


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None  # int() takes other scripts' digits too


def tune_malloc() -> bool:
    """Tell glibc to keep freed memory, so that a forward pass does not fault its pages in again.

    Worth 10 to 50 % of a small network's forward pass on a CPU. It is a setting of the whole
    process: programs call it, the library does not. Returns whether it took effect.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # mallopt(3)
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    options = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 256 * 2**20))
    return all(mallopt(option, value) for option, value in options)
