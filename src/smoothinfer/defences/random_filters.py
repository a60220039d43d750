"""Random projection filters: part of the first convolution is drawn afresh (Dong, Xu 2023)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.defences.random_module import RandomModule, replace_everywhere
from smoothinfer.errors import InputError, plain_float
from smoothinfer.noise.placement import own_weight
from smoothinfer.numerics.randomness import normal


class RandomFilters(RandomModule):
    """A convolution of which the last ``count`` filters are drawn in each pass.

    Drawn ones are N(0, 1 / k^2), k the kernel's side; the others w / (k std(w)), each by its own
    standard deviation.
    """

    def __init__(self, conv: nn.Conv2d, count: int) -> None:
        super().__init__()
        self.count, self.side = count, conv.kernel_size[0]
        self.frame, self.mode = conv._reversed_padding_repeated_twice, conv.padding_mode
        padding = conv.padding if self.mode == "zeros" else 0
        self.how = conv.stride, padding, conv.dilation, conv.groups
        kept = own_weight(conv, "the first").detach()[: conv.out_channels - count]
        self.weight = nn.Parameter(kept.clone())
        self.bias = conv.bias
        self.training = conv.training

    def filters(self) -> Tensor:
        """Return the filters of one pass."""
        learned = self.weight / (self.side * self.weight.std((1, 2, 3), keepdim=True) + 1e-12)
        shape = (self.count, *self.weight.shape[1:])
        drawn = normal(shape, self.weight, images=False) / self.side
        return torch.cat([learned, drawn])

    def forward(self, features: Tensor) -> Tensor:
        if self.mode != "zeros":
            features = F.pad(features, self.frame, mode=self.mode)
        return F.conv2d(features, self.filters().to(features), self.bias, *self.how)  # type: ignore[arg-type]


def projection_filters(network: nn.Module, share: float = 0.75) -> nn.Module:
    """Replace ``share`` of the first convolution's filters by ones drawn in each pass.

    The network is changed in place. It needs training: an adversarial one, in which the attack's
    draw is not that of the training pass, as everywhere in this package.

    Args:
        network: with a convolution.
        share: of its filters, between 0 and 1; the authors' 48 of 64.

    Raises:
        InputError: there is no convolution, or the share leaves no filter to draw or to keep.

    Source: Dong, Xu 2023, *Adversarial Robustness via Random Projection Filters*, CVPR, and the
    authors' code, whose scripts attack one frozen draw and test on another.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    >>> projection_filters(net)(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 2])
    """
    convs = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    plain_float("share", share, above=0, at_most=1)
    if not convs or isinstance(network, nn.Conv2d):
        raise InputError("the network holds no convolution whose filters could be drawn")
    conv = convs[0]
    if conv.weight[0].numel() < 2:
        raise InputError("filters of one number have no standard deviation")
    count = round(share * conv.out_channels)
    if not 0 < count < conv.out_channels:
        raise InputError(f"share {share:g} of {conv.out_channels} filters draws {count}")
    replace_everywhere(network, {conv: RandomFilters(conv, count)})
    return network
