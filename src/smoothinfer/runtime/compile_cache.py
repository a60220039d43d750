"""The work of the compiler, kept in one file that another machine of the same kind can take up.

The file holds code: take up only one that you made.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from smoothinfer.errors import InputError
from smoothinfer.runtime.checksums import append_checksum, check_bytes
from smoothinfer.runtime.files import read_content, write_bytes
from smoothinfer.runtime.output import check_place

_REMEDY = "delete it: the compiler then works anew"


@contextlib.contextmanager
def compile_cache(path: str | Path | None) -> Iterator[None]:
    """Inside, ``torch.compile`` finds what ``path`` holds; afterwards the file holds all of it.

    Args:
        path: the file, which need not exist yet; ``None`` for none.

    Raises:
        InputError: the file is damaged, or cannot be written.
    """
    if path is None:
        yield
        return
    check_place(Path(path).parent, "the folder of --compile-cache,")
    with contextlib.suppress(FileNotFoundError):
        content = check_bytes(read_content(path), Path(path), _REMEDY)
        if torch.compiler.load_cache_artifacts(content) is None:
            raise InputError(f"{path} is no cache of this compiler: {_REMEDY}")
    try:
        yield
    finally:
        if (found := torch.compiler.save_cache_artifacts()) is not None:
            write_bytes(path, append_checksum(found[0]))
