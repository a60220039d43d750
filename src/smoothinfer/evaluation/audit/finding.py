"""The finding of a check of the audit, and the tests that tell a drop from chance."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

CLEAR, NOTE, ALARM, SKIPPED = "clear", "note", "alarm", "skipped"
_CERTAIN = 1e-3
UNCLEAR = (
    "Too few images to tell: there is a difference that would matter, and it may be chance. Audit "
    "more images."
)


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: procedure, measurement, and verdict.

    Attributes:
        number: 1 to 13.
        name: of the check.
        procedure: of the check, in a few words.
        threshold: when it fires.
        measured: the figures.
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
    """A check of the audit; call it with an `AuditContext`.

    Its number, name, procedure and threshold are those of its `Finding`.
    """

    number: int
    name: str
    procedure: str
    threshold: str
    run: Callable[..., Finding]
    static: str = ""  # why a model without noise skips it

    def __call__(self, context: Any) -> Finding:
        if self.static and not context.random:
            return self.finding(SKIPPED, "static model", self.static)
        return self.run(context)

    def finding(self, state: str, measured: str, verdict: str) -> Finding:
        """Return the finding of this check."""
        about = (self.number, self.name, self.procedure, self.threshold)
        return Finding(*about, measured=measured, state=state, verdict=verdict)


def check(
    number: int, name: str, procedure: str, threshold: str, static: str = ""
) -> Callable[[Callable[..., Finding]], Check]:
    """Make a function of an `AuditContext` a `Check`, see there."""
    return lambda run: Check(number, name, procedure, threshold, run, static)


def more_than(found: Tensor, share: float) -> bool:
    """Say whether more than ``share`` of the images are ``found`` (N,), beyond chance.

    >>> import torch
    >>> more_than(torch.arange(64) < 4, 0.05), more_than(torch.arange(1000) < 80, 0.05)
    (False, True)
    """
    return _chance(int(found.sum()), len(found), share) < _CERTAIN


def _chance(successes: int, trials: int, share: float) -> float:
    """Return the probability of at least so many successes."""
    from scipy.stats import binom

    return float(binom.sf(successes - 1, trials, share))


class Drop(NamedTuple):
    """By how many points one vote is right on fewer images than another.

    Attributes:
        points: per cent of the images.
        fired: it is large enough to matter, and beyond chance.
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
    chance = _chance(lost, lost + won, 0.5) if lost + won else 1.0
    matters, sure = drop >= points, chance < _CERTAIN
    return Drop(drop, matters and sure, matters and not sure)


def judge(check: Check, drops: Sequence[Drop], measured: str, alarm: str, clear: str) -> Finding:
    """Return the finding of a check by its ``drops``: alarm, clear, or too few images to tell."""
    if any(drop.fired for drop in drops):
        return check.finding(ALARM, measured, alarm)
    if any(drop.unclear for drop in drops):
        return check.finding(NOTE, measured, UNCLEAR)
    return check.finding(CLEAR, measured, clear)
