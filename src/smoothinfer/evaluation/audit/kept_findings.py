"""Findings of an audit, kept one by one, so that a killed audit goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.evaluation.audit.context import AuditContext
from smoothinfer.evaluation.audit.finding import Check, Finding
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.runtime.files import read_json, write_json


class KeptFindings:
    """The findings of one audit in a folder, each with a digest of all that it depends on.

    Args:
        folder: of the findings; ``None`` keeps nothing.
        context: of the audit.
    """

    def __init__(self, folder: Path | None, context: AuditContext) -> None:
        self.folder = folder
        if folder is not None:
            asked = context.ball, context.effort, context.seed, context.rule, context.passes
            world = context.model, context.images, context.labels, *asked
            self._world = Fingerprint().of(*world, sorted(context.seen or ()), context.voted)

    def load(self, check: Check) -> Finding | None:
        """Return the finding of ``check`` from an earlier run of the same audit, if there is one.

        A file that is damaged, or of another audit, counts as none: the check runs again.
        """
        if self.folder is None or not self._path(check).exists():
            return None
        try:
            content = read_json(self._path(check))
            same = content["key"] == self._key(check)
            return Finding(**content["finding"]) if same else None
        except (InputError, KeyError, TypeError):
            return None

    def save(self, check: Check, finding: Finding) -> None:
        """Keep ``finding``."""
        if self.folder is not None:
            content: dict[str, Any] = {"key": self._key(check), "finding": finding.as_dict()}
            write_json(self._path(check), content)

    def _path(self, check: Check) -> Path:
        assert self.folder is not None
        return self.folder / f"{check.number:02}.json"

    def _key(self, check: Check) -> str:
        return Fingerprint().of(self._world, check.run)
