"""The audit: checks that tell real robustness from mere randomness."""

from smoothinfer.evaluation.audit.finding import Check, Finding
from smoothinfer.evaluation.audit.runner import CHECKS, Audit, audit

__all__ = ["CHECKS", "Audit", "Check", "Finding", "audit"]
