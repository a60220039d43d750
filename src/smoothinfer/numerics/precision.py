"""Which number format and which compiler this machine gains from, and a heap that stays warm."""

from __future__ import annotations

import ctypes
import functools
import platform

import torch
from torch import Tensor

from smoothinfer.errors import unknown

PRECISIONS = ("auto", "bf16", "fp32")
_CACHED_PIXELS = 64 * 32 * 32


def tile_for(images: Tensor) -> int:
    """Return how many images to run at once, a power of two from 8 to 1,024.

    On a CPU as many as keep a network's features in its cache: 64 of 32x32 pixels, on which
    ResNet-20 ran a third faster in fp32 than on 128 or more (two cores of an EPYC, Zen 3).

    >>> tile_for(torch.zeros(1, 3, 32, 32))
    64
    """
    height, width = images.shape[-2:]
    pixels = _CACHED_PIXELS if images.device.type == "cpu" else 16 * _CACHED_PIXELS
    return min(1024, max(8, 1 << (pixels // max(1, height * width)).bit_length() - 1))


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


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Return ``"bf16"`` or ``"fp32"``; ``"auto"`` takes the faster one on ``device``.

    >>> resolve_precision("fp32", "cpu")
    'fp32'
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    return "bf16" if has_bf16_units(torch.device(device).type) else "fp32"


def keep_heap_warm() -> bool:
    """Tell glibc to keep freed memory, so that a forward does not fault its pages in again.

    Worth 10 to 50 % of a small network's forward on a CPU. It is a setting of the whole
    process, so programs call it, the library does not. Returns whether it took effect.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # mallopt(3)
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    wanted = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 256 * 2**20))
    return all(mallopt(option, value) for option, value in wanted)
