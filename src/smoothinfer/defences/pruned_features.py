"""Stochastic activation pruning (Dhillon et al. 2018)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.errors import InputError, plain_float
from smoothinfer.numerics.randomness import hit_by_draws
from smoothinfer.types import Images, Logits

_RECTIFIERS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


def prune(features: Tensor, share: float) -> Tensor:
    """Keep h_j if one of r = share * n draws hits it, p_j = |h_j| / sum |h|.

    It is then divided by 1 - (1 - p_j)^r, its probability, so that the mean over draws is h.
    """
    flat = features.flatten(1)
    size = flat.detach().abs().float()  # fewer digits cannot count the draws
    total = size.sum(1, keepdim=True).clamp_min(1e-30)
    chance = torch.where(total > 1e-30, size / total, 1.0 / flat.shape[1])
    draws = max(1, round(share * flat.shape[1]))
    kept = -torch.expm1(draws * torch.log1p(-chance.clamp_max(1 - 1e-6)))
    factor = torch.where(hit_by_draws(chance, draws), 1 / kept.clamp_min(1e-12), 0.0)
    return (flat * factor.to(flat.dtype)).view_as(features)


class _Pruned(TorchFunctionMode):
    """Inside of it every rectifier prunes."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.met = share, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _RECTIFIERS:
            return func(*args, **(kwargs or {}))
        self.met, given = True, (*args, *(kwargs or {}).values())
        pruned = prune(given[0].relu(), self.share)
        in_place = func.__name__.endswith("_") or True in given[1:]
        return given[0].copy_(pruned) if in_place else pruned


class ActivationPruning(RandomModule):
    """The network with its rectified features pruned; see `activation_pruning`."""

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network, self.share, self.training = network, share, network.training

    def forward(self, images: Images) -> Logits:
        with _Pruned(self.share) as pruned:
            logits = self.network(images)
        if not pruned.met:
            raise InputError("the network has no rectifier behind which features could be pruned")
        return logits  # type: ignore[no-any-return]


def activation_pruning(network: nn.Module, share: float = 1.0) -> nn.Module:
    """Prune the features behind every rectifier by `prune`.

    Args:
        network: one with rectifiers; without any, the first pass raises InputError.
        share: draws of a layer as a share of its features; the authors' 100 %.

    Raises:
        InputError: ``share`` is not positive.

    Source: Dhillon et al. 2018, arXiv 1803.01442. Broken by Athalye et al. 2018 (to 0 %).

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> activation_pruning(net)(torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 2])
    """
    return ActivationPruning(network, plain_float("share", share, above=0, at_most=100))
