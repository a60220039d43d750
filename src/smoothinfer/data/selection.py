"""Which images of a split are used: some of each class, the first ones, or those held out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smoothinfer.data.images import ImageData
from smoothinfer.errors import InputError, plain_int
from smoothinfer.numerics.randomness import stream
from smoothinfer.types import Labels


def choose_rows(labels: Labels, limit: int | None, first: bool = False) -> Tensor:
    """Return the rows of ``limit`` images, in their order: the same rows for everybody.

    Each class keeps its share of the whole, rounded by largest remainder; its images come from
    the stream ``(0, "limit")``. A larger limit keeps the images of a smaller one, except where
    the rounding takes an image from a class (which shares of more than two classes may do).

    Args:
        labels: (N,) int64.
        limit: the number of images; ``None``, or more than there are, keeps all.
        first: take the first rows instead, for data in random order.

    Raises:
        InputError: the limit is not a whole number of at least 1.

    >>> choose_rows(torch.tensor([0] * 6 + [1] * 3), 3).tolist()  # two of the six, one of three
    [0, 3, 8]
    """
    limit = checked_limit(limit)
    if first or limit is None or limit >= len(labels):
        return torch.arange(len(labels))[:limit]
    generator = stream(0, "limit")
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # by class, within it in random order
    sizes = torch.bincount(labels)
    places = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
    return order[places < _shares(sizes, limit, generator)[labels[order]]].sort().values


def checked_limit(limit: int | None) -> int | None:
    """Return ``limit`` as an int, or ``None``.

    Raises:
        InputError: it is not a whole number of at least 1.

    >>> checked_limit(None) is None
    True
    """
    return None if limit is None else plain_int("limit", limit, at_least=1)


def _shares(sizes: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Return how many images of each class are kept; of equal remainders chance decides."""
    total = int(sizes.sum())
    whole, rest = sizes * limit // total, sizes * limit % total
    chance = torch.randperm(len(sizes), generator=generator)
    largest = chance[rest[chance].argsort(descending=True, stable=True)]
    whole[largest[: limit - int(whole.sum())]] += 1
    return whole


def choose_images(data: ImageData, limit: int | None, first: bool = False) -> ImageData:
    """Return the images of ``data`` that `choose_rows` names.

    >>> from smoothinfer.data import load_data
    >>> len(choose_images(load_data("digits"), 20))
    20
    """
    kept = choose_rows(data.labels, limit, first)
    return data if len(kept) == len(data) else data[kept]


def choice_name(limit: int | None, first: bool) -> str:
    """Return how images were chosen, for records: ``all``, ``first`` or ``by class``."""
    return "all" if limit is None else "first" if first else "by class"


def hold_out(data: ImageData, count: int, seed: int = 0) -> tuple[ImageData, ImageData]:
    """Split off ``count`` random images for validation; return (training, validation) images.

    With one ``seed`` a smaller validation set is part of a larger one, so a model that is
    fine-tuned from another never trains on the images that validate it.

    >>> from smoothinfer.data import load_data
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


def rows_of_training(data: ImageData, card: Mapping[str, Any]) -> Tensor | None:
    """Return the rows of ``data`` that a model was trained and validated on, else ``None``.

    The card counts the images; which they are is proved by the hash. Runs chose some of each
    class or the first ones, older runs the first ones only.

    Args:
        data: the training split.
        card: ``"images"``, ``"held_out"`` and ``"hash"`` of the model's card, or none of them.
    """
    counts = card.get("images", 0), card.get("held_out", 0)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    if not 0 < (count := sum(counts)) <= len(data):
        return None
    for first in (True,) if count == len(data) else (False, True):
        if choose_images(data, count, first).hash == card.get("hash"):
            return choose_rows(data.labels, count, first)
    return None


def images_of_training(data: ImageData, card: Mapping[str, Any]) -> ImageData | None:
    """Return the images that `rows_of_training` names, else ``None``."""
    rows = rows_of_training(data, card)
    return None if rows is None else data[rows]
