"""Samplers kept for as long as what they were made from stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothinfer.engine.plan import Plan
from smoothinfer.engine.sampler import Sampler

Versions = tuple[tuple[int, ...], ...] | None
Made = tuple[Plan | None, torch.dtype, list[Tensor]]


@dataclass(frozen=True)
class _Kept:
    sampler: Sampler
    plan: Plan | None
    dtype: torch.dtype
    tensors: list[Tensor]
    versions: Versions

    def fits(self, plan: Plan | None, dtype: torch.dtype, tensors: Sequence[Tensor]) -> bool:
        made = self.plan is plan and self.dtype == dtype and self.versions is not None
        return made and self.versions == _versions(tensors)


class Samplers:
    """The samplers of one model, by the format asked for.

    A walk through all layers, to see whether one was exchanged or changed its mode, takes as long
    as a small network's pass on a GPU: inside `held` nobody does that, and there is one walk.
    """

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, _Kept] = {}
        self._seen: set[torch.dtype] | None = None  # since layers are held

    @property
    def known_to_hold(self) -> bool:
        """Say whether layers are held, and a pass has walked through them since."""
        return bool(self._seen)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, layers and modes stay as they are; weights may still change."""
        before, self._seen = self._seen, set() if self._seen is None else self._seen
        try:
            yield
        finally:
            self._seen = before

    def get(
        self,
        asked: torch.dtype,
        made_from: Callable[[torch.dtype], Made],
        make: Callable[[Plan | None, torch.dtype], Sampler],
    ) -> Sampler:
        """Return the sampler for the format ``asked``; make it where what it is made from differs.

        Args:
            asked: format that a convolution takes now.
            made_from: says plan, format and tensors; asked only where layers may have changed.
            make: makes a sampler.
        """
        kept = self._kept.get(asked)
        if kept is not None and self._seen is not None and asked in self._seen:
            plan, dtype, tensors = kept.plan, kept.dtype, kept.tensors
        else:
            plan, dtype, tensors = made_from(asked)
        if kept is None or not kept.fits(plan, dtype, tensors):
            kept = _Kept(make(plan, dtype), plan, dtype, tensors, _versions(tensors))
            self._kept[asked] = kept
        if self._seen is not None:
            self._seen.add(asked)
        return kept.sampler


def _versions(tensors: Sequence[Tensor]) -> Versions:
    """Return what changes when a tensor changes; ``None`` if that cannot be told."""
    if any(t.is_inference() for t in tensors):
        return None
    return tuple((id(t), t.data_ptr(), t._version) for t in tensors)
