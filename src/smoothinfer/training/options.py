"""The numbers of a training, and what they set up: the accelerator and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from smoothinfer.errors import InputError, unknown
from smoothinfer.noise.noisy_model import NOISE_PARTS
from smoothinfer.numerics.precision import resolve_precision

COMPILE = ("off", "on", "graphs")


@dataclass(frozen=True)
class Training:
    """The numbers of a training.

    Attributes:
        epochs: passes over the training images.
        epoch_images: images of an epoch at most, drawn afresh for each; 0 for all. Short epochs
            are judged and kept more often, as a fine-tuning with a dear attack may want it.
        batch_size: images of one step, over all processes.
        lr, momentum, nesterov, weight_decay: of SGD.
        noise_decay: weight decay of the learned noise; by default that of the weights.
        noise_lr: learning rate of the learned noise, relative to lr. Its gradient is far noisier
            than that of the weights: at equal rates |d| grows in a random walk.
        clip: largest global L2 norm of the gradient; 0 for no clipping.
        schedule: progress in [0, 1] -> factor of lr.
        crop: largest random shift in pixels.
        flip: mirror half of the images.
        precision: "auto", "bf16" (autocast) or "fp32".
        channels_last: memory format of the images.
        compile: how the passes of a step run: "off", as they are; "on", by `torch.compile`;
            "graphs", recorded once as CUDA graphs, for small networks on one GPU.
        accumulate: parts of a batch that are forwarded one after the other, to save memory.
        ema: decay of an exponential moving average of the weights, which is then validated and
            saved; 0 for none.
        keep_worst: also keep the epoch with the lowest validation score, as ``"worst"``.
        patience: stop when the validation score has not risen for so many epochs; 0 for never.
        trackers: what accelerate also logs the table of epochs to, such as "tensorboard".
        save_seconds: how often the state is saved within an epoch.
        seed: names every stream of random numbers.
    """

    epochs: int
    batch_size: int
    lr: float
    schedule: Callable[[float], float]
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    noise_decay: float | None = None
    noise_lr: float = 1.0
    clip: float = 0.0
    crop: int = 4
    flip: bool = True
    precision: str = "auto"
    channels_last: bool = True
    compile: str = "off"
    accumulate: int = 1
    ema: float = 0.0
    keep_worst: bool = False
    patience: int = 0
    trackers: tuple[str, ...] = ()
    save_seconds: float = 120.0
    epoch_images: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        resolve_precision(self.precision, "cpu")
        if self.compile not in COMPILE:
            raise unknown("compile", self.compile, COMPILE)
        if self.batch_size < 1 or self.epochs < 1:
            raise InputError(f"batch_size {self.batch_size} and epochs {self.epochs} must be >= 1")
        if self.epoch_images < 0:
            raise InputError(f"epoch_images must be 0 or more, not {self.epoch_images}")
        for name in ("lr", "noise_lr", "weight_decay", "clip", "crop", "noise_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and not negative, not {value}")
        if not 1 <= self.accumulate <= self.batch_size or self.patience < 0:
            raise InputError(
                f"accumulate {self.accumulate} must lie between 1 and batch_size, and patience "
                f"{self.patience} must not be negative"
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must lie in [0, 1), not {self.ema}")
        if not 0 <= self.momentum < 1 or (self.nesterov and not self.momentum):
            raise InputError(f"momentum must lie in [0, 1), above 0 with nesterov: {self.momentum}")


def make_accelerator(settings: Training, out: Path) -> Accelerator:
    """Return accelerate's view of the machine, with the precision and trackers of ``settings``.

    Raises:
        InputError: a tracker is not installed.
    """
    cpu_only = not torch.cuda.is_available()
    precision = resolve_precision(settings.precision, "cpu" if cpu_only else "cuda")
    # The loss runs the network twice before one backward: a broadcast of buffers in between
    # would change what the first run still needs.
    once = DistributedDataParallelKwargs(broadcast_buffers=False)
    mixed = "bf16" if precision == "bf16" else "no"
    # accelerate keeps one precision a process: let a second training choose its own.
    AcceleratorState._reset_state()
    try:
        made = Accelerator(
            mixed_precision=mixed,
            cpu=cpu_only,
            kwargs_handlers=[once],
            log_with=list(settings.trackers) or None,
            project_dir=out,
        )
    except ValueError as error:  # of a name that accelerate does not know
        raise InputError(f"trackers {list(settings.trackers)}: {error}") from error
    if settings.trackers:
        made.init_trackers(out.name)
    missing = set(settings.trackers) - {tracker.name for tracker in made.trackers}
    if made.is_main_process and missing:
        raise InputError(f"trackers {sorted(missing)} are not installed")
    return made


def make_optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Return SGD over the weights and, with rates of its own, the learned noise."""
    noise = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith(NOISE_PARTS)
    }
    decay = settings.weight_decay
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in model.parameters() if id(p) not in noise],
            "weight_decay": decay,
            "relative": 1.0,
        },
        {
            "params": [p for p in model.parameters() if id(p) in noise],
            "weight_decay": decay if settings.noise_decay is None else settings.noise_decay,
            "relative": settings.noise_lr,
        },
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )
