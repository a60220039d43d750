import warnings

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.runtime.modes import eval_mode, frozen_parameters, switch_to_eval
from tests.conftest import small_net


def test_modes_and_gradients_come_back_after_an_error():
    net = small_net().train()
    with pytest.raises(RuntimeError), eval_mode(net), frozen_parameters(net):
        raise RuntimeError
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())


class Jitter(nn.Module):
    def forward(self, images):
        return images + torch.randn_like(images) if self.training else images


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout2d(0.3), nn.RReLU(), Jitter()])
def test_noise_that_eval_mode_turns_off_is_warned_of(layer):
    net = small_net().append(layer).train()
    with pytest.warns(UserWarning, match=rf"\({type(layer).__name__}\).*net.eval\(\); net.get_sub"):
        switch_to_eval(net)
    assert not layer.training


def test_no_warning_where_eval_mode_turns_off_no_noise():
    left_on = nn.Sequential(nn.Dropout(0.3)).eval()
    left_on[0].train()
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.1), weights=si.CNI(rank=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for net in (left_on, nn.Sequential(nn.Dropout(0.0), nn.BatchNorm2d(3)).train(), noisy):
            switch_to_eval(net.train() if net is noisy else net)
    assert left_on[0].training
