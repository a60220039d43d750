"""The attack by which many random defences were evaluated: one frozen draw is attacked."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from smoothinfer.attacks.checks import check_options
from smoothinfer.attacks.eot import fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.projected_gradient import pgd
from smoothinfer.engine.members import member_of
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels


@gated
def one_draw(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 20,
    attack: Callable[..., Images] = pgd,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Images:
    """Freeze one draw of the noise for all images, and run ``attack`` on that network.

    Judged under fresh draws it is a transfer attack from one draw to another, weaker than it looks:
    the released evaluation scripts of several random defences (Random Projection Filters, Random
    Normalisation Aggregation, Double-Win Quant) do this. Use it to repeat their figures only.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        steps: of the attack.
        attack: any attack.
        options: of the attack.

    Raises:
        InputError: see the attack.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    >>> one_draw(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), Linf(0.1)).shape
    torch.Size([3, 1, 2, 2])
    """
    check_options(options, attack)
    with isolated_rng(draw_seed(generator)):
        frozen = member_of(model, fresh_seeds(1)[0], 0)
        return attack(frozen, images, labels, ball, steps=steps, **options)
