"""One training loop on `accelerate`: named random streams, one state file, exact resume.

Every step draws from a stream named by its number, so the state of a run is its weights, its
momentum and a step count. Killed at any moment, it resumes from the last saved step and ends with
the same weights. Asked to stop (Ctrl-C, SIGTERM), it finishes the step in hand and saves it.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from smoothinfer.data import ImageData, to_float
from smoothinfer.errors import InputError
from smoothinfer.numerics.precision import default_precision
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, part_of_batch, stream
from smoothinfer.numerics.sync_batchnorm import sync_batchnorm
from smoothinfer.runtime.progress import progress_bar
from smoothinfer.runtime.signals import RESUME, Stop, defer_signals, interruptible, received
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.training.augmentation import crop_and_flip
from smoothinfer.training.averaging import make_average
from smoothinfer.training.cuda_graphs import compile_model
from smoothinfer.training.history import ALARM, History
from smoothinfer.training.options import TrainingOptions, make_accelerator, make_optimizer
from smoothinfer.training.state import check_same_step, restore_state, save_state

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
Save = Callable[[str, nn.Module, dict[str, Any]], None]

_REMEDY = "lower lr or set clip, for example --set lr=0.05 clip=1, with another --out"


def train(
    model: nn.Module,
    loss: StepLoss,
    data: ImageData,
    options: TrainingOptions,
    out: Path,
    validate: Validate,
    save: Save,
    score: str = "attacked",
    alarm: bool = True,
    identity: Mapping[str, Any] = MappingProxyType({}),
) -> History:
    """Train ``model`` in place; resume from ``out/state.pt`` where there is one.

    Args:
        model: on any device; it is moved to the accelerator's.
        loss: (model in training mode, images, labels) -> scalar.
        data: the training images.
        options: of the loop.
        out: folder of the run.
        validate: model -> measured values, after every epoch.
        save: (``"best"``, ``"last"`` or ``"worst"``, model, epoch's values) writes a checkpoint.
        score: the validated value that decides which epoch is best.
        alarm: say when accuracy under attack collapses, as it may in adversarial training.
        identity: plain values that the saved state keeps, see `read_identity`.

    Returns:
        The history of the run, with one entry in ``epochs`` for each epoch.

    Raises:
        InputError: the batch is larger than an epoch or cannot be shared evenly among the
            processes, the saved state does not fit, or loss or weights become infinite or NaN.
        Stop: a signal asked the training to stop; its state is saved.
    """
    run = _Run(model, loss, data, options, out, identity)
    console, patience = Terminal(quiet=not run.main), options.patience
    bar = progress_bar(
        "training", run.total, shown=run.main, completed=run.history.step, console=console
    )
    with defer_signals(), default_precision(options.precision), run.as_one_process(), bar as shown:
        while not run.finished(score):
            if run.lacks_validation:
                row = run.finish_epoch(validate, save, score, alarm)
                run.save_state(now=row is not None)
                if row is not None:
                    console.print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
                    if run.history.collapsed:
                        console.print(ALARM, style="red")
            else:
                value = run.step()
                at = f"epoch {run.epoch}/{options.epochs} loss {value:.3f}"
                shown.update(at, completed=run.history.step)
            run.stop_if_asked()
        if run.history.step < run.total:
            console.print(f"stopped early: {score} has not risen for {patience} epochs")
    run.accelerator.end_training()
    return run.history


class _Run:
    """A training under way: the wrapped model, its optimizer and the history so far."""

    def __init__(
        self,
        model: nn.Module,
        loss: StepLoss,
        data: ImageData,
        options: TrainingOptions,
        out: Path,
        identity: Mapping[str, Any],
    ) -> None:
        images = min(options.epoch_images or len(data), len(data))
        self.steps_per_epoch = images // options.batch_size
        self.total = options.epochs * self.steps_per_epoch
        if self.total < 1:
            raise InputError(
                f"batch_size {options.batch_size} and epochs {options.epochs} "
                f"leave no step to take on {images} images"
            )
        self.model, self.loss, self.data, self.options = model, loss, data, options
        self.accelerator = make_accelerator(options, out)
        self.main = self.accelerator.is_main_process
        if options.batch_size % self.accelerator.num_processes:
            raise InputError(
                f"batch_size {options.batch_size} cannot be shared evenly among "
                f"{self.accelerator.num_processes} processes"
            )
        model.to(self.accelerator.device)  # before anything holds or copies its parameters
        optimizer = make_optimizer(model, options)
        self.state_path, self.identity = out / "state.pt", identity
        self.ema = make_average(model, options.ema)
        self.history = restore_state(self.state_path, model, optimizer, self.ema)
        check_same_step(self.accelerator, self.history.step)
        if options.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.compile == "graphs" and self.accelerator.num_processes > 1:
            raise InputError("compile: graphs is for one process: choose off or on")
        compiled = compile_model(model, options.compile)
        # The wrappers share the parameters: the bare model is validated and saved.
        self.running, self.optimizer = self.accelerator.prepare(compiled, optimizer)
        self.order, self.order_of, self.stopped = torch.empty(0), -1, False
        self.saved_at = self.clock = time.monotonic()

    @property
    def epoch(self) -> int:
        """The epoch of the step just taken, from 1."""
        return -(-self.history.step // self.steps_per_epoch)

    @property
    def lacks_validation(self) -> bool:
        """Whether the last step ended an epoch that was not validated yet."""
        return len(self.history.epochs) < self.history.step // self.steps_per_epoch

    def finished(self, score: str) -> bool:
        """Say whether all steps were taken, or the score has not risen for long enough."""
        if self.lacks_validation:
            return False
        stopped = self.history.exhausted(score, self.options.patience)
        return self.history.step >= self.total or stopped

    @property
    def trained(self) -> nn.Module:
        """The model to validate and save: the trained one, or the average of its weights."""
        return self.model if self.ema is None else self.ema.module

    @contextlib.contextmanager
    def as_one_process(self) -> Iterator[None]:
        """Inside, several processes compute the result of one, from the same numbers."""
        part = self.accelerator.process_index, self.accelerator.num_processes
        with sync_batchnorm(self.model), part_of_batch(*part):
            yield

    def step(self) -> float:
        """Take one step and return its loss."""
        history, options, begun = self.history, self.options, time.monotonic()
        rate = options.learning_rate_at(history.step / self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        key = derive_seed(options.seed, "step", history.step)
        images, labels = self._batch(key)
        self.running.train()
        self.optimizer.zero_grad()
        with isolated_rng(derive_seed(key, "process", 0)):
            loss = self._backward(images, labels)
        if options.clip:
            self.accelerator.clip_grad_norm_(self.running.parameters(), options.clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        loss = self.accelerator.reduce(loss.detach(), reduction="mean")
        largest = get_total_norm(filter(torch.numel, self.model.parameters()), math.inf)
        value, weight = torch.stack([loss, largest.to(loss)]).tolist()  # one wait for a GPU
        if not math.isfinite(value):
            raise InputError(f"the loss is {value} at step {history.step + 1}: {_REMEDY}")
        if not math.isfinite(weight):
            raise InputError(f"weights are {weight} after step {history.step + 1}: {_REMEDY}")
        history.loss_sum += value
        history.step += 1
        history.step_seconds += time.monotonic() - begun
        self._update_clock()
        return value

    def _update_clock(self) -> None:
        now = time.monotonic()
        self.history.seconds, self.clock = self.history.seconds + now - self.clock, now

    def _backward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Add up the gradients of the batch's parts; return the mean loss."""
        total, parts = torch.zeros((), device=images.device), self.options.accumulate
        pairs = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
        for number, (some, theirs) in enumerate(pairs, start=1):
            last = number == len(pairs)
            # Gradients of several processes need to be exchanged only once.
            sync = contextlib.nullcontext() if last else self.accelerator.no_sync(self.running)
            with sync:
                value = self.loss(self.running, some, theirs) * (len(some) / len(images))
                self.accelerator.backward(value)
            total = total + value.detach()
        return total

    def _batch(self, key: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the step's batch, augmented."""
        options = self.options
        epoch, at = divmod(self.history.step, self.steps_per_epoch)
        if self.order_of != epoch:
            generator = stream(options.seed, "order", epoch)
            self.order, self.order_of = torch.randperm(len(self.data), generator=generator), epoch
        batch = self.data[self.order[at * options.batch_size :][: options.batch_size]]
        pixels = crop_and_flip(batch.pixels, options.crop, options.flip, stream(key, "augment"))
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        images = to_float(pixels[mine]).to(self.accelerator.device)
        if options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, batch.labels[mine].to(self.accelerator.device)

    def finish_epoch(
        self, validate: Validate, save: Save, score: str, alarm: bool
    ) -> dict[str, float] | None:
        """Validate, write the checkpoints, and return the epoch's row of the table.

        ``None`` if a signal came: the resumed run validates the same weights again.
        """
        history = self.history
        measured = [self._validate(validate) if self.main else None]
        broadcast_object_list(measured)
        self._update_clock()
        if measured[0] is None:
            self.stopped = True
            return None
        row = {"epoch": self.epoch, "loss": history.loss_sum / self.steps_per_epoch, **measured[0]}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        chance = 1 / len(self.data.classes) if alarm else math.inf
        checkpoints = history.finish_epoch(row, score, chance)
        row["seconds"] = round(history.seconds, 1)
        row["outside"] = round(1 - history.step_seconds / history.seconds, 4)
        if not self.options.keep_worst:
            checkpoints.discard("worst")
        if self.main:
            for name in sorted(checkpoints | {"last"}):
                save(name, self.trained, row)
            history.write_table(self.state_path.with_name("epochs.csv"))
        self.accelerator.log(row, step=self.epoch)
        return row

    def _validate(self, validate: Validate) -> dict[str, float] | None:
        key = derive_seed(self.options.seed, "validate", self.epoch - 1)
        try:
            with interruptible(), isolated_rng(key), part_of_batch(0, 1):
                return validate(self.trained)
        except Stop:
            return None
        except InputError as error:  # huge weights overflow only in the validation's attack
            at = f"validation after step {self.history.step}"
            raise InputError(f"{at}: {error}; if training diverged, {_REMEDY}") from error

    def stop_if_asked(self) -> None:
        """Save the state if it is time; raise `Stop` after the step in which a signal came.

        Several processes stop after the same step, whichever of them a signal has reached.
        """
        asked = self.stopped or received() > 0
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([int(asked)], device=self.accelerator.device)
            asked = bool(self.accelerator.gather(mine).any())
        self.save_state(now=asked)
        if asked:
            number = signal.Signals(received() or signal.SIGTERM)
            at = f"stopped after step {self.history.step} of {self.total}"
            raise Stop(number, f"{number.name}: {at}, {self.state_path} is saved; {RESUME}")

    def save_state(self, now: bool = False) -> None:
        """Save the state ``now``, or ``save_seconds`` after the last time."""
        due = now or time.monotonic() - self.saved_at > self.options.save_seconds
        if self.main and due:
            parts = self.model, self.optimizer, self.history, self.ema
            save_state(self.state_path, *parts, self.identity)
            self.saved_at = time.monotonic()
