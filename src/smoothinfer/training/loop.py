"""One training loop on `accelerate`: named random streams, one state file, exact resume.

Every step draws from a stream named by its number, so the state of a run is its weights, its
momentum and a step count. Killed at any moment, it resumes from the last saved step and ends with
the same weights. Asked to stop (Ctrl-C, SIGTERM), it finishes the step in hand and saves it.
"""

import contextlib
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from smoothinfer.data import ImageData
from smoothinfer.errors import InputError
from smoothinfer.numerics.precision import default_precision
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, part_of_batch
from smoothinfer.numerics.sync_batchnorm import sync_batchnorm
from smoothinfer.runtime.progress import progress_bar
from smoothinfer.runtime.signals import RESUME, Stop, defer_signals, interruptible, received
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.training.averaging import make_average
from smoothinfer.training.batches import Batches
from smoothinfer.training.captured import Capture
from smoothinfer.training.compiling import COMPILE, compile_passes, record_step
from smoothinfer.training.history import ALARM, History
from smoothinfer.training.options import TrainingOptions, make_accelerator, make_optimizer
from smoothinfer.training.state import check_same_step, restore_state, save_state
from smoothinfer.training.step import StepLoss, TrainingStep

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
    capture: Capture | None = None,
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
        capture: records a step, see `CapturedWork`.

    Returns:
        The history of the run, with one entry in ``epochs`` for each epoch.

    Raises:
        InputError: the batch is larger than an epoch or cannot be shared evenly among the
            processes, the saved state does not fit, or loss or weights become infinite or NaN.
        Stop: a signal asked the training to stop; its state is saved.
    """
    run = Run(model, loss, data, options, out, identity, capture)
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
                    if run.history.collapsed and not run.history.warned:
                        console.print(ALARM, style="red")
            else:
                value = run.step()
                at = f"epoch {run.epoch}/{options.epochs}"
                at += "" if math.isnan(value) else f" loss {value:.3f}"  # not read yet
                shown.update(at, completed=run.history.step)
            run.stop_if_asked()
        if run.history.step < run.total:
            console.print(f"stopped early: {score} has not risen for {patience} epochs")
    run.accelerator.end_training()
    return run.history


class Run:
    """A training under way: the wrapped model, its optimizer and the history so far."""

    def __init__(
        self,
        model: nn.Module,
        loss: StepLoss,
        data: ImageData,
        options: TrainingOptions,
        out: Path,
        identity: Mapping[str, Any],
        capture: Capture | None,
    ) -> None:
        images = min(options.epoch_images or len(data), len(data))
        self.steps_per_epoch = images // options.batch_size
        self.total = options.epochs * self.steps_per_epoch
        if self.total < 1:
            raise InputError(
                f"batch_size {options.batch_size} and epochs {options.epochs} "
                f"leave no step to take on {images} images"
            )
        self.model, self.data, self.options = model, data, options
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
        recorded = COMPILE[options.compile][1]
        if recorded and self.accelerator.num_processes > 1:
            raise InputError(f"compile: {options.compile} is for one process: choose off or on")
        passes = compile_passes(model, options.compile)
        # The wrappers share the parameters: the bare model is validated and saved.
        self.running, self.optimizer = self.accelerator.prepare(passes, optimizer)
        device = self.accelerator.device
        part = self.accelerator.process_index, self.accelerator.num_processes
        self.batches = Batches(data, options, self.steps_per_epoch, device, part)
        step = TrainingStep(self.running, loss, self.optimizer, self.accelerator, options)
        self.take_step = record_step(step, options.compile, device, capture)
        # A recorded step is launched before the result of the one before it is read.
        self.unread: deque[tuple[int, Tensor]] = deque()
        self.in_flight = int(recorded)
        self.value, self.stopped = math.nan, False
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
        key = derive_seed(options.seed, "step", history.step)
        pixels, labels, shifts = self.batches.batch(history.step)
        self.running.train()
        with isolated_rng(derive_seed(key, "process", 0)):
            result = self.take_step(pixels, labels, *shifts, rate)
        for group in self.optimizer.param_groups:  # a recorded step had it as a tensor
            group["lr"] = rate * group["relative"]
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        history.step += 1
        self.unread.append((history.step, result))
        self.read_results(all_but=self.in_flight)
        history.step_seconds += time.monotonic() - begun
        self._update_clock()
        return self.value

    def read_results(self, all_but: int = 0) -> None:
        """Wait for the results of the steps taken; raise `InputError` if training diverged."""
        while len(self.unread) > all_but:
            number, result = self.unread.popleft()
            self.value, weight = result.tolist()
            if not math.isfinite(self.value):
                raise InputError(f"the loss is {self.value} at step {number}: {_REMEDY}")
            if not math.isfinite(weight):
                raise InputError(f"weights are {weight} after step {number}: {_REMEDY}")
            self.history.loss_sum += self.value

    def _update_clock(self) -> None:
        now = time.monotonic()
        self.history.seconds, self.clock = self.history.seconds + now - self.clock, now

    def finish_epoch(
        self, validate: Validate, save: Save, score: str, alarm: bool
    ) -> dict[str, float] | None:
        """Validate, write the checkpoints, and return the epoch's row of the table.

        ``None`` if a signal came: the resumed run validates the same weights again.
        """
        self.read_results()
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
        if due:
            self.read_results()
        if self.main and due:
            parts = self.model, self.optimizer, self.history, self.ema
            save_state(self.state_path, *parts, self.identity)
            self.saved_at = time.monotonic()
