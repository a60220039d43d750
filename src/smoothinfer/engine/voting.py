"""Voting rules: the votes that a pass gives to each class, and how sums of votes become scores.

A rule is additive over passes, so all rules and all sample counts 1..n come out of one run of
n passes, in memory that does not grow with n. The verdict is the class with the largest sum of
votes (`smoothinfer.engine.sums`), the lowest class in a tie; scores are those sums rounded.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F

from smoothinfer.errors import InputError, choose, plain_float, unknown
from smoothinfer.types import Labels, Logits, Scores, Votes

_HALVINGS = 1024  # a sum of 2^-r has as many bits
_FLOOR = 1e-20  # keeps the log of a class without votes finite: scores are safe as logits


def log_share(mean: Votes) -> Scores:
    """Return the log of the mean vote, floored so that it stays finite."""
    return mean.clamp_min(_FLOOR).log()


@dataclass(frozen=True)
class Rule:
    """How passes are counted: g(x) = argmax_y of sum_i votes(f(x, noise_i))_y.

    The lowest class wins a tie. Scores are rounded, so two classes may share a score that do not
    share the sum: the verdict is that of the sums.

    Attributes:
        votes: logits (N, K) of one pass -> votes for each class (N, K).
        scores: mean votes (N, K) -> scores (N, K), increasing, safe as logits.
        differentiable: whether gradients flow through ``votes``; where they do not,
            `SmoothedClassifier` passes those of the soft vote straight through.
        span: the largest vote, and so the largest lead, that one pass can give to a class;
            stopping early needs it to be finite.
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


def class_of_rank(logits: Logits) -> Labels:
    """Return the classes from the best to the worst, along the last dimension; ties upwards."""
    return logits.argsort(dim=-1, descending=True, stable=True)


def by_rank(logits: Logits, weights: Sequence[float] | None = None) -> Votes:
    """``weights[r]`` for the class of rank r (0 is the best), 2^-r by default. Equation (11).

    Classes beyond the last weight get nothing, so ``weights=(1, C)`` is equation (12).

    >>> by_rank(torch.tensor([[1.0, 5.0, 3.0]])).tolist()
    [[0.25, 1.0, 0.5]]
    """
    classes = logits.shape[1]
    chosen = [2.0**-rank for rank in range(classes)] if weights is None else list(weights)[:classes]
    padded = torch.tensor(chosen + [0.0] * (classes - len(chosen)), dtype=logits.dtype)
    order = class_of_rank(logits)
    return torch.zeros_like(logits).scatter(1, order, padded.to(logits.device).expand_as(order))


@dataclass(frozen=True)
class ByRank:
    """The votes of `by_rank`, with weights that can be summed exactly.

    Attributes:
        weights: of each rank; ``None`` for 2^-r. They count as the decimals that they are written
            as: 0.3 is 3/10. Of 2^-r the sums leave out ranks beyond 1,024, so that their memory
            stays in proportion to the classes.

    >>> ByRank((1.0, 0.3)).whole(10)
    ([10, 3], 10)
    """

    weights: tuple[float, ...] | None = None

    def __call__(self, logits: Logits) -> Votes:
        return by_rank(logits, self.weights)

    def whole(self, classes: int) -> tuple[list[int], int]:
        """Return whole numbers in the ratio of the weights, and the one that stands for 1."""
        if self.weights is None:
            ranks = min(classes, _HALVINGS)
            return [1 << (ranks - 1 - rank) for rank in range(ranks)], 1 << (ranks - 1)
        exact = [Fraction(repr(weight)) for weight in self.weights[:classes]]
        unit = math.lcm(*(weight.denominator for weight in exact))
        return [int(weight * unit) for weight in exact], unit


def soft(logits: Logits) -> Votes:
    """softmax(logits), so that the smoothed score is the mean probability. Equation (13).

    >>> soft(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    return logits.softmax(1)


def _identity(values: Votes) -> Scores:
    return values


def rank_rule(weights: Sequence[float]) -> Rule:
    """Return the rule that gives ``weights[r]`` to the class of rank r, for any weights.

    Raises:
        InputError: there is no weight, all are zero, or one is neither zero nor between 1e-30
            and 1e30.

    >>> rank_rule((1, 0.3)).votes(torch.tensor([[1.0, 5.0, 3.0]])).tolist()
    [[0.0, 1.0, 0.30000001192092896]]
    """
    if not isinstance(weights, Iterable):
        raise InputError(f"rank weights must be several numbers as in (1, 0.3), not {weights!r}")
    checked = tuple(plain_float("a rank weight", weight, at_least=0) for weight in weights)
    if not any(checked):
        raise InputError(f"rank weights must not be all zero: {list(checked)}")
    if not all(weight == 0 or 1e-30 <= weight <= 1e30 for weight in checked):
        raise InputError(f"rank weights must be 0 or between 1e-30 and 1e30, not {list(checked)}")
    return Rule(ByRank(checked), span=max(checked))


RULES: dict[str, Rule] = {
    "prediction": Rule(prediction, span=1.0),
    "weighted": Rule(ByRank(), span=1.0),
    "top_two": rank_rule((1.0, 0.5)),  # C = 0.5 is our choice
    "soft": Rule(soft, differentiable=True, span=1.0),
    # The mean of the logits: the soft vote of the authors' code.
    "logits": Rule(_identity, _identity, differentiable=True),
}


def rule_of(rule: str | Rule) -> Rule:
    """Return a rule by name; ``"ranks:1,0.3"`` gives weight 1 to the best class, 0.3 to the second.

    Raises:
        InputError: the name is unknown, or the weights cannot be used.

    >>> rule_of("soft") is RULES["soft"]
    True
    """
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, str):
        raise unknown("rule", rule, [*RULES, "ranks:1,0.3"])
    if rule.startswith("ranks:"):
        try:
            return rank_rule([float(weight) for weight in rule.removeprefix("ranks:").split(",")])
        except ValueError as error:
            raise InputError(
                f"rule {rule!r}: write weights as in 'ranks:1,0.3' ({error})"
            ) from None
    return choose("rule", RULES, rule)
