"""Random resizing and padding of the images (Xie et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import nn

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.errors import plain_float
from smoothinfer.types import Images, Logits


class ResizeAndPad(RandomModule):
    """The network on images of a random size at a random place; see `resize_and_pad`."""

    def __init__(self, network: nn.Module, growth: float) -> None:
        super().__init__()
        self.network, self.growth = network, growth
        self.training = network.training

    def forward(self, images: Images) -> Logits:
        height, width = images.shape[-2:]
        tall, wide = (max(side + 1, round(side * self.growth)) for side in (height, width))
        share = float(torch.rand(()))
        rows = height + int(share * (tall - height))
        columns = width + int(share * (wide - width))
        resized = F.interpolate(images, (rows, columns), mode="nearest")
        top = int(torch.randint(tall - rows + 1, ()))
        left = int(torch.randint(wide - columns + 1, ()))
        sides = left, wide - columns - left, top, tall - rows - top
        return self.network(F.pad(resized, sides))  # type: ignore[no-any-return]


def resize_and_pad(network: nn.Module, growth: float = 331 / 299) -> nn.Module:
    """Resize the images to s in [H, growth H) and pad them with zeros to growth H, at random.

    Args:
        network: takes images of any size.
        growth: more than 1; the authors' 299 pixels become 331.

    Raises:
        InputError: ``growth`` is not above 1.

    Source: Xie et al. 2018, *Mitigating Adversarial Effects Through Randomization*, ICLR,
    arXiv 1711.01991. Broken by Athalye et al. 2018 (0 % at 0.031 on ImageNet).

    >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> resize_and_pad(net)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    return ResizeAndPad(network, plain_float("growth", growth, above=1, at_most=8))
