"""Requests collected into batches: one worker votes on all that wait, within their budget."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from smoothinfer.engine.prediction import Prediction
from smoothinfer.types import Images

# (images, milliseconds left) -> verdicts
Answer = Callable[[Images, float], Prediction]


class BusyError(Exception):
    """More requests wait than can be answered in time."""


@dataclass
class Waiting:
    """One request: its image (C, H, W), and where its answer goes."""

    image: Tensor
    answer: "Future[tuple[Prediction, float]]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher:
    """Votes on batches of requests in a thread of its own.

    While one batch is voted on, requests wait, no more than fit into the next batch. A batch gets
    half of the budget, so that a request which comes just after a batch has begun is answered
    within the whole: it waits for that batch and is in the next.

    Args:
        answer: gives the verdicts on a batch, within a number of milliseconds.
        most: images of a batch, and requests that may wait.
        budget_ms: from the arrival of a request to its answer.

    >>> with Batcher(lambda images, left: None, most=8, budget_ms=50) as batcher:
    ...     waiting = batcher.submit(torch.rand(3, 4, 4))
    ...     waiting.result(timeout=5)[0] is None
    True
    """

    def __init__(self, answer: Answer, most: int, budget_ms: float) -> None:
        self.answer, self.most, self.budget_ms = answer, most, budget_ms
        self._waiting: queue.Queue[Waiting | None] = queue.Queue(maxsize=most)
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name="votes", daemon=True)
        self.batches, self.images, self.passes = 0, 0, 0

    def __enter__(self) -> "Batcher":
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer what waits, then end."""
        self._stopping = True
        self._waiting.put(None)
        self._worker.join()

    @property
    def length(self) -> int:
        """How many requests wait."""
        return self._waiting.qsize()

    def submit(
        self, image: Tensor, arrived: float | None = None
    ) -> "Future[tuple[Prediction, float]]":
        """Put an image in the queue; the result is its verdict and the milliseconds it took.

        Args:
            image: (C, H, W).
            arrived: when the request did, as `time.monotonic` tells it; now by default.

        Raises:
            BusyError: too many wait, or the worker is ending.
        """
        waiting = Waiting(image) if arrived is None else Waiting(image, arrived=arrived)
        if self._stopping:
            raise BusyError("the server is stopping")
        try:
            self._waiting.put_nowait(waiting)
        except queue.Full:
            raise BusyError(f"{self.most} requests wait already: try again later") from None
        return waiting.answer

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._vote_on(batch)

    def _next_batch(self) -> list[Waiting] | None:
        """Return all that wait, at least one; ``None`` at the end."""
        first = self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < self.most:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)  # the end comes after this batch
                break
            batch.append(following)
        return batch

    def _vote_on(self, batch: list[Waiting]) -> None:
        running = [each for each in batch if each.answer.set_running_or_notify_cancel()]
        now, wanted = time.monotonic(), []
        for each in running:
            if 1000 * (now - each.arrived) < self.budget_ms:
                wanted.append(each)
            else:  # a late answer is worth nothing, and would make the next ones late
                late = f"no vote began within {self.budget_ms:g} ms: try again later"
                each.answer.set_exception(BusyError(late))
        if wanted:
            self._answer(wanted)

    def _answer(self, wanted: list[Waiting]) -> None:
        """Vote on all together; where that fails, one by one, so that one image harms no other."""
        try:
            waited = 1000 * (time.monotonic() - min(each.arrived for each in wanted))
            left = max(1.0, min(self.budget_ms / 2, self.budget_ms - waited))
            found = self.answer(torch.stack([each.image for each in wanted]), left)
            parts = [found] if found is None else found.split([1] * len(wanted))
        except Exception as error:  # a model may fail in any way, on one of the images
            if len(wanted) == 1:
                wanted[0].answer.set_exception(error)
            for each in wanted if len(wanted) > 1 else ():
                self._answer([each])
            return
        self.batches, self.images = self.batches + 1, self.images + len(wanted)
        now = time.monotonic()
        for each, part in zip(wanted, parts, strict=False):
            self.passes += 0 if part is None else int(part.samples)
            each.answer.set_result((part, 1000 * (now - each.arrived)))
