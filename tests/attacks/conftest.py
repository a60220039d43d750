"""Images around a plane, where the best attack is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import smoothinfer as si
from tests.conftest import HalfSpace

RADIUS = 0.05


@pytest.fixture
def middle() -> Tensor:
    """Images far from the edges of the pixel range, so that the ball alone binds."""
    generator = torch.Generator().manual_seed(3)
    return 0.5 + 0.2 * (torch.rand(20, 1, 4, 4, generator=generator) - 0.5)


@pytest.fixture
def sides(half_space: HalfSpace, middle: Tensor) -> Tensor:
    """The classes of ``middle``: the side of the plane on which each image lies."""
    return (half_space.distance(middle) > 0).long()


def well_inside(world: HalfSpace) -> tuple[Tensor, Tensor]:
    """Images 0.15 to 0.45 away from the plane, in L2, with their labels."""
    torch.manual_seed(0)
    offsets = torch.rand(40) * 0.3 + 0.15
    normal = world.normal.detach().view(1, 1, 4, 4)
    noise = torch.rand(40, 1, 4, 4) * 0.1
    images = 0.5 + noise - world.distance(0.5 + noise).view(-1, 1, 1, 1) * normal
    images = (images + offsets.view(-1, 1, 1, 1) * normal).detach()
    return images, torch.ones(40, dtype=torch.int64)


def check_crosses_the_plane(
    name: str, options: dict[str, Any], world: HalfSpace, images: Tensor, labels: Tensor
) -> None:
    """Nine of ten images whose plane is well within reach must end beyond it."""
    noisy = si.NoisyModel(world, inputs=si.Gaussian(0.05)).eval()
    adversarial = si.ATTACKS[name](noisy, images, labels, si.Linf(RADIUS), **options)
    reach = RADIUS * world.normal.norm(p=1)
    easy = world.distance(images).abs() < 0.6 * reach
    crossed = (world.distance(adversarial) > 0).long() != labels
    assert easy.sum() >= 5
    assert crossed[easy].float().mean() >= 0.9
