"""Data sets of the Hugging Face hub, and folders that its library reads, such as of Parquet."""

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothinfer.data.folders import SPLIT_NAMES
from smoothinfer.data.images import ImageData
from smoothinfer.data.pictures import Picture, decode
from smoothinfer.data.pixel_cache import cached_pixels, file_stamps
from smoothinfer.errors import InputError, NoSplitError, take_test_part
from smoothinfer.runtime.hub_access import offline_unless_reachable
from smoothinfer.runtime.printable import error_line, one_line
from smoothinfer.types import Labels


class _TablePictures(Sequence[Picture]):
    """The pictures of a split, encoded: named by their row, and by their file if there is one."""

    def __init__(self, source: str, split: str, table: Any, column: str) -> None:
        from datasets import Image

        self.where, self.column = f"the {split} split of {source}", column
        self.table = table.cast_column(column, Image(decode=False))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: Any) -> Any:
        value = self.table[row][self.column] or {}
        content, path = value.get("bytes"), value.get("path")
        if not content and not path:
            raise InputError(f"row {row} of {self.where} has no picture: take it out")
        name = f"picture {row} of {self.where}" + (f" ({path})" if path else "")
        return name, content or Path(str(path))

    def files(self) -> list[Path]:
        """Return the files of pictures that are not in the table itself."""
        import pyarrow.compute as pc

        column = self.table.data.column(self.column)
        if pc.all(pc.is_valid(pc.struct_field(column, "bytes"))).as_py():
            return []
        return [Path(each["path"]) for each in column.to_pylist() if each and each["bytes"] is None]


def read_table(source: str, split: str, load: str) -> ImageData:
    """Read a split of a data set by the library of the Hugging Face hub.

    Args:
        source: as the user wrote it.
        split: which the data set must have.
        load: name or folder for the library.

    Raises:
        InputError: it cannot be loaded, has no such split, no images or no labels, or lacks some.
    """
    tables = _load(source, load)
    if split not in tables:
        raise no_split(source, split, tables)
    table = tables[split]
    image, label = _columns(source, table.features)
    classes = tuple(str(name) for name in table.features[label].names)
    if Path(load).is_dir() and {each.lower() for each in classes} <= _SPLIT_WORDS:
        raise InputError(
            f"{source} has folders of splits but none of classes: put the pictures into "
            f"{split}/CLASS/, one folder for each class"
        )
    labels = _labels(source, split, table[label][:])
    pictures = {n: _TablePictures(source, n, each, image) for n, each in tables.items()}

    def decoded() -> Tensor:
        others = (p for name, each in pictures.items() if name != split for p in each)
        return decode(source, pictures[split], others)

    prints = [each._fingerprint for each in tables.values()]
    stamps = file_stamps(path for each in pictures.values() for path in each.files())
    content = hashlib.sha256(repr((prints, stamps)).encode()).hexdigest()
    name = Path(load).resolve().name if Path(load).is_dir() else source
    return ImageData(name, cached_pixels(content, split, decoded), labels, classes)


_SPLIT_WORDS = {name for names in SPLIT_NAMES.values() for name in names}


def no_split(source: str, split: str, splits: Any) -> NoSplitError:
    """Return the error for a ``split`` that a data set does not have."""
    names = sorted(splits, key=lambda name: (name == "train", name))
    return NoSplitError(
        f"{source} has no split {split!r}, only {', '.join(names)}: name one of these, on the "
        f"command line with --split source:{names[0]}{take_test_part(source, split, names)}"
    )


def _load(source: str, load: str) -> dict[str, Any]:
    from datasets import load_dataset

    local = Path(load).is_dir()
    with contextlib.nullcontext(True) if local else offline_unless_reachable() as online:
        try:
            with _library_silenced():
                return dict(load_dataset(load))
        except Exception as error:
            why = error_line(error) if online else "the hub is out of reach, its cache lacks it"
            raise InputError(
                f"cannot load {source!r} ({why}): DATA is a data set of this package, a .npz file, "
                "a folder, or a name on the Hugging Face hub"
            ) from error


@contextlib.contextmanager
def _library_silenced() -> Iterator[None]:
    """Inside, the library logs nothing, and shows its progress only to a person at a terminal.

    Its errors are told by the exceptions that it raises.
    """
    import datasets

    watched = sys.stderr is not None and sys.stderr.isatty()
    silenced = not watched and not datasets.are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if silenced:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if silenced:
            datasets.enable_progress_bars()


def _columns(source: str, features: Any) -> tuple[str, str]:
    """Name the image column and the finest label column."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if not images or not labels:
        kinds = ", ".join(f"{name} ({one_line(str(kind))})" for name, kind in features.items())
        raise InputError(
            f"{source} needs an image column and a class-label column, but has {kinds}: cast "
            "them with the library datasets, or put pictures into train/CLASS/ and test/CLASS/"
        )
    return images[0], max(labels, key=lambda name: features[name].num_classes)


def _labels(source: str, split: str, values: list[int | None]) -> Labels:
    for row, value in enumerate(values):
        if value is None or value < 0:
            raise InputError(
                f"row {row} of the {split} split of {source} has no label: take such rows out, or "
                "name a labelled split"
            )
    return torch.tensor(values, dtype=torch.int64)
