"""Networks that other people wrote: they get a copy of their input, and their answer is checked."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from smoothinfer.errors import InputError
from smoothinfer.types import Images, Logits

_READERS = (_ConvNd, _BatchNorm, nn.Linear)  # layers that never write into their input
_VIEWS = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d)  # may return it


def logits_of(
    network: nn.Module, images: Images, weights: Mapping[str, Tensor] | None = None
) -> Logits:
    """Return the logits (N, K) of ``network``, called as one must call a stranger's code.

    It gets images in the format of its own weights, and a copy of them unless it is known not to
    write into its input: ``x.sub_(mean)`` would change the images of every later pass.

    Args:
        network: any module from images to logits.
        images: (N, C, H, W).
        weights: tensors to take instead of the network's own, by name.

    Raises:
        InputError: the answer is not one row of logits for each image.

    >>> logits_of(nn.Flatten(), torch.zeros(2, 3, 1, 1)).shape
    torch.Size([2, 3])
    """
    shown = own_images(network, images)
    answer = functional_call(network, dict(weights), shown) if weights else network(shown)
    logits = check_logits(answer, images)
    return logits if shown.dtype == images.dtype else logits.to(images.dtype)


def own_images(network: nn.Module, images: Images) -> Images:
    """Return ``images`` in the format of the network's weights, a copy where it might write."""
    dtype = dtype_of(network)
    if dtype is not None and dtype != images.dtype and images.is_floating_point():
        return images.to(dtype)
    return images if _only_reads(network) else images.clone()


def plain_module(module: nn.Module) -> nn.Module:
    """Return the module inside a wrapper for several GPUs, which runs copies without the noise.

    Raises:
        InputError: a lazy layer has not been run yet, so it has no weights.
    """
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise InputError(f"{name!r} has no size yet: run the network on a batch first")
    return module


def check_logits(logits: object, images: Images) -> Logits:
    """Return ``logits`` if they are one row of numbers for each of ``images``.

    Raises:
        InputError: they are not; the message says how to make them so.
    """
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returns a {type(logits).__name__}, not logits: wrap it in "
            "smoothinfer.LogitsOf(network, 'logits'), or whichever name or place they have in it"
        )
    if logits.ndim != 2 or len(logits) != len(images):
        remedy = ": end it with nn.Flatten()" if logits.ndim > 2 else ""
        raise InputError(
            f"the model must return (N, K) logits, ({len(images)}, K) for these images, not "
            f"{tuple(logits.shape)}{remedy}"
        )
    if not logits.is_floating_point():
        raise InputError(f"the model returns {logits.dtype}, not logits: return its last layer")
    return logits


def dtype_of(network: nn.Module) -> torch.dtype | None:
    """Return the floating-point format of the network's weights, ``None`` if it has none."""
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return None


def _only_reads(network: nn.Module) -> bool:
    """Say whether ``network`` is known not to write into its input."""
    if type(network).__module__.startswith("smoothinfer."):
        return True  # they call strangers through this module
    if isinstance(network, nn.Sequential):
        first = next((part for part in network if not isinstance(part, _VIEWS)), None)
        return first is None or _only_reads(first)
    return isinstance(network, _READERS)
