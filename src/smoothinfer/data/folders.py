"""Folders of pictures, ``SPLIT/CLASS/picture``: classes are those of the training split."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from smoothinfer.data.images import ImageData
from smoothinfer.data.pictures import Picture, decode
from smoothinfer.data.pixel_cache import cached_pixels, file_stamps
from smoothinfer.errors import InputError
from smoothinfer.runtime.printable import error_line

# Names of the folder of a split, as in data sets on the Hugging Face hub.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
_NAMED = {name: split for split, names in SPLIT_NAMES.items() for name in names}
_TABLES = (".parquet", ".arrow", ".csv", ".jsonl", ".tar", ".zip")
_MOST_OTHERS = 5_000  # files that are no data, and two more for each that is
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # labels of another layout


@dataclass(frozen=True)
class PictureFolder:
    """The splits of a folder, each with its pictures in order: ``{split: [(class, path)]}``.

    The class of a picture that lies in no class folder is ``""``.
    """

    root: Path
    splits: dict[str, list[tuple[str, Path]]]


def find_pictures(root: Path) -> PictureFolder | None:
    """Return the pictures of ``root`` by split, or ``None`` if it is no folder of pictures alone.

    Without folders of splits the folders of classes are the training split.

    Raises:
        InputError: two folders have names of the same split, or a folder cannot be read.
    """
    try:
        return _find_pictures(root)
    except OSError as error:
        raise InputError(f"{root} cannot be read: {error_line(error)}") from error


def _find_pictures(root: Path) -> PictureFolder | None:
    counts = _count_files(root)
    if not counts["pictures"] and not counts["tables"]:
        raise InputError(
            f"cannot load {root} (it holds no pictures and no tables): put pictures into "
            f"train/CLASS/ and test/CLASS/, or files that end in {', '.join(_TABLES)} into it"
        )
    folders = _split_folders(root)
    while not folders and len(inner := _subfolders(root)) == 1:
        root = inner[0]
        folders = _split_folders(root)
    if any((place / name).exists() for place in (root, *folders.values()) for name in _METADATA):
        return None
    if not folders:
        if counts["tables"]:
            return None
        folders = {"train": root}
    splits = {split: list(_pictures_in(folder)) for split, folder in folders.items()}
    splits = {split: found for split, found in splits.items() if found}
    return PictureFolder(root, splits) if splits else None


def _count_files(root: Path) -> Counter[str]:
    """Count the pictures, the tables and the other files of a folder.

    Raises:
        InputError: far too many are others, through which the readers of tables would go for
            minutes: this is no folder of data.
    """
    pictures, counts = _endings(), Counter[str]()
    for path in _files(root):
        ending = path.suffix.lower()
        kind = "tables" if ending in _TABLES else "pictures" if ending in pictures else "others"
        counts[kind] += 1
        if counts["others"] > _MOST_OTHERS + 2 * (counts["pictures"] + counts["tables"]):
            raise InputError(
                f"{root} holds thousands of files that are neither pictures nor tables: name the "
                "folder of the data itself"
            )
    return counts


def read_pictures(source: str, split: str, folder: PictureFolder) -> ImageData:
    """Decode the pictures of ``split``, which ``folder`` has.

    Raises:
        InputError: a picture lies in no class folder, or its class is none of the training's.
    """
    found = folder.splits[split]
    classes = _classes(folder, split)
    place = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([place[name] for name, _ in found])
    every = [path for pictures in folder.splits.values() for _, path in pictures]

    def decoded() -> torch.Tensor:
        others = (
            picture
            for name, pictures in folder.splits.items()
            if name != split
            for picture in _named(pictures)
        )
        return decode(source, list(_named(found)), others)

    pixels = cached_pixels(file_stamps(every), split, decoded)
    return ImageData(Path(source).expanduser().resolve().name, pixels, labels, tuple(classes))


def _named(pictures: list[tuple[str, Path]]) -> Iterator[Picture]:
    return ((str(path), path) for _, path in pictures)


def _classes(folder: PictureFolder, split: str) -> list[str]:
    """Return the class folders of the training split, or of all where there is none."""
    for name, path in folder.splits[split]:
        if not name:
            raise InputError(
                f"{path} lies in no folder of a class: put the pictures into "
                f"{path.parent.name}/CLASS/, one folder for each class"
            )
    trained = folder.splits.get("train", [each for p in folder.splits.values() for each in p])
    classes = sorted({name for name, _ in trained} - {""})
    for name, path in folder.splits[split]:
        if name not in classes:
            raise InputError(
                f"{path.parent} is a class that the training split lacks, which has "
                f"{', '.join(classes[:10]) or 'none'}: take it out, or add it there"
            )
    return classes


def _subfolders(root: Path) -> list[Path]:
    return sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        split = _NAMED.get(folder.name.lower())
        if split in found:
            raise InputError(
                f"{found[split]} and {folder} are both the split {split}: keep one of them"
            )
        if split is not None:
            found[split] = folder
    return found


def _pictures_in(split: Path) -> Iterator[tuple[str, Path]]:
    """Yield the class and path of every picture, in the order of their paths."""
    endings = _endings()
    for path in sorted(_files(split), key=lambda each: each.as_posix()):
        parts = path.relative_to(split).parts
        if path.suffix.lower() in endings:
            yield (parts[0] if len(parts) > 1 else ""), path


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files that are not hidden, through links to folders of classes too.

    Raises:
        InputError: one is a pipe or a device.
    """
    places = [folder]
    while places:
        place = places.pop()
        with os.scandir(place) as entries:
            shown = [entry for entry in entries if entry.name[0] != "."]
        # Links further down are not followed: they may lead in circles.
        places += [Path(e.path) for e in shown if e.is_dir(follow_symlinks=place == folder)]
        yield from (Path(entry.path) for entry in shown if _is_file(entry))


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Say whether it is no folder; a link that leads nowhere is a file that cannot be read."""
    if entry.is_dir():
        return False
    if not entry.is_file() and os.path.exists(entry.path):
        raise InputError(f"{entry.path} is no plain file: take it out")
    return True


def _endings() -> set[str]:
    """Return the endings of files that can be read as pictures."""
    return {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
