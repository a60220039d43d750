"""Random shifts and mirroring of the training images."""

from typing import NamedTuple

import torch
from torch import Tensor


class Shifts(NamedTuple):
    """How each image of a batch is moved: rows down, columns to the right, mirrored, each (N,)."""

    down: Tensor
    right: Tensor
    mirrored: Tensor


def draw_shifts(count: int, padding: int, generator: torch.Generator | None = None) -> Shifts:
    """Draw ``count`` shifts of 0 to 2 ``padding`` pixels, and which images are mirrored.

    >>> draw_shifts(2, 0).down.tolist()
    [0, 0]
    """

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    return Shifts(draw(2 * padding + 1), draw(2 * padding + 1), draw(2).bool())


def move(pixels: Tensor, shifts: Shifts, padding: int, flip: bool) -> Tensor:
    """Pad each image by ``padding`` zeros, cut it out again at its shift, mirror some.

    Args:
        pixels: (N, C, H, W), any type.
        shifts: of the N images, on the same device.
        padding: largest shift; 0 for none.
        flip: mirror the images that ``shifts`` names.

    >>> still = Shifts(torch.tensor([1]), torch.tensor([1]), torch.tensor([True]))
    >>> move(torch.tensor([[[[1, 2], [3, 4]]]]), still, 1, True).flatten().tolist()
    [2, 1, 4, 3]
    """
    count, _, height, width = pixels.shape
    rows = shifts.down[:, None] + torch.arange(height, device=pixels.device)
    columns = shifts.right[:, None] + torch.arange(width, device=pixels.device)
    if flip:
        columns = torch.where(shifts.mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(pixels, [padding] * 4)
    image = torch.arange(count, device=pixels.device)[:, None, None]
    # Indices on both sides of a slice put the channels last: bring them back.
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
