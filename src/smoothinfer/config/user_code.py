"""Code that users name as ``package.module:name``: who may, and what happens if it fails."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError

_OUTSIDE = "smoothinfer.backbones:"  # networks of other libraries
_trusted = ContextVar("trusted", default=False)
_stranger: ContextVar[str | None] = ContextVar("stranger", default=None)
_FOLDERS: set[str] = set()  # of modules that the user named


@contextlib.contextmanager
def running_code(fault: str) -> Iterator[None]:
    """Inside, code of a user runs: whatever it raises, an exit too, becomes an `InputError`.

    Args:
        fault: what has failed then, for the message.

    >>> with running_code("models:mine() fails"):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    smoothinfer.errors.InputError: models:mine() fails: SystemExit: 0
    """
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        text = f": {error}" if str(error) else ""
        raise InputError(f"{fault}: {type(error).__name__}{text}") from error


@contextlib.contextmanager
def trusting_code() -> Iterator[None]:
    """Inside, files may name code of their own; see `reading_from`."""
    token = _trusted.set(True)
    try:
        yield
    finally:
        _trusted.reset(token)


@contextlib.contextmanager
def reading_from(source: str) -> Iterator[None]:
    """Inside, components come from the package's registries alone: ``source`` is a stranger's.

    >>> with reading_from("card.json"):
    ...     import_object("os:system")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    smoothinfer.errors.InputError: card.json names code to run, 'os:system': allow it with ...
    """
    token = _stranger.set(source)
    try:
        yield
    finally:
        _stranger.reset(token)


def import_object(path: str) -> Any:
    """Import ``package.module:name``; the current folder is looked at last.

    Raises:
        InputError: the module or the name cannot be found, or a stranger's file names it.
    """
    source = _stranger.get()
    if source is not None and not _trusted.get():
        # Options of timm's networks load files (checkpoint_path) and download (pretrained).
        why = ", which can load files and download" if path.startswith(_OUTSIDE) else ""
        raise InputError(
            f"{source} names code to run, {path!r}{why}: allow it with --trust-code "
            "(trust_code=True in Python) if you trust its author"
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    module, _, name = path.partition(":")
    with running_code(
        f"cannot import {path!r}"
    ):  # a module can raise anything while it is imported
        value: Any = importlib.import_module(module)
        _FOLDERS.add(str(Path(getattr(value, "__file__", None) or "?").parent))
        for part in name.split("."):
            value = getattr(value, part)
    return value


def is_named_code(file: str) -> bool:
    """Say whether ``file`` lies in a folder of a module that the user named."""
    return str(Path(file).parent) in _FOLDERS
