"""Statistics over a whole batch that several processes share, on any device."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothinfer.numerics.randomness import parts_of_batch


@contextlib.contextmanager
def sync_batchnorm(model: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation in training mode takes its statistics over all processes.

    Every process then uses the statistics of the whole batch, as one process alone would. All
    must hold the same number of images. PyTorch's own `SyncBatchNorm` is for GPUs only.

    >>> with sync_batchnorm(nn.Sequential(nn.BatchNorm2d(2))):
    ...     pass
    """
    parts = [part for part in model.modules() if isinstance(part, _BatchNorm)]
    shared = distributed.is_available() and distributed.is_initialized()
    for part in parts if shared else ():
        part.forward = partial(_forward, part)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for part in parts if shared else ():
            del part.forward  # type: ignore[attr-defined]


def global_std(values: Tensor) -> Tensor:
    """Return the standard deviation of ``values`` over all processes that share a batch.

    Gradients flow through it, to the values of every process.

    >>> float(global_std(torch.tensor([1.0, 3.0])))
    1.4142135381698608
    """
    if parts_of_batch() == 1:
        return values.std()
    entries = values.numel() * distributed.get_world_size()
    centred = values - _mean(values.mean())
    return (_mean(centred.square().mean()) * entries / (entries - 1)).sqrt()


def _forward(norm: _BatchNorm, images: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, images)
    wide = images.float()
    axes = [axis for axis in range(wide.ndim) if axis != 1]
    shape = [1, -1] + [1] * (wide.ndim - 2)
    mean = _mean(wide.mean(axes))
    centred = wide - mean.view(shape)
    variance = _mean(centred.square().mean(axes))
    _update_running(norm, mean.detach(), variance.detach(), images.numel() // images.shape[1])
    scaled = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    return scaled.to(images.dtype)


def _update_running(norm: _BatchNorm, mean: Tensor, variance: Tensor, entries: int) -> None:
    """Move the running statistics as `nn.BatchNorm2d` does, with the unbiased variance."""
    if norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    step = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    entries *= distributed.get_world_size()
    norm.running_mean.lerp_(mean, step)
    norm.running_var.lerp_(variance * entries / max(1, entries - 1), step)


def _mean(value: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return summed / distributed.get_world_size()


class _Sum(torch.autograd.Function):
    """The sum over processes; each one's gradient is the sum of all, for all use it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        del ctx
        summed = value.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        del ctx
        summed = gradient.contiguous().clone()
        distributed.all_reduce(summed)
        return summed
