"""Stochastic activation pruning (Dhillon et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.engine.tracing import LayerTracer
from smoothinfer.errors import InputError, plain_float
from smoothinfer.runtime.printable import error_line
from smoothinfer.types import Images, Logits

_RECTIFIERS = (F.relu, F.relu_, torch.relu, torch.relu_)
_METHODS = ("relu", "relu_")


def prune(features: Tensor, share: float) -> Tensor:
    """Keep the features that r draws with replacement hit, p_j = |h_j| / sum |h|; scale them up.

    h_j is kept where one of r = share * n draws hits it, and then divided by 1 - (1 - p_j)^r, the
    probability of that, so that the mean over draws is h.

    >>> prune(torch.zeros(1, 4), 1.0).tolist()
    [[0.0, 0.0, 0.0, 0.0]]
    """
    flat = features.flatten(1)
    size = flat.detach().abs().double()
    total = size.sum(1, keepdim=True)
    chance = torch.where(total > 0, size / total.clamp_min(1e-300), 1.0 / flat.shape[1])
    draws = max(1, round(share * flat.shape[1]))
    hit = torch.zeros_like(chance)
    hit.scatter_(1, torch.multinomial(chance, draws, replacement=True), 1.0)
    kept = -torch.expm1(draws * torch.log1p(-chance.clamp_max(1 - 1e-12)))
    factor = torch.where(hit > 0, 1 / kept.clamp_min(1e-12), 0.0).to(flat.dtype)
    return (flat * factor).view_as(features)


class ActivationPruning(RandomModule):
    """The network with its rectified features pruned; see `activation_pruning`."""

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network = fx.GraphModule(network, LayerTracer().trace(network))
        self.share, self.training = share, network.training
        found = [node for node in self.network.graph.nodes if self._rectifies(node)]
        if not found:
            raise InputError("the network has no rectifier behind which features could be pruned")
        for node in found:
            with self.network.graph.inserting_after(node):
                after = self.network.graph.call_function(prune, (node, share))
            node.replace_all_uses_with(after)
            after.args = (node, share)
        self.network.recompile()

    def _rectifies(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.network.get_submodule(str(node.target)), nn.ReLU)
        called = node.op == "call_function" and node.target in _RECTIFIERS
        return called or (node.op == "call_method" and node.target in _METHODS)

    def forward(self, images: Images) -> Logits:
        return self.network(images)  # type: ignore[no-any-return]


def activation_pruning(network: nn.Module, share: float = 1.0) -> nn.Module:
    """Prune the features behind every rectifier by `prune`.

    Args:
        network: one that `torch.fx` can trace.
        share: draws of a layer as a share of its features; the authors' 100 %.

    Raises:
        InputError: ``share`` is not positive, or the network cannot be traced.

    Source: Dhillon et al. 2018, arXiv 1803.01442. Broken by Athalye et al. 2018 (to 0 %).
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> activation_pruning(net)(torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 2])
    """
    plain_float("share", share, above=0, at_most=100)
    try:
        return ActivationPruning(network, share)
    except InputError:
        raise
    except Exception as error:  # a stranger's forward may fail in any way when traced
        raise InputError(f"torch.fx cannot trace the network: {error_line(error)}") from error
