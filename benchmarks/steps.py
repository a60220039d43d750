"""Steps of a training of this library, to be measured."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

import smoothinfer as si
from benchmarks.subject import RADIUS
from smoothinfer.data import ImageData
from smoothinfer.training.loop import Run
from smoothinfer.training.losses import adversarial
from smoothinfer.training.options import TrainingOptions

# Of one image in a step: 7 (1 + 1) in the attack, 2 (1 + 2) in the training passes.
FORWARDS = 20
_IMAGES = 4096


def training_step(
    model: nn.Module, batch: int, compile: str, precision: str = "auto", size: int = 32
) -> Callable[[], object]:
    """Return a function that takes one whole step: batch, PGD-7, loss, gradient, new weights.

    The steps before the first that is recorded are taken here. The function waits for the result
    of the step before its own, as a training does.
    """
    generator = torch.Generator().manual_seed(0)
    count = max(_IMAGES, batch)
    pixels = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 10
    data = ImageData("random", pixels, labels, tuple(map(str, range(10))))
    options = TrainingOptions(
        epochs=10**6, batch_size=batch, lr=0.01, clip=1.0, precision=precision, compile=compile
    )
    attack = partial(si.pgd, ball=si.Linf(RADIUS), steps=7, step_size=2 / 255, precision=precision)
    loss = partial(adversarial, attack=attack)
    run = Run(model, loss, data, options, Path(tempfile.mkdtemp()), {}, None)
    for _ in range(4 if run.in_flight else 0):
        run.step()
    return run.step
