"""Plan and samplers of one model, kept until a layer, a setting or a tensor changes."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.engine.plan import Plan
from smoothinfer.engine.sampler import Sampler
from smoothinfer.engine.tracing import PlanError, hooked, settings_of
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.numerics.recording import is_recording
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images

_SEEDS = 16  # a random choice may fall the same way several times
Versions = tuple[tuple[int, ...], ...] | None
Settings = list[tuple[object, ...]]
Ingredients = tuple[Plan | None, torch.dtype, list[Tensor], Settings]


@dataclass(frozen=True)
class _Entry:
    sampler: Sampler
    made_from: Ingredients
    versions: Versions
    copies: list[Tensor] | None  # of the tensors, where their contents are compared

    def fits(self, made_from: Ingredients) -> bool:
        plan, dtype, tensors, settings = made_from
        if made_from is self.made_from and self.copies is None and self.versions is not None:
            # Layers are held: a weight may be changed in place, but not exchanged.
            return all(
                tensor._version == before[2]
                for tensor, before in zip(tensors, self.versions, strict=True)
            )
        same = self.made_from[0] is plan and self.made_from[1] == dtype
        same = same and self.made_from[3] == settings and self.versions is not None
        same = same and self.versions == _versions(tensors)
        return same and (self.copies is None or all(map(_is_alike, tensors, self.copies)))


class SamplerCache:
    """The plan and the samplers of one model.

    A walk through all layers, to see whether one was exchanged or changed its mode, takes as long
    as a small network's pass on a GPU: inside `hold` it is done once.
    """

    def __init__(self) -> None:
        self._plan: Plan | str | None = None
        self._failed: tuple[Settings, bool] | None = None  # layers of which there is no plan
        self._alone: tuple[tuple[Settings, tuple[int, ...]], bool] | None = None
        self.compiled = False  # whether plans are compiled
        self._entries: dict[Hashable, _Entry] = {}
        self._seen: set[Hashable] | None = None  # keys asked for since layers are held
        self._recorded: dict[Hashable, Sampler] = {}  # while work is recorded and layers are held

    def plan(self, module: nn.Module) -> Plan | str:
        """Return the plan of ``module`` as it is now, or why there is none."""
        if isinstance(self._plan, Plan) and self._plan.fits(module):
            return self._plan
        layers = settings_of(module), hooked(module)
        if isinstance(self._plan, str) and self._failed == layers:  # a trace takes long
            return self._plan
        try:
            self._plan = Plan(module)
            if self.compiled:
                self._plan.compile()
        except PlanError as error:
            self._plan, self._failed = str(error), layers
        return self._plan

    def answers_alone(self, module: nn.Module, images: Images) -> bool:
        """Say whether ``module`` is not random and answers each image whatever stands beside it.

        It is tried once for a shape of images: on some of them and on others that are darker,
        brighter and noisier, so that a forward which asks a batch for its values shows it.
        """
        key = settings_of(module), tuple(images.shape[1:])
        if self._alone is None or self._alone[0] != key:
            self._alone = key, _answers_alone(module, images)
        return self._alone[1]

    @property
    def layers_known(self) -> bool:
        """Whether layers are held, and a pass has walked through them since."""
        return bool(self._seen)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, layers and modes do not change; weights may still change.

        Inside of `recording` they may not: the sampler is made once and recorded with the rest.
        """
        before, self._seen = self._seen, set() if self._seen is None else self._seen
        try:
            yield
        finally:
            self._seen = before
            if before is None:
                self._recorded = {}

    def get(
        self,
        key: Hashable,
        ingredients: Callable[[], Ingredients],
        make: Callable[[Plan | None, torch.dtype], Sampler],
        check_contents: bool = False,
    ) -> Sampler:
        """Return the cached sampler, rebuilding it if any of its ingredients changed.

        Args:
            key: names the use, such as the format of the forward pass.
            ingredients: returns plan, dtype, tensors and settings; asked only where layers may
                have changed.
            make: makes a sampler.
            check_contents: also compare the tensors' contents, in case one was changed through
                ``.data``, which leaves its version as it was.
        """
        if is_recording():
            return self._record(key, ingredients, make)
        entry = self._entries.get(key)
        made_from = entry.made_from if entry and key in (self._seen or ()) else ingredients()
        plan, dtype, tensors, _ = made_from
        if entry is None or not entry.fits(made_from):
            copies = [t.detach().clone() for t in tensors] if check_contents else None
            entry = _Entry(make(plan, dtype), made_from, _versions(tensors), copies)
            self._entries[key] = entry
        if self._seen is not None:
            self._seen.add(key)
        return entry.sampler

    def _record(
        self,
        key: Hashable,
        ingredients: Callable[[], Ingredients],
        make: Callable[[Plan | None, torch.dtype], Sampler],
    ) -> Sampler:
        if (sampler := self._recorded.get(key)) is None:
            sampler = make(*ingredients()[:2])
        if self._seen is not None:
            self._seen.add(key)
            self._recorded[key] = sampler
        return sampler


@torch.no_grad()
def _answers_alone(module: nn.Module, images: Images) -> bool:
    shape = (4, *images.shape[1:])
    with isolated_rng(0):
        noise = torch.randn(shape, device=images.device, dtype=images.dtype)
    scales = torch.tensor([0.1, 0.5, 2.0, 8.0], device=images.device, dtype=images.dtype)
    tried = torch.cat([images[:1], images[-1:].flip(-1), 0.5 + noise * scales.view(-1, 1, 1, 1)])
    draws = []
    for seed in range(_SEEDS):
        with isolated_rng(seed):
            draws.append(logits_of(module, tried))
    if any(not torch.equal(draws[0], each) for each in draws):
        return False
    alone = torch.cat([logits_of(module, tried[at : at + 1]) for at in range(len(tried))])
    tolerance = 1e-4 * draws[0].abs().amax(1, keepdim=True) + 1e-6
    return bool(((alone - draws[0]).abs() <= tolerance).all())


def _versions(tensors: Sequence[Tensor]) -> Versions:
    """Return numbers that change when a tensor changes; ``None`` for tensors that have none."""
    if any(t.is_inference() for t in tensors):
        return None
    return tuple((id(t), t.data_ptr(), t._version) for t in tensors)


def _is_alike(tensor: Tensor, copy: Tensor) -> bool:
    """Say whether a tensor holds the same numbers as its copy."""
    if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:
        same = np.array_equal(tensor.detach().numpy(), copy.numpy())  # far faster than torch.equal
    else:
        same = torch.equal(tensor, copy)
    return same or torch.equal(_bytes(tensor), _bytes(copy))  # NaN differs from itself


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
