"""Floor 3: many noisy passes, one answer."""

from smoothinfer.smoothing.classifier import Prediction, SmoothedClassifier, frozen
from smoothinfer.smoothing.passes import passes
from smoothinfer.smoothing.stopping import STOPS
from smoothinfer.smoothing.voting import RULES, Rule, Tally, rank_rule, rule_of

__all__ = [
    "RULES",
    "STOPS",
    "Prediction",
    "Rule",
    "SmoothedClassifier",
    "Tally",
    "frozen",
    "passes",
    "rank_rule",
    "rule_of",
]
