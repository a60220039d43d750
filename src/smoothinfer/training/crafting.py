"""Adversarial examples within a training, and parts that all losses share."""

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from smoothinfer.numerics.precision import tile_for
from smoothinfer.numerics.randomness import parts_of_batch
from smoothinfer.runtime.modes import attack_mode, eval_mode
from smoothinfer.types import Images, Labels

Craft = Callable[[nn.Module, Images, Labels], Images]


def bare_model(model: nn.Module) -> nn.Module:
    """Return the model without its wrapper for several processes.

    `DistributedDataParallel` waits for gradients of parameters after each forward.
    """
    return model.module if isinstance(model, DistributedDataParallel) else model


def craft(attack: Craft, model: nn.Module, images: Images, labels: Labels) -> Images:
    """Run ``attack`` in eval mode, noise on, without gradients of the parameters."""
    bare = bare_model(model)
    with eval_mode(bare), attack_mode(bare):
        size = max(1, tile_for(images) // parts_of_batch())  # the tiles that one process would use
        parts = zip(images.split(size), labels.split(size), strict=True)
        return torch.cat([attack(bare, *part).detach() for part in parts])


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of at least one tensor; Python's own begins with the number 0."""
    return functools.reduce(torch.add, terms)
