"""Passes recorded once as CUDA graphs and replayed: a small network leaves a GPU idle otherwise.

A GPU takes microseconds for each step of a small network, Python longer to ask for it. A recorded
pass is asked for at once, and reads weights, noise and images afresh each time.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smoothinfer.errors import InputError
from smoothinfer.runtime.modes import recording
from smoothinfer.numerics.precision import autocast_dtype
from smoothinfer.types import Images, Logits

_WARM_UP = 2  # passes before the one that is recorded: libraries set themselves up in them


class Recording(Protocol):
    """What does its work again when told to."""

    def replay(self) -> None: ...


Record = Callable[[Callable[[], None], Any], Recording]


class Replayed(nn.Module):
    """The module, each kind of pass recorded when it first comes and replayed from then on.

    A kind is the mode, what is differentiated, and the shape of the images. Gradients go to the
    images and to the parameters that ask for one. What a pass reads must stay where it is in
    memory, as parameters do under an optimizer.

    Args:
        module: any module from images to logits, on a GPU, which never waits for it: no
            ``.item()``, no choice by the value of a tensor.
        record: how work is recorded; as a CUDA graph where nothing else is said.
    """

    def __init__(self, module: nn.Module, record: Record | None = None) -> None:
        super().__init__()
        self.module, self.record = module, record or _as_cuda_graph
        self._passes: dict[tuple[object, ...], list[_Pass]] = {}

    def forward(self, images: Images) -> Logits:
        learned: list[Tensor] = [p for p in self.module.parameters() if p.requires_grad]
        learned = learned if torch.is_grad_enabled() else []
        climbs = images.requires_grad and torch.is_grad_enabled()
        number_format = autocast_dtype(images.device.type)
        kind = (self.module.training, climbs, len(learned), images.shape, number_format)
        passes = self._passes.setdefault(kind, [])
        # Two passes before one backward: the second must not overwrite what the first keeps.
        idle = next((each for each in passes if each.idle), None)
        if idle is None:
            idle = _Pass(self.module, images, learned, climbs, self.record)
            passes.append(idle)
        if not climbs and not learned:
            return idle.ask(images)
        return _Differentiable.apply(idle, images, *learned)  # type: ignore[no-any-return]


def quickened(model: nn.Module, compile: str) -> nn.Module:
    """Return what runs in the place of ``model``, with its parameters, as ``compile`` says.

    Args:
        model: where it will run.
        compile: ``"off"``, ``"on"`` for `torch.compile`, ``"graphs"`` for `Replayed`.

    Raises:
        InputError: graphs are asked for where there is no GPU.
    """
    if compile == "on":
        return torch.compile(model)  # type: ignore[return-value]
    if compile == "off":
        return model
    if not all(parameter.is_cuda for parameter in model.parameters()):
        raise InputError("compile: graphs needs a GPU: choose off or on")
    return Replayed(model)


class _Pass:
    """One forward pass, and the backward pass that follows it, at fixed places in memory."""

    def __init__(
        self, module: nn.Module, images: Images, learned: list[Tensor], climbs: bool, record: Record
    ) -> None:
        self.module, self.learned = module, learned
        self.images = images.detach().clone().requires_grad_(climbs)
        self.wanted = [*([self.images] if climbs else []), *learned]
        self.logits = self.slope = torch.empty(0)
        self.found: list[Tensor] = []
        self.holder: Callable[[], object] = lambda: None
        with _unseen(module, images.device), recording(), _casting(images.device.type):
            _warm_up(self._everything, images.device)
            pool = torch.cuda.graph_pool_handle() if images.is_cuda else None
            self._forward = record(self._run, pool)
            self.slope = torch.zeros_like(self.logits)
            self._backward = record(self._climb, pool) if self.wanted else None

    @property
    def idle(self) -> bool:
        """Say whether nobody will ask for the gradients of the last pass any more."""
        return self.holder() is None

    def ask(self, images: Images) -> Logits:
        """Return the logits of ``images``."""
        with torch.no_grad():
            self.images.copy_(images)
        self._forward.replay()
        return self.logits.detach().clone()

    def climb(self, slope: Tensor) -> list[Tensor]:
        """Return the gradients of what is wanted, given that of the logits."""
        assert self._backward is not None
        self.slope.copy_(slope)
        self._backward.replay()
        self.holder = lambda: None
        # Copies, for the next pass writes over these; one launch makes all of them.
        return list(torch._foreach_mul(self.found, 1.0))

    def _run(self) -> None:
        with torch.set_grad_enabled(bool(self.wanted)):
            self.logits = self.module(self.images)

    def _climb(self) -> None:
        self.found = list(
            torch.autograd.grad(self.logits, self.wanted, self.slope, materialize_grads=True)
        )

    def _everything(self) -> None:
        self._run()
        self.slope = torch.zeros_like(self.logits)
        if self.wanted:
            self._climb()


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recorded: _Pass, images: Images, *learned: Tensor) -> Logits:
        ctx.recorded, ctx.climbs = recorded, images.requires_grad
        recorded.holder = weakref.ref(ctx)
        return recorded.ask(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.recorded.climb(slope)
        return (None, *found) if ctx.climbs else (None, None, *found)


def _as_cuda_graph(work: Callable[[], None], pool: Any) -> Recording:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph


def _warm_up(work: Callable[[], None], device: torch.device) -> None:
    """Run ``work`` beside the current stream, as graphs are recorded."""
    if device.type != "cuda":
        work()
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)


@contextlib.contextmanager
def _unseen(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Leave batch statistics and random numbers as they were, so that a resumed run is the same."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    cuda = device.type == "cuda"
    state = torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state()
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.data.copy_(before)
        if cuda:
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)


@contextlib.contextmanager
def _casting(device_type: str) -> Iterator[None]:
    """Keep autocast as it is, but for its cache: weights cast once would never change again."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, dtype, enabled=enabled, cache_enabled=False):
        yield
