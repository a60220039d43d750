"""Sums and rectifiers in their convolutions: the same logits, whatever the network does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.gradients import mean_gradient
from smoothinfer.attacks.losses import margin
from smoothinfer.engine import fusing
from smoothinfer.engine.plan import Plan
from smoothinfer.engine.tracing import tensors_of
from smoothinfer.numerics.precision import autocast_to
from tests.conftest import bf16_only


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.body(x).flatten(1)


class ReluModule(Body):
    def body(self, x):
        return self.act(self.a(x))


class Methods(Body):
    def body(self, x):
        return torch.relu(self.b(self.a(x).relu()) + x)


class ConvolutionFirst(Body):
    """The other term of the sum is computed after the convolution."""

    def body(self, x):
        return F.relu(self.a(x) + x.square())


class TwoConvolutions(Body):
    def body(self, x):
        return F.relu(self.a(x) + self.b(x), inplace=True)


class ReadTwice(Body):
    """The sum is needed before it is rectified, and the convolution after it."""

    def body(self, x):
        inner = self.a(x)
        total = self.b(x) + inner
        return F.relu(total) + total + inner


class Accumulated(Body):
    def body(self, x):
        inner = self.a(x)
        inner += x
        return F.relu(inner, inplace=True)


class Broadcast(Body):
    """A sum of another shape than the convolution's, wider or narrower."""

    def body(self, x):
        wide = x + self.a(x[:1])
        return F.relu(wide + self.b(x.mean((2, 3), keepdim=True)))


class Scalar(Body):
    def body(self, x):
        return F.relu(self.a(x) + 0.5)


class Twice(Body):
    def body(self, x):
        inner = self.a(x)
        return F.relu(inner + inner)


class Settings(Body):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding="same", dilation=2)
        self.b = nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, padding_mode="circular")
        self.c = nn.Conv2d(3, 6, 1, stride=2, bias=False, groups=3)

    def body(self, x):
        return F.relu(self.b(F.relu(self.a(x))) + self.c(x))


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        (ReluModule, 1), (Methods, 3), (ConvolutionFirst, 0), (TwoConvolutions, 2),
        (ReadTwice, 1), (Accumulated, 2), (Broadcast, 3), (Scalar, 0),
        (Twice, 0), (Settings, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("sums", [False, True])
def test_fusing_changes_nothing(body, fused, layout, sums, monkeypatch):
    if sums:  # as with units for bfloat16
        monkeypatch.setattr(fusing, "_SUMS_IN", (torch.float32,))
    module, images = body().eval(), torch.rand(2, 3, 9, 9).contiguous(memory_format=layout)
    plan = Plan(module)
    assert plan.fused == fused
    wanted = module(images.clone())
    for tracked in (True, False):
        with torch.set_grad_enabled(tracked):
            found = plan.run(plan.fold(tensors_of(module)), images.clone())
            assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("body", [ReluModule, Methods, TwoConvolutions, ReadTwice, Settings])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("sums", [False, True])
def test_gradients_pass_through_what_is_fused(body, learned, sums, monkeypatch):
    if sums:
        monkeypatch.setattr(fusing, "_SUMS_IN", (torch.float32,))
    module = body().eval().requires_grad_(learned)
    images = torch.rand(2, 3, 9, 9, requires_grad=True)
    plan = Plan(module)
    (wanted,) = torch.autograd.grad(module(images).square().sum(), images)
    (found,) = torch.autograd.grad(plan.run(tensors_of(module), images).square().sum(), images)
    assert torch.allclose(found, wanted, atol=1e-4)


@bf16_only
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_attack_in_bfloat16_follows_the_same_gradient(layout):
    net = si.resnet20()
    with torch.no_grad():  # statistics that fit the weights: else gradients explode
        for _ in range(20):
            net(torch.rand(64, 3, 32, 32))
    noisy = si.NoisyModel(net.eval().requires_grad_(False), weights=si.CNI(rank=2)).eval()
    noisy.requires_grad_(False)
    images, labels = torch.rand(16, 3, 32, 32).contiguous(memory_format=layout), torch.arange(16)
    labels = labels % 10
    gradients = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        with autocast_to(precision, images.device):
            gradients.append(mean_gradient(noisy, images, labels, margin).flatten(1))
    near = F.cosine_similarity(*gradients)
    torch.manual_seed(1)
    other = F.cosine_similarity(
        gradients[0], mean_gradient(noisy, images, labels, margin).flatten(1)
    )
    assert near.mean() > 0.9
    assert other.mean() < 0.5  # another draw of the noise has another gradient


def test_a_resnet_fuses_every_sum_and_rectifier_and_keeps_its_bits(monkeypatch):
    module = si.resnet20().eval()
    plan = Plan(module)
    assert plan.fused == 19 + 9  # rectifiers, of which nine follow a sum
    tensors, images = plan.fold(tensors_of(module)), torch.rand(8, 3, 32, 32)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        fused = plan.run(tensors, images)
        monkeypatch.setattr(fusing, "POINTWISE", None)
        assert torch.equal(plan.run(tensors, images), fused)
