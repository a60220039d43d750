"""Files packed into parts of at most 16 MB, for a way that carries no larger ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from smoothinfer.runtime.files import write_bytes

PART = 15 * 2**20  # bytes


def pack(files: Iterable[Path], folder: Path, root: Path, part: int = PART) -> list[Path]:
    """Write ``files`` as ``folder/back.tar.00``, ``.01``, …; return the parts.

    Args:
        files: to pack, under ``root``; those that are missing are left out.
        folder: of the parts; parts of an earlier call are replaced.
        root: names in the archive are relative to it.
        part: bytes of a part.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     path = Path(place, "a")
    ...     _ = path.write_bytes(b"x" * 20_000)
    ...     parts = pack([path], Path(place, "back"), Path(place), part=16_384)
    ...     [each.name for each in parts]
    ['back.tar.00', 'back.tar.01']
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted({path for path in files if path.is_file()}):
            archive.add(path, path.relative_to(root).as_posix())
    content = buffer.getvalue()
    parts = []
    for number, at in enumerate(range(0, len(content), part)):
        parts.append(folder / f"back.tar.{number:02d}")
        write_bytes(parts[-1], content[at : at + part])
    for old in folder.glob("back.tar.*"):
        if old not in parts:
            old.unlink()
    return parts
