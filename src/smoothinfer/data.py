"""Images as uint8 tensors in memory: any Hugging Face data set, local folder, .npz, or digits."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothinfer.errors import InputError, check_limit, unknown
from smoothinfer.numerics.randomness import stream
from smoothinfer.runtime.files import write_whole
from smoothinfer.runtime.progress import track
from smoothinfer.types import Images, Labels

SPLITS = ("train", "test")


@dataclass(frozen=True)
class ImageData:
    """A data set in memory.

    Attributes:
        name: of the data set.
        pixels: (N, C, H, W) uint8.
        labels: (N,) int64.
        classes: the K class names.
    """

    name: str
    pixels: Tensor
    labels: Labels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise InputError(
                f"{self.name}: pixels must be uint8 (N, C, H, W), "
                f"not {self.pixels.dtype} {tuple(self.pixels.shape)}"
            )
        if len(self.pixels) != len(self.labels):
            raise InputError(f"{self.name}: {len(self.pixels)} images, {len(self.labels)} labels")
        if len(self.labels) == 0:
            raise InputError(f"{self.name} holds no images")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{self.name}: labels range over [{low}, {high}], "
                f"but there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> ImageData:
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows])

    @functools.cached_property
    def images(self) -> Images:
        """All pixels as floats in [0, 1], converted once."""
        return to_float(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return tuple(self.pixels.shape[1:])  # type: ignore[return-value]

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 over pixels and labels, which identifies the data of a result."""
        digest = hashlib.sha256(repr(tuple(self.pixels.shape)).encode())
        digest.update(self.pixels.contiguous().numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def to_float(pixels: Tensor) -> Images:
    """Return uint8 pixels as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def load_data(source: str, split: str = "test", limit: int | None = None) -> ImageData:
    """Load a data set into memory; decoded pixels are cached for the next time.

    Args:
        source: ``"digits"``; a ``.npz`` file with ``x_train, y_train, x_test, y_test``; a
            folder (of Parquet files, or of images in ``train/CLASS/*.png``); or the name of
            a data set on the Hugging Face hub, such as ``"uoft-cs/cifar10"``.
        split: ``"train"`` or ``"test"``.
        limit: number of images to keep, the first ones.

    Raises:
        InputError: the source, its split or its columns cannot be found, or images differ in
            size.

    >>> load_data("digits", "test", limit=3).pixels.shape
    torch.Size([3, 1, 8, 8])
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    check_limit(limit)
    read = FORMATS.get(Path(source).suffix, _hugging_face)
    data = DATASETS[source](split) if source in DATASETS else read(source, split)
    return data if limit is None else data[:limit]


def hold_out(data: ImageData, count: int, seed: int = 0) -> tuple[ImageData, ImageData]:
    """Split off ``count`` random images for validation; return (training, validation) images.

    With one ``seed`` a smaller validation set is part of a larger one, so a model that is
    fine-tuned from another never trains on the images that validate it.

    >>> training, validation = hold_out(load_data("digits", "train"), 100)
    >>> len(validation)
    100
    """
    if not 1 <= count < len(data):
        raise InputError(
            f"cannot hold {count} of {len(data)} images out for validation: at least 1 must "
            "remain on either side"
        )
    training, validation = held_out_rows(len(data), count, seed)
    return data[training], data[validation]


def held_out_rows(images: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the rows of the training and of the validation images of `hold_out`."""
    order = torch.randperm(images, generator=stream(seed, "hold out"))
    return order[count:].sort().values, order[:count].sort().values


def images_of_training(data: ImageData, card: Mapping[str, Any]) -> ImageData | None:
    """Return the first images of ``data`` if a model was trained on them, else ``None``.

    Args:
        data: the training split.
        card: ``"images"``, ``"held_out"`` and ``"hash"`` of the model's card, or none of them.
    """
    count = card.get("images", 0) + card.get("held_out", 0)
    first = data[:count] if count else None  # the training may have used the first images only
    return first if first is not None and first.hash == card.get("hash") else None


def _digits(split: str) -> ImageData:
    """The 1,797 handwritten digits of scikit-learn, 8x8, every fifth one for the test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    test = torch.arange(len(labels)) % 5 == 0
    keep = test if split == "test" else ~test
    return ImageData("digits", pixels[keep], labels[keep], tuple("0123456789"))


def _npz(source: str, split: str) -> ImageData:
    if not Path(source).is_file():
        raise InputError(f"no such file: {source}")
    with np.load(source, allow_pickle=False) as arrays:
        keys = (f"x_{split}", f"y_{split}")
        missing = [key for key in keys if key not in arrays]
        if missing:
            raise InputError(f"{source} has no array {missing[0]!r}, only {sorted(arrays)}")
        pixels, labels = (arrays[key] for key in keys)
        every = [arrays[key] for key in arrays if key.startswith("y_")]
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.dtype != np.uint8:
        raise InputError(f"{source}: {keys[0]} must be uint8 pixels in 0..255, not {pixels.dtype}")
    count = int(max(y.max() for y in every)) + 1
    return ImageData(
        Path(source).stem,
        torch.from_numpy(np.ascontiguousarray(pixels)),
        torch.from_numpy(labels.reshape(-1).astype(np.int64)),
        tuple(str(k) for k in range(count)),
    )


def _hugging_face(source: str, split: str) -> ImageData:
    from datasets import load_dataset

    folder = Path(source)
    if source.startswith((".", "/", "~")) and not folder.expanduser().is_dir():
        raise InputError(f"no such folder: {source}")
    try:
        table = load_dataset(str(folder.expanduser()) if folder.is_dir() else source, split=split)
    except Exception as error:
        raise InputError(
            f"cannot load the {split} split of {source!r} ({error}): DATA is one of "
            f"{', '.join(DATASETS)}, a .npz file, a folder, or a name on the Hugging Face hub"
        ) from error
    image, label = _columns(source, table.features)
    cache = _cache_folder() / f"{hashlib.sha256(table._fingerprint.encode()).hexdigest()[:24]}.npy"
    classes = tuple(str(name) for name in table.features[label].names)
    labels = torch.tensor(table.with_format(None)[label][:], dtype=torch.int64)
    name = folder.resolve().name if folder.is_dir() else source
    return ImageData(name, _decoded(source, table, image, cache), labels, classes)


def _columns(source: str, features: Any) -> tuple[str, str]:
    """Name the image column and the finest label column."""
    from datasets import ClassLabel
    from datasets import Image as ImageFeature

    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    labels = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if not images or not labels:
        raise InputError(
            f"{source} needs an image column and a class-label column, "
            f"but has {', '.join(f'{name} ({kind})' for name, kind in features.items())}"
        )
    return images[0], max(labels, key=lambda name: features[name].num_classes)


def _decoded(source: str, table: Any, column: str, cache: Path) -> Tensor:
    """Decode every image once; the array is cached for the next time."""
    if cache.is_file():
        return torch.from_numpy(np.load(cache, allow_pickle=False))
    first = np.asarray(table[0][column])
    mode = "L" if first.ndim == 2 else "RGB"
    pictures: list[np.ndarray] = []
    for row in track(table, f"decoding {source}"):
        picture = np.asarray(row[column].convert(mode))
        if picture.shape[:2] != first.shape[:2]:
            raise InputError(
                f"{source}: image {len(pictures)} is {picture.shape[1]}x{picture.shape[0]}, the "
                f"first is {first.shape[1]}x{first.shape[0]}: resize them to one size first"
            )
        pictures.append(picture if picture.ndim == 3 else picture[..., None])
    pixels = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    write_whole(cache, lambda file: np.save(file, pixels))
    return torch.from_numpy(pixels)


def _cache_folder() -> Path:
    base = os.environ.get("SMOOTHINFER_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "smoothinfer"


DATASETS: dict[str, Callable[[str], ImageData]] = {"digits": _digits}
FORMATS: dict[str, Callable[[str, str], ImageData]] = {".npz": _npz}  # by the file's ending


def images_and_labels(data: ImageData | tuple[Images, Labels]) -> tuple[Images, Labels]:
    """Return the images (N, C, H, W) in [0, 1] and the labels (N,) of ``data``.

    Raises:
        InputError: it is neither an `ImageData` nor a pair.
    """
    if isinstance(data, ImageData):
        return data.images, data.labels
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError(
            f"data must be (images, labels) or the result of load_data, not {type(data).__name__}"
        )
    return data[0], data[1]
