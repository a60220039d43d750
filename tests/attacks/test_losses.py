"""Losses that an attack maximises."""

import pytest
import torch

import smoothinfer as si


@pytest.mark.parametrize("name", si.ATTACK_LOSSES)
def test_every_loss_grows_as_the_label_loses(name):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(4, 1)
    value = si.ATTACK_LOSSES[name](logits, torch.arange(4))
    assert value.shape == (4,)
    assert (value.diff() > 0).all()
    shifted = si.ATTACK_LOSSES[name](logits + 3, torch.arange(4))
    assert torch.allclose(value, shifted, atol=1e-5)


def test_dlr_ignores_the_scale():
    logits = torch.randn(5, 4)
    labels = torch.tensor([0, 1, 2, 3, 0])
    dlr = si.ATTACK_LOSSES["dlr"]
    assert torch.allclose(dlr(logits, labels), dlr(1000 * logits, labels), atol=1e-4)


def test_dlr_needs_three_classes():
    with pytest.raises(ValueError, match="at least 3 classes"):
        si.ATTACK_LOSSES["dlr"](torch.randn(2, 2), torch.tensor([0, 1]))
