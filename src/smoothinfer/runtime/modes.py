"""The state that a model is run in: eval mode, no parameter gradients, its device, its classes."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smoothinfer.errors import InputError
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images

_DRAWING = re.compile(r"drop|rand|bernoulli|normal_?$|noise|rrelu|stochastic")  # functions' names
_NAMED = 3  # layers


def is_training(part: nn.Module) -> bool:
    """Say whether ``part`` is in training mode; a frozen TorchScript module has no mode."""
    return bool(getattr(part, "training", False))


def layers_of(model: nn.Module) -> list[nn.Module]:
    """Return ``model`` and all layers in it, in the order of ``model.modules()`` but sooner.

    >>> inner = nn.Sequential(nn.ReLU())
    >>> model = nn.Sequential(inner, nn.Flatten(), inner)
    >>> layers_of(model) == list(model.modules())
    True
    """
    found: dict[int, nn.Module] = {}
    left: list[nn.Module | None] = [model]
    while left:
        part = left.pop()
        if part is not None and id(part) not in found:
            found[id(part)] = part
            left += [*part._modules.values()][::-1]
    return list(found.values())


def device_of(model: nn.Module, otherwise: Tensor | None = None) -> torch.device:
    """Return the device of ``model``'s parameters; without any, that of ``otherwise``."""
    fallback = torch.device("cpu") if otherwise is None else otherwise.device
    return next((parameter.device for parameter in model.parameters()), fallback)


def count_classes(model: nn.Module, images: Images) -> int:
    """Return K, the number of logits with which ``model`` answers the first of ``images``.

    The global random generator stays as it was.

    Raises:
        InputError: the model fails on these images, or returns no (N, K) logits.

    >>> count_classes(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2))
    3
    """
    image = images[:1].to(device_of(model, images))
    with torch.no_grad(), isolated_rng(0):
        try:
            return logits_of(model, image).shape[1]
        except InputError:
            raise
        except Exception as error:  # a user's forward may fail in any way
            shown = f"{image.dtype} images of shape {tuple(image.shape[1:])}"
            message = " ".join(str(error).split())
            raise InputError(
                f"the model does not take {shown}: {type(error).__name__}: {message}"
            ) from error


def switch_to_eval(model: nn.Module) -> None:
    """Put ``model`` into eval mode, with a warning where that turns off noise of its layers.

    One that is in eval mode already stays as it is: dropout left on in it is meant to be random.
    """
    if not is_training(model):
        return
    if found := [each for each in model.named_modules() if _random_in_training_only(each[1])]:
        shown = [f"{name or 'the model'} ({type(part).__name__})" for name, part in found[:_NAMED]]
        shown += [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
        warnings.warn(
            "the model was in training mode, and is measured in eval mode without the noise of "
            f"{', '.join(shown)}: where it should stay on, {_remedy(found[0][0])}",
            stacklevel=3,
        )
    model.eval()


def _random_in_training_only(part: nn.Module) -> bool:
    """Say whether the code of a layer draws random numbers by its mode, as dropout's does."""
    code = getattr(type(part).forward, "__code__", None)
    names = code.co_names if code is not None else ()
    rate = getattr(part, "p", getattr(part, "dropout", None))
    draws = "training" in names and any(map(_DRAWING.search, names))
    return is_training(part) and draws and not (isinstance(rate, float | int) and rate == 0)


def _remedy(name: str) -> str:
    if not name:
        return "draw it in eval mode too, as by F.dropout(x, p, training=True)"
    layer = name if all(map(str.isidentifier, name.split("."))) else f"get_submodule({name!r})"
    return f"return a network that keeps it on in eval mode: net.eval(); net.{layer}.train()"


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run in eval mode (batch statistics fixed), then restore every submodule's own mode.

    A model that is in eval mode already stays as it is: dropout left on in it is meant to be
    random.
    """
    training = [part for part in model.modules() if is_training(part)]
    if is_training(model):
        model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def frozen_parameters(model: nn.Module) -> Iterator[None]:
    """Compute no parameter gradients inside: an attack needs the image's alone."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def attack_mode(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` computes no parameter gradients and its layers do not change.

    A noisy model then need not check at every pass whether a layer or its mode was exchanged.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(frozen_parameters(model))
        for part in model.modules():
            if isinstance(part, _HoldsLayers):
                stack.enter_context(part.hold_layers())
        yield


@runtime_checkable
class _HoldsLayers(Protocol):
    def hold_layers(self) -> contextlib.AbstractContextManager[None]: ...


def check_eval(model: nn.Module) -> None:
    """Raise `InputError` if batch normalisation or noise would make an image's answer depend on
    the rest of its batch.
    """
    for name, part in model.named_modules():
        if is_training(part) and getattr(part, "by_batch", False):
            raise InputError(
                f"{name!r} scales its noise by the whole batch in training mode, so a verdict "
                "would depend on the other images: call model.eval() (this noise stays on)"
            )
        if not isinstance(part, _BatchNorm):
            continue
        if part.training or part.running_mean is None:
            raise InputError(
                f"{name or 'the model'} normalises by the batch's own statistics, so a verdict "
                "would depend on the other images: call model.eval() (a NoisyModel's noise stays "
                "on; dropout does not: turn it on again after)"
                + ("" if part.training else " and track running statistics")
            )
