"""Appendix A: a linear machine under noise, whose worst case is known."""

import json

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main


def test_the_appendix_says_what_a_linear_machine_does(tmp_path):
    assert main(["reproduce", "appendix-a", "--out", str(tmp_path)]) == 0
    lines = json.loads((tmp_path / "appendix-a.json").read_text())["lines"]
    assert (tmp_path / "appendix-a.png").stat().st_size > 1000
    for line in lines:
        assert line["gap"] >= -1e-6  # Jensen
        assert line["one"] <= line["mean"] + 1e-6 <= 1 + 2e-6
    assert lines[0]["gap"] == pytest.approx(0, abs=1e-6)
    assert lines[0]["one"] == pytest.approx(1, abs=1e-5)
    assert lines[-1]["gap"] > 10 * lines[-1]["error"]
    assert lines[-1]["one"] < 0.7 < lines[-1]["mean"]


def test_the_worst_case_of_a_linear_machine_is_the_closed_form():
    """A.26 is A.27: the ball takes radius |w|_1 from the margin, and PGD finds it."""
    weight, bias = torch.tensor([0.5, -1.0, 0.25, 2.0]), 0.1
    machine = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        machine[1].weight.copy_(torch.stack([-weight / 2, weight / 2]))
        machine[1].bias.copy_(torch.tensor([-bias / 2, bias / 2]))
    images = torch.rand(20, 1, 2, 2) * 0.6 + 0.2
    labels, radius = torch.ones(20, dtype=torch.int64), 0.1
    adversarial = si.pgd(machine, images, labels, si.Linf(radius), steps=10, loss="margin")
    found = adversarial.flatten(1) @ weight + bias
    closed = images.flatten(1) @ weight + bias - radius * weight.abs().sum()
    assert torch.allclose(found, closed, atol=1e-5)
