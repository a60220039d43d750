"""A vote within a budget of time: its last block ends before the time is up."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from smoothinfer.engine.stopping import Stopping, Votes

_LARGEST_FIRST = 8


class WithinBudget(Stopping):
    """Ends a vote when another block of passes would be late, whatever the rule inside says.

    The time of the next block is foretold from the last one; the first block always runs.

    Args:
        inner: the rule that ends a vote earlier.
        samples: the most passes.
        deadline: as ``clock`` tells the time, in seconds.
        images: number of images.
        at_once: passes that run together as fast as one: the size of the first block.
        clock: tells the time.
    """

    def __init__(
        self,
        inner: Stopping,
        samples: int,
        deadline: float,
        images: int,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inner, self.exactly = inner, inner.exactly
        self.samples, self.deadline, self.clock = samples, deadline, clock
        self.late = torch.zeros(images, dtype=torch.bool)
        self._last = clock(), 0  # when the last block ended, and how many passes there were
        self._ends = self._blocks(max(1, min(at_once, _LARGEST_FIRST)))
        self._inner_points = set(inner.checkpoints())
        self._points = sorted(self._inner_points | set(self._ends))

    def _blocks(self, first: int) -> list[int]:
        """Return the ends of blocks of passes that grow by a half at most."""
        ends, at = [], first
        while at < self.samples:
            ends.append(at)
            at += max(1, at // 2)
        return [*ends, self.samples]

    def checkpoints(self) -> list[int]:
        return self._points

    def planned(self, passes: int, at_once: int) -> int:
        del at_once
        return next(end for end in self._ends if end > passes) - passes

    def observe(self, rows: Tensor, block: Tensor) -> None:
        self.inner.observe(rows, block)

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        done = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        if tally.passes in self._inner_points:
            done = self.inner.decided(tally, rows)
        if tally.passes not in self._ends or tally.passes == self.samples or done.all():
            return done
        (before, counted), now = self._last, self.clock()
        self._last = now, tally.passes
        each = (now - before) / (tally.passes - counted)
        if now + each * self.planned(tally.passes, 1) > self.deadline:
            self.late[rows[~done].cpu()] = True
            return torch.ones_like(done)
        return done
