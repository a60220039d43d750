"""Drafts: the temporary files that become finished files by a rename, and what killed ones leave.

A draft's name says which process wrote it, so that those of killed processes can be told apart
from those of live ones.
"""

import contextlib
import itertools
import os
import platform
import re
import secrets
import time
from pathlib import Path

_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:64] or "here"
_NAME = re.compile(r"\.draft\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]+\.tmp", re.ASCII)
_OLD = 24 * 3600.0  # seconds after which a draft of another machine counts as left behind
_MOST_FOLDERS = 2000
# A name that somebody foresaw may be a link to another file: it must be new, and no link.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_FLAGS |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def create_draft(folder: Path, length: int = 0) -> tuple[int, Path]:
    """Create a new file in ``folder``, with the permissions that the umask gives any file.

    Args:
        folder: exists.
        length: the least number of letters of the file's name.

    Returns:
        An open descriptor and the file's path, whose name nobody can foresee.

    Raises:
        OSError: the folder cannot be written, or does not take a name of this length.
    """
    start, end = f".draft.{_HOST}.{os.getpid()}.", ".tmp"
    token = secrets.token_hex(16)
    draft = folder / (start + token.ljust(length - len(start) - len(end), "0") + end)
    return os.open(draft, _FLAGS, 0o666), draft


def remove_dead_drafts(folder: Path) -> None:
    """Remove drafts in ``folder`` whose writer was killed.

    Those of live processes and of other machines are left for a day.
    """
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".draft.")]
    except OSError:  # there is no such folder yet
        return
    for name in names:
        match = _NAME.fullmatch(name)
        if match and _is_dead(folder / name, match["host"], int(match["pid"])):
            with contextlib.suppress(OSError):
                os.unlink(folder / name)


def remove_all_dead_drafts(folder: Path, depth: int = 4) -> None:
    """Remove dead drafts in ``folder`` and ``depth`` levels below; links are not followed.

    No more than 2,000 folders are looked at: ``folder`` may be the root of a disk.
    """
    top = len(folder.parts)
    for inside, folders, _ in itertools.islice(os.walk(folder), _MOST_FOLDERS):
        remove_dead_drafts(Path(inside))
        if len(Path(inside).parts) - top >= depth:
            folders.clear()


def _is_dead(draft: Path, host: str, pid: int) -> bool:
    if host == _HOST and not _is_running(pid):
        return True
    try:
        return time.time() - os.lstat(draft).st_mtime > _OLD
    except OSError:  # its writer has just finished
        return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's process, and alive
        return True
    return True
