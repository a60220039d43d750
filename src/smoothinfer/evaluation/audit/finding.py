"""What a check of the audit found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from scipy.stats import binom
from torch import Tensor

CLEAR, NOTE, ALARM, SKIPPED = "clear", "note", "alarm", "skipped"
_CERTAIN = 1e-3
UNCLEAR = (
    "Too few images to tell: a difference that would matter was seen, and may be chance. Audit "
    "more of them."
)


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


class Drop(NamedTuple):
    """By how many points one vote is right on fewer images than another.

    Attributes:
        points: per cent of the images.
        fired: it is large enough to matter, and no chance.
        unclear: it is large enough to matter, and may be chance: there are too few images.
    """

    points: float
    fired: bool
    unclear: bool


def worse(before: Tensor, after: Tensor, points: float = 1.0) -> Drop:
    """Say whether ``after`` (N,) is right on fewer images than ``before``, beyond chance.

    By at least ``points`` per cent of the images, and with a one-sided McNemar p-value below
    0.001: of the images on which the two differ, too many went one way. Ten must, and none the
    other way, so that with few images a drop that matters can be `unclear`.

    >>> import torch
    >>> before, after = torch.ones(1000).bool(), torch.arange(1000) >= 10
    >>> worse(before, after)
    Drop(points=1.0, fired=True, unclear=False)
    >>> worse(before[:100], after[1:101])
    Drop(points=9.0, fired=False, unclear=True)
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    drop = 100 * (lost - won) / max(1, len(before))
    chance = float(binom.sf(lost - 1, lost + won, 0.5)) if lost + won else 1.0
    matters, sure = drop >= points, chance < _CERTAIN
    return Drop(drop, matters and sure, matters and not sure)


def judged(check: Check, drops: Sequence[Drop], told: str, alarm: str, clear: str) -> Finding:
    """Return the finding of a check by its ``drops``: alarm, clear, or too few images to tell."""
    if any(drop.fired for drop in drops):
        return check.finding(ALARM, told, alarm)
    if any(drop.unclear for drop in drops):
        return check.finding(NOTE, told, UNCLEAR)
    return check.finding(CLEAR, told, clear)
