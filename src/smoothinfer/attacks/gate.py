"""The gate of every attack: whatever a caller brings becomes something that an attack can rely on.

Images come in without history, in a format that takes small steps; numbers of numpy and torch
become plain ones; gradients are computed also under ``torch.inference_mode``.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from smoothinfer.attacks.kept_stages import keep_stages
from smoothinfer.errors import InputError, check_images, check_labels, check_type, python_number
from smoothinfer.numerics.balls import Ball, Linf, check_ball, is_eight_bit, pick_images
from smoothinfer.numerics.precision import batch_size, resolve_precision
from smoothinfer.numerics.recording import is_recording
from smoothinfer.runtime.foreign import dtype_of, logits_of
from smoothinfer.runtime.modes import check_eval, is_training
from smoothinfer.runtime.out_of_memory import OUT_OF_MEMORY, is_out_of_memory
from smoothinfer.types import Images, Labels, Logits

Attack = TypeVar("Attack", bound=Callable[..., Images])
_INSIDE = ContextVar("inside", default=False)


def gated(attack: Attack, by_gradient: bool = True) -> Attack:
    """Return ``attack`` behind the gate, with one more option.

    ``quantize=True`` gives adversarial images of 8 bits, as a picture file holds them: the attack
    sees the model behind the rounding, so that what it finds counts after it, and its points are
    rounded inside the ball. ``objective=`` is the old name of ``loss=``.

    Args:
        attack: of (model, images, labels, ball, options).
        by_gradient: whether it needs the model's gradient, or its answers alone.

    Raises:
        InputError: images, labels, ball or model are malformed, or with ``quantize`` the images
            have more than 8 bits.

    >>> @gated
    ... def nothing(model, images, labels, ball, *, steps: int = 7):
    ...     return images
    >>> images = torch.rand(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    >>> found = nothing(nn.Flatten(), images, torch.tensor([0, 1]), Linf(0.1), steps=3)
    >>> found.dtype, found.requires_grad
    (torch.float64, False)
    """

    @functools.wraps(attack)
    def behind_gate(
        model: nn.Module,
        images: Images,
        labels: Labels,
        ball: Ball,
        *,
        quantize: bool = False,
        **options: Any,
    ) -> Images:
        if _INSIDE.get():  # an attack that is part of another one
            return attack(model, images, labels, ball, **options)
        options = {name: python_number(value) for name, value in options.items()}
        if "objective" in options:
            warnings.warn("the option objective= is now loss=", FutureWarning, stacklevel=2)
            options["loss"] = options.pop("objective")
        if not is_recording():
            _check(model, images, labels, ball)
            resolve_precision(options.get("precision", "auto"), images.device)
            if by_gradient:
                check_differentiable(model)
        token = _INSIDE.set(True)
        try:
            with torch.inference_mode(False):
                own, classes = plain_images(model, images), own_tensor(labels)
                run = functools.partial(_in_eight_bits, attack) if quantize else attack
                found = _in_parts(run, model, own, classes, ball, options).detach()
        finally:
            _INSIDE.reset(token)
        return found.to(torch.promote_types(images.dtype, torch.float32))

    behind_gate.__signature__ = _with_quantize(attack)  # type: ignore[attr-defined]
    return cast(Attack, behind_gate)


def by_queries(attack: Attack) -> Attack:
    """Return ``attack``, which asks for answers alone, behind the gate."""
    return gated(attack, by_gradient=False)


def plain_images(model: nn.Module, images: Images) -> Images:
    """Return ``images`` without history: in float64 for a model in float64, else in float32.

    A model in half precision gets them rounded at every call, but steps are taken in float32.
    """
    dtype = torch.float64 if dtype_of(model) == torch.float64 else torch.float32
    return own_tensor(images).to(dtype)


def own_tensor(tensor: Tensor) -> Tensor:
    """Return ``tensor`` without history, one that autograd takes."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _check(model: nn.Module, images: Images, labels: Labels, ball: Ball) -> None:
    check_type("model", model, nn.Module, "a torch.nn.Module from images to logits")
    check_ball(ball)
    check_eval(model)
    check_images(images)
    check_labels(labels, images)


def check_differentiable(model: nn.Module) -> None:
    """Raise `InputError` if ``model`` was made under ``torch.inference_mode``."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "the model was made under torch.inference_mode, so it has no gradient: make or load "
            "it outside"
        )


def _with_quantize(attack: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(attack, eval_str=True)
    own = list(signature.parameters.values())
    place = next((i for i, each in enumerate(own) if each.kind is each.VAR_KEYWORD), len(own))
    option = inspect.Parameter(
        "quantize", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool
    )
    return signature.replace(parameters=[*own[:place], option, *own[place:]])


def _in_parts(
    attack: Callable[..., Images],
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    options: dict[str, Any],
) -> Images:
    """Run ``attack`` on all images, in batches of `batch_size`, or in halves if memory is short.

    An image of a part is attacked under other draws than in the whole, of the same distribution.
    """
    size = batch_size() or len(images)
    if len(images) <= size:
        try:
            return attack(model, images, labels, ball, **options)
        except OUT_OF_MEMORY as error:
            if len(images) <= 1 or not is_out_of_memory(error):
                raise
        warnings.warn(
            f"memory is short: {len(images)} images are attacked in two parts", stacklevel=3
        )
        size = (len(images) + 1) // 2
    parts = []
    for at in range(0, len(images), size):
        rows = slice(at, at + size)
        own = {name: _rows_of(value, rows, len(images)) for name, value in options.items()}
        with keep_stages(None):  # what is kept is of the whole
            parts.append(_in_parts(attack, model, images[rows], labels[rows], ball, own))
    return torch.cat(parts)


def _rows_of(value: Any, rows: slice, images: int) -> Any:
    """Return the rows of an option that has one value for each image; others as they are."""
    per_image = isinstance(value, Tensor) and value.ndim > 0 and len(value) == images
    return value[rows] if per_image else value


def _in_eight_bits(
    attack: Callable[..., Images],
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    **options: Any,
) -> Images:
    """Run ``attack`` on the model behind the rounding; return points that are rounded already."""
    if not is_eight_bit(images).all():
        raise InputError("quantize needs images of 8 bits, with pixels k/255: these have others")
    if isinstance(ball, Linf):  # else the rounding of a point at its edge would leave it
        ball = Linf(int(255 * ball.radius + 1e-3) / 255)
    points = attack(_Rounding(model), images, labels, ball, **options).detach()
    nearest = _round(points)
    # Pixels moved a little less far than the point are surely within the ball.
    shorter = (images + ((points - images) * 255 + 0.0).trunc() / 255).mul(255).round() / 255
    return pick_images(ball.distance(nearest, images) <= ball.radius + 1e-6, nearest, shorter)


def _round(images: Images) -> Images:
    return (images * 255).round() / 255


class _Rounding(nn.Module):
    """A model that sees images of 8 bits; gradients pass the rounding as if it were not there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, is_training(model)
        self.hard = getattr(model, "hard", False)

    def forward(self, images: Images) -> Logits:
        rounded: Images = _StraightThrough.apply(images)
        return logits_of(self.model, rounded)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Images) -> Images:
        return _round(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
