"""Decoded pixels, kept for the next time in a file that carries a checksum of its own."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.runtime.files import write_whole
from smoothinfer.runtime.printable import error_line

_RULES = "pixels 2"  # of decoding: pixels that were decoded by others are not taken


def file_stamps(paths: Iterable[Path]) -> str:
    """Return a digest of names, sizes and times of files, which a change in place changes too.

    The time of the last change of the file's record cannot be set back, as that of its content
    can.

    Raises:
        InputError: a file is not there.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error_line(error)}): take it out") from error
        digest.update(
            repr((str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns)).encode()
        )
    return digest.hexdigest()


def cached_pixels(content: str, split: str, decode: Callable[[], Tensor]) -> Tensor:
    """Return the pixels (N, C, H, W) of a split, decoded unless they are kept from before.

    Args:
        content: a digest that changes with any picture of the data set, of whatever split.
        split: the split.
        decode: makes the pixels.
    """
    key = hashlib.sha256(repr((_RULES, content, split)).encode()).hexdigest()[:24]
    path = _folder() / f"{key}.npy"
    if (kept := _read(path)) is not None:
        return kept
    pixels = decode()
    try:
        write_whole(path, lambda file: _write(file, pixels.numpy()))
    except OSError as error:
        warnings.warn(f"decoded pixels are not kept: {error}", stacklevel=2)
    return pixels


def _read(path: Path) -> Tensor | None:
    if not path.is_file():  # a pipe would be read for ever
        return None
    try:
        with open(path, "rb") as file:
            checksum = file.read(64).decode("ascii")
            pixels = np.load(file, allow_pickle=False)
        if _checksum(pixels) == checksum:
            return torch.from_numpy(pixels)
        reason = "its checksum differs"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # a damaged header may raise anything
        reason = type(error).__name__
    warnings.warn(f"{path} is damaged ({reason}): pictures are decoded anew", stacklevel=3)
    return None


def _write(file: BinaryIO, pixels: np.ndarray) -> None:
    file.write(_checksum(pixels).encode("ascii"))
    np.save(file, pixels)


def _checksum(pixels: np.ndarray) -> str:
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _folder() -> Path:
    base = os.environ.get("SMOOTHINFER_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "smoothinfer"
