"""Passes captured once as CUDA graphs and replayed: otherwise a small network leaves a GPU idle.

A GPU needs microseconds for each operation of a small network, Python longer to launch it. A
captured pass is launched at once, and reads weights, noise and images afresh each time.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from smoothinfer.errors import InputError
from smoothinfer.numerics.precision import autocast_dtype
from smoothinfer.runtime.modes import capture_mode
from smoothinfer.types import Images, Logits

_WARM_UP = 2  # passes before the captured one, in which libraries initialise themselves


class Graph(Protocol):
    """Captured work that can be replayed."""

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], None], Any], Graph]


class CUDAGraphModule(nn.Module):
    """The module, each kind of pass captured at first use and replayed from then on.

    A kind is the mode, the tensors that need gradients, and the shape of the images. Gradients go
    to the images and to the parameters that require one. All tensors that a pass reads must keep
    their place in memory, as parameters do under an optimizer.

    Args:
        module: any module from images to logits, on a GPU, that never waits for the GPU: no
            ``.item()``, no branch on the value of a tensor.
        capture: how work is captured; as a CUDA graph by default.
    """

    def __init__(self, module: nn.Module, capture: Capture | None = None) -> None:
        super().__init__()
        self.module, self.capture = module, capture or _as_cuda_graph
        self._passes: dict[tuple[object, ...], list[_Pass]] = {}

    def forward(self, images: Images) -> Logits:
        learned: list[Tensor] = [p for p in self.module.parameters() if p.requires_grad]
        learned = learned if torch.is_grad_enabled() else []
        moves = images.requires_grad and torch.is_grad_enabled()
        number_format = autocast_dtype(images.device.type)
        kind = (self.module.training, moves, len(learned), images.shape, number_format)
        passes = self._passes.setdefault(kind, [])
        # Two passes before one backward: the second must not overwrite what the first keeps.
        idle = next((each for each in passes if each.idle), None)
        if idle is None:
            idle = _Pass(self.module, images, learned, moves, self.capture)
            passes.append(idle)
        if not moves and not learned:
            return idle.run(images)
        return _Differentiable.apply(idle, images, *learned)  # type: ignore[no-any-return]


def compile_model(model: nn.Module, compile: str) -> nn.Module:
    """Return a module that runs ``model``, with the same parameters, as ``compile`` says.

    Args:
        model: on the device where it will run.
        compile: ``"off"``, ``"on"`` for `torch.compile`, ``"graphs"`` for `CUDAGraphModule`.

    Raises:
        InputError: graphs need a GPU, and the model is not on one.
    """
    if compile == "on":
        return torch.compile(model)  # type: ignore[return-value]
    if compile == "off":
        return model
    if not all(parameter.is_cuda for parameter in model.parameters()):
        raise InputError("compile: graphs needs a GPU: choose off or on")
    return CUDAGraphModule(model)


class _Pass:
    """One forward pass, and the backward pass that follows it, at fixed places in memory."""

    def __init__(
        self,
        module: nn.Module,
        images: Images,
        learned: list[Tensor],
        moves: bool,
        capture: Capture,
    ) -> None:
        self.module, self.learned = module, learned
        self.images = images.detach().clone().requires_grad_(moves)
        self.inputs = [*([self.images] if moves else []), *learned]
        self.logits = self.grad = torch.empty(0)
        self.gradients: list[Tensor] = []
        self.holder: Callable[[], object] = lambda: None
        with _restoring(module, images.device), capture_mode(), _uncached(images.device.type):
            _warm_up(self._run_both, images.device)
            pool = torch.cuda.graph_pool_handle() if images.is_cuda else None
            self._forward = capture(self._run_forward, pool)
            self.grad = torch.zeros_like(self.logits)
            self._backward = capture(self._run_backward, pool) if self.inputs else None

    @property
    def idle(self) -> bool:
        """Whether the gradients of the last pass can no longer be asked for."""
        return self.holder() is None

    def run(self, images: Images) -> Logits:
        """Return the logits of ``images``."""
        with torch.no_grad():
            self.images.copy_(images)
        self._forward.replay()
        return self.logits.detach().clone()

    def differentiate(self, grad: Tensor) -> list[Tensor]:
        """Return the gradients of the inputs, given that of the logits."""
        assert self._backward is not None
        self.grad.copy_(grad)
        self._backward.replay()
        self.holder = lambda: None
        # Copies, since the next pass overwrites these; one launch makes all of them.
        return list(torch._foreach_mul(self.gradients, 1.0))

    def _run_forward(self) -> None:
        with torch.set_grad_enabled(bool(self.inputs)):
            self.logits = self.module(self.images)

    def _run_backward(self) -> None:
        self.gradients = list(
            torch.autograd.grad(self.logits, self.inputs, self.grad, materialize_grads=True)
        )

    def _run_both(self) -> None:
        self._run_forward()
        self.grad = torch.zeros_like(self.logits)
        if self.inputs:
            self._run_backward()


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, captured: _Pass, images: Images, *learned: Tensor) -> Logits:
        ctx.captured, ctx.moves = captured, images.requires_grad
        captured.holder = weakref.ref(ctx)
        return captured.run(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.captured.differentiate(grad)
        return (None, *gradients) if ctx.moves else (None, None, *gradients)


def _as_cuda_graph(work: Callable[[], None], pool: Any) -> Graph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        work()
    return graph


def _warm_up(work: Callable[[], None], device: torch.device) -> None:
    """Run ``work`` on another stream, on which graphs are captured."""
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
def _restoring(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore batch statistics and random numbers afterwards, so that a resumed run is the same."""
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
def _uncached(device_type: str) -> Iterator[None]:
    """Keep autocast as it is without its cache: weights cast once would never change again."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, dtype, enabled=enabled, cache_enabled=False):
        yield
