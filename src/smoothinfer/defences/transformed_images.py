"""A random series of transforms of the images, in the manner of BaRT (Raff et al. 2019)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.errors import plain_int
from smoothinfer.types import Images, Logits


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _blur(images: Images) -> Tensor:
    share = _uniform(0.0, 0.8)
    padded = F.pad(images, [1] * 4, mode="replicate")
    return (1 - share) * images + share * F.avg_pool2d(padded, 3, stride=1)


def _zoom(images: Images) -> Tensor:
    height, width = images.shape[-2:]
    share = _uniform(0.85, 1.0)
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top = int(torch.randint(height - rows + 1, ()))
    left = int(torch.randint(width - columns + 1, ()))
    part = images[..., top : top + rows, left : left + columns]
    return F.interpolate(part, (height, width), mode="bilinear", align_corners=False)


TRANSFORMS: dict[str, Callable[[Images], Tensor]] = {
    "noise": lambda x: x + _uniform(0.0, 0.05) * torch.randn_like(x),
    "contrast": lambda x: torch.lerp(x.mean((1, 2, 3), keepdim=True), x, _uniform(0.7, 1.3)),
    "brightness": lambda x: x + _uniform(-0.1, 0.1),
    "gamma": lambda x: x.clamp(1e-3, 1) ** _uniform(0.7, 1.4),
    "grey": lambda x: x + _uniform(0.0, 1.0) * (x.mean(1, keepdim=True) - x),
    "blur": _blur,
    "shift": lambda x: x.roll(torch.randint(-2, 3, (2,)).tolist(), (-2, -1)),
    "zoom": _zoom,
}


class RandomTransforms(RandomModule):
    """The network behind random transforms; see `random_transforms`."""

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count
        self.training = network.training

    def forward(self, images: Images) -> Logits:
        for at in torch.randperm(len(TRANSFORMS))[: self.count].tolist():
            images = list(TRANSFORMS.values())[at](images).clamp(0, 1)
        return self.network(images)  # type: ignore[no-any-return]


def random_transforms(network: nn.Module, count: int = 3) -> nn.Module:
    """Apply ``count`` of eight differentiable transforms, in random order and of random strength.

    One choice serves a whole batch. BaRT has 25 transforms in ten groups, many without gradients;
    these are of the kind that Sitawarin et al. attack.

    Args:
        network: from pixels to logits.
        count: transforms in a pass, 1 to 8.

    Raises:
        InputError: ``count`` is out of range.

    Source: Raff et al. 2019, *Barrage of Random Transforms*, CVPR; Sitawarin et al. 2022,
    arXiv 2207.03574.

    >>> random_transforms(nn.Flatten())(torch.rand(2, 3, 4, 4)).shape
    torch.Size([2, 48])
    """
    plain_int("count", count, 1, len(TRANSFORMS))
    return RandomTransforms(network, count)
