"""Auto-PGD."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.attacks.conftest import RADIUS


def test_an_auto_step_size_is_not_led_by_luck(half_space, middle, sides):
    """Frozen draws are one deterministic model: the same steps as on that model."""
    noisy = si.NoisyModel(half_space, inputs=si.Gaussian(0.5)).eval()
    fixed = si.frozen(noisy, seed=1, samples=4)
    one, two = (
        si.apgd(fixed, middle, sides, si.Linf(RADIUS), steps=10, generator=generator)
        for generator in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    )
    assert torch.equal(one, two)
    assert torch.equal(fixed(middle), fixed(middle))
    alone = fixed(middle[3:4])
    assert torch.allclose(fixed(middle)[3:4], alone, atol=1e-5)  # whatever its company


def test_images_that_are_wrong_already_stay(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    wrong = (net(images).argmax(1) + 1) % 3  # all done before it begins
    assert torch.equal(si.apgd(net, images, wrong, si.L2(0.5), steps=3), images)


def test_dlr_of_two_classes_has_no_third_logit():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    with pytest.raises(si.InputError, match="at least 3 classes"):
        si.apgd(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), si.Linf(0.1), loss="dlr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "hard"}, "unknown gradient 'hard'"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message, net, images, labels):
    with pytest.raises(si.InputError, match=message):
        si.apgd(net, images, labels, si.Linf(0.1), **options)


def test_targets_are_reached_and_imply_the_loss(images):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    labels = net(images).argmax(1)
    targets = (labels + torch.tensor([1, 2, 3, 1, 2, 3])) % 4
    found = si.apgd(net, images, labels, si.Linf(0.9), steps=20, targets=targets)
    assert torch.equal(net(found).argmax(1), targets)
    with pytest.raises(si.InputError, match="targets imply a loss"):
        si.apgd(net, images, labels, si.Linf(0.1), targets=targets, loss="margin")


def test_a_start_is_where_the_search_begins(images):
    """On a plateau no step gains, so the best point is the first."""
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    nn.init.zeros_(flat[1].weight)
    flat[1].bias.data = torch.tensor([1.0, 0.0])
    labels = torch.zeros(6, dtype=torch.long)
    start = (images + 0.05).clamp(0, 1)
    search = si.apgd(flat, images, labels, si.Linf(0.1), steps=2, start=start)
    assert torch.equal(search, images)  # nothing beats the image itself
