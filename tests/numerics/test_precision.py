"""What runs in bfloat16, where the machine multiplies it: attacks, the vote, training."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.networks import ResNet
from smoothinfer.numerics.precision import pinned
from smoothinfer.training.losses import adversarial
from tests.conftest import bf16_only

pytestmark = bf16_only
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def residual(**noise):
    with si.isolated_rng(0):
        net = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), ResNet(blocks=1))
    return si.NoisyModel(net, **noise).eval()


def pictures(layout=torch.contiguous_format):
    drawn = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=layout), torch.arange(5)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "epgd", "smoothadv", "kl_pgd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_attacks_by_gradient_run(name, layout):
    noisy, (images, labels) = residual(weights=si.CNI(rank=2)), pictures(layout)
    options = {} if name == "fgsm" else {"steps": 2}
    with pinned("bf16"):
        moved = si.ATTACKS[name](noisy, images, labels, si.Linf(8 / 255), **options)
    assert moved.dtype == torch.float32
    assert moved.isfinite().all()
    assert (moved != images).any()


SEARCHES = {
    "apgd": {"steps": 2, "draws": 2},
    "multitargeted": {"steps": 1, "targets": 1},
    "square": {"queries": 3, "draws": 2},
    "nattack": {"steps": 2, "population": 4},
    "ddn": {"steps": 3, "samples": 2, "votes": 4},
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("loud", [True, False])
def test_searches_ask_random_models_in_bfloat16_and_still_ones_in_fp32(name, loud, monkeypatch):
    noisy, (images, labels) = residual(**({"weights": si.CNI(rank=2)} if loud else {})), pictures()
    asked, real = [], ResNet.forward

    def told(net, seen):
        asked.append(torch.is_autocast_enabled("cpu"))
        return real(net, seen)

    monkeypatch.setattr(ResNet, "forward", told)
    noisy.plan = lambda: "the test asks the module itself"
    ball = si.L2(1.0) if name == "ddn" else si.Linf(8 / 255)
    with pinned("bf16"):
        moved = si.ATTACKS[name](noisy, images, labels, ball, **SEARCHES[name])
    assert moved.isfinite().all()
    short = sum(asked)
    # The PGD of multitargeted and the queries of nattack are short, what they try is not.
    mixed = name in ("multitargeted", "nattack")
    still = 0 < short < len(asked) if mixed else short == 0
    assert short > 0 if loud else still


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise", [{"inputs": si.Gaussian(0.1)}, {"weights": si.CNI(rank=2)}, {}])
def test_votes_and_their_gradients(layout, noise):
    images, labels = pictures(layout)
    smooth = si.SmoothedClassifier(residual(**noise), samples=8, seed=0)
    with pinned("bf16"):
        short = smooth.predict(images)
        moved = si.pgd(smooth, images, labels, si.Linf(8 / 255), steps=1)
    assert (short.labels == smooth.predict(images).labels).float().mean() >= 0.8
    assert (moved != images).any()


def test_a_training_step_leaves_a_finite_gradient():
    noisy, (images, labels) = residual(weights=si.CNI(rank=2)).train(), pictures()

    def attack(model, images, labels):
        return si.pgd(model, images, labels, si.Linf(8 / 255), steps=2)

    with pinned("bf16"), torch.autocast("cpu", torch.bfloat16):
        adversarial(noisy, images, labels, attack).backward()
    assert all(p.grad.isfinite().all() for p in noisy.parameters() if p.grad is not None)
