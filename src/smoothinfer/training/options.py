"""The options of a training, and the accelerator and optimizer that they set up."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from smoothinfer.config.components import Component
from smoothinfer.config.user_code import running_code
from smoothinfer.errors import InputError, plain_float, plain_int, unknown
from smoothinfer.noise.noisy_model import NOISE_PARTS
from smoothinfer.numerics.precision import resolve_precision
from smoothinfer.training.compiling import COMPILE
from smoothinfer.training.schedules import SCHEDULES

if TYPE_CHECKING:
    from accelerate import Accelerator

_NOT_NEGATIVE = (
    "lr", "noise_lr", "weight_decay", "clip", "crop", "noise_decay", "save_seconds"
)  # fmt: skip
_LARGEST = 1e30  # whose products fp32 still holds


@dataclass(frozen=True)
class TrainingOptions:
    """The options of the training loop.

    Attributes:
        seed: names every stream of random numbers.
        epochs: passes over the training images.
        epoch_images: most images of an epoch, drawn afresh for each; 0 for all. Short epochs
            are validated and saved more often, for a fine-tuning with an expensive attack.
        batch_size: images of one step, over all processes.
        lr: largest learning rate of SGD.
        momentum, nesterov, weight_decay: of SGD, as torch names them.
        noise_decay: weight decay of the learned noise; by default that of the weights.
        noise_lr: learning rate of the learned noise, relative to lr. Its gradient is far noisier
            than that of the weights: at equal rates |d| grows in a random walk.
        clip: largest global L2 norm of the gradient; 0 for no clipping.
        schedule: a component of ``SCHEDULES``: progress in [0, 1] -> factor of lr.
        crop: largest random shift in pixels.
        flip: mirror half of the images.
        precision: "auto", "bf16" (autocast) or "fp32".
        channels_last: memory format of the images.
        compile: how a step runs: "off", as it is; "on", its passes by `torch.compile`; "graphs",
            recorded once as a CUDA graph, for small networks on one GPU; "full", both.
        accumulate: parts of a batch that are forwarded one after the other, to save memory.
        ema: decay of an exponential moving average of the weights, which is then validated and
            saved; 0 for none.
        keep_worst: also keep the epoch with the lowest validation score, as ``"worst"``.
        patience: stop when the validation score has not risen for so many epochs; 0 for never.
        trackers: other places where accelerate logs the table of epochs, such as "tensorboard".
        save_seconds: time between saved states within an epoch.

    Raises:
        InputError: an option is unknown or out of range.
    """

    seed: int = 0
    epochs: int = 25
    epoch_images: int = 0
    batch_size: int = 128
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    noise_decay: float | None = None
    noise_lr: float = 1.0
    clip: float = 0.0
    schedule: Component = Component("one_cycle")
    crop: int = 4
    flip: bool = True
    precision: str = "auto"
    channels_last: bool = True
    compile: str = "off"
    accumulate: int = 1
    ema: float = 0.0
    keep_worst: bool = False
    patience: int = 0
    trackers: list[str] = dataclasses.field(default_factory=list)
    save_seconds: float = 120.0

    def __post_init__(self) -> None:
        plain_int("seed", self.seed)
        resolve_precision(self.precision, "cpu")
        if self.compile not in COMPILE:
            raise unknown("compile", self.compile, COMPILE)
        if self.batch_size < 1 or self.epochs < 1:
            raise InputError(f"batch_size {self.batch_size} and epochs {self.epochs} must be >= 1")
        if self.epoch_images < 0:
            raise InputError(f"epoch_images must be 0 or more, not {self.epoch_images}")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"{name} must be finite and not negative, not {value}")
            if value is not None and value > _LARGEST:
                raise InputError(f"{name} must be at most {_LARGEST:g}, not {value:g}")
        if not 1 <= self.accumulate <= self.batch_size or self.patience < 0:
            raise InputError(
                f"accumulate {self.accumulate} must lie between 1 and batch_size, and patience "
                f"{self.patience} must not be negative"
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must lie in [0, 1), not {self.ema}")
        if not 0 <= self.momentum < 1 or (self.nesterov and not self.momentum):
            raise InputError(f"momentum must lie in [0, 1), above 0 with nesterov: {self.momentum}")
        for quarter in range(5):  # an unknown or impossible schedule fails here
            self.learning_rate_at(quarter / 4)

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate when a share ``progress`` in [0, 1] of the run is done.

        Raises:
            InputError: the schedule fails there, or gives no finite number.
        """
        fault = f"schedule {self.schedule} fails at {progress:g} of the training"
        with running_code(fault):
            factor = self._schedule(progress)
            rate = self.lr * factor
        name = f"lr times the factor of schedule {self.schedule}"
        return plain_float(name, rate, at_least=-_LARGEST, at_most=_LARGEST)

    @functools.cached_property
    def _schedule(self) -> Callable[[float], float]:
        return self.schedule.bind("schedule", SCHEDULES, ("progress",))


def make_accelerator(options: TrainingOptions, out: Path) -> Accelerator:
    """Return an `accelerate.Accelerator` with the precision and trackers of ``options``.

    Raises:
        InputError: a tracker is not installed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    cpu_only = not torch.cuda.is_available()
    precision = resolve_precision(options.precision, "cpu" if cpu_only else "cuda")
    # The loss runs the network twice before one backward: a broadcast of buffers in between
    # would change tensors that the first pass still needs.
    no_broadcast = DistributedDataParallelKwargs(broadcast_buffers=False)
    # accelerate keeps one precision per process: let a second training choose its own.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(
            mixed_precision="bf16" if precision == "bf16" else "no",
            cpu=cpu_only,
            kwargs_handlers=[no_broadcast],
            log_with=list(options.trackers) or None,
            project_dir=out,
        )
    except ValueError as error:  # a name that accelerate does not know
        raise InputError(f"trackers {list(options.trackers)}: {error}") from error
    if options.trackers:
        accelerator.init_trackers(out.name)
    missing = set(options.trackers) - {tracker.name for tracker in accelerator.trackers}
    if accelerator.is_main_process and missing:
        raise InputError(f"trackers {sorted(missing)} are not installed")
    return accelerator


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """Return SGD over the weights and, with rates of its own, the learned noise."""
    named = list(model.named_parameters())
    weights = [p for name, p in named if not name.startswith(NOISE_PARTS)]
    noise = [p for name, p in named if name.startswith(NOISE_PARTS)]
    decay = options.weight_decay
    noise_decay = decay if options.noise_decay is None else options.noise_decay
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": decay, "relative": 1.0},
        {"params": noise, "weight_decay": noise_decay, "relative": options.noise_lr},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=options.lr,
        momentum=options.momentum,
        nesterov=options.nesterov,
        # Only the fused form reads a learning rate from a tensor without waiting for it.
        fused=True if COMPILE[options.compile][1] else None,
    )
