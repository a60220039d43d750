"""Run many members of a random network over images, in tiles of constant shape."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.models import check_eval
from smoothinfer.noise.member import member_of
from smoothinfer.numerics.precision import tile_for
from smoothinfer.types import Images, Logits

_SMALLEST = 8


def passes(
    model: nn.Module,
    images: Images,
    samples: int,
    seed: int,
    *,
    first: int = 0,
    tile: int | None = None,
    per_image: bool = False,
) -> Iterator[Logits]:
    """Yield the logits (N, K) of passes ``first`` to ``first + samples - 1``, without gradients.

    Args:
        model: a `NoisyModel`, or any random module, in eval mode.
        images: (N, C, H, W).
        samples: number of passes.
        seed: key of the ensemble.
        first: index of the first pass, so that a run can be continued.
        tile: images of one forward; by default what suits the device. Tiles are padded to
            constant shapes, since a convolution's last bits may depend on its batch's shape.
        per_image: input noise for every image of its own.

    Raises:
        InputError: batch normalisation is in training mode, so that a verdict would depend on
            the batch.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> len(list(passes(noisy, torch.rand(2, 1, 2, 2), samples=3, seed=0)))
    3
    """
    check_eval(model)
    size = tile_for(images) if tile is None else tile
    for s in range(first, first + samples):
        with torch.no_grad():
            member = member_of(model, seed, s, per_image)
            rows = [member(part)[:count] for part, count in tiles(images, size)]
        logits = torch.cat(rows)
        if not logits.isfinite().all():
            raise InputError(f"the model returned NaN or infinite logits in pass {s}")
        yield logits


def tiles(images: Images, size: int) -> Iterator[tuple[Images, int]]:
    """Yield ``(tile, how many of its images count)``; the rest repeats its first.

    The last tile is padded to the next power of two, from 8 to ``size``.

    >>> [(len(part), count) for part, count in tiles(torch.rand(11, 1, 2, 2), 8)]
    [(8, 8), (8, 3)]
    """
    for part in images.split(size):
        full = min(size, max(_SMALLEST, 1 << (len(part) - 1).bit_length()))
        filler = part[:1].expand(full - len(part), *part.shape[1:])
        yield (part if len(part) == full else torch.cat([part, filler])), len(part)
