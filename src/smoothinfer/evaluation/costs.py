"""The cost of an attack: passes through the network, forward and backward, and seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from smoothinfer.smoothing.classifier import SmoothedClassifier

Watch = Callable[[int], object]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Inside, call ``watch`` with the images of every forward pass that an attack makes.

    >>> import torch
    >>> seen, net = [], nn.Linear(2, 2)
    >>> with watching(seen.append), Cost().on(net):
    ...     _ = net(torch.rand(3, 2))
    >>> seen
    [3]
    """
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


@dataclass
class Cost:
    """The cost of a batch of images, which `on` counts.

    Passes through a `frozen` view that an attack makes of the module are not counted, nor forward
    passes that a backward one runs again to save memory.

    Attributes:
        forwards, backwards: images times passes; one call of a `SmoothedClassifier` is as many
            passes as it has samples.
        seconds: wall-clock.
    """

    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    @contextlib.contextmanager
    def on(self, module: nn.Module) -> Iterator[Cost]:
        """Count inside.

        >>> import torch
        >>> net = nn.Linear(2, 2)
        >>> with Cost().on(net) as cost:
        ...     _ = net(torch.rand(3, 2))
        >>> cost.forwards, cost.backwards
        (3, 0)
        """
        passes = module.samples if isinstance(module, SmoothedClassifier) else 1

        def count(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.forwards += passes * len(args[0])
            if (watch := _WATCH.get()) is not None:
                watch(passes * len(args[0]))
            if output.requires_grad:
                output.register_hook(self._count_backward(passes * len(args[0])))

        handle = module.register_forward_hook(count)
        begun = time.perf_counter()
        try:
            yield self
        finally:
            self.seconds += time.perf_counter() - begun
            handle.remove()

    def _count_backward(self, images: int) -> Callable[[Tensor], None]:
        def add(_: Tensor) -> None:
            self.backwards += images

        return add
