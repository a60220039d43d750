"""The geometry of a threat: how far a pixel image may be moved, and the steepest direction."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.errors import InputError, python_number
from smoothinfer.numerics.randomness import normal, uniform
from smoothinfer.types import Images

_WIDEST = 1e5  # sqrt(C H W) of images far larger than any network takes


class Ball(Protocol):
    """A norm ball around each image; ``radius`` is in pixel units."""

    @property
    def radius(self) -> float: ...

    def random(self, images: Images, generator: torch.Generator | None = None) -> Images: ...

    def ascend(self, gradient: Tensor) -> Tensor: ...

    def project(self, points: Images, images: Images) -> Images: ...

    def distance(self, points: Images, images: Images) -> Tensor: ...


@dataclass(frozen=True)
class _Radius:
    radius: float

    def __post_init__(self) -> None:
        radius = python_number(self.radius)
        if type(radius) not in (int, float) or not 0 <= radius < float("inf"):  # type: ignore[operator]
            raise InputError(f"radius must be finite and not negative, not {self.radius!r}")
        object.__setattr__(self, "radius", radius)


@dataclass(frozen=True)
class Linf(_Radius):
    """All images with max |point - image| <= radius, within [0, 1].

    Args:
        radius: in pixel units, e.g. ``8 / 255``, at most 1.

    >>> ball = Linf(0.1)
    >>> point = ball.project(torch.full((1, 1, 1, 2), 0.9), torch.tensor([[[[0.5, 0.95]]]]))
    >>> [round(float(pixel), 4) for pixel in point.flatten()]
    [0.6, 0.9]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius > 1:
            raise InputError(
                f"a radius of {self.radius:g} is wider than the pixels' range [0, 1]: in pixel "
                "units 8 of 255 grey levels are 8/255"
            )

    def random(self, images: Images, generator: torch.Generator | None = None) -> Images:
        """Return a uniform point of the cube, clipped to [0, 1]."""
        noise = uniform(images.shape, images, generator)
        return self.project(images + (2 * noise - 1) * self.radius, images)

    def ascend(self, gradient: Tensor) -> Tensor:
        """Return sign(gradient), the steepest direction of unit max-norm."""
        return gradient.sign()

    def project(self, points: Images, images: Images) -> Images:
        """Return the nearest point in the ball and in [0, 1]; NaN goes back to the image."""
        step = torch.nan_to_num(points - images, nan=0.0).clamp(-self.radius, self.radius)
        return (images + step).clamp(0, 1)

    def distance(self, points: Images, images: Images) -> Tensor:
        """Return max |points - images| of each image, (N,)."""
        return (points - images).abs().flatten(1).amax(1)


@dataclass(frozen=True)
class L2(_Radius):
    """All images with sum (point - image)^2 <= radius^2, within [0, 1].

    Args:
        radius: in pixel units over the whole image, e.g. ``0.5``, at most 100,000.

    >>> ball = L2(1.0)
    >>> step = ball.ascend(torch.tensor([[[[3.0, 4.0]]]])).flatten()
    >>> [round(float(v), 4) for v in step]
    [0.6, 0.8]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.radius > _WIDEST:
            raise InputError(
                f"an L2 radius of {self.radius:g} is wider than any image: of C x H x W pixels all "
                "are within sqrt(C H W)"
            )

    def random(self, images: Images, generator: torch.Generator | None = None) -> Images:
        """Return a uniform point of the Euclidean ball, clipped to [0, 1]."""
        step = normal(images.shape, images, generator)
        length = uniform(images.shape[:1], images, generator)
        length = length ** (1 / math.prod(images.shape[1:])) * self.radius
        return self.project(images + self.ascend(step) * per_image(length, images), images)

    def ascend(self, gradient: Tensor) -> Tensor:
        """Return gradient / ||gradient||, zero where the gradient is zero."""
        largest = gradient.abs().flatten(1).amax(1)  # its square may be too small for a number
        scaled = gradient / per_image(torch.where(largest > 0, largest, 1.0), gradient)
        return scaled / per_image(_norm(scaled).clamp_min(1e-30), gradient)

    def project(self, points: Images, images: Images) -> Images:
        """Shrink the step to the radius, then clip to [0, 1], which only shrinks it further."""
        step = torch.nan_to_num(points - images, nan=0.0)
        factor = (self.radius / _norm(step).clamp_min(1e-30)).clamp_max(1)
        return (images + step * per_image(factor, images)).clamp(0, 1)

    def distance(self, points: Images, images: Images) -> Tensor:
        """Return ||points - images|| of each image, (N,)."""
        return _norm(points - images)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return one value per image, (N,), in a shape that broadcasts over images ``like`` (N, ...).

    >>> per_image(torch.ones(3), torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 1, 1, 1])
    """
    shaped = values.reshape(-1, *[1] * (like.ndim - 1))
    return shaped if values.dtype == torch.bool else shaped.to(like.dtype)


def pick_images(first: Tensor, one: Images, other: Images) -> Images:
    """Return the images ``one`` where ``first`` (N,) is true, and ``other`` elsewhere.

    >>> pick_images(torch.tensor([True, False]), torch.ones(2, 1), torch.zeros(2, 1)).tolist()
    [[1.0], [0.0]]
    """
    return torch.where(per_image(first, one), one, other)


def _norm(images: Images) -> Tensor:
    return images.flatten(1).norm(dim=1)


def check_ball(ball: object) -> None:
    """Raise `InputError` unless ``ball`` is a `Ball`."""
    if isinstance(ball, type) or not all(
        hasattr(ball, name) for name in ("radius", "project", "ascend", "random", "distance")
    ):
        raise InputError(f"ball must be a ball such as Linf(8 / 255) or L2(0.5), not {ball!r}")


BALLS: dict[str, Callable[[float], Ball]] = {"linf": Linf, "l2": L2}
