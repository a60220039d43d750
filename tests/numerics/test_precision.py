"""The number format that suits this machine."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.numerics import precision
from smoothinfer.numerics.precision import default_precision, resolve_precision


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
