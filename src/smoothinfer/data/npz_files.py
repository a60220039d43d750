"""Data sets in ``.npz`` files: every array is checked by its header before it is read."""

import contextlib
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from smoothinfer.data.guards import check_memory
from smoothinfer.data.images import ImageData
from smoothinfer.errors import InputError, NoSplitError, take_test_part
from smoothinfer.runtime.printable import error_line

_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Deflate shrinks zeros a thousandfold, and pictures hardly ever a hundredfold.
_MOST_UNPACKED = 100
_ALWAYS_UNPACKED = 256 * 2**20
# The largest known set of classes has 22,000; an index beyond that is no class of few images.
_ALWAYS_CLASSES = 30_000
_MOST_CLASSES_PER_IMAGE = 10
_SAVE = "numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)"


@dataclass(frozen=True)
class _Stored:
    """An array in the file, as its header describes it."""

    name: str
    entry: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(source: str, split: str) -> ImageData:
    """Read the arrays ``x_SPLIT`` and ``y_SPLIT`` of a ``.npz`` file.

    Pixels are uint8: (N, H, W), (N, C, H, W) or (N, H, W, C) with C of 1 or 3. Labels are class
    indices (N,); all splits together say how many classes there are.

    Raises:
        InputError: the file or one of its arrays is missing, damaged, too large to be read, or
            holds something else; the arrays are not read then.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"no such file: {source}")
    try:
        with zipfile.ZipFile(path) as file:
            return _read_split(source, split, file)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{source} is not a readable .npz file ({error_line(error)}): write it with {_SAVE}"
        ) from error


def read_arrays(source: str) -> dict[str, np.ndarray]:
    """Return the arrays of numbers in a ``.npz`` file by name, after a look at their headers.

    Raises:
        InputError: an array is damaged, or they are too large to be read.
    """
    with zipfile.ZipFile(source) as file:
        entries = {each.filename.removesuffix(".npy"): each for each in file.infolist()}
        arrays = {}
        for name, entry in entries.items():
            with contextlib.suppress(InputError):  # notes beside the arrays
                arrays[name] = _read_header(source, file, name, entry)
        arrays = {name: each for name, each in arrays.items() if each.dtype.kind in "buif"}
        check_unpacked(source, file, sum(each.bytes for each in arrays.values()))
        return {name: _read_array(file, each) for name, each in arrays.items()}


def _read_split(source: str, split: str, file: zipfile.ZipFile) -> ImageData:
    entries = {each.filename.removesuffix(".npy"): each for each in file.infolist()}
    splits = [name[2:] for name in entries if name[:2] == "x_" and f"y_{name[2:]}" in entries]
    for name in (f"x_{split}", f"y_{split}"):
        if name not in entries:
            raise (InputError if split in splits or not splits else NoSplitError)(
                f"{source} has no array {name!r}, only {', '.join(sorted(entries)) or 'none'}; "
                f"its splits are {', '.join(sorted(splits)) or 'none'}: write it with {_SAVE}"
                f"{take_test_part(source, split, splits)}"
            )
    pixels = _read_header(source, file, f"x_{split}", entries[f"x_{split}"])
    labels = {
        each: _read_header(source, file, f"y_{each}", entries[f"y_{each}"]) for each in splits
    }
    order = _axes_of_pixels(source, pixels)
    for each in labels.values():
        _check_labels_header(source, each)
    check_unpacked(source, file, sum(each.bytes for each in [pixels, *labels.values()]))
    indices = {name: _read_labels(source, file, each) for name, each in labels.items()}
    classes = _count_classes(source, indices)
    array = _read_array(file, pixels)
    array = array[:, None] if array.ndim == 3 else array.transpose(order)
    return ImageData(
        Path(source).stem,
        torch.from_numpy(np.ascontiguousarray(array)),
        torch.from_numpy(indices[split]),
        tuple(str(k) for k in range(classes)),
    )


def _read_header(source: str, file: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> _Stored:
    """Return what the header says, if the array is as long as it must be then."""
    with file.open(entry) as stored:
        version = np.lib.format.read_magic(stored)
        if version not in _READ_HEADER:
            raise InputError(f"{source}: {name} must be numbers, not records: save plain arrays")
        shape, _, dtype = _READ_HEADER[version](stored)
        found = _Stored(name, entry, shape, dtype)
        if dtype.hasobject:
            raise InputError(
                f"{source}: {name} holds Python objects, which are not read: save an array of "
                "integers, such as numpy.array(list, dtype=numpy.int64)"
            )
        if found.bytes != entry.file_size - stored.tell():
            raise InputError(
                f"{source} is damaged: its {name} is not as long as it says: write it with {_SAVE}"
            )
    return found


def _read_array(file: zipfile.ZipFile, stored: _Stored) -> np.ndarray:
    opened: IO[bytes]
    with file.open(stored.entry) as opened:
        array: np.ndarray = np.lib.format.read_array(opened, allow_pickle=False)
    return array


def check_unpacked(source: str, file: zipfile.ZipFile, needed: int) -> None:
    """Refuse arrays of ``needed`` bytes that do not fit into memory, or unpack to far too much."""
    packed = Path(str(file.filename)).stat().st_size
    if needed > max(_ALWAYS_UNPACKED, _MOST_UNPACKED * packed):
        raise InputError(
            f"{source} has {packed:,} bytes and unpacks to {needed:,}, over {_MOST_UNPACKED} times "
            "as many, which no pictures do: if they are meant, write them with numpy.savez, "
            "which does not compress"
        )
    check_memory(source, needed)


def _axes_of_pixels(source: str, stored: _Stored) -> tuple[int, ...]:
    """Return the order of axes that makes pixels (N, C, H, W)."""
    name, shape = f"{source}: {stored.name}", stored.shape
    if stored.dtype != np.uint8:
        fractions = stored.dtype.kind == "f"
        scaled = ", (255 * x).round().astype(numpy.uint8) if in 0..1" if fractions else ""
        raise InputError(
            f"{name} must be uint8 pixels in 0..255, not {stored.dtype}: save "
            f"x.astype(numpy.uint8) if they are in 0..255{scaled}"
        )
    if len(shape) == 3:
        return (0, 1, 2)
    first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        reason = (
            "could be (N, C, H, W) or (N, H, W, C): pad the images until no side has 1 or 3 pixels"
            if first
            else "must be (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 or 3 channels C: save "
            "grey or RGB, without transparency"
        )
        raise InputError(f"{name} of shape {shape} {reason}")
    return (0, 1, 2, 3) if first else (0, 3, 1, 2)


def _check_labels_header(source: str, stored: _Stored) -> None:
    name, shape = f"{source}: {stored.name}", stored.shape
    if len(shape) != 1 and not (len(shape) == 2 and shape[1] == 1):
        raise InputError(
            f"{name} must be one class index for each image, not {shape}: save y.argmax(1) of "
            "one-hot or soft labels"
        )
    if stored.dtype.kind not in "iubf":
        raise InputError(
            f"{name} must be integer class indices, not {stored.dtype}: save "
            "numpy.unique(y, return_inverse=True)[1]"
        )


def _read_labels(source: str, file: zipfile.ZipFile, stored: _Stored) -> np.ndarray:
    """Return the labels as int64; whole numbers may be stored as floats."""
    array = _read_array(file, stored).reshape(-1)
    name = f"{source}: {stored.name}"
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.round(array))).all():
        raise InputError(f"{name} holds fractions or NaN: save integer class indices")
    low, high = (int(end) for end in (array.min(), array.max())) if len(array) else (0, 0)
    if low < 0 or high > np.iinfo(np.int32).max:
        raise InputError(
            f"{name}: labels range over [{low}, {high}], but class indices count from 0: save "
            "numpy.unique(y, return_inverse=True)[1]"
        )
    return array.astype(np.int64)


def _count_classes(source: str, labels: dict[str, np.ndarray]) -> int:
    """Return the number of classes; one beyond all reason is refused before they get names."""
    classes = 1 + max((int(each.max()) for each in labels.values() if len(each)), default=0)
    images = sum(map(len, labels.values()))
    if classes > max(_ALWAYS_CLASSES, _MOST_CLASSES_PER_IMAGE * images):
        raise InputError(
            f"{source}: the largest label is {classes - 1:,}, but there are {images:,} images: "
            "number the classes from 0, with numpy.unique(y, return_inverse=True)[1]"
        )
    return classes
