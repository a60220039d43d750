"""Locks on folders, which end with the process that holds them, even if it is killed."""

import contextlib
import errno
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from smoothinfer.errors import InputError

_NAME = ".lock"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def hold_folder(folder: str | Path, use: str) -> Iterator[None]:
    """Hold ``folder`` for this process alone while the block runs.

    The file ``.lock`` stays and says who held the folder last; the lock is the operating system's,
    so a killed process leaves none. File systems without locks give a warning.

    Args:
        folder: is made where it is missing.
        use: completes "FOLDER is being ...", such as ``"trained"``.

    Raises:
        InputError: another process, or this one elsewhere, holds the folder.
    """
    descriptor = _open(Path(folder))
    try:
        try:
            _lock(descriptor, wait=False)
        except OSError as error:
            if error.errno in _HELD:
                raise _held(descriptor, folder, use) from None
            _warn(folder, error)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {platform.node()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def wait_for_folder(folder: str | Path) -> Iterator[None]:
    """Let no other process into the same block for ``folder``; wait for one that is there.

    On file systems without locks the block runs as if nobody else were there.
    """
    descriptor = _open(Path(folder))
    try:
        with contextlib.suppress(OSError):
            _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(folder / _NAME, _FLAGS, 0o666)
    except OSError as error:
        message = f"cannot open the lock {folder / _NAME}: {error.strerror}"
        raise type(error)(error.errno, message) from error


def _lock(descriptor: int, wait: bool) -> None:
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "no such locks on Windows")
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _held(descriptor: int, folder: str | Path, use: str) -> InputError:
    pid, _, host = os.pread(descriptor, 200, 0).decode(errors="replace").partition(" ")
    holder = f"process {pid} on {host}" if pid else "another process"
    return InputError(f"{folder} is being {use} by {holder}: choose another --out")


def _warn(folder: str | Path, error: OSError) -> None:
    warnings.warn(
        f"{folder} cannot be locked ({error.strerror}): see that no other process works in it",
        stacklevel=4,
    )
