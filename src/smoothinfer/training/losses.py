"""What training minimises: ``(model, images, labels, attack, ...) -> scalar``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from smoothinfer.errors import InputError
from smoothinfer.models import evaluating, parameters_frozen
from smoothinfer.numerics.precision import tile_for
from smoothinfer.types import Images, Labels

Craft = Callable[[nn.Module, Images, Labels], Images]
Loss = Callable[..., Tensor]


def natural(
    model: nn.Module, images: Images, labels: Labels, attack: Craft | None = None
) -> Tensor:
    """CE(f(x), y), the mean over the batch, under one draw of the model's noise.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> natural(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([])
    """
    del attack
    return F.cross_entropy(model(images), labels)


def adversarial(
    model: nn.Module, images: Images, labels: Labels, attack: Craft | None = None, w: float = 0.5
) -> Tensor:
    """(1 - w) CE(f(x), y) + w CE(f(x'), y), with x' = attack(f, x, y) and fresh noise in each term.

    Args:
        model: in training mode; x' is crafted in eval mode with the noise on.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).
        attack: (model, images, labels) -> moved images.
        w: weight of the adversarial term, in [0, 1]; 1 is Madry's training.

    Raises:
        InputError: ``w`` is outside [0, 1] or ``attack`` is missing.

    Source: Nemcovsky et al. 2019, equation (6); Madry et al. 2018 for w = 1.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> adversarial(net, images, labels, lambda model, x, y: x, w=0.5).shape
    torch.Size([])
    """
    if not 0 <= w <= 1:
        raise InputError(f"w must lie in [0, 1], not {w}")
    if attack is None:
        raise InputError("the adversarial loss needs an attack")
    moved = craft(attack, model, images, labels)
    hard = F.cross_entropy(model(moved), labels)
    if w == 1:
        return hard
    return (1 - w) * F.cross_entropy(model(images), labels) + w * hard


def craft(attack: Craft, model: nn.Module, images: Images, labels: Labels) -> Images:
    """Run ``attack`` in eval mode, noise on, without gradients of the parameters."""
    # Distributed training waits for parameter gradients after each forward: go around it.
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    with evaluating(bare), parameters_frozen(bare):
        size = tile_for(images)
        parts = zip(images.split(size), labels.split(size), strict=True)
        return torch.cat([attack(bare, *part).detach() for part in parts])


LOSSES: dict[str, Loss] = {"natural": natural, "adversarial": adversarial}
