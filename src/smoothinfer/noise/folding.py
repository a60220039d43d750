"""Batch normalisation folded into the convolutions before it: less memory traffic a pass.

In eval mode BN(W x + c) = (a W) x + (b + a (c - mean)) with a = gamma / sqrt(var + eps), so a noisy
weight takes the normalisation along, and the layer itself disappears.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from smoothinfer.models import Normalize
from smoothinfer.types import Images, Logits

Network = Callable[[Images], Logits]


class _Tracer(fx.Tracer):
    """Follow a module down to its layers; `Normalize` looks at shapes, so it is one."""

    def is_leaf_module(self, part: nn.Module, name: str) -> bool:
        return isinstance(part, Normalize) or super().is_leaf_module(part, name)


class Folding:
    """A plan to run ``module`` without its foldable batch normalisations.

    Args:
        module: as it is now; `fits` says whether the plan still holds.

    >>> module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> folding = Folding(module)
    >>> folding.pairs
    {'0': '1'}
    >>> images = torch.rand(1, 1, 4, 4)
    >>> torch.allclose(folding.network({})(images), module(images), atol=1e-6)
    True
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.parts = module, _parts(module)
        self.pairs = foldable(module)
        # Only its structure is used: every tensor comes from the module at each call.
        self.skeleton = copy.deepcopy(module).to("meta")
        for conv, norm in self.pairs.items():
            layer = self.skeleton.get_submodule(conv)
            channels = int(self.skeleton.get_submodule(norm).num_features)  # type: ignore[arg-type]
            layer.register_parameter("bias", nn.Parameter(torch.empty(channels, device="meta")))
            self.skeleton.set_submodule(norm, nn.Identity())

    def planned_for(self, module: nn.Module) -> bool:
        """Say whether ``module`` still has the layers and settings that the plan was made for."""
        return self.parts == _parts(module)

    def fits(self, module: nn.Module) -> bool:
        """Say whether the plan holds and folds anything, in eval mode and without hooks."""
        return (
            bool(self.pairs)
            and self.planned_for(module)
            and not any(
                part.training or part._forward_hooks or part._forward_pre_hooks
                for part in module.modules()
            )
        )

    def network(self, weights: Mapping[str, Tensor]) -> Network:
        """Return the network with ``weights`` in place of its own, normalisation folded in."""
        given = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        given |= weights
        for conv, norm in self.pairs.items():
            layer = self.module.get_submodule(norm)
            inner = {name: given.pop(f"{norm}.{name}", None) for name in _OF_NORM}
            scale = (inner["running_var"] + layer.eps).rsqrt()  # type: ignore[operator]
            if inner["weight"] is not None:
                scale = scale * inner["weight"]
            weight, bias = given[f"{conv}.weight"], given.get(f"{conv}.bias")
            shift = -inner["running_mean"] if bias is None else bias - inner["running_mean"]  # type: ignore[operator]
            shift = shift * scale if inner["bias"] is None else shift * scale + inner["bias"]
            given[f"{conv}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
            given[f"{conv}.bias"] = shift
        return partial(_call, self.skeleton, given)


_KNOWN = ("torch.nn.", "smoothinfer.models")
_SETTINGS = ("stride", "padding", "dilation", "groups", "padding_mode", "eps", "inplace")
_OF_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def foldable(module: nn.Module) -> dict[str, str]:
    """Return ``{convolution: batch normalisation}`` where the one feeds the other alone.

    Empty for a module with parts that are neither PyTorch's nor ours (their forward may have
    effects or settings that a plan would miss), with tied parameters, or that cannot be traced.
    """
    parameters = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    known = all(type(part).__module__.startswith(_KNOWN) for part in module.modules())
    if not known or len(set(parameters)) < len(parameters):
        return {}
    try:
        graph = _Tracer().trace(copy.deepcopy(module))
    except Exception:  # a tracer may fail in any way on somebody's forward
        return {}
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = {}
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm, conv = module.get_submodule(node.target), module.get_submodule(str(source.target))
        once = targets.count(node.target) == targets.count(source.target) == 1
        if once and len(source.users) == 1 and _foldable(conv, norm):
            pairs[str(source.target)] = node.target
    return pairs


def _foldable(conv: nn.Module, norm: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
    )


def _parts(module: nn.Module) -> list[tuple[object, ...]]:
    """Which layers there are, and how they are set."""
    return [
        (id(part), *(part.__dict__[name] for name in _SETTINGS if name in part.__dict__))
        for part in module.modules()
    ]


def _call(module: nn.Module, tensors: Mapping[str, Tensor], images: Images) -> Logits:
    return functional_call(module, dict(tensors), (images,))
