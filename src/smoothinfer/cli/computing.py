"""Where a command computes, and on how many images at once: ``--device`` and ``--batch-size``."""

import argparse
import contextlib
import os
from collections.abc import Iterator

_NOWHERE = ("report", "publish", "models", "recipes", "attacks", "data")
_OWN_BATCHES = ("demo", "train", "harden", "export")  # or none: a recipe says


def add_computing(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options to the commands that compute."""
    if command in _NOWHERE:
        return
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1 and the like; by default a GPU where there is one"
    )
    if command not in _OWN_BATCHES:
        parser.add_argument(
            "--batch-size",
            metavar="N",
            help="images in a forward pass and in an attack; by default as suits the device",
        )


@contextlib.contextmanager
def computing_as(options: argparse.Namespace) -> Iterator[None]:
    """Inside, commands compute as the options say.

    Raises:
        InputError: there is no such device here, or the size is no whole number of at least 1.
    """
    from smoothinfer.errors import InputError
    from smoothinfer.numerics.precision import BATCH_SIZE, batch_size
    from smoothinfer.runtime.processes import DEVICE, chosen_device

    before = {name: os.environ.get(name) for name in (DEVICE, BATCH_SIZE)}
    set_computing(options)
    try:
        try:
            chosen_device(), batch_size()
        except InputError as error:
            text = str(error).replace(DEVICE, "--device").replace(BATCH_SIZE, "--batch-size")
            raise InputError(text) from None
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def set_computing(options: argparse.Namespace) -> None:
    """Let this process, and those that it starts, compute as the options say from now on."""
    from smoothinfer.numerics.precision import BATCH_SIZE
    from smoothinfer.runtime.processes import DEVICE

    given = {DEVICE: getattr(options, "device", None)}
    given[BATCH_SIZE] = getattr(options, "batch_size", None)
    os.environ.update({name: value for name, value in given.items() if value is not None})
