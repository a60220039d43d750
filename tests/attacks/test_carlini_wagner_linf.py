"""Carlini and Wagner's attack in L-infinity, whose box shrinks."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.attacks.carlini_wagner_linf import carlini_linf
from smoothinfer.attacks.losses import margin
from tests.attacks.conftest import well_inside


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_the_box_of_carlini_and_wagner_shrinks_to_the_plane(sigma, half_space):
    """In L-infinity the plane is |distance| / |normal|_1 away."""
    images, labels = well_inside(half_space)
    world = si.NoisyModel(half_space, inputs=si.Gaussian(sigma)).eval() if sigma else half_space
    true = half_space.distance(images).abs() / half_space.normal.abs().sum()
    options = {"steps": 30, "searches": 15}
    found = si.cw(world, images, labels, si.Linf(0.3), samples=16, votes=1024, **options)
    ratio = ((found - images).abs().flatten(1).amax(1) / true).detach()
    assert float((ratio - 1).abs().median()) < 0.05
    assert float((ratio - 1).abs().mean()) < 0.05
    if sigma:  # naively, every step under another draw, it stops on a lucky one
        options |= {"rate": 0.1, "confidence": 0.0, "initial": 1e-3}
        found = carlini_linf(world, images, labels, 0.3, **options)
        lucky = ((found - images).abs().flatten(1).amax(1) / true).detach()
        assert float((lucky < 0.95).float().mean()) > 0.3


def test_the_box_of_carlini_and_wagner_finds_what_pgd_finds(net, images, labels):
    ball = si.Linf(0.05)
    strong = si.pgd(net, images, labels, ball, steps=100, loss="margin")
    found = si.cw(net, images, labels, ball, steps=40, searches=6)
    changed = ball.distance(found, images) > 0
    fooled = margin(net(found), labels) > 0
    assert fooled.sum() >= (margin(net(strong), labels) > 0).sum()
    correct = margin(net(images), labels) < 0
    assert torch.equal(changed & correct, fooled & correct)
