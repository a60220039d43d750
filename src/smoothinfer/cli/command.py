"""What a command of the command line is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser


class Command(NamedTuple):
    """A command: what it is for, what it takes, what it does (returning the exit status)."""

    about: str
    fill: Callable[[ArgumentParser], None]
    run: Callable[[Any], int]
