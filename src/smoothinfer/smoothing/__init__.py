"""Floor 3: many noisy passes, one answer."""

from smoothinfer.smoothing.certification import Certificates, certify, predict_or_abstain
from smoothinfer.smoothing.classifier import Prediction, SmoothedClassifier, frozen
from smoothinfer.engine.passes import passes
from smoothinfer.engine.stopping import STOPS
from smoothinfer.engine.voting import RULES, Rule, Tally, rank_rule, rule_of

__all__ = [
    "RULES",
    "STOPS",
    "Certificates",
    "Prediction",
    "Rule",
    "SmoothedClassifier",
    "Tally",
    "certify",
    "frozen",
    "passes",
    "predict_or_abstain",
    "rank_rule",
    "rule_of",
]
