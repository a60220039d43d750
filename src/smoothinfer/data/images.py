"""A data set in memory: uint8 pixels, labels and the names of the classes."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import TypeAlias

import torch
from torch import Tensor

from smoothinfer.errors import InputError, counted_from_one
from smoothinfer.types import Images, Labels

_SHOWN = 10  # images in a notebook


@dataclass(frozen=True, repr=False)
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
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise InputError(
                f"{self.name}: labels must be int64 class indices (N,), "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self.pixels) != len(self.labels):
            raise InputError(f"{self.name}: {len(self.pixels)} images, {len(self.labels)} labels")
        if self.pixels.numel() == 0:
            raise InputError(f"{self.name} holds no images")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{self.name}: labels range over [{low}, {high}], but must be 0 to "
                f"{len(self.classes) - 1}: there are {len(self.classes)} classes"
                f"{counted_from_one(low, high, len(self.classes))}"
            )

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImageData({self.name}: {len(self):,} images {shape}, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        """Return the first images, each with its class, for a notebook."""
        style = "display:inline-block;margin:2px;text-align:center;font-size:11px"
        pictures = [
            f'<span style="{style}"><img src="{_png(pixels)}" style="width:64px"><br>{name}</span>'
            for pixels, name in zip(
                self.pixels[:_SHOWN],
                (escape(self.classes[label]) for label in self.labels[:_SHOWN].tolist()),
                strict=True,
            )
        ]
        return f"<p>{escape(repr(self))}</p>{''.join(pictures)}"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> ImageData:
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows])

    def by_number(self) -> ImageData:
        """Return the same data without names of classes, which are then known by number alone."""
        return replace(self, classes=tuple(str(number) for number in range(len(self.classes))))

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


def _png(pixels: Tensor) -> str:
    """Return uint8 pixels (C, H, W) as the address of a PNG."""
    from PIL import Image

    array = pixels.permute(1, 2, 0).numpy()
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    file = io.BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def to_float(pixels: Tensor) -> Images:
    """Return uint8 pixels as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


Data: TypeAlias = ImageData | tuple[Images, Labels] | Iterable[tuple[Images, Labels]]


def images_and_labels(data: Data) -> tuple[Images, Labels]:
    """Return the images (N, C, H, W) in [0, 1] and the labels (N,) of ``data``.

    Raises:
        InputError: it is neither an `ImageData`, nor a pair, nor batches of pairs such as those of
            a ``DataLoader``.

    >>> batches = [(torch.rand(2, 1, 4, 4), torch.tensor([0, 1])) for _ in range(3)]
    >>> images_and_labels(batches)[0].shape
    torch.Size([6, 1, 4, 4])
    """
    if isinstance(data, ImageData):
        return data.images, data.labels
    if isinstance(data, tuple | list) and len(data) == 2 and not _is_pair(data[0]):
        return data[0], data[1]  # type: ignore[return-value]
    batches = list(data) if isinstance(data, Iterable) and not isinstance(data, Tensor) else []
    if not batches or not all(map(_is_pair, batches)):
        raise InputError(
            "data must be (images, labels), batches of these, or the result of load_data, not "
            f"{type(data).__name__}"
        )
    images, labels = zip(*batches, strict=True)
    if len({each.shape[1:] for each in images}) > 1:
        raise InputError("the batches hold images of several sizes")
    return torch.cat(images), torch.cat(labels)


def _is_pair(batch: object) -> bool:
    """Say whether ``batch`` is (images, labels), both tensors."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    return pair and all(isinstance(each, Tensor) for each in batch)  # type: ignore[attr-defined]
