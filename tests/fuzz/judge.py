"""Runs a command in this process, and judges its status, what it says and how long it takes."""

import contextlib
import gc
import io
import re
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from smoothinfer.cli import main

LIMIT = 2.0  # seconds of the CPU of a command before its work begins: other loads do not count
_TRIED = 0.8  # seconds of work that a command may do here
_BLOCKED = 20.0  # seconds after which a command is ended that waits for something
_AGAIN = 20.0  # the same for one that took no notice of the first time
# Where work begins: a command that comes here was accepted.
_WORK = (
    "smoothinfer.evaluation.runner.Runner.run",
    "smoothinfer.evaluation.runner.Runner.plan",
    "smoothinfer.evaluation.audit.runner._run",
    "smoothinfer.evaluation.certified_rows.track",
    "smoothinfer.workflows.certify.predict_or_abstain",
    "smoothinfer.workflows.train.train",
    "smoothinfer.workflows.picture._attacked",
    "smoothinfer.workflows.picture._timed",
    "smoothinfer.workflows.picture.pgd",
    "smoothinfer.workflows.reproduce.run_appendix",
    "smoothinfer.workflows.demo.train_run",
    "smoothinfer.reporting.report._draw_figures",
    "smoothinfer.recipes.Recipe.build_model",
)
_BESIDE = re.compile(r"usage: |       |warning: ")  # of argparse, and warnings


class TooLongError(KeyboardInterrupt):
    """The time is up: as with Ctrl-C, nobody may take this for an error."""


@dataclass
class Outcome:
    """What a command did; ``status`` is ``None`` where it was cut off."""

    status: int | None
    out: str
    err: str
    seconds: float
    began: bool

    @property
    def errors(self) -> list[str]:
        """The lines of the error, without usage and warnings."""
        return [line for line in self.err.splitlines() if line and not _BESIDE.match(line)]


class Clock:
    """Ends a command that takes too long, sooner once its work has begun."""

    def __init__(self) -> None:
        self.began = False

    def begin(self) -> None:
        """Take notice that work has begun."""
        if not self.began:
            signal.setitimer(signal.ITIMER_PROF, _TRIED, _AGAIN)
        self.began = True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Raise `TooLongError` in the block once its time is up."""

        def stop(number, frame):
            raise TooLongError

        self.began = False
        before = {each: signal.signal(each, stop) for each in (signal.SIGALRM, signal.SIGPROF)}
        signal.setitimer(signal.ITIMER_REAL, _BLOCKED, _AGAIN)
        signal.setitimer(signal.ITIMER_PROF, LIMIT, _AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


def watch_work(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let ``clock`` know when one of ``_WORK`` is called."""
    import importlib

    def watched(work):
        def call(*args, **options):
            clock.begin()
            return work(*args, **options)

        return call

    for place in _WORK:
        owner, _, name = place.rpartition(".")
        try:
            holder = importlib.import_module(owner)
        except ModuleNotFoundError:
            module, _, inside = owner.rpartition(".")
            holder = getattr(importlib.import_module(module), inside)
        patch.setattr(holder, name, watched(getattr(holder, name)))


def run_command(arguments: Sequence[str], clock: Clock) -> Outcome:
    """Run ``smoothinfer`` with ``arguments``."""
    out, err, status = io.StringIO(), io.StringIO(), None
    begun = time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), clock.running():
            status = _status_of(arguments)
    except TooLongError:
        gc.collect()
    seconds = time.process_time() - begun
    return Outcome(status, out.getvalue(), err.getvalue(), seconds, clock.began)


def _status_of(arguments: Sequence[str]) -> int:
    try:
        return main([*arguments])
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


def faults_of(found: Outcome, refused: bool = False) -> list[str]:
    """Return what is wrong with the outcome of a command; ``refused`` says that it must be."""
    faults = []
    if "Traceback" in found.err + found.out and found.status is not None:
        faults.append("a traceback")
    if found.status is None and not found.began:
        faults.append("it took too long before any work")
    if found.status == 2 and not found.began and found.seconds > LIMIT:
        faults.append(f"{found.seconds:.1f} s to refuse")
    if found.status not in (None, 0, 1, 2):
        faults.append(f"status {found.status}")
    if found.status == 2 and len(found.errors) != 1:
        faults.append(f"{len(found.errors)} lines instead of one")
    if found.status == 2 and found.errors and "error: " not in found.errors[0]:
        faults.append("the line is no error")
    if not found.err.replace("\n", "").isprintable():
        faults.append("control characters")
    if any(len(line) > 2500 for line in found.errors):
        faults.append("a line without end")
    if refused and found.status != 2:
        faults.append(f"accepted (status {found.status})")
    return faults
