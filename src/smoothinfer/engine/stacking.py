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
from torch import Tensor, nn

from smoothinfer.numerics.precision import has_bf16_units


def _find_operator() -> Callable[..., Tensor] | None:
    """Return oneDNN's convolution with a step after it, where this build of torch has it."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_convolution_pointwise", None)


POINTWISE = _find_operator()
# Of oneDNN's kernels: with other numbers of channels groups may sum in another order.
_BLOCK = 16


@dataclass(frozen=True)
class Stacked:
    """One tensor for each network: (networks, *shape)."""

    each: Tensor

    def __len__(self) -> int:
        return len(self.each)


@dataclass(frozen=True)
class Packed:
    """The weights of one layer of many networks, laid out for many calls.

    Attributes:
        weight: opaque for a convolution, as oneDNN's kernel reads it; (networks, in, out) for a
            linear layer.
        networks: how many.
        dtype: of the weight.
    """

    weight: Tensor
    networks: int
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.networks


# No bias is `Packed`: it stands here since any tensor of a plan may be.
Bias = Tensor | Stacked | Packed | None


def pack(weight: Tensor, layer: nn.Module) -> Stacked | Packed:
    """Return weights (S, *shape) of ``layer`` in S networks, laid out for many calls if possible.

    A convolution lays its weights out at every call, which takes longer than the sums where
    networks are many and images few.
    """
    stacked, dtype = Stacked(weight.contiguous()), weight.dtype
    if isinstance(layer, nn.Linear):
        return Packed(weight.transpose(1, 2).contiguous(), len(weight), dtype)
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16_units("cpu"))
    if (
        POINTWISE is None
        or not isinstance(layer, nn.Conv2d)
        or layer.padding_mode != "zeros"
        or isinstance(layer.padding, str)
        or weight.device.type != "cpu"
        or not known
        or not _joins(stacked, layer.groups)
    ):
        return stacked
    settings = layer.padding, layer.stride, layer.dilation, len(weight), None
    laid_out = torch.ops.mkldnn._reorder_convolution_weight(stacked.each.flatten(0, 1), *settings)
    return Packed(laid_out, len(weight), dtype)


def _joins(weight: Stacked, groups: int) -> bool:
    """Say whether networks run as groups of one convolution, with the last bits of each alone."""
    return groups == 1 and weight.each.shape[1] % _BLOCK == 0 and weight.each.shape[2] > 1


def conv2d(
    rows: Tensor,
    weight: Stacked | Packed,
    bias: Bias,
    stride: Any,
    padding: Any,
    *more: Any,
    rectify: bool = False,
) -> Tensor:
    """``F.conv2d`` of many networks, and if asked the rectifier after it.

    >>> images, weights = torch.randn(6, 3, 5, 5), torch.randn(2, 4, 3, 3, 3)
    >>> stacked = conv2d(images, Stacked(weights), None, 1, 1, 1, 1)
    >>> alone = [F.conv2d(x, w, padding=1) for x, w in zip(images.split(3), weights)]
    >>> torch.allclose(stacked, torch.cat(alone), atol=1e-5)
    True
    """
    dilation, groups = more
    if isinstance(weight, Stacked) and not _joins(weight, groups):

        def run(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            rows_last = x.contiguous(memory_format=torch.channels_last)
            convolved = F.conv2d(rows_last, w, b, stride, padding, *more)
            return convolved.relu_() if rectify else convolved

        return one_by_one(run, rows, weight, bias, fewest=2)
    count = len(weight)
    # (s, i, c, h, w) -> (i, h, w, s, c): with channels last, oneDNN's kernels sum in one order,
    # groups or not.
    beside = rows.unflatten(0, (count, -1)).permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)
    joint = None if bias is None else _for_each(bias, count).flatten()
    if isinstance(weight, Packed):
        after = "relu" if rectify else "none"
        arguments: tuple[Any, ...] = (
            weight.weight,
            joint,
            padding,
            stride,
            dilation,
            count,
            after,
            [],
            "",
        )
        joined = POINTWISE(beside, *arguments)  # type: ignore[misc]
    else:
        every = weight.each.flatten(0, 1)
        joined = F.conv2d(beside, every, joint, stride, padding, dilation, count)
        joined = joined.relu_() if rectify else joined
    apart = joined.permute(0, 2, 3, 1).unflatten(3, (count, -1)).permute(3, 0, 1, 2, 4)
    return apart.flatten(0, 1).permute(0, 3, 1, 2)


def linear(rows: Tensor, weight: Tensor | Stacked | Packed, bias: Bias) -> Tensor:
    """``F.linear``, where the weight may be ``Stacked``."""
    if isinstance(weight, Tensor):
        assert bias is None or isinstance(bias, Tensor)
        return F.linear(rows, weight, bias)
    if isinstance(weight, Packed):
        found = torch.bmm(rows.unflatten(0, (len(weight), -1)), weight.weight)
        return (found if bias is None else found + bias).flatten(0, 1)  # type: ignore[operator]
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


def _for_each(tensor: Tensor | Stacked | Packed, count: int) -> Tensor:
    assert not isinstance(tensor, Packed)
    return tensor.each if isinstance(tensor, Stacked) else tensor.expand(count, *tensor.shape)
