"""Votes within a budget of time: never late by more than a block, and told how far they came."""

import itertools
import time

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.budget import WithinBudget
from smoothinfer.engine.stopping import Fixed


class Slow(nn.Module):
    """Every call takes some milliseconds."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def forward(self, images):
        time.sleep(self.seconds)
        return torch.randn(len(images), 3) + torch.tensor([2.0, 0.0, 0.0])


@pytest.mark.parametrize("budget", [20, 60, 150])
def test_a_vote_ends_within_its_budget(budget):
    smooth = si.SmoothedClassifier(Slow(0.002).eval(), samples=512, seed=0)
    image = torch.rand(1, 1, 2, 2)
    smooth.predict(image, 1)  # the number of classes is counted once
    begun = time.monotonic()
    answer = smooth.predict(image, budget_ms=budget)
    taken = 1000 * (time.monotonic() - begun)
    assert taken < budget + 15
    assert 1 <= int(answer.samples) < 512
    assert not answer.decided.any()


def test_a_longer_budget_gives_more_passes():
    smooth = si.SmoothedClassifier(Slow(0.002).eval(), samples=512, seed=0)
    used = [int(smooth.predict(torch.rand(1, 1, 2, 2), budget_ms=b).samples) for b in (15, 60, 240)]
    assert used == sorted(used)
    assert used[0] < used[-1]


def test_a_vote_that_is_in_time_is_as_without_a_budget(noisy, images):
    smooth = si.SmoothedClassifier(noisy, samples=40, seed=3)
    for stop in ("fixed", "exact", "ppr", "value"):
        plain, within = (
            smooth.predict(images, stop=stop, **how) for how in ({}, {"budget_ms": 1e6})
        )
        assert torch.equal(plain.counts, within.counts)
        assert torch.equal(plain.labels, within.labels)
        assert torch.equal(plain.decided, within.decided)


def test_the_first_block_always_runs(noisy, images):
    answer = si.SmoothedClassifier(noisy, samples=64, seed=0).predict(images, budget_ms=1e-6)
    assert ((answer.samples >= 1) & (answer.samples <= 8)).all()


def test_blocks_grow_by_a_half_at_most():
    rule = WithinBudget(Fixed(300), 300, deadline=0.0, images=1, clock=lambda: 0.0)
    points = rule.checkpoints()
    assert points[0] == 1
    assert points[-1] == 300
    pairs = itertools.pairwise(points)
    assert all(after - before <= max(1, before // 2) for before, after in pairs)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), "soon"])
def test_a_budget_that_is_no_time_is_refused(noisy, images, budget):
    with pytest.raises(si.InputError, match="budget_ms"):
        si.SmoothedClassifier(noisy, 8).predict(images, budget_ms=budget)
