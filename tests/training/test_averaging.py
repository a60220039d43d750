import pytest
import torch

from smoothinfer.training.averaging import _move_average


def test_the_average_follows_early_weights_closely():
    average, now = [torch.zeros(2)], [torch.ones(2)]
    _move_average(0.999, average, now, 1)
    assert average[0].tolist() == pytest.approx([1 - 2 / 11] * 2)
    _move_average(0.5, average, now, 1000)
    assert average[0].tolist() == pytest.approx([1 - 1 / 11] * 2)
