"""One training loop on `accelerate`: keyed randomness, one state file, exact resume.

Every step draws from a stream named by its number, so the state of a run is its weights, its
momentum and a step count; killed at any moment, it goes on from the last saved step and ends
with the same weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smoothinfer.data import ImageData, crop_and_flip, to_float
from smoothinfer.errors import InputError
from smoothinfer.files import write_whole
from smoothinfer.interrupts import TERMINATED, asked_to_stop, patient
from smoothinfer.numerics.precision import pinned
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.training.settings import Training, make_accelerator, make_optimizer

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]


@dataclass
class Progressed:
    """What a run remembers: the next step, the table of epochs, the extreme validation scores.

    ``loss_sum`` is over the steps of the epoch that runs.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    worst: float = math.inf
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
        save: (``"best"``, ``"last"`` or ``"worst"``, model, epoch's values) writes a checkpoint.
        score: the validated value that decides which epoch is best.

    Returns:
        The course of the run, one entry in ``epochs`` for each epoch.

    Raises:
        InputError: the batch is larger than the data or the saved state does not fit.
    """
    run = _Run(model, loss, data, settings, out)
    with patient(), pinned(settings.precision), _bar(run.main) as bar:
        task = bar.add_task("training", total=run.total, completed=run.course.step)
        while run.course.step < run.total and not run.exhausted(score):
            value = run.step()
            at = f"epoch {run.epoch}/{settings.epochs} loss {value:.3f}"
            bar.update(task, completed=run.course.step, description=at)
            if run.at_epoch_end:
                row = run.finish_epoch(validate, save, score)
                bar.console.print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
                if run.collapsed(score):
                    bar.console.print(_ALARM, style="red")
            run.keep(now=asked_to_stop())
            if asked_to_stop():
                raise SystemExit(TERMINATED)
    run.accelerator.end_training()
    return run.course


class _Run:
    """A training under way: the wrapped model, its optimizer and the course so far."""

    def __init__(
        self, model: nn.Module, loss: StepLoss, data: ImageData, settings: Training, out: Path
    ) -> None:
        self.steps_per_epoch = len(data) // settings.batch_size
        self.total = settings.epochs * self.steps_per_epoch
        if self.total < 1:
            raise InputError(
                f"batch_size {settings.batch_size} and epochs {settings.epochs} "
                f"leave no step to take on {len(data)} images"
            )
        self.model, self.loss, self.data, self.settings = model, loss, data, settings
        self.accelerator = make_accelerator(settings, out)
        self.main = self.accelerator.is_main_process
        optimizer = make_optimizer(model, settings)
        self.state = out / "state.pt"
        average = get_ema_multi_avg_fn(settings.ema)
        self.ema = (
            AveragedModel(model, multi_avg_fn=average, use_buffers=True) if settings.ema else None
        )
        self.course = (
            _restore(self.state, model, optimizer, self.ema)
            if self.state.exists()
            else Progressed()
        )
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        running = torch.compile(model) if self._compiles() else model
        # The wrappers share the parameters: whatever is saved or validated is the bare model.
        self.running, self.optimizer = self.accelerator.prepare(running, optimizer)
        self.order, self.order_of = torch.empty(0), -1
        self.saved = self.tick = time.monotonic()

    def _compiles(self) -> bool:
        pays = self.accelerator.device.type == "cuda"  # planned passes are as fast on a CPU
        return self.settings.compile == "on" or (self.settings.compile == "auto" and pays)

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

    def exhausted(self, score: str) -> bool:
        """Say whether the score has not risen for as long as patience lasts."""
        scores = [row[score] for row in self.course.epochs]
        patience = self.settings.patience
        return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience

    def collapsed(self, score: str) -> bool:
        """Say whether the score has lost half of its best: single-step training may do that."""
        return self.course.epochs[-1][score] < 0.5 * self.course.best

    def step(self) -> float:
        """Take one step and return its loss."""
        course, settings = self.course, self.settings
        rate = settings.lr * settings.schedule(course.step / self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        key = derive_seed(settings.seed, "step", course.step)
        images, labels = self._batch(key)
        self.running.train()
        self.optimizer.zero_grad()
        with isolated_rng(derive_seed(key, "process", self.accelerator.process_index)):
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
        course.seconds, self.tick = course.seconds + time.monotonic() - self.tick, time.monotonic()
        return told

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

    def finish_epoch(self, validate: Validate, save: Save, score: str) -> dict[str, float]:
        """Validate, write the checkpoints, and return the epoch's row of the table."""
        with isolated_rng(derive_seed(self.settings.seed, "validate", self.epoch - 1)):
            measured = validate(self.trained)
        row = {"epoch": self.epoch, "loss": self.course.loss_sum / self.steps_per_epoch, **measured}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["seconds"] = round(self.course.seconds, 1)
        self.course.epochs.append(row)
        self.course.loss_sum = 0.0
        kept = {"last": True, "best": row[score] > self.course.best}
        kept["worst"] = self.settings.keep_worst and row[score] < self.course.worst
        self.course.best = max(self.course.best, row[score])
        self.course.worst = min(self.course.worst, row[score])
        if self.main:
            for name in [name for name, wanted in kept.items() if wanted]:
                save(name, self.trained, row)
            _write_table(self.state.with_name("epochs.csv"), self.course.epochs)
        self.accelerator.log(row, step=self.epoch)
        return row

    def keep(self, now: bool = False) -> None:
        """Save the state, at the end of an epoch, when the last time is long ago, or ``now``."""
        late = now or time.monotonic() - self.saved > self.settings.save_seconds
        if self.main and (late or self.at_epoch_end):
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "course": asdict(self.course),
            }
            if self.ema is not None:
                state["ema"] = self.ema.state_dict()
            write_whole(self.state, lambda file: torch.save(state, file))
            self.saved = time.monotonic()


_ALARM = (
    "the score has lost half of its best: this looks like catastrophic overfitting, to which "
    "single-step attacks in training are prone; use more steps, or a smaller step_size or lr"
)


def _write_table(path: Path, epochs: list[dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for row in epochs for name in row))
    lines = [names, *([f"{row.get(name, '')}" for name in names] for row in epochs)]
    content = "".join(",".join(line) + "\n" for line in lines)
    write_whole(path, lambda file: file.write(content.encode()))


def _restore(path: Path, model: nn.Module, optimizer: Any, ema: AveragedModel | None) -> Progressed:
    state = torch.load(path, weights_only=True, map_location="cpu")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not fit this recipe: {error}") from error
    return Progressed(**state["course"])


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"))
    return Progress(*columns, TimeRemainingColumn(), disable=not shown)
