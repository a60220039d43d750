"""Findings of an audit, kept one by one, so that a killed audit goes on from there."""

from __future__ import annotations

from pathlib import Path

from smoothinfer.evaluation.audit.context import AuditContext
from smoothinfer.evaluation.audit.finding import Check, Finding
from smoothinfer.evaluation.kept_results import KeptResults


class KeptFindings:
    """The findings of one audit in a folder.

    Args:
        folder: of the findings; ``None`` keeps nothing.
        context: of the audit.
    """

    def __init__(self, folder: Path | None, context: AuditContext) -> None:
        asked = context.ball, context.effort, context.seed, context.rule, context.passes
        world = context.model, context.images, context.labels, *asked
        self._kept = KeptResults(folder, *world, sorted(context.seen or ()), context.voted)

    def load(self, check: Check) -> Finding | None:
        """Return the finding of ``check`` from an earlier run of the same audit, or ``None``."""
        try:
            found = self._kept.load(f"{check.number:02}", check.run)
            return None if found is None else Finding(**found)
        except TypeError:
            return None

    def save(self, check: Check, finding: Finding) -> None:
        """Keep ``finding``."""
        self._kept.save(f"{check.number:02}", finding.as_dict(), check.run)
