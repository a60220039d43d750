"""Voting rules: each is its formula, fair to all classes and to the order of passes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import smoothinfer as si
from smoothinfer.engine.tally import Tally
from smoothinfer.engine.voting import by_rank, rule_of

LOGITS = torch.randn(7, 5, 4, generator=torch.Generator().manual_seed(0))  # (S, N, K)


def scores_of(name, draws=LOGITS):
    rule, images = rule_of(name), draws.shape[1]
    tally = Tally(images, [rule], draws.device)
    tally.add(torch.arange(images), draws)
    return tally.prediction(rule).scores


@pytest.mark.parametrize("rule", si.RULES)
def test_every_rule_keeps_its_promises(rule):
    scores = scores_of(rule)
    assert scores.shape == (5, 4)
    assert scores.isfinite().all()  # safe as logits
    order = torch.tensor([2, 0, 3, 1])  # no class is special
    assert torch.allclose(scores_of(rule, LOGITS[..., order]), scores[:, order], atol=1e-6)
    unanimous = torch.tensor([[[0.0, 9.0, 1.0, 2.0]]]).expand(6, 5, 4)
    assert (scores_of(rule, unanimous).argmax(1) == 1).all()
    shuffled = scores_of(rule, LOGITS[torch.randperm(7)])
    assert torch.allclose(shuffled, scores, atol=1e-6)  # passes are exchangeable
    one = scores_of(rule, LOGITS[:1])
    assert torch.equal(one.argmax(1), LOGITS[0].argmax(1))  # n = 1 is one noisy pass


def test_rules_are_their_formulas():
    assert torch.equal(
        scores_of("prediction").exp().mul(7).round(),
        torch.stack([(LOGITS.argmax(2) == k).sum(0) for k in range(4)], 1).float(),
    )
    assert torch.allclose(scores_of("soft").exp(), LOGITS.softmax(2).mean(0), atol=1e-6)
    assert torch.allclose(scores_of("logits"), LOGITS.mean(0), atol=1e-6)
    ranks = LOGITS.argsort(2, descending=True).argsort(2)  # rank of each class, 0 the best
    assert torch.allclose(scores_of("weighted").exp(), (0.5**ranks).mean(0), atol=1e-6)
    top = (ranks == 0) + 0.3 * (ranks == 1)
    assert torch.allclose(scores_of("ranks:1,0.3").exp(), top.mean(0).clamp_min(1e-20), atol=1e-6)


def test_the_mistake_of_reading_argsort_as_ranks_would_be_seen():
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    wrong = 0.5 ** logits.argsort(1, descending=True)
    assert not torch.equal(by_rank(logits), wrong)
    assert by_rank(logits).tolist() == [[0.125, 1.0, 0.5, 0.25]]


@pytest.mark.parametrize("rule", si.RULES)
def test_ties_go_to_the_lowest_class(rule):
    draws = torch.tensor([[[0.0, 5.0, 1.0]], [[0.0, 1.0, 5.0]]])  # one pass for each of 1 and 2
    assert scores_of(rule, draws).argmax(1).item() == 1
    assert scores_of(rule, torch.zeros(3, 2, 4)).argmax(1).tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 2))
def test_smoothed_error_is_at_most_twice_the_error_under_noise(votes, label):
    """Equations (17) and (21): l(g) <= 2 (1 - P_y) for every distribution of votes."""
    shares = torch.tensor([votes.count(k) / len(votes) for k in range(3)])
    others = torch.cat([shares[:label], shares[label + 1 :]]).max()
    relu = torch.relu(shares[label] - others)
    assert torch.isclose(relu, shares.max() - others, atol=1e-6)  # the identity (17)
    error = float(shares[label] < shares.max())
    assert error <= 2 * (1 - shares[label].item()) + 1e-6


def test_bad_rules_are_refused():
    for rule in ("majority", "ranks:", "ranks:a,b", "ranks:0,0"):
        with pytest.raises(si.InputError):
            rule_of(rule)
