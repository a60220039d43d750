"""Attacks made on one model for another."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.conftest import small_net


class Silent(nn.Module):
    """A target that must not be asked."""

    def forward(self, images):
        raise AssertionError("the target was asked")


def test_a_transfer_is_the_attack_on_its_source_and_never_asks_the_target(images, labels):
    ball, source = si.Linf(0.1), small_net(seed=1).eval()
    transferred, direct = (
        run(images, labels, ball, steps=3, generator=torch.Generator().manual_seed(0))
        for run in (
            lambda *given, **options: si.transfer(Silent(), *given, source=source, **options),
            lambda *given, **options: si.pgd(source, *given, **options),
        )
    )
    assert torch.equal(transferred, direct)
    assert not torch.equal(transferred, images)


def test_a_source_in_training_mode_is_attacked_in_eval_mode(images, labels):
    source = small_net(seed=1).train()
    si.transfer(Silent(), images, labels, si.Linf(0.1), source=source, steps=1)
    assert all(part.training for part in source.modules())


def test_a_transfer_without_a_source_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="source must be a Module"):
        si.transfer(net, images, labels, si.Linf(0.1))
