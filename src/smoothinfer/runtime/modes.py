"""The state that a model is run in: eval mode, no parameter gradients, one device."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothinfer.errors import InputError

_RECORDING: contextvars.ContextVar[bool] = contextvars.ContextVar("recording", default=False)


def device_of(model: nn.Module, otherwise: Tensor) -> torch.device:
    """Return the device of ``model``'s parameters; without any, that of ``otherwise``."""
    return next((p.device for p in model.parameters()), otherwise.device)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run in eval mode (batch statistics fixed), then restore every submodule's own mode.

    A model that is in eval mode stays as it is: dropout left on in it is meant to be random.
    """
    training = [part for part in model.modules() if part.training]
    if model.training:
        model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def parameters_frozen(model: nn.Module) -> Iterator[None]:
    """Ask for no parameter gradients inside: an attack needs the image's alone."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def under_attack(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` is only asked: no parameter gradients, and its layers stay as they are.

    Noisy models need not look at every pass whether somebody exchanged a layer or its mode.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(parameters_frozen(model))
        for part in model.modules():
            if isinstance(part, _Noisy):
                stack.enter_context(part.layers_held())
        yield


@contextlib.contextmanager
def recording() -> Iterator[None]:
    """Inside, a pass is recorded, to be replayed with other weights: it must read them afresh."""
    token = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(token)


def is_recorded() -> bool:
    """Say whether this pass is recorded or compiled, so that no copy of the weights may serve."""
    return _RECORDING.get() or torch.compiler.is_compiling()


@runtime_checkable
class _Noisy(Protocol):
    def layers_held(self) -> contextlib.AbstractContextManager[None]: ...


def check_eval(model: nn.Module) -> None:
    """Raise `InputError` if normalisation or noise by the batch would mix its images."""
    for name, part in model.named_modules():
        if part.training and getattr(part, "by_batch", False):
            raise InputError(
                f"{name!r} scales its noise by the whole batch in training mode, so a verdict "
                "would depend on the other images: call model.eval() (the noise stays on)"
            )
        if not isinstance(part, _BatchNorm):
            continue
        if part.training or part.running_mean is None:
            raise InputError(
                f"{name or 'the model'} is batch normalisation by the batch's own statistics, so a "
                "verdict would depend on the other images: call model.eval() (the noise stays on)"
                + ("" if part.training else " and track running statistics")
            )
