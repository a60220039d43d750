"""The batcher: a request whose time has passed is refused, not answered late."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from smoothinfer.serving.batcher import Batcher, BusyError


def test_a_request_whose_budget_has_passed_before_its_vote_is_refused_at_once():
    gate, voted = threading.Event(), []

    def answer(images, left):
        gate.wait(10)
        voted.append(len(images))
        part = SimpleNamespace(samples=1)
        return SimpleNamespace(split=lambda sizes: [part] * len(sizes))

    with Batcher(answer, most=8, budget_ms=60_000) as batcher:
        first = batcher.submit(torch.rand(1, 2, 2))
        late = batcher.submit(torch.rand(1, 2, 2), time.monotonic() - 61)
        fresh = batcher.submit(torch.rand(1, 2, 2))
        gate.set()
        with pytest.raises(BusyError, match="no vote began within 60000 ms"):
            late.result(5)
        assert first.result(5)[0].samples == 1
        assert fresh.result(5)[0].samples == 1
    assert sum(voted) == 2
