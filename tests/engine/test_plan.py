"""A plan of a network gives what the network gives, for as long as the network stays as it is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.engine.passes import Engine, passes
from smoothinfer.engine.plan import Plan
from smoothinfer.engine.tracing import PlanError, tensors_of


def randomise_norms(module):
    """Batch statistics and affine parameters that are not the trivial ones."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            if part.track_running_stats:
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module.eval()


class Branches(nn.Module):
    """One convolution feeds two readers, one is used twice, one has a bias, one is in groups."""

    def __init__(self):
        super().__init__()
        self.read_twice = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.used_twice = nn.Conv2d(4, 4, 1)
        self.bn2 = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.bn3 = nn.BatchNorm2d(8, affine=False)
        self.untracked = nn.Conv2d(8, 8, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(8, track_running_stats=False)

    def forward(self, images):
        one = self.read_twice(images)
        one = self.bn1(one) + one
        two = self.bn2(self.used_twice(F.relu(self.used_twice(one))))
        return self.bn4(self.untracked(self.bn3(self.grouped(two)))).flatten(1)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.bn(self.conv(images)).flatten(1) if images.sum() > 0 else images.flatten(1)


@pytest.mark.parametrize(
    ("module", "pairs"),
    [
        (si.resnet20(), 21),
        (nn.Sequential(si.Normalize([0.5] * 3, [0.2] * 3), si.resnet20()), 21),
        (Branches(), 1),
        (nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8, affine=False)), 1),
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect")), 0),
        (nn.Sequential(*[nn.Conv2d(3, 3, 1)] * 2, nn.BatchNorm2d(3)), 0),
    ],
)
def test_a_plan_changes_nothing(module, pairs):
    module = randomise_norms(module).double()
    plan = Plan(module)
    assert len(plan.folded) == pairs
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    plain, planned = module(images), plan.run(plan.fold(tensors_of(module)), images)
    scale = plain.detach().abs().max()
    assert torch.allclose(plain / scale, planned / scale, atol=1e-9)
    one, two = (
        torch.autograd.grad((y / scale).square().sum(), images)[0] for y in (plain, planned)
    )
    assert torch.allclose(one, two, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_traced_runs_as_it_is():
    module = randomise_norms(Untraceable())
    with pytest.raises(PlanError, match="cannot trace"):
        Plan(module)
    noisy = si.NoisyModel(module, inputs=si.Gaussian(0.1), weights=si.PNI())
    images = torch.rand(3, 3, 8, 8)
    assert "cannot trace" in repr(Engine(noisy, images, seed=0))
    for s, logits in enumerate(passes(noisy, images, 2, seed=0)):
        assert torch.allclose(logits, noisy.member(0, s)(images), atol=1e-5)


class Counting(nn.Module):
    """Traces, but not to what it does."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(12, 2), 0

    def forward(self, images):
        self.calls += 1
        return self.linear(images.flatten(1)) * self.calls


def test_the_plan_of_a_third_party_module_is_verified_first():
    module = Counting().eval()
    images = torch.rand(2, 3, 2, 2)
    noisy = si.NoisyModel(module, weights=si.PNI())
    assert isinstance(noisy.plan(), Plan)
    module(images)
    engine = Engine(noisy, images, seed=0)
    assert engine.plan is None
    assert "other logits" in engine.unplanned


def test_a_plan_is_left_when_it_no_longer_holds():
    module = randomise_norms(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    noisy = si.NoisyModel(module)
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(noisy(images), module(images), atol=1e-5)
    with torch.no_grad():
        module[1].running_mean.add_(1)  # new values are seen
    assert torch.allclose(noisy(images), module(images), atol=1e-5)
    module[1] = nn.Identity()  # new layers are seen
    assert torch.allclose(noisy(images), module(images), atol=1e-5)
    seen = []
    module[1] = nn.BatchNorm2d(4).eval()
    noisy(images)
    module[0].stride = (2, 2)  # and new settings
    assert torch.allclose(noisy(images), module(images), atol=1e-5)
    module[0].register_forward_hook(lambda *_: seen.append(1))  # hooks run
    noisy(images)
    assert seen
    module.train()  # batch statistics move in training mode
    assert torch.equal(noisy(images), module(images))


def test_the_plan_is_no_part_of_the_model():
    noisy = si.NoisyModel(randomise_norms(si.smallnet()), weights=si.CNI(rank=1)).eval()
    names = set(noisy.state_dict())
    noisy(torch.rand(1, 1, 8, 8))
    assert set(noisy.state_dict()) == names
    assert all(p.device.type != "meta" for p in noisy.parameters())
