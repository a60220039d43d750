import pytest

from smoothinfer.runtime.modes import eval_mode, frozen_parameters
from tests.conftest import small_net


def test_modes_and_gradients_come_back_after_an_error():
    net = small_net().train()
    with pytest.raises(RuntimeError), eval_mode(net), frozen_parameters(net):
        raise RuntimeError
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())
