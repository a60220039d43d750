"""Several networks with weights of their own, run as one: grouped convolutions under ``vmap``.

PyTorch's own batching rule adds the bias afterwards, with other last bits than a network alone
would give. This one keeps them: a verdict must not depend on how many passes share a forward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's kernels for other numbers of channels sum in another order once there are groups.
_BLOCK = 16


class SideBySideConv(torch.autograd.Function):
    """``F.conv2d`` (without gradients), which ``vmap`` turns into a grouped convolution.

    >>> weights, images = torch.randn(4, 16, 16, 3, 3), torch.randn(4, 2, 16, 5, 5)
    >>> bias = torch.randn(4, 16)
    >>> together = torch.vmap(lambda x, w, b: side_by_side_conv(x, w, b, 1, 1, 1, 1))
    >>> alone = torch.stack([F.conv2d(*each, padding=1) for each in zip(images, weights, bias)])
    >>> torch.allclose(together(images, weights, bias), alone, atol=1e-4)
    True
    """

    @staticmethod
    def forward(
        features: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any
    ) -> Tensor:  # settings: stride, padding, dilation, groups
        return F.conv2d(features, weight, bias, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: there is no backward."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *settings: Any,
    ) -> tuple[Tensor, int]:
        """Return (N, networks, C, H, W), the axis of the networks being 1."""
        count = info.batch_size
        features = _spread(features, in_dims[0], count, 1)
        weight = _spread(weight, in_dims[1], count, 0)
        bias = None if bias is None else _spread(bias, in_dims[2], count, 0)
        *same, groups = settings
        if groups > 1 or weight.shape[1] % _BLOCK or weight.shape[2] % _BLOCK:
            return _one_by_one(features, weight, bias, *settings), 1
        joint = None if bias is None else bias.flatten()
        stride, padding, dilation = same
        joined = features.flatten(1, 2), weight.flatten(0, 1), joint
        found = F.conv2d(*joined, stride, padding, dilation, groups=count)
        return found.unflatten(1, (count, -1)), 1


def side_by_side_conv(*args: Any) -> Tensor:
    """Call `SideBySideConv`: features, weight, bias, stride, padding, dilation, groups."""
    return SideBySideConv.apply(*args)  # type: ignore[no-untyped-call, no-any-return]


class SideBySideLinear(torch.autograd.Function):
    """``F.linear`` (without gradients), which ``vmap`` runs network by network."""

    @staticmethod
    def forward(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(features, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing: there is no backward."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, int]:
        """Return (networks, N, ..., classes)."""
        features = _spread(features, in_dims[0], info.batch_size, 0)
        weight = _spread(weight, in_dims[1], info.batch_size, 0)
        bias = None if bias is None else _spread(bias, in_dims[2], info.batch_size, 0)
        rows = features.shape[1]
        if rows == 1:  # a single row takes another kernel than all others
            features = features.expand(-1, 2, *features.shape[2:])
        found = [
            F.linear(features[s], weight[s], None if bias is None else bias[s])[:rows]
            for s in range(info.batch_size)
        ]
        return torch.stack(found), 0


def side_by_side_linear(*args: Any) -> Tensor:
    """Call `SideBySideLinear`: features, weight, bias."""
    return SideBySideLinear.apply(*args)  # type: ignore[no-untyped-call, no-any-return]


def _one_by_one(features: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Tensor:
    images = len(features)
    if images == 1:  # a batch of one image takes other kernels than all others
        features = features.expand(2, *features.shape[1:])
    found = [
        F.conv2d(features[:, s], weight[s], None if bias is None else bias[s], *settings)[:images]
        for s in range(len(weight))
    ]
    return torch.stack(found, 1)


def _spread(tensor: Tensor, axis: int | None, count: int, to: int) -> Tensor:
    if axis is None:
        shape = list(tensor.shape)
        return tensor.unsqueeze(to).expand(*shape[:to], count, *shape[to:])
    return tensor.movedim(axis, to)
