"""How a training step runs: as it is, through the compiler, or recorded as a graph."""

import torch
from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.runtime.printable import error_line
from smoothinfer.training.captured import Capture, CapturedWork, Work
from smoothinfer.types import Images, Logits

# (passes are compiled, the step is recorded)
COMPILE = {
    "off": (False, False),
    "on": (True, False),
    "graphs": (False, True),
    "full": (True, True),
}


class CompiledPasses(nn.Module):
    """``model``, its passes run by ``torch.compile``: the training's own and those of the attack.

    The attack's passes run the folded plan of a `NoisyModel` where it has one (see `Plan`), and
    else the model as in training.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._compiled = (torch.compile(model, dynamic=False),)  # in a tuple: no part of this one
        self._planned = isinstance(model, NoisyModel) and model.compile_plans()

    def forward(self, images: Images) -> Logits:
        if not self.training and self._planned:
            return self.model(images)  # type: ignore[no-any-return]
        try:
            return self._compiled[0](images)  # type: ignore[no-any-return]
        except torch._dynamo.exc.TorchDynamoException as error:
            raise InputError(
                f"the network does not compile: {error_line(error)}: choose compile: off or graphs"
            ) from error


def compile_passes(model: nn.Module, compile: str) -> nn.Module:
    """Return a module that runs ``model``, with the same parameters, as ``compile`` says."""
    return CompiledPasses(model) if COMPILE[compile][0] else model


def record_step(
    work: Work, compile: str, device: torch.device, capture: Capture | None = None
) -> Work:
    """Return ``work``, or what records it, as ``compile`` says.

    Args:
        work: a step on ``device``.
        compile: a name in ``COMPILE``.
        device: where it runs.
        capture: see `CapturedWork`.

    Raises:
        InputError: it is to be recorded, and ``device`` is no GPU.
    """
    if not COMPILE[compile][1]:
        return work
    if device.type != "cuda" and capture is None:
        raise InputError(f"compile: {compile} needs a GPU: choose off or on")
    return CapturedWork(work, device, capture)
