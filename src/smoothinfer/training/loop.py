"""One training loop on `accelerate`: keyed randomness, one state file, exact resume.

Every step draws from a stream named by its number, so the state of a run is its weights, its
momentum and a step count; killed at any moment, it goes on from the last saved step and ends
with the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from smoothinfer.data import ImageData, crop_and_flip, to_float
from smoothinfer.errors import InputError
from smoothinfer.files import write_whole
from smoothinfer.numerics.precision import has_bf16_units, resolve_precision
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]


@dataclass(frozen=True)
class Training:
    """The numbers of a training.

    Attributes:
        epochs: passes over the training images.
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
        compile: "auto" (where it pays: on GPUs and on CPUs with bf16 units), "on" or "off".
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
    compile: str = "auto"
    save_seconds: float = 120.0
    seed: int = 0


@dataclass
class Progressed:
    """What a run remembers: the next step, the table of epochs, the best validation score.

    ``loss_sum`` is over the steps of the epoch that runs.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    loss_sum: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)


def train(
    model: nn.Module,
    loss: StepLoss,
    data: ImageData,
    settings: Training,
    out: Path,
    validate: Validate,
    save: Save,
    score: str = "attacked",
) -> Progressed:
    """Train ``model`` in place; resume from ``out/state.pt`` where there is one.

    Args:
        model: on any device; it is moved to the accelerator's.
        loss: (model in training mode, images, labels) -> scalar.
        data: the training images.
        settings: the numbers.
        out: folder of the run.
        validate: model -> measured values, after every epoch.
        save: (``"best"`` or ``"last"``, model, epoch's values) writes a checkpoint.
        score: the validated value that decides which epoch is best.

    Returns:
        The course of the run, one entry in ``epochs`` for each epoch.

    Raises:
        InputError: the batch is larger than the data or the saved state does not fit.
    """
    steps_per_epoch = len(data) // settings.batch_size
    if steps_per_epoch == 0 or settings.epochs < 1:
        raise InputError(
            f"batch_size {settings.batch_size} and epochs {settings.epochs} "
            f"leave no step to take on {len(data)} images"
        )
    accelerator = _accelerator(settings)
    optimizer = _optimizer(model, settings)
    course = Progressed()
    if (out / "state.pt").exists():
        course = _restore(out / "state.pt", model, optimizer)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prepared, optimizer = accelerator.prepare(model, optimizer)
    running = _compiled(prepared, settings, accelerator.device)
    saved = tick = time.monotonic()
    total = settings.epochs * steps_per_epoch
    with _bar(accelerator) as bar:
        task = bar.add_task("training", total=total, completed=course.step)
        order = None
        while course.step < total:
            epoch, at = divmod(course.step, steps_per_epoch)
            if order is None or at == 0:
                order = torch.randperm(len(data), generator=stream(settings.seed, "order", epoch))
            rows = order[at * settings.batch_size :][: settings.batch_size]
            _set_rate(optimizer, settings.lr * settings.schedule(course.step / total))
            value = _step(running, loss, data[rows], optimizer, accelerator, settings, course.step)
            course.loss_sum += value
            course.step += 1
            course.seconds, tick = course.seconds + time.monotonic() - tick, time.monotonic()
            bar.update(
                task, advance=1, description=f"epoch {epoch + 1}/{settings.epochs} loss {value:.3f}"
            )
            if course.step % steps_per_epoch == 0:
                with isolated_rng(derive_seed(settings.seed, "validate", epoch)):
                    measured = validate(accelerator.unwrap_model(prepared))
                row = {"epoch": epoch + 1, "loss": course.loss_sum / steps_per_epoch, **measured}
                row |= {"lr": _rate(optimizer), "seconds": round(course.seconds, 1)}
                course.epochs.append(row)
                course.loss_sum = 0.0
                if accelerator.is_main_process:
                    _finish_epoch(accelerator.unwrap_model(prepared), course, row, save, score)
                    bar.console.print(_told(row))
            late = time.monotonic() - saved > settings.save_seconds
            if accelerator.is_main_process and (late or course.step % steps_per_epoch == 0):
                _save_state(out / "state.pt", accelerator.unwrap_model(prepared), optimizer, course)
                saved = time.monotonic()
    return course


def _accelerator(settings: Training) -> Accelerator:
    cpu_only = not torch.cuda.is_available()
    precision = resolve_precision(settings.precision, "cpu" if cpu_only else "cuda")
    return Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=cpu_only)


def _optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    noise = {
        id(parameter)
        for name, parameter in model.named_parameters()
        if name.startswith(("weight_noises.", "activation_noises.", "inputs."))
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


def _compiled(model: nn.Module, settings: Training, device: torch.device) -> nn.Module:
    wanted = settings.compile == "on" or (
        settings.compile == "auto" and has_bf16_units(device.type)
    )
    return torch.compile(model) if wanted else model  # type: ignore[return-value]


def _step(
    model: nn.Module,
    loss: StepLoss,
    batch: ImageData,
    optimizer: Any,
    accelerator: Accelerator,
    settings: Training,
    step: int,
) -> float:
    key = derive_seed(settings.seed, "step", step)
    pixels = crop_and_flip(batch.pixels, settings.crop, settings.flip, stream(key, "augment"))
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    images = to_float(pixels[mine]).to(accelerator.device)
    if settings.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = batch.labels[mine].to(accelerator.device)
    model.train()
    optimizer.zero_grad()
    with isolated_rng(derive_seed(key, "process", accelerator.process_index)):
        value = loss(model, images, labels)
        accelerator.backward(value)
    if settings.clip:
        accelerator.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    return float(value.detach())


def _set_rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["relative"]


def _rate(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _finish_epoch(
    model: nn.Module, course: Progressed, row: dict[str, float], save: Save, score: str
) -> None:
    save("last", model, row)
    if row[score] > course.best:
        course.best = row[score]
        save("best", model, row)


def _save_state(path: Path, model: nn.Module, optimizer: Any, course: Progressed) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "course": asdict(course),
    }
    write_whole(path, lambda file: torch.save(state, file))


def _restore(path: Path, model: nn.Module, optimizer: Any) -> Progressed:
    state = torch.load(path, weights_only=True, map_location="cpu")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not fit this recipe: {error}") from error
    return Progressed(**state["course"])


def _bar(accelerator: Accelerator) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    return Progress(*columns, TimeRemainingColumn(), disable=not accelerator.is_main_process)


def _told(row: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items())
