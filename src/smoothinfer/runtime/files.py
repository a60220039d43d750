"""Files written whole or not at all: temporary file, fsync, rename, fsync of the folder."""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from smoothinfer.errors import InputError
from smoothinfer.runtime.checksums import REMEDY, check_content, with_checksum
from smoothinfer.runtime.drafts import create_draft, remove_dead_drafts
from smoothinfer.runtime.memory import free_memory

_LARGEST_JSON = 64 * 2**20  # bytes


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through ``write(file)``: after a crash it is the old file or the new one.

    A link at ``path`` is replaced; the file that it points to stays as it is.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names ``path``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/a", lambda file: file.write(b"x"))
    ...     Path(folder, "a").read_bytes()
    b'x'
    """
    path = Path(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.lstat(path)  # a name that is too long fails before anything is written
        remove_dead_drafts(path.parent)
        descriptor, draft = create_draft(path.parent)
        try:
            with open(descriptor, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # NumPy and Pillow raise errors without a number when a disk is full.
        reason = error.strerror or f"{error} (is the disk full?)"
        kind = type(error) if error.errno else OSError
        raise kind(error.errno or errno.EIO, f"cannot write {path}: {reason}") from error


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``, whole or not at all."""
    write_whole(path, lambda file: file.write(content))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all; a mapping carries a checksum."""
    if isinstance(content, Mapping):
        content = with_checksum(content)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_content(path: str | Path, most: int | None = None) -> bytes:
    """Return the content of a plain file.

    Args:
        path: of the file.
        most: number of bytes that it may have; by default half of the memory that is free.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is larger, cannot be read, or is a pipe or a device, which may never end.
    """
    try:
        state = os.stat(path)
        if not os.path.isdir(path):  # the error of the system says that
            check_plain(path)
        most = (free_memory() or 2 * state.st_size) // 2 if most is None else most
        if state.st_size > most:
            raise InputError(f"{path} is too large: {state.st_size:,} bytes, {most:,} is the most")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise
    except MemoryError:
        raise InputError(f"{path} does not fit into memory: {state.st_size:,} bytes") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a name
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {reason}") from error


def check_plain(path: str | Path) -> None:
    """Raise `InputError` if a folder, a pipe or a device is at ``path``.

    >>> check_plain("/dev/null")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: /dev/null is not a plain file: name another one
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is not a plain file: name another one")


def _refuse_constant(constant: str) -> None:
    """Raise `ValueError`: Python reads NaN and Infinity in JSON, which has neither."""
    raise ValueError(f"{constant} is not a number")


def read_json(path: str | Path, remedy: str = "") -> Any:
    """Read a JSON file, and compare and leave out the checksum that it carries.

    Args:
        path: of the file.
        remedy: what to do about damage; by default to run the command again.

    Raises:
        InputError: the file is missing, broken, damaged or edited; the message names it.
    """
    try:
        text = read_content(path, _LARGEST_JSON).decode()
        content = json.loads(text, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise InputError(f"{path} is not valid JSON ({error}): {remedy or REMEDY}") from error
    return check_content(content, path, remedy) if isinstance(content, Mapping) else content
