"""The number format and the batch size that suit this machine."""

import contextlib
import contextvars
import functools
import os
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from smoothinfer.errors import InputError, unknown

PRECISIONS = ("auto", "bf16", "fp32")
BATCH_SIZE = "SMOOTHINFER_BATCH_SIZE"
VARIABLE = "SMOOTHINFER_PRECISION"  # the environment variable that sets "auto"
_DEFAULT: contextvars.ContextVar[str | None] = contextvars.ContextVar("precision", default=None)
_CACHED_PIXELS = 64 * 32 * 32


def batch_size() -> int | None:
    """Return the images to run at once by the variable ``SMOOTHINFER_BATCH_SIZE``, if it is set.

    Raises:
        InputError: it is no whole number of at least 1.
    """
    text = os.environ.get(BATCH_SIZE)
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None or int(text) < 1:
        raise InputError(f"{BATCH_SIZE} must be a whole number of at least 1, not {text!r}")
    return int(text)


def tile_for(images: Tensor, precision: str = "auto") -> int:
    """Return how many images to run at once in ``precision``, a power of two up to 1,024.

    The environment variable ``SMOOTHINFER_BATCH_SIZE`` says another number.

    On a CPU as many as keep a network's features in its cache. Of 32x32 pixels that is 64 in fp32,
    on which ResNet-20 ran a third faster than on 128 or more (two cores of an EPYC, Zen 3), and
    128 in bfloat16, on which its gradients ran a sixth faster than on 64 (Zen 5). At least 8, until
    images are so large that 8 hold more pixels than 8 of 256x256: memory then sets the bound.

    >>> tile_for(torch.zeros(1, 3, 32, 32), "fp32"), tile_for(torch.zeros(1, 3, 32, 32), "bf16")
    (64, 128)
    """
    if (chosen := batch_size()) is not None:
        return chosen
    height, width = images.shape[-2:]
    short = resolve_precision(precision, images.device) == "bf16"
    larger = 16 if images.device.type != "cpu" else 2 if short else 1
    pixels = larger * _CACHED_PIXELS
    area = max(1, height * width)
    least = max(1, min(8, 8 * larger * _CACHED_PIXELS // area))
    return min(1024, _power_of_two(max(least, pixels // area)))


def _power_of_two(number: int) -> int:
    """Return the largest power of two that is at most ``number``, which is at least 1."""
    return 1 << (number.bit_length() - 1)


@functools.cache
def has_bf16_units(device_type: str) -> bool:
    """Say whether ``device_type`` multiplies bfloat16 in hardware.

    Without such units a CPU emulates it, hundreds of times slower than fp32.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("amx_bf16") or able.get("avx512_bf16") or able.get("bf16"))
    return False


@functools.cache
def gains_from_bf16(device_type: str) -> bool:
    """Say whether ``device_type`` multiplies bfloat16 faster than fp32.

    Intel's AVX-512 does not: without AMX, or where a virtual machine hides it, a Xeon multiplied
    2048-cubed matrices at 166 GFLOP/s in bfloat16 and 310 in fp32 (AMD's Zen 5: 918 and 218).
    """
    if device_type != "cpu":
        return has_bf16_units(device_type)
    able = torch.cpu.get_capabilities()
    slow = "Intel" in str(able.get("cpu_name", "")) and not able.get("amx_bf16")
    return has_bf16_units("cpu") and not slow


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Return ``"bf16"`` or ``"fp32"``; ``"auto"`` takes the faster one on ``device``.

    The environment variable ``SMOOTHINFER_PRECISION`` sets ``"auto"`` for a whole program.

    Raises:
        InputError: the precision is unknown.

    >>> resolve_precision("fp32", "cpu")
    'fp32'
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "auto":
        precision = _DEFAULT.get() or os.environ.get(VARIABLE, "auto")
        if precision not in PRECISIONS:
            raise unknown(VARIABLE, precision, PRECISIONS)
    if precision != "auto":
        return precision
    return "bf16" if gains_from_bf16(torch.device(device).type) else "fp32"


@contextlib.contextmanager
def default_precision(precision: str) -> Iterator[None]:
    """Let ``"auto"`` mean ``precision`` inside, as in a training that was asked for fp32.

    >>> with default_precision("fp32"):
    ...     resolve_precision("auto", "cpu")
    'fp32'
    """
    token = _DEFAULT.set(None if precision == "auto" else precision)
    try:
        yield
    finally:
        _DEFAULT.reset(token)


@contextlib.contextmanager
def autocast_to(precision: str, device: torch.device) -> Iterator[None]:
    """Multiply in ``precision`` inside, through autocast."""
    short = resolve_precision(precision, device) == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=short):
        yield


def autocast_dtype(device_type: str) -> torch.dtype:
    """Return the format that autocast gives a convolution now; fp32 outside of autocast.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocast_dtype("cpu")
    torch.bfloat16
    """
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return torch.float32
