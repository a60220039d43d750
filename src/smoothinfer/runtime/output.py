"""The folder that a command writes to, checked before any work starts."""

import contextlib
import os
from pathlib import Path

from smoothinfer.errors import InputError
from smoothinfer.runtime.drafts import create_draft, remove_all_dead_drafts

# The longest names that commands give to files (shards of rows) and to folders below --out.
_FILE_LETTERS = 210
_FOLDER_LETTERS = 60
_INSIDE = ("rows", "crafted", "examples", "figures", "report", "run")  # of an earlier command
_PROBE = b"x" * 4096


def check_output(folder: str | Path) -> None:
    """Make ``folder``, see that files can be written there, and remove what killed runs left.

    Raises:
        InputError: it is a file, cannot be made or written, or its path is too long; or this is
            true of a folder in it.
    """
    folder = Path(folder)
    check_place(folder)
    for place in (folder / name for name in _INSIDE):
        if os.path.lexists(place):
            check_place(place)
    remove_all_dead_drafts(folder)


def check_place(place: Path, option: str = "--out") -> None:
    """Make the folder ``place``, named by ``option``, and see that files can be written there.

    Raises:
        InputError: see `check_output`.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        _probe(place)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{option} {place} is or lies in a file: choose another folder") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{option} {place} cannot be written ({reason}): choose another folder"
        ) from error


def _probe(folder: Path) -> None:
    """Write a file with the longest name; raise `OSError` where that fails."""
    with contextlib.suppress(FileNotFoundError):  # not too long, but not there
        os.lstat(folder / ("x" * _FOLDER_LETTERS) / ("x" * _FILE_LETTERS))
    descriptor, probe = create_draft(folder, _FILE_LETTERS)
    try:
        with open(descriptor, "wb") as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)


def remove_if_empty(folder: str | Path) -> None:
    """Remove ``folder`` if nothing is in it: a command that was refused leaves nothing behind."""
    with contextlib.suppress(OSError, ValueError):
        os.rmdir(folder)
