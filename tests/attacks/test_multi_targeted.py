"""Multi-targeted PGD."""

import pytest

import smoothinfer as si
from smoothinfer.attacks.losses import margin


def test_multitargeted_is_at_least_as_strong_as_one_run(net, images, labels):
    ball = si.Linf(0.05)
    single = si.pgd(net, images, labels, ball, steps=20, loss="margin")
    many = si.multitargeted(net, images, labels, ball, steps=20, restarts=2)
    one, all_of_them = (margin(net(points), labels) for points in (single, many))
    assert (all_of_them >= one - 0.05 * one.abs()).all()


def test_a_number_of_targets_below_one_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="targets must be at least 1"):
        si.multitargeted(net, images, labels, si.Linf(0.1), targets=0)
