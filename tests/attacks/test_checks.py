"""What is checked before an attack: its options, and whether the model is random."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.checks import is_random, is_repeatable


class Draws(nn.Module):
    """Adds what ``draw`` gives."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.draw, self.linear = draw, nn.Linear(16, 3)

    def forward(self, images):
        return self.linear(images.flatten(1)) + self.draw()


OWN = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("draw", "shared"),
    [
        (lambda: float(torch.rand(()) > 0.5), True),
        (lambda: random.random(), True),
        (lambda: float(np.random.rand()), True),
        (lambda: float(torch.rand(()) > 0.98), True),
        (lambda: float(torch.rand((), generator=OWN)), False),
    ],
    ids=["switch", "python", "numpy", "rare", "its own"],
)
def test_every_kind_of_randomness_is_seen(draw, shared):
    model, images = Draws(draw).eval(), torch.rand(2, 1, 4, 4)
    assert is_random(model, images)
    assert is_repeatable(model, images) is shared
    labels = torch.tensor([0, 1])
    if shared:
        si.apgd(model, images, labels, si.Linf(0.1), steps=2, draws=2)
    else:
        with pytest.warns(UserWarning, match="no seed controls"):
            si.apgd(model, images, labels, si.Linf(0.1), steps=2, draws=2)


@pytest.mark.parametrize(("name", "needed"), [("kl_pgd", False), ("transfer", True)])
def test_options_that_are_passed_on_are_checked(name, needed, net, images, labels):
    given = {"source": net} if needed else {}
    with pytest.raises(si.InputError, match=r"unknown option 'stepz'.*did you mean 'steps'"):
        si.ATTACKS[name](net, images, labels, si.Linf(0.05), stepz=3, **given)
