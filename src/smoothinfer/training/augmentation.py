"""Random shifts and mirroring of the training images."""

import torch
from torch import Tensor


def crop_and_flip(
    pixels: Tensor, padding: int, flip: bool, generator: torch.Generator | None = None
) -> Tensor:
    """Shift each image by up to ``padding`` pixels (zeros come in) and mirror half of them.

    Args:
        pixels: (N, C, H, W), any type.
        padding: largest shift; 0 for none.
        flip: mirror left and right with probability 1/2.
        generator: source of the shifts.

    >>> crop_and_flip(torch.ones(2, 3, 8, 8), 1, True).shape
    torch.Size([2, 3, 8, 8])
    """
    count, _, height, width = pixels.shape

    def draw(high: int) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    down, right, mirrored = draw(2 * padding + 1), draw(2 * padding + 1), draw(2).bool()
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    if flip:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(pixels, [padding] * 4)
    image = torch.arange(count)[:, None, None]
    # Indices on both sides of a slice put the channels last: bring them back.
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
