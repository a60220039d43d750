"""One training loop on `accelerate`: keyed randomness, one state file, exact resume.

Every step draws from a stream named by its number, so the state of a run is its weights, its
momentum and a step count; killed at any moment, it goes on from the last saved step and ends
with the same weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smoothinfer.data import ImageData, to_float
from smoothinfer.errors import InputError
from smoothinfer.runtime.signals import TERMINATED, asked_to_stop, patient
from smoothinfer.numerics.precision import pinned
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, part_of_batch, stream
from smoothinfer.numerics.sync_batchnorm import normalised_together
from smoothinfer.training.augmentation import crop_and_flip
from smoothinfer.training.history import ALARM, Course
from smoothinfer.training.cuda_graphs import quickened
from smoothinfer.training.options import Training, make_accelerator, make_optimizer
from smoothinfer.training.state import restore, save_state

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]


def train(
    model: nn.Module,
    loss: StepLoss,
    data: ImageData,
    settings: Training,
    out: Path,
    validate: Validate,
    save: Save,
    score: str = "attacked",
    alarm: bool = True,
) -> Course:
    """Train ``model`` in place; resume from ``out/state.pt`` where there is one.

    Args:
        model: on any device; it is moved to the accelerator's.
        loss: (model in training mode, images, labels) -> scalar.
        data: the training images.
        settings: the numbers.
        out: folder of the run.
        validate: model -> measured values, after every epoch.
        save: (``"best"``, ``"last"`` or ``"worst"``, model, epoch's values) writes a checkpoint.
        score: the validated value that decides which epoch is best.
        alarm: say when accuracy under attack collapses, as it may where attacks are trained on.

    Returns:
        The course of the run, one entry in ``epochs`` for each epoch.

    Raises:
        InputError: the batch is larger than an epoch or not to be shared out evenly among the
            processes, or the saved state does not fit.
    """
    run = _Run(model, loss, data, settings, out)
    told, patience = Console(quiet=not run.main, highlight=False), settings.patience
    with patient(), pinned(settings.precision), run.together(), _bar(told) as bar:
        task = bar.add_task("training", total=run.total, completed=run.course.step)
        while run.course.step < run.total and not run.course.exhausted(score, patience):
            value = run.step()
            at = f"epoch {run.epoch}/{settings.epochs} loss {value:.3f}"
            bar.update(task, completed=run.course.step, description=at)
            if run.at_epoch_end:
                row = run.finish_epoch(validate, save, score, alarm)
                told.print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
                if run.course.collapsed:
                    told.print(ALARM, style="red")
            run.keep(now=asked_to_stop())
            if asked_to_stop():
                raise SystemExit(TERMINATED)
        if run.course.step < run.total:
            told.print(f"stopped early: {score} has not risen for {patience} epochs")
    run.accelerator.end_training()
    return run.course


class _Run:
    """A training under way: the wrapped model, its optimizer and the course so far."""

    def __init__(
        self, model: nn.Module, loss: StepLoss, data: ImageData, settings: Training, out: Path
    ) -> None:
        images = min(settings.epoch_images or len(data), len(data))
        self.steps_per_epoch = images // settings.batch_size
        self.total = settings.epochs * self.steps_per_epoch
        if self.total < 1:
            raise InputError(
                f"batch_size {settings.batch_size} and epochs {settings.epochs} "
                f"leave no step to take on {images} images"
            )
        self.model, self.loss, self.data, self.settings = model, loss, data, settings
        self.accelerator = make_accelerator(settings, out)
        self.main = self.accelerator.is_main_process
        if settings.batch_size % self.accelerator.num_processes:
            raise InputError(
                f"batch_size {settings.batch_size} cannot be shared out evenly among "
                f"{self.accelerator.num_processes} processes"
            )
        model.to(self.accelerator.device)  # before anything holds or copies its parameters
        optimizer = make_optimizer(model, settings)
        self.state = out / "state.pt"
        average = partial(_moved, settings.ema)
        self.ema = (
            AveragedModel(model, multi_avg_fn=average, use_buffers=True) if settings.ema else None
        )
        self.course = restore(self.state, model, optimizer, self.ema)
        self._check_together()
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.compile == "graphs" and self.accelerator.num_processes > 1:
            raise InputError("compile: graphs is for one process: choose off or on")
        running = quickened(model, settings.compile)
        # The wrappers share the parameters: whatever is saved or validated is the bare model.
        self.running, self.optimizer = self.accelerator.prepare(running, optimizer)
        self.order, self.order_of = torch.empty(0), -1
        self.saved = self.tick = time.monotonic()

    def _check_together(self) -> None:
        """Refuse processes that go on from different steps: they would wait for each other."""
        mine = torch.tensor([self.course.step], device=self.accelerator.device)
        steps = sorted(set(self.accelerator.gather(mine).tolist()))
        if len(steps) > 1:
            raise InputError(
                f"the processes would go on from different steps, {steps}: --out must be a folder "
                "that all machines share"
            )

    @property
    def epoch(self) -> int:
        """The epoch of the step just taken, from 1."""
        return -(-self.course.step // self.steps_per_epoch)

    @property
    def at_epoch_end(self) -> bool:
        return self.course.step % self.steps_per_epoch == 0

    @property
    def trained(self) -> nn.Module:
        """What is validated and saved: the model, or the average of its weights."""
        return self.model if self.ema is None else self.ema.module

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, several processes compute what one alone would, from the same numbers."""
        part = self.accelerator.process_index, self.accelerator.num_processes
        with normalised_together(self.model), part_of_batch(*part):
            yield

    def step(self) -> float:
        """Take one step and return its loss."""
        course, settings, begun = self.course, self.settings, time.monotonic()
        rate = settings.lr * settings.schedule(course.step / self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        key = derive_seed(settings.seed, "step", course.step)
        images, labels = self._batch(key)
        self.running.train()
        self.optimizer.zero_grad()
        with isolated_rng(derive_seed(key, "process", 0)):
            value = self._backward(images, labels)
        if settings.clip:
            self.accelerator.clip_grad_norm_(self.running.parameters(), settings.clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        told = float(self.accelerator.reduce(value.detach(), reduction="mean"))
        if not math.isfinite(told):
            raise InputError(f"the loss is {told} at step {course.step}: lower lr, or set clip")
        course.loss_sum += told
        course.step += 1
        course.inside += time.monotonic() - begun
        self._look_at_the_clock()
        return told

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        self.course.seconds, self.tick = self.course.seconds + now - self.tick, now

    def _backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add up the gradients of the batch's parts; return the mean loss."""
        parts = self.settings.accumulate
        total = torch.zeros((), device=images.device)
        pairs = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
        for number, (some, theirs) in enumerate(pairs, start=1):
            last = number == len(pairs)
            # Gradients of several processes need to meet only once.
            quiet = contextlib.nullcontext() if last else self.accelerator.no_sync(self.running)
            with quiet:
                value = self.loss(self.running, some, theirs) * (len(some) / len(images))
                self.accelerator.backward(value)
            total = total + value.detach()
        return total

    def _batch(self, key: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the step's batch, augmented."""
        settings = self.settings
        epoch, at = divmod(self.course.step, self.steps_per_epoch)
        if self.order_of != epoch:
            generator = stream(settings.seed, "order", epoch)
            self.order, self.order_of = torch.randperm(len(self.data), generator=generator), epoch
        batch = self.data[self.order[at * settings.batch_size :][: settings.batch_size]]
        pixels = crop_and_flip(batch.pixels, settings.crop, settings.flip, stream(key, "augment"))
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        images = to_float(pixels[mine]).to(self.accelerator.device)
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, batch.labels[mine].to(self.accelerator.device)

    def finish_epoch(
        self, validate: Validate, save: Save, score: str, alarm: bool
    ) -> dict[str, float]:
        """Validate, write the checkpoints, and return the epoch's row of the table."""
        course = self.course
        measured = [self._measure(validate)] if self.main else [{}]
        broadcast_object_list(measured)
        self._look_at_the_clock()
        row = {"epoch": self.epoch, "loss": course.loss_sum / self.steps_per_epoch, **measured[0]}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        chance = 1 / len(self.data.classes) if alarm else math.inf
        deserved = course.finish_epoch(row, score, chance)
        row["seconds"] = round(course.seconds, 1)
        row["outside"] = round(1 - course.inside / course.seconds, 4)
        if not self.settings.keep_worst:
            deserved.discard("worst")
        if self.main:
            for name in sorted(deserved | {"last"}):
                save(name, self.trained, row)
            course.write_table(self.state.with_name("epochs.csv"))
        self.accelerator.log(row, step=self.epoch)
        return row

    def _measure(self, validate: Validate) -> dict[str, float]:
        key = derive_seed(self.settings.seed, "validate", self.epoch - 1)
        with isolated_rng(key), part_of_batch(0, 1):
            return validate(self.trained)

    def keep(self, now: bool = False) -> None:
        """Save the state, at the end of an epoch, when the last time is long ago, or ``now``."""
        late = now or time.monotonic() - self.saved > self.settings.save_seconds
        if self.main and (late or self.at_epoch_end):
            save_state(self.state, self.model, self.optimizer, self.course, self.ema)
            self.saved = time.monotonic()


def _moved(decay: float, averages: Any, current: Any, count: Any) -> None:
    """Move averages towards current values; slowly only once there have been many of them."""
    rate = min(decay, (1 + float(count)) / (10 + float(count)))
    get_ema_multi_avg_fn(rate)(averages, current, count)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    # Steps of a minute are no rarity: the time left is told from the last hour of them.
    how = {"console": console, "disable": console.quiet, "speed_estimate_period": 3600.0}
    return Progress(*columns, TimeRemainingColumn(), **how)  # type: ignore[arg-type]
