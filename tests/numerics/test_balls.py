import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smoothinfer as si
from smoothinfer.numerics import precision
from smoothinfer.numerics.precision import pinned, resolve_precision
from smoothinfer.numerics.randomness import derive_seed, draw_seed, isolated_rng, stream
from smoothinfer.numerics.statistics import proportion


def test_streams_are_named_not_counted():
    a, b = stream(0, "attack", 1), stream(0, "attack", 1)
    assert torch.equal(torch.rand(5, generator=a), torch.rand(5, generator=b))
    seeds = {
        derive_seed(s, *names) for s in (0, 1) for names in (("a",), ("b",), ("a", 0), ("a", "0"))
    }
    assert len(seeds) == 8


def test_isolated_rng_leaves_the_outside_untouched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng(1):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)
    assert draw_seed(None) is None


@pytest.mark.parametrize("name", si.BALLS)
@settings(max_examples=30, deadline=None)
@given(radius=st.floats(0, 1), seed=st.integers(0, 1000))
def test_every_ball_keeps_its_promises(name, radius, seed):
    ball = si.BALLS[name](radius)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(4, 3, 5, 5, generator=generator)
    for moved in (ball.random(images, generator), ball.project(torch.randn(4, 3, 5, 5), images)):
        assert (ball.distance(moved, images) <= radius + 1e-5).all()
        assert moved.min() >= 0
        assert moved.max() <= 1
        again = ball.project(moved, images)
        assert torch.allclose(again, moved, atol=1e-6)  # projecting twice changes nothing
    assert torch.equal(ball.project(images, images), images)
    assert not ball.ascend(torch.zeros(2, 3, 5, 5)).any()
    assert torch.equal(ball.project(torch.full_like(images, math.nan), images), images)


def test_linf_random_points_fill_the_cube():
    images = torch.full((1, 1, 100, 100), 0.5)
    moved = si.Linf(0.1).random(images, torch.Generator().manual_seed(0)) - 0.5
    # U(-0.1, 0.1) has standard deviation 0.1 / sqrt(3); its estimate from 10,000 has error ~0.45 %
    assert moved.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=4 * 0.0045)


def test_radius_must_be_a_distance():
    for radius in (-1.0, math.nan, math.inf):
        with pytest.raises(si.InputError, match="radius"):
            si.Linf(radius)


def test_wilson_interval_covers():
    generator = torch.Generator().manual_seed(0)
    counts = torch.binomial(
        torch.full((2000,), 50.0), torch.full((2000,), 0.3), generator=generator
    )
    found = [proportion(int(count), 50) for count in counts]
    covered = sum(each.low <= 0.3 <= each.high for each in found) / 2000
    assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)
    narrow = sum(abs(each.value - 0.3) < 0.02 for each in found) / 2000
    assert narrow < 0.9  # an interval far too narrow would be found out


@pytest.mark.parametrize(("successes", "images"), [(3, 2), (-1, 5), (0, 0)])
def test_impossible_shares_are_refused(successes, images):
    with pytest.raises(si.InputError):
        proportion(successes, images)


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
    with pinned("fp32"):
        assert resolve_precision("auto", "cpu") == "fp32"
    monkeypatch.setenv("SMOOTHINFER_PRECISION", "fp8")
    with pytest.raises(si.InputError, match=r"SMOOTHINFER_PRECISION.*auto, bf16, fp32"):
        resolve_precision("auto", "cpu")
