"""One step of a training, from a batch of pixels to new weights.

All that differs between two steps comes in as an argument, and nothing in it waits for the device:
so a GPU can record one step and replay it (`captured.py`). A CPU runs the same function.
"""

import contextlib
import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from smoothinfer.data import to_float
from smoothinfer.noise.penalties import penalty_of
from smoothinfer.training.augmentation import Shifts, move
from smoothinfer.training.options import TrainingOptions
from smoothinfer.types import Images, Labels

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class TrainingStep:
    """Augment, compute the loss, differentiate, clip, and move the weights.

    Args:
        running: the model as `accelerate` and the compiler wrap it, in training mode.
        loss: (model, images, labels) -> scalar.
        optimizer: over the parameters of ``running``.
        accelerator: of the training.
        options: of the loop.
    """

    def __init__(
        self,
        running: nn.Module,
        loss: StepLoss,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        options: TrainingOptions,
    ) -> None:
        self.running, self.loss, self.optimizer = running, loss, optimizer
        self.accelerator, self.options = accelerator, options

    def __call__(
        self,
        pixels: Tensor,
        labels: Labels,
        down: Tensor,
        right: Tensor,
        mirrored: Tensor,
        rate: Tensor | float,
    ) -> Tensor:
        """Take the step; return the mean loss and the largest weight after it, (2,).

        Args:
            pixels: (N, C, H, W) as uint8.
            labels: (N,).
            down, right, mirrored: the `Shifts` of the images.
            rate: learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        self.optimizer.zero_grad()
        moved = move(pixels, Shifts(down, right, mirrored), self.options.crop, self.options.flip)
        images = to_float(moved)
        if self.options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        loss = self._backward(images, labels)
        if self.options.clip:
            self.accelerator.clip_grad_norm_(self.running.parameters(), self.options.clip)
        self.optimizer.step()
        loss = self.accelerator.reduce(loss.detach(), reduction="mean")
        largest = get_total_norm(filter(torch.numel, self.running.parameters()), math.inf)
        return torch.stack([loss, largest.to(loss)]).detach()

    def _backward(self, images: Images, labels: Labels) -> Tensor:
        """Add up the gradients of the batch's parts; return the mean loss."""
        total, parts = torch.zeros((), device=images.device), self.options.accumulate
        pairs = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
        for number, (some, theirs) in enumerate(pairs, start=1):
            last = number == len(pairs)
            # Gradients of several processes need to be exchanged only once.
            sync = contextlib.nullcontext() if last else self.accelerator.no_sync(self.running)
            with sync:
                value = self.loss(self.running, some, theirs) + penalty_of(self.running)
                value = value * (len(some) / len(images))
                self.accelerator.backward(value)
            total = total + value.detach()
        return total
