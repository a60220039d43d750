"""Files written whole or not at all: temporary file, fsync, rename, fsync of the folder."""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from smoothinfer.errors import InputError

_HOST = platform.node().replace(".", "-") or "here"


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through ``write(file)``: after a crash it is the old file or the new one.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names ``path``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(f"{folder}/a", lambda file: file.write(b"x"))
    ...     Path(folder, "a").read_bytes()
    b'x'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead_drafts(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{_HOST}.tmp")
    try:
        with open(draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_dead_drafts(path: Path) -> None:
    """Remove drafts whose writer on this machine was killed; writers elsewhere may be alive."""
    for draft in path.parent.glob(f".{path.name}.*.{_HOST}.tmp"):
        try:
            os.kill(int(draft.name.split(".")[-3]), 0)
        except (ValueError, ProcessLookupError):
            draft.unlink(missing_ok=True)
        except PermissionError:  # another user's process, and alive
            pass


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write ``content``, whole or not at all."""
    write_whole(path, lambda file: file.write(content))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken one is an `InputError` that names it."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, nested too deeply
        raise InputError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
