"""What a check of the audit found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import binom
from torch import Tensor

CLEAR, NOTE, ALARM, SKIPPED = "clear", "note", "alarm", "skipped"
_CERTAIN = 1e-3


@dataclass(frozen=True)
class Finding:
    """One check: what was done, what was measured, and what it means.

    Attributes:
        number: 1 to 13.
        name: of the check.
        procedure: what was done.
        threshold: when it fires.
        measured: what came out.
        state: ``"clear"``, ``"alarm"``, ``"note"`` (worth knowing, no defect), or ``"skipped"``.
        verdict: in plain words.
    """

    number: int
    name: str
    procedure: str
    threshold: str
    measured: str
    state: str
    verdict: str

    @property
    def fired(self) -> bool:
        return self.state == ALARM

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """A check of the audit, without what it measured.

    Attributes:
        run: subject -> findings.
    """

    number: int
    name: str
    procedure: str
    threshold: str
    run: Callable[..., Finding]

    def finding(self, state: str, measured: str, verdict: str) -> Finding:
        """Return what this check found."""
        told = (self.number, self.name, self.procedure, self.threshold)
        return Finding(*told, measured=measured, state=state, verdict=verdict)


def more_than(found: Tensor, share: float) -> bool:
    """Say whether more than ``share`` of the images are ``found`` (N,), beyond chance.

    >>> import torch
    >>> more_than(torch.arange(64) < 4, 0.05), more_than(torch.arange(1000) < 80, 0.05)
    (False, True)
    """
    return float(binom.sf(int(found.sum()) - 1, len(found), share)) < _CERTAIN


def worse(before: Tensor, after: Tensor, points: float = 1.0) -> tuple[bool, float]:
    """Say whether ``after`` (N,) is right on fewer images than ``before``, beyond chance.

    By at least ``points`` per cent of the images, and with a one-sided McNemar p-value below
    0.001: of the images on which the two differ, too many went one way. Returns the drop, too.

    >>> import torch
    >>> before, after = torch.ones(1000).bool(), torch.arange(1000) >= 10
    >>> worse(before, after)
    (True, 1.0)
    >>> worse(before[:100], after[100:200])
    (False, 0.0)
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    drop = 100 * (lost - won) / max(1, len(before))
    chance = float(binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
    return bool(drop >= points and chance < _CERTAIN), drop
