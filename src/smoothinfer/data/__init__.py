"""Images as uint8 tensors in memory: any Hugging Face data set, local folder, .npz, or digits."""

import os
from collections.abc import Callable
from pathlib import Path

from smoothinfer.data.class_names import class_names_of, match_classes
from smoothinfer.data.digits import read_digits
from smoothinfer.data.folders import find_pictures, read_pictures
from smoothinfer.data.images import Data, ImageData, images_and_labels, to_float
from smoothinfer.data.npz_files import read_npz
from smoothinfer.data.parts import PARTS, read_part
from smoothinfer.data.selection import (
    checked_limit,
    choice_name,
    choose_images,
    choose_rows,
    held_out_rows,
    hold_out,
    images_of_training,
    rows_of_training,
)
from smoothinfer.data.tables import no_split, read_table
from smoothinfer.errors import InputError, unknown

__all__ = [
    "DATASETS", "FORMATS", "OWN_SPLIT", "SPLITS", "VALIDATION", "Data", "ImageData",
    "checked_limit", "choice_name", "choose_images", "choose_rows", "class_names_of",
    "held_out_rows", "hold_out", "images_and_labels", "images_of_training", "load_data",
    "load_split", "match_classes", "rows_of_training", "to_float",
]  # fmt: skip

SPLITS = ("train", "test")
VALIDATION = "validation"  # on the command line: what a model's own training held out
OWN_SPLIT = "source:"  # on the command line: before the name that the data set gives a split
DATASETS: dict[str, Callable[[str], ImageData]] = {"digits": read_digits}
FORMATS: dict[str, Callable[[str, str], ImageData]] = {".npz": read_npz}  # by the file's ending


def load_data(
    source: str | os.PathLike[str],
    split: str = "test",
    limit: int | None = None,
    *,
    first: bool = False,
) -> ImageData:
    """Load a data set into memory; decoded pixels are cached for the next time.

    Args:
        source: ``"digits"``; a ``.npz`` file with ``x_train, y_train, x_test, y_test``; a
            folder (of Parquet files, or of images in ``train/CLASS/*.png``); or the name of
            a data set on the Hugging Face hub, such as ``"uoft-cs/cifar10"``. One without a test
            split is split by a seed: ``"my_pictures#test=0.2"``, ``"my_pictures#test=0.2,seed=1"``.
        split: ``"train"``, ``"test"``, or another one that the source has.
        limit: number of images to keep, of each class in proportion, the same for everybody; see
            `choose_rows`.
        first: keep the first ``limit`` images instead, for data in random order.

    Raises:
        InputError: the source, its split or its columns cannot be found, a picture or an array
            cannot be used, or images differ in size.

    >>> load_data("digits", "test", limit=3).pixels.shape
    torch.Size([3, 1, 8, 8])
    """
    limit, name = checked_limit(limit), os.fspath(source)
    whole, _, parts = name.rpartition(PARTS) if PARTS in name else (name, "", "")
    data = read_part(whole, parts, split, _read) if parts else _read(name, split)
    return choose_images(data, limit, first)


def load_split(source: str, split: str, limit: int | None = None, first: bool = False) -> ImageData:
    """Load a split as the command line and sweeps name it: ``train``, ``test``, ``source:NAME``.

    Args:
        source, limit, first: see `load_data`.
        split: ``source:NAME`` is a split that the data set itself has.

    Raises:
        InputError: there is no such split.
    """
    own = split.removeprefix(OWN_SPLIT)
    if own == split and split not in SPLITS:
        others = ", ".join(sorted({*SPLITS, VALIDATION} - {split}))
        raise InputError(
            f"unknown split {split!r}: choose one of {OWN_SPLIT}{split} (a split that the data set "
            f"itself has), {others}"
        )
    return load_data(source, own, limit, first=first)


def _read(source: str, split: str) -> ImageData:
    if source in DATASETS:
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        return DATASETS[source](split)
    path = Path(source).expanduser()
    if read := FORMATS.get(path.suffix.lower()):
        return read(source, split)
    if not source or path.is_file():
        raise InputError(
            f"{source!r} is no data set: DATA is one of {', '.join(DATASETS)}, a file that ends in "
            f"{', '.join(FORMATS)}, a folder, or a name on the Hugging Face hub"
        )
    if not path.is_dir():
        if source.startswith((".", "/", "~")):
            raise InputError(f"no such folder: {source}")
        if source.count("/") != 1:  # the hub would be asked five times
            raise InputError(
                f"no folder {source!r} here, and no data set of this package ("
                f"{', '.join(DATASETS)}); a name on the Hugging Face hub has the form OWNER/NAME"
            )
        return read_table(source, split, source)
    folder = find_pictures(path)
    if folder is None:
        return read_table(source, split, str(path))
    if split not in folder.splits:
        raise no_split(source, split, folder.splits)
    return read_pictures(source, split, folder)
