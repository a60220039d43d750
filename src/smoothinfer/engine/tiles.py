"""Tiles: parts of a batch of constant shapes, which run through a network one after the other."""

from collections.abc import Iterator

import torch

from smoothinfer.types import Images

_SMALLEST = 8


def tiles(images: Images, size: int) -> Iterator[tuple[Images, int]]:
    """Yield ``(tile, number of its own images)``; a tile is filled up by repeating its first image.

    Sizes are powers of two from 8 to ``size``: a rest is split where that wastes less.

    >>> [(len(tile), count) for tile, count in tiles(torch.rand(29, 1, 2, 2), 16)]
    [(16, 16), (16, 13)]
    >>> [(len(tile), count) for tile, count in tiles(torch.rand(27, 1, 2, 2), 16)]
    [(16, 16), (8, 8), (8, 3)]
    """
    at = 0
    while at < len(images):
        left = len(images) - at
        full = min(size, max(_SMALLEST, 1 << (left - 1).bit_length()))
        if left < full and full > _SMALLEST and left <= 0.75 * full:
            full //= 2
        part = images[at : at + full]
        filler = part[:1].expand(full - len(part), *part.shape[1:])
        tile = part if len(part) == full else torch.cat([part, filler])
        # The memory format of a single image is ambiguous: set it, or other kernels run.
        yield tile.contiguous(memory_format=torch.channels_last), len(part)
        at += full
