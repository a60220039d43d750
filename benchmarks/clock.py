"""Timings that compare: every case in turn, again and again, so that all see the same machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from smoothinfer.numerics.precision import has_bf16_units


@dataclass(frozen=True)
class Timing:
    """Seconds of one case.

    Attributes:
        median, fastest, slowest: over the repeats.
        first: the run before them, with all that is made once.
    """

    median: float
    fastest: float
    slowest: float
    first: float


def compare(cases: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Timing]:
    """Time every case ``repeats`` times, in turn, after one run of each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, run in cases.items():
            begun = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begun)
    return {
        name: Timing(statistics.median(times), min(times), max(times), first)
        for name, (first, *times) in seconds.items()
    }


def matrix_rate(dtype: torch.dtype, device: str, repeats: int) -> float:
    """Return the FLOP/s of a 2048-cubed matrix product: the yardstick.

    Where bfloat16 is emulated, hundreds of times slower than fp32, a smaller one has to do.
    """
    emulated = dtype == torch.bfloat16 and not has_bf16_units(device)
    size = 256 if emulated else 2048
    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = compare({"product": lambda: one @ two}, repeats)["product"]
    return 2 * size**3 / timing.median


def machine(device: str) -> dict[str, str | int]:
    """Return what the figures depend on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    found: dict[str, str | int] = {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device != "cpu":
        found["gpu"] = torch.cuda.get_device_name()
    return found
