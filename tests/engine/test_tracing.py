"""Networks as people write them: each runs, at any precision, and gives what it gives alone."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.checks import is_random
from smoothinfer.engine.passes import Engine, passes
from tests.conftest import bf16_only


class Scaled(nn.Module):
    """A plain attribute decides what a forward does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 1.0

    def forward(self, images):
        return self.body(images) * self.scale


class Unregistered(nn.Module):
    """Normalises by a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), torch.tensor([0.5])

    def forward(self, images):
        return self.body(images - self.mean)


class MadeInForward(Unregistered):
    """Normalises by a tensor made on the way."""

    def forward(self, images):
        return self.body(images - torch.tensor([0.25]))


class Flipping(nn.Module):
    """Chooses at random, by Python's own branches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, images):
        return self.body(images.flip(-1) if torch.rand(()) < 0.5 else images)


class Matrix(nn.Module):
    """Multiplies by a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.weight = nn.Conv2d(1, 4, 3), nn.Parameter(torch.randn(144, 3))

    def forward(self, images):
        return self.before(images).flatten(1) @ self.weight


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


NETWORKS = {
    "prelu": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(), *head(4)),
    "transposed": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 2, 3), *head(2)),
    "local response": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.LocalResponseNorm(2), *head(4)),
    "spectral": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.ReLU(), *head(4)
    ),
    "matrix": Matrix,
    "unregistered": Unregistered,
    "made in forward": MadeInForward,
    "scaled": Scaled,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=bf16_only)])
def test_every_network_runs_at_any_precision(name, precision, images):
    torch.manual_seed(0)
    noisy = si.NoisyModel(NETWORKS[name](), inputs=si.Gaussian(0.1)).eval()
    run = list(passes(noisy, images, 2, seed=0, precision=precision))
    with torch.no_grad():
        members = [noisy.member(0, s)(images) for s in range(2)]
    near = 1e-4 if precision == "fp32" else 0.05
    for one, other in zip(run, members, strict=True):
        assert (one - other).abs().amax() <= near * other.abs().amax() + 1e-6
    labels = torch.zeros(len(images), dtype=torch.int64)
    adversarial = si.pgd(noisy, images, labels, si.Linf(0.1), steps=2, precision=precision)
    assert (adversarial - images).abs().amax() > 0


@bf16_only
def test_the_engine_says_why_it_does_not_run_in_bfloat16(images):
    noisy = si.NoisyModel(Matrix(), inputs=si.Gaussian(0.1)).eval()
    shown = repr(Engine(noisy, images, 0, precision="bf16"))
    assert shown.startswith("Engine(fp32 on cpu (not bf16: a layer does not take it)")
    untraced = si.NoisyModel(Unregistered(), inputs=si.Gaussian(0.1)).eval()
    shown = repr(Engine(untraced, images, 0, precision="bf16"))
    assert shown.startswith("Engine(fp32 on cpu,")
    assert "'mean' is a tensor that the module neither registers" in shown


def test_an_attribute_may_change_between_two_votes(images):
    noisy = si.NoisyModel(Scaled(), inputs=si.Gaussian(0.1)).eval()
    before = next(passes(noisy, images, 1, seed=0))
    noisy.module.scale = -2.0
    after = next(passes(noisy, images, 1, seed=0))
    assert torch.allclose(after, -2 * before, atol=1e-5)


def test_a_random_branch_stays_random(images):
    for seed in range(6):
        torch.manual_seed(seed)  # whichever branch a trace would see
        noisy = si.NoisyModel(Flipping()).eval()
        assert is_random(noisy, images)
        shown = {tuple(p.flatten().tolist()) for p in passes(noisy, images, 32, seed=0)}
        assert len(shown) == 2
