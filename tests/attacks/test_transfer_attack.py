"""Attacks made on one model for another."""

import pytest

import smoothinfer as si


def test_a_transfer_without_a_source_is_refused(net, images, labels):
    with pytest.raises(si.InputError, match="source must be a Module"):
        si.transfer(net, images, labels, si.Linf(0.1))
