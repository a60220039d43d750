"""Several networks with different weights, run as one on the rows of one batch.

Row ``s * N + i`` is image i in network s. Layers whose weights differ between the networks run in
groups: a convolution becomes one with many groups. The last bits are those of each network alone,
since a verdict must not depend on how many passes share a forward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of oneDNN's kernels: with other numbers of channels groups may sum in another order.
_BLOCK = 16


@dataclass(frozen=True)
class Stacked:
    """One tensor for each network: (networks, *shape)."""

    each: Tensor

    def __len__(self) -> int:
        return len(self.each)


Bias = Tensor | Stacked | None


def conv2d(
    rows: Tensor, weight: Stacked, bias: Bias, stride: Any, padding: Any, *more: Any
) -> Tensor:
    """``F.conv2d`` of many networks.

    >>> images, weights = torch.randn(6, 3, 5, 5), torch.randn(2, 4, 3, 3, 3)
    >>> stacked = conv2d(images, Stacked(weights), None, 1, 1, 1, 1)
    >>> alone = [F.conv2d(x, w, padding=1) for x, w in zip(images.split(3), weights)]
    >>> torch.allclose(stacked, torch.cat(alone), atol=1e-5)
    True
    """
    dilation, groups = more
    same_order = weight.each.shape[1] % _BLOCK == 0 and weight.each.shape[2] > 1
    if groups > 1 or not same_order:

        def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            rows_last = x.contiguous(memory_format=torch.channels_last)
            return F.conv2d(rows_last, w, b, stride, padding, *more)

        return one_by_one(run, rows, weight, bias, fewest=2)
    count, channels = len(weight), weight.each.shape[1]
    # (s, i, c, h, w) -> (i, h, w, s, c): with channels last, oneDNN's kernels sum in one order,
    # groups or not.
    beside = rows.unflatten(0, (count, -1)).permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)
    joint = None if bias is None else _for_each(bias, count).flatten()
    joined = F.conv2d(beside, weight.each.flatten(0, 1), joint, stride, padding, dilation, count)
    apart = joined.permute(0, 2, 3, 1).unflatten(3, (count, channels)).permute(3, 0, 1, 2, 4)
    return apart.flatten(0, 1).permute(0, 3, 1, 2)


def linear(rows: Tensor, weight: Tensor | Stacked, bias: Bias) -> Tensor:
    """``F.linear``, where the weight may be ``Stacked``."""
    if isinstance(weight, Tensor):
        assert not isinstance(bias, Stacked)
        return F.linear(rows, weight, bias)
    return one_by_one(F.linear, rows, weight, bias, fewest=8)


def one_by_one(
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    rows: Tensor,
    weight: Stacked,
    bias: Bias,
    fewest: int,
) -> Tensor:
    """Run each network on its rows, at least ``fewest``: fewer would run another kernel."""
    parts = rows.unflatten(0, (len(weight), -1))
    images = parts.shape[1]
    if images < fewest:
        parts = torch.cat([parts, parts[:, :1].expand(-1, fewest - images, *parts.shape[2:])], 1)
    biases = [None] * len(weight) if bias is None else list(_for_each(bias, len(weight)))
    return torch.cat([run(*each)[:images] for each in zip(parts, weight.each, biases, strict=True)])


def _for_each(tensor: Tensor | Stacked, count: int) -> Tensor:
    return tensor.each if isinstance(tensor, Stacked) else tensor.expand(count, *tensor.shape)
