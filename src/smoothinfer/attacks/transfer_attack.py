"""Transfer: craft adversarial images on one model, evaluate them on another."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from smoothinfer.attacks.checks import check_options
from smoothinfer.attacks.projected_gradient import pgd
from smoothinfer.errors import InputError, check_type
from smoothinfer.numerics.balls import Ball
from smoothinfer.runtime.modes import device_of, eval_mode
from smoothinfer.types import Images, Labels


def transfer(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    source: nn.Module | None = None,
    attack: Callable[..., Images] = pgd,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Images:
    """Run ``attack`` against ``source`` instead of ``model``, which is not queried at all.

    In the paper the source is another training of the same network, without input noise ("PGD"),
    or with it ("PGD-s"). Where attacks are named by strings the source is a model by name,
    ``sigma=0.06`` puts noise on its inputs, ``noise=False`` removes all its noise, and an
    ``attack`` with many draws maximises the loss of its smoothed answer:
    ``transfer(source="runs/other", attack="epgd", draws=8)``.

    Args:
        model: the target, on which the caller evaluates the result.
        images, labels, ball, generator: as for the attack.
        source: the module to craft on; run in eval mode, its noise on.
        attack: any attack.
        options: of the attack.

    Raises:
        InputError: ``source`` is missing or no module; or see the attack.

    Source: Nemcovsky et al. 2019, table 2; Papernot et al. 2016, arXiv 1605.07277.

    >>> from smoothinfer.numerics.balls import Linf
    >>> one, two = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> transfer(one, images, labels, Linf(0.1), source=two, steps=3).shape
    torch.Size([3, 1, 2, 2])
    """
    del model
    check_type("source", source, nn.Module, "transfer(source=model)")
    assert source is not None
    check_options(options, attack)
    device = device_of(source, images)
    if device != images.device:
        raise InputError(f"the source is on {device}, the images are on {images.device}")
    with eval_mode(source):
        return attack(source, images, labels, ball, generator=generator, **options)
