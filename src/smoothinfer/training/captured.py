"""Work recorded once as a CUDA graph and replayed: otherwise a small network leaves a GPU idle.

A GPU needs microseconds for each operation of a small network, Python longer to launch it. A graph
launches all operations of a training step at once.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.numerics.recording import recording
from smoothinfer.runtime.printable import error_line

Work = Callable[..., Tensor]
_WARM_UP = 3  # calls before the recorded one, in which libraries choose their kernels


class Graph(Protocol):
    """Recorded work that can be replayed."""

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], None]], Graph]


class CapturedWork:
    """A function of tensors, run as it is at first, then recorded, then replayed.

    Recording runs nothing, and every call does the work once, also the first ones: so no state has
    to be put back. All tensors that the work reads besides its arguments must keep their place in
    memory, as weights do under an optimizer; random numbers come from the global generators, which
    may be seeded anew before every call.

    Args:
        work: of tensors and numbers, on one device; it returns a tensor.
        device: of the work.
        capture: records work; as a CUDA graph by default.

    Work that waits for the device (``.item()``, a branch on what a tensor holds) or seeds its own
    random numbers cannot be recorded: a warning says why, and it runs as it is from then on.
    """

    def __init__(self, work: Work, device: torch.device, capture: Capture | None = None) -> None:
        self.work, self.device, self._capture = work, device, capture or _as_cuda_graph
        self.calls, self.fault = 0, ""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._inputs: list[Tensor] = []
        self._output = torch.empty(0)
        self._graph: Graph | None = None

    def __call__(self, *inputs: Tensor | float) -> Tensor:
        given = [
            torch.as_tensor(each, dtype=None if isinstance(each, Tensor) else torch.float32)
            for each in inputs
        ]
        self.calls += 1
        if self.calls == 1 or self.fault:  # the first with all checks of its input
            return self._run(given)
        if self.calls <= _WARM_UP:
            return self._run_as_recorded(given)
        if self._graph is None:
            self._record(given)
        for place, each in zip(self._inputs, given, strict=True):
            place.copy_(each, non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return self._output.clone()

    def _run(self, given: list[Tensor]) -> Tensor:
        """Run the work on the stream on which it is recorded."""
        here = [each.to(self.device, non_blocking=True) for each in given]
        if self._stream is None:
            return self.work(*here)
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            output = self.work(*here)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return output

    def _run_as_recorded(self, given: list[Tensor]) -> Tensor:
        """Run the work as it will be recorded, and look for what forbids that."""
        with recording() as faults, _waits(self.device) as waits:
            output = self._run(given)
        if found := faults + waits:
            self.fault = found[0]
            warnings.warn(
                f"a step is not recorded as a CUDA graph, but runs as it is: {self.fault}",
                stacklevel=3,
            )
        return output

    def _record(self, given: list[Tensor]) -> None:
        self._inputs = [each.to(self.device).clone() for each in given]

        def run() -> None:
            self._output = self.work(*self._inputs)

        try:
            with recording():
                self._graph = self._capture(run)
        except RuntimeError as error:
            raise InputError(
                f"a step cannot be recorded as a CUDA graph: {error_line(error)}: choose compile: "
                "off or on"
            ) from error


def _as_cuda_graph(work: Callable[[], None]) -> Graph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


@contextlib.contextmanager
def _waits(device: torch.device) -> Iterator[list[str]]:
    """Collect the places inside that wait for the GPU."""
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for each in caught:
        if "synchroniz" in str(each.message):
            found.append(f"{each.filename}, line {each.lineno}, waits for the GPU")
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
