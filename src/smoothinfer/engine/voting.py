"""Voting rules: the votes that a pass gives to each class, and how sums of votes become scores.

A rule is additive over passes, so all rules and all sample counts 1..n come out of one run of
n passes, in memory that does not grow with n.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from smoothinfer.errors import InputError, choose
from smoothinfer.types import Logits, Scores, Votes

_FLOOR = 1e-20  # keeps the log of a class without votes finite: scores are safe as logits


def log_share(mean: Votes) -> Scores:
    """Return the log of the mean vote, floored so that it stays finite."""
    return mean.clamp_min(_FLOOR).log()


@dataclass(frozen=True)
class Rule:
    """How passes are counted: g(x) = argmax_y of scores((1/n) sum_i votes(f(x, noise_i)))_y.

    Attributes:
        votes: logits (N, K) of one pass -> votes for each class (N, K).
        scores: mean votes (N, K) -> scores (N, K), increasing, safe as logits.
        differentiable: whether gradients flow through ``votes``; where they do not,
            `SmoothedClassifier` passes those of the soft vote straight through.
        span: the largest lead that one pass can give to one class over another; stopping early
            needs it to be finite.
    """

    votes: Callable[[Logits], Votes]
    scores: Callable[[Votes], Scores] = log_share
    differentiable: bool = False
    span: float = math.inf


def prediction(logits: Logits) -> Votes:
    """1 for the class with the largest logit, 0 otherwise; the lowest class wins a tie. Eq. (9).

    >>> prediction(torch.tensor([[1.0, 5.0, 5.0]])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    return F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


def by_rank(logits: Logits, weights: Sequence[float] | None = None) -> Votes:
    """``weights[r]`` for the class of rank r (0 is the best), 2^-r by default. Equation (11).

    Classes beyond the last weight get nothing, so ``weights=(1, C)`` is equation (12).

    >>> by_rank(torch.tensor([[1.0, 5.0, 3.0]])).tolist()
    [[0.25, 1.0, 0.5]]
    """
    classes = logits.shape[1]
    chosen = [2.0**-rank for rank in range(classes)] if weights is None else list(weights)[:classes]
    padded = torch.tensor(chosen + [0.0] * (classes - len(chosen)), dtype=logits.dtype)
    order = logits.argsort(dim=1, descending=True, stable=True)  # column r: the class of rank r
    return torch.zeros_like(logits).scatter(1, order, padded.to(logits.device).expand_as(order))


def soft(logits: Logits) -> Votes:
    """softmax(logits), so that the smoothed score is the mean probability. Equation (13).

    >>> soft(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    return logits.softmax(1)


def _identity(values: Votes) -> Scores:
    return values


RULES: dict[str, Rule] = {
    "prediction": Rule(prediction, span=1.0),
    "weighted": Rule(by_rank, span=1.0),
    "top_two": Rule(partial(by_rank, weights=(1.0, 0.5)), span=1.0),  # C = 0.5 is our choice
    "soft": Rule(soft, differentiable=True, span=1.0),
    # The mean of the logits: the soft vote of the authors' code.
    "logits": Rule(_identity, _identity, differentiable=True),
}


def rank_rule(weights: Sequence[float]) -> Rule:
    """Return the rule that gives ``weights[r]`` to the class of rank r, for any weights.

    Raises:
        InputError: there is no weight, one is negative, or all are zero.

    >>> rank_rule((1, 0.3)).votes(torch.tensor([[1.0, 5.0, 3.0]])).tolist()
    [[0.0, 1.0, 0.30000001192092896]]
    """
    if not weights or not (min(weights) >= 0 and 0 < max(weights) < math.inf):
        raise InputError(f"rank weights must be non-negative and not all zero, not {weights}")
    checked = tuple(float(weight) for weight in weights)
    return Rule(partial(by_rank, weights=checked), span=max(checked))


def rule_of(rule: str | Rule) -> Rule:
    """Return a rule by name; ``"ranks:1,0.3"`` gives weight 1 to the best class, 0.3 to the second.

    Raises:
        InputError: the name is unknown, or the weights cannot be used.

    >>> rule_of("soft") is RULES["soft"]
    True
    """
    if isinstance(rule, Rule):
        return rule
    if rule.startswith("ranks:"):
        try:
            return rank_rule([float(weight) for weight in rule.removeprefix("ranks:").split(",")])
        except ValueError as error:
            raise InputError(
                f"rule {rule!r}: write weights as in 'ranks:1,0.3' ({error})"
            ) from None
    return choose("rule", RULES, rule)
