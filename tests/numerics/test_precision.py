"""The number format that suits this machine; attacks, votes and training in bfloat16."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.networks import ResNet
from smoothinfer.numerics import precision
from smoothinfer.numerics.precision import default_precision, resolve_precision
from smoothinfer.training.losses import adversarial
from tests.conftest import bf16_only

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def residual(**noise):
    with si.isolated_rng(0):
        net = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), ResNet(blocks=1))
    return si.NoisyModel(net, **noise).eval()


def pictures(layout=torch.contiguous_format):
    drawn = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=layout), torch.arange(5)


def test_precision_is_what_the_machine_gains_from():
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("auto", "cpu") in ("bf16", "fp32")
    with pytest.raises(si.InputError, match="auto, bf16, fp32"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize(
    ("able", "faster"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon"}, False),
    ],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, able, faster):
    """Intel has it in AVX-512 too, at half the speed of fp32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(precision, "has_bf16_units", precision.has_bf16_units.__wrapped__)
    assert precision.gains_from_bf16.__wrapped__("cpu") is faster


def test_the_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setenv("SMOOTHINFER_PRECISION", "bf16")
    assert resolve_precision("auto", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"
    with default_precision("fp32"):
        assert resolve_precision("auto", "cpu") == "fp32"
    monkeypatch.setenv("SMOOTHINFER_PRECISION", "fp8")
    with pytest.raises(si.InputError, match=r"SMOOTHINFER_PRECISION.*auto, bf16, fp32"):
        resolve_precision("auto", "cpu")


@bf16_only
@pytest.mark.parametrize("name", ["fgsm", "pgd", "epgd", "smoothadv", "kl_pgd"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_attacks_by_gradient_run_in_bfloat16(name, layout):
    noisy, (images, labels) = residual(weights=si.CNI(rank=2)), pictures(layout)
    options = {} if name == "fgsm" else {"steps": 2}
    with default_precision("bf16"):
        adversarial_images = si.ATTACKS[name](noisy, images, labels, si.Linf(8 / 255), **options)
    assert adversarial_images.dtype == torch.float32
    assert adversarial_images.isfinite().all()
    assert (adversarial_images != images).any()


SEARCHES = {
    "apgd": {"steps": 2, "draws": 2},
    "multitargeted": {"steps": 1, "targets": 1},
    "square": {"queries": 3, "draws": 2},
    "nattack": {"steps": 2, "population": 4},
    "ddn": {"steps": 3, "samples": 2, "votes": 4},
}


@bf16_only
@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("random", [True, False])
def test_searches_run_random_models_in_bfloat16_and_others_in_fp32(name, random, monkeypatch):
    noisy = residual(weights=si.CNI(rank=2) if random else None)
    images, labels = pictures()
    short, forward = [], ResNet.forward

    def record(net, features):
        short.append(torch.is_autocast_enabled("cpu"))
        return forward(net, features)

    monkeypatch.setattr(ResNet, "forward", record)
    noisy.plan = lambda: "the test runs the module itself"
    ball = si.L2(1.0) if name == "ddn" else si.Linf(8 / 255)
    with default_precision("bf16"):
        adversarial_images = si.ATTACKS[name](noisy, images, labels, ball, **SEARCHES[name])
    assert adversarial_images.isfinite().all()
    # The PGD of multitargeted and the queries of nattack are short, what they try is not.
    mixed = name in ("multitargeted", "nattack")
    exact = any(short) and not all(short) if mixed else not any(short)
    assert any(short) if random else exact


@bf16_only
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("noise", [{"inputs": si.Gaussian(0.1)}, {"weights": si.CNI(rank=2)}, {}])
def test_votes_in_bfloat16_agree_with_fp32_and_have_a_gradient(layout, noise):
    images, labels = pictures(layout)
    smooth = si.SmoothedClassifier(residual(**noise), samples=8, seed=0)
    with default_precision("bf16"):
        short = smooth.predict(images)
        adversarial_images = si.pgd(smooth, images, labels, si.Linf(8 / 255), steps=1)
    assert (short.labels == smooth.predict(images).labels).float().mean() >= 0.8
    assert (adversarial_images != images).any()


@bf16_only
def test_a_training_step_leaves_a_finite_gradient():
    noisy, (images, labels) = residual(weights=si.CNI(rank=2)).train(), pictures()

    def attack(model, images, labels):
        return si.pgd(model, images, labels, si.Linf(8 / 255), steps=2)

    with default_precision("bf16"), torch.autocast("cpu", torch.bfloat16):
        adversarial(noisy, images, labels, attack).backward()
    assert all(p.grad.isfinite().all() for p in noisy.parameters() if p.grad is not None)
