"""Random normalisation aggregation: each layer picks its normalisation (Dong et al. 2022)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smoothinfer.defences.random_module import RandomModule, replace_everywhere
from smoothinfer.errors import InputError, plain_int, plain_list


class RandomNorm(RandomModule):
    """Normalises by one of several layers, drawn in each pass; see `norm_aggregation`."""

    def __init__(self, batch: nn.BatchNorm2d, sizes: Sequence[int]) -> None:
        super().__init__()
        channels = batch.num_features
        if any(channels % min(size, channels) for size in sizes):
            raise InputError(f"{channels} channels cannot be split into groups of {list(sizes)}")
        groups = [channels // min(size, channels) for size in sizes]
        others = [nn.GroupNorm(each, channels).to(_like(batch)) for each in groups]
        for norm in others if batch.affine else ():  # all start from the same scale and shift
            norm.load_state_dict({"weight": batch.weight, "bias": batch.bias})
        self.choices = nn.ModuleList([batch, *others])
        self.training = batch.training

    def forward(self, features: Tensor) -> Tensor:
        drawn = int(torch.randint(len(self.choices), ()))
        if drawn == 0:
            return self.choices[0](features)  # type: ignore[no-any-return]
        # The kernel of group normalisation is four times slower on images with channels last.
        normalised = self.choices[drawn](features.contiguous())
        last = features.is_contiguous(memory_format=torch.channels_last)
        return normalised.contiguous(memory_format=torch.channels_last) if last else normalised


def _like(batch: nn.BatchNorm2d) -> Tensor:
    tensors = (*batch.parameters(), *batch.buffers(), torch.zeros(()))
    return next(each for each in tensors if each.is_floating_point())


def norm_aggregation(network: nn.Module, sizes: Sequence[int] = (1,)) -> nn.Module:
    """Let every batch normalisation and others in its place be chosen at random, layer by layer.

    Beside each batch normalisation stands one group normalisation for each of ``sizes``; all have
    the same chance in every layer and pass. The network is changed in place, and needs training.

    Args:
        network: with batch normalisation.
        sizes: channels in a group, at most all; the authors' 1 normalises each channel by itself.

    Raises:
        InputError: there is no batch normalisation, or a size does not divide its channels.

    Source: Dong et al. 2022, *Random Normalization Aggregation for Adversarial Defense*, NeurIPS,
    and the authors' code (``--random_type bn --gn_type gnr --mixed``), whose scripts attack one
    frozen choice and test on another.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    >>> norm_aggregation(net.eval())(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 2])
    """
    wanted = [plain_int("sizes", each, at_least=1) for each in plain_list("sizes", sizes)]
    found = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    if not found or not wanted or isinstance(network, nn.BatchNorm2d):
        raise InputError("the network needs batch normalisation, and at least one size beside it")
    replace_everywhere(network, {part: RandomNorm(part, wanted) for part in found})
    return network
