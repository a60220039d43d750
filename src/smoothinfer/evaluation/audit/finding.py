"""The finding of a check of the audit, and how the tests of a check make one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from smoothinfer.evaluation.audit.chance import Outcome

CLEAR, NOTE, ALARM, SKIPPED = "clear", "note", "alarm", "skipped"
STATES = (
    "clear: nothing was found; note: worth knowing, no defect; alarm: the robustness may be an "
    "artefact; skipped: the check does not apply, or more images are needed"
)
SURVIVE, RIGHT = "that survive the attack", "that are right"
UNCLEAR = (
    "Too few images to tell: what was measured would matter, and it may be chance. Audit more "
    "images."
)
TOO_FEW = "Too few images to tell: with so few this check cannot fire. Audit more images."


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
        too_few: whether more images could change the state: the audit is not complete.
    """

    number: int
    name: str
    procedure: str
    threshold: str
    measured: str
    state: str
    verdict: str
    too_few: bool = False

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
            return self.finding(SKIPPED, "no noise", self.static)
        return self.run(context)

    def finding(self, state: str, measured: str, verdict: str) -> Finding:
        """Return the finding of this check."""
        about = (self.number, self.name, self.procedure, self.threshold)
        return Finding(*about, measured=measured, state=state, verdict=verdict)

    def too_few(self, needs: int, have: int, which: str) -> Finding:
        """Return the finding of this check for too few images.

        Args:
            needs, have: numbers of images.
            which: of the images, such as ``"that are right"``.
        """
        there = f"there is {have}" if have == 1 else f"there are {have}"
        measured = f"needs at least {needs} images {which}: {there}"
        return replace(self.finding(SKIPPED, measured, TOO_FEW), too_few=True)


def check(
    number: int, name: str, procedure: str, threshold: str, static: str = ""
) -> Callable[[Callable[..., Finding]], Check]:
    """Make a function of an `AuditContext` a `Check`, see there."""
    return lambda run: Check(number, name, procedure, threshold, run, static)


def judge(
    check: Check,
    outcomes: Sequence[Outcome],
    measured: str,
    alarm: str,
    clear: str,
    which: str = SURVIVE,
) -> Finding:
    """Return the finding of a check by the ``outcomes`` of its tests.

    One that fired is an alarm. Without an alarm, one that could not fire leaves the check undone.

    Args:
        check: the check.
        outcomes: of its tests.
        measured: the figures.
        alarm, clear: verdicts.
        which: of the images, where they are too few.
    """
    if any(outcome.fired for outcome in outcomes):
        return check.finding(ALARM, measured, alarm)
    if lacking := [outcome for outcome in outcomes if outcome.needs]:
        most = max(lacking, key=lambda outcome: outcome.needs)
        return check.too_few(most.needs, most.have, which)
    if any(outcome.unclear for outcome in outcomes):
        return replace(check.finding(NOTE, measured, UNCLEAR), too_few=True)
    return check.finding(CLEAR, measured, clear)
